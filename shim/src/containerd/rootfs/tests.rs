use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use super::{Mount, mount_all, mounts_below, unmount_all, unquote};

fn mount(fstype: &str, source: impl AsRef<Path>, target: &str, options: &[&str]) -> Mount {
    Mount {
        r#type: fstype.into(),
        source: source.as_ref().display().to_string(),
        target: target.into(),
        options: options.iter().map(|text| (*text).to_owned()).collect(),
    }
}

/// Runs a test in a mount namespace and a current folder of its own: both
/// belong to a thread. `false`: there is no privilege to.
fn apart(name: &str, test: impl FnOnce(&Path) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let done = std::thread::spawn(move || {
        if crate::sys::unshare(UnshareFlags::NEWNS | UnshareFlags::FS).is_err() {
            return false;
        }
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        test(&path);
        true
    });
    if !done.join().unwrap() {
        eprintln!("SKIPPED {name}: no privilege to mount");
    }
}

fn folder(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).unwrap();
    path
}

fn write(path: PathBuf, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// How many mounts stand at and below a folder, by the kernel's list of this thread.
fn mounts_at(path: &Path) -> usize {
    let path = path.display().to_string();
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    text.lines()
        .filter(|line| line.split(' ').nth(4).unwrap().starts_with(&path))
        .count()
}

#[test]
fn mounts_stand_on_each_other_and_all_go() {
    apart("mounts_stand_on_each_other_and_all_go", |dir| {
        let root = folder(dir.join("rootfs"));
        let lower = folder(dir.join("lower"));
        write(lower.join("sub/f"), "bound");
        let mounts = [
            mount("tmpfs", "tmpfs", "", &["size=64k"]),
            mount("bind", &lower, "", &["rbind", "ro", "nosuid"]),
            mount("tmpfs", "tmpfs", "/sub", &["mode=700"]),
        ];
        mount_all(&mounts, &root).unwrap();
        assert_eq!(mounts_at(&root), 3);
        assert!(fs::write(root.join("g"), "").is_err(), "read-only");
        assert!(!root.join("sub/f").exists(), "covered");
        assert!(lower.join("sub/f").exists());
        unmount_all(&root).unwrap();
        assert_eq!(mounts_at(&root), 0);
        unmount_all(&root).unwrap();
        unmount_all(&dir.join("absent")).unwrap();
    });
}

#[test]
fn a_mount_that_fails_takes_the_others_with_it() {
    apart("a_mount_that_fails_takes_the_others_with_it", |dir| {
        let root = folder(dir.join("rootfs"));
        let good = mount("tmpfs", "tmpfs", "", &[]);
        for bad in [
            mount("nosuchfs", "x", "", &[]),
            mount("bind", dir.join("absent"), "", &["bind"]),
            mount("tmpfs", "tmpfs", "/absent", &[]),
            mount("overlay", "overlay", "", &["uidmap=0:1:1"]),
        ] {
            let error = mount_all(&[good.clone(), bad.clone()], &root).unwrap_err();
            let text = crate::error::chain(&error);
            assert!(
                text.starts_with(&format!("mount {} ", bad.r#type)),
                "{text}"
            );
            assert_eq!(mounts_at(&root), 0, "{text}");
        }
        mount_all(&[], &root).unwrap();
    });
}

/// A target of an image that wants to lead out of the root leads into it.
#[test]
fn no_link_leads_a_mount_out_of_the_root() {
    apart("no_link_leads_a_mount_out_of_the_root", |dir| {
        let root = folder(dir.join("rootfs"));
        let outside = folder(dir.join("outside"));
        folder(root.join(outside.strip_prefix("/").unwrap()));
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        mount_all(&[mount("tmpfs", "tmpfs", "link", &[])], &root).unwrap();
        assert_eq!(mounts_at(&outside), 0);
        assert_eq!(mounts_at(&root), 1);
        for point in mounts_below(&root) {
            rustix::mount::unmount(point, rustix::mount::UnmountFlags::empty()).unwrap();
        }
    });
}

/// 300 layers with the paths that containerd gives them are beyond a page.
#[test]
fn an_overlay_may_have_more_layers_than_a_page_holds() {
    apart("an_overlay_may_have_more_layers_than_a_page_holds", |dir| {
        let home = dir.join("io.containerd.snapshotter.v1.overlayfs/snapshots");
        let layers: Vec<PathBuf> = (0..300).map(|n| home.join(format!("{n}/fs"))).collect();
        for (n, layer) in layers.iter().enumerate() {
            write(layer.join(format!("f{n}")), "x");
        }
        let lower: Vec<String> = layers
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let lower = format!("lowerdir={}", lower.join(":"));
        assert!(lower.len() > 2 * super::DATA_BYTES_MAX);
        let root = folder(dir.join("rootfs"));
        let upper = format!("upperdir={}", folder(dir.join("upper")).display());
        let work = format!("workdir={}", folder(dir.join("work")).display());
        let before = std::env::current_dir().unwrap();
        let overlay = mount("overlay", "overlay", "", &[&lower, &upper, &work]);
        mount_all(&[overlay], &root).unwrap();
        assert_eq!(std::env::current_dir().unwrap(), before);
        assert!(root.join("f0").exists() && root.join("f299").exists());
        fs::write(root.join("new"), "x").unwrap();
        assert!(dir.join("upper/new").exists());
        unmount_all(&root).unwrap();
        let long = mount("tmpfs", "tmpfs", "", &[&"x".repeat(super::DATA_BYTES_MAX)]);
        let error = mount_all(&[long], &root).unwrap_err();
        let text = crate::error::chain(&error);
        assert!(
            text.ends_with("4096 bytes of options; the kernel takes 4095"),
            "{text}"
        );
    });
}

#[test]
fn what_is_in_use_is_detached() {
    apart("what_is_in_use_is_detached", |dir| {
        let root = folder(dir.join("rootfs"));
        mount_all(&[mount("tmpfs", "tmpfs", "", &[])], &root).unwrap();
        let held = fs::File::create(root.join("f")).unwrap();
        unmount_all(&root).unwrap();
        assert_eq!(mounts_at(&root), 0);
        drop(held);
    });
}

/// In a file, with a loop device or without.
#[test]
fn files_hold_file_systems() {
    apart("files_hold_file_systems", |dir| {
        let tree = folder(dir.join("tree"));
        write(tree.join("f"), "inside");
        let made = |program: &str, args: &[&str]| {
            Command::new(program)
                .args(args)
                .current_dir(dir)
                .output()
                .is_ok_and(|out| out.status.success())
        };
        let root = folder(dir.join("rootfs"));
        fs::File::create(dir.join("ext4"))
            .unwrap()
            .set_len(4 << 20)
            .unwrap();
        for (fstype, made) in [
            ("erofs", made("mkfs.erofs", &["erofs", "tree"])),
            (
                "ext4",
                made("mke2fs", &["-q", "-t", "ext4", "-d", "tree", "ext4"]),
            ),
        ] {
            if !made {
                eprintln!("SKIPPED files_hold_file_systems ({fstype}): no program to make one");
                continue;
            }
            let file = mount(fstype, dir.join(fstype), "", &["loop", "ro"]);
            mount_all(&[file], &root).unwrap();
            assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "inside");
            unmount_all(&root).unwrap();
            assert_eq!(mounts_at(&root), 0);
        }
    });
}

#[test]
fn names_of_mount_points_are_unquoted() {
    assert_eq!(unquote("/a\\040b\\134c"), "/a b\\c");
    assert_eq!(unquote("/a\\9"), "/a\\9");
    assert_eq!(unquote("\\"), "\\");
}
