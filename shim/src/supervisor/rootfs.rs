//! The container's root file system: an overlay that only the shim's private
//! mount namespace has, and that vanishes with it.

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::Error;
use crate::container::folder::make_dir;
use crate::container::record::{Bundle, Upper};
use crate::container::{Folder, Place};
use crate::error::At as _;

/// The upper layer stays a plain layer, so that it can become an image's.
const OPTIONS: [(&str, &str); 3] = [
    ("redirect_dir", "off"),
    ("metacopy", "off"),
    ("index", "off"),
];
/// Longest string that `fsconfig(2)` takes, in bytes.
const FSCONFIG_STRING_BYTES_MAX: usize = 255;

/// The way back to the mount namespace that the shim was started in.
#[derive(Debug)]
pub struct HostMounts(OwnedFd);

impl HostMounts {
    /// Leaves the private mount namespace, which vanishes if no one else is in it. `setns(2)`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn return_to(&self) -> Result<(), Error> {
        use std::os::fd::AsFd as _;
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Mount)).call("setns")
    }
}

/// Enters a private mount namespace that still hears of the host's mounts, and
/// shows there of the named network namespaces only the container's own.
///
/// # Errors
/// What the kernel says.
pub fn enter_private(
    place: &Place,
    network: Option<(&OwnedFd, &Path)>,
) -> Result<HostMounts, Error> {
    let path = Path::new("/proc/self/ns/mnt");
    let host = fs::File::open(path).at("open", path)?;
    crate::sys::unshare(UnshareFlags::NEWNS).call("unshare")?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .call("mount")?;
    // A copy of other containers' network namespaces here would keep them alive.
    while unmount(place.netns(), UnmountFlags::DETACH).is_ok() {}
    if let Some((namespace, file)) = network {
        crate::network::netns::bind(namespace, file)?;
    }
    Ok(HostMounts(host.into()))
}

/// Mounts what `bundle` describes at `folder`/rootfs.
///
/// # Errors
/// What the kernel says.
pub fn mount_at(folder: &Folder, bundle: &Bundle) -> Result<PathBuf, Error> {
    let target = folder.path.join("rootfs");
    make_dir(&target)?;
    let layer_home = match bundle.upper {
        Upper::Directory => folder.path.clone(),
        Upper::Tmpfs => mount_scratch(folder)?,
    };
    let (upper, work) = (layer_home.join("upper"), layer_home.join("work"));
    make_dir(&work)?;
    let mut lower = bundle.lower.clone();
    if lower.is_empty() {
        let empty = folder.path.join("empty");
        make_dir(&empty)?;
        fs::set_permissions(&empty, fs::Permissions::from_mode(0o755))
            .at("change mode of", &empty)?;
        lower.push(empty);
    }
    if !upper.exists() {
        make_upper(&upper, &lower[0])?;
    }
    mount_overlay(&lower, &upper, &work, &target)?;
    Ok(target)
}

/// The merged root shows the upper's owner and mode: they are those of the image's root.
fn make_upper(upper: &Path, top: &Path) -> Result<(), Error> {
    let meta = fs::metadata(top).at("inspect", top)?;
    make_dir(upper)?;
    std::os::unix::fs::chown(upper, Some(meta.uid()), Some(meta.gid()))
        .at("change owner of", upper)?;
    fs::set_permissions(upper, fs::Permissions::from_mode(meta.mode() & 0o7777))
        .at("change mode of", upper)
}

fn mount_scratch(folder: &Folder) -> Result<PathBuf, Error> {
    let scratch = folder.path.join("scratch");
    make_dir(&scratch)?;
    mount(
        "tmpfs",
        &scratch,
        "tmpfs",
        MountFlags::NODEV,
        Some(c"mode=0700"),
    )
    .at("mount tmpfs on", &scratch)?;
    Ok(scratch)
}

fn mount_overlay(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> Result<(), Error> {
    let paths = lower.iter().map(PathBuf::as_path).chain([upper, work]);
    if paths
        .clone()
        .all(|path| path.as_os_str().len() <= FSCONFIG_STRING_BYTES_MAX)
    {
        match mount_by_descriptor(lower, upper, work, target) {
            // Before Linux 6.8 there is no `lowerdir+`.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            result => return result.at("mount overlay on", target),
        }
    }
    mount_by_options(lower, upper, work, target).at("mount overlay on", target)
}

/// `fsopen(2)`; one layer a call, so that their number is limited by the kernel only.
fn mount_by_descriptor(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
) -> rustix::io::Result<()> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&overlay, "source", "overlay")?; // what mount(8) shows
    for layer in lower {
        fsconfig_set_string(&overlay, "lowerdir+", layer)?;
    }
    fsconfig_set_string(&overlay, "upperdir", upper)?;
    fsconfig_set_string(&overlay, "workdir", work)?;
    for (name, value) in OPTIONS {
        fsconfig_set_string(&overlay, name, value)?;
    }
    fsconfig_create(&overlay)?;
    let mounted = fsmount(
        &overlay,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    move_mount(
        &mounted,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// `mount(2)`; a page of options at most.
fn mount_by_options(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
) -> rustix::io::Result<()> {
    let mut data = b"lowerdir=".to_vec();
    for (at, layer) in lower.iter().enumerate() {
        if at > 0 {
            data.push(b':');
        }
        escape(layer, &mut data);
    }
    for (name, path) in [("upperdir", upper), ("workdir", work)] {
        data.extend_from_slice(format!(",{name}=").as_bytes());
        escape(path, &mut data);
    }
    for (name, value) in OPTIONS {
        data.extend_from_slice(format!(",{name}={value}").as_bytes());
    }
    let data = CString::new(data).map_err(|_| rustix::io::Errno::INVAL)?;
    mount(
        "overlay",
        target,
        "overlay",
        MountFlags::empty(),
        Some(data.as_c_str()),
    )
}

/// Characters that mean something in overlay's options are quoted by a backslash.
fn escape(path: &Path, out: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_paths_are_quoted() {
        let mut out = Vec::new();
        escape(Path::new("/a:b,c\\d"), &mut out);
        assert_eq!(out, b"/a\\:b\\,c\\\\d");
    }

    /// Both ways of mounting, in a namespace of a child: tests have threads,
    /// and a mount namespace is a thread's.
    #[test]
    fn layers_are_stacked_top_first_by_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = dir.path().join(name);
            make_dir(&path).unwrap();
            path
        };
        let (top, bottom) = (path("top"), path("bottom"));
        fs::write(top.join("f"), "top").unwrap();
        fs::write(bottom.join("f"), "bottom").unwrap();
        fs::write(bottom.join("g"), "bottom").unwrap();
        let ways = [mount_by_descriptor, mount_by_options];
        for (at, way) in ways.into_iter().enumerate() {
            let (upper, work, target) = (
                path(&format!("u{at}")),
                path(&format!("w{at}")),
                path(&format!("t{at}")),
            );
            let lower = [top.clone(), bottom.clone()];
            let seen =
                std::thread::spawn(move || {
                    if crate::sys::unshare(UnshareFlags::NEWNS).is_err() {
                        return None;
                    }
                    mount_change(
                        "/",
                        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
                    )
                    .ok()?;
                    match way(&lower, &upper, &work, &target) {
                        Ok(()) => {
                            fs::write(target.join("new"), "x").ok()?;
                            Some(["f", "g"].map(|name| {
                                fs::read_to_string(target.join(name)).unwrap_or_default()
                            }))
                        }
                        Err(err) => {
                            eprintln!("overlay: {err}");
                            None
                        }
                    }
                })
                .join()
                .unwrap();
            match seen {
                Some(seen) => {
                    assert_eq!(seen, ["top", "bottom"]);
                    assert!(dir.path().join(format!("u{at}/new")).exists());
                }
                None => eprintln!(
                    "SKIPPED layers_are_stacked_top_first_by_both_ways ({at}): no overlay or no privileges"
                ),
            }
        }
    }
}
