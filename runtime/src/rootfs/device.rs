//! Device nodes: the ones every container has and those it asks for.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, Uid, major, minor};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::RootDir;
use super::root::Stub;
use crate::error::Error;
use crate::init::{Failure, Step};
use crate::spec::{Device, invalid};

/// One node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Where, inside the container.
    pub path: PathBuf,
    /// Character, block, or FIFO.
    pub kind: FileType,
    /// Device number.
    pub device: Dev,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Path, major and minor number of the nodes that every container has
/// (config-linux.md, "Default Devices"); all are 0666.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The multiplexer of terminals. It is never a device of the host's: its place
/// is that of a link to the container's own (config-linux.md, "Default Devices").
const MULTIPLEXER: &str = "/dev/ptmx";

/// The default nodes, replaced and followed by those of the specification.
pub(crate) fn nodes(devices: &[Device]) -> Result<Vec<Node>, Error> {
    let mut nodes: Vec<Node> = DEFAULTS
        .iter()
        .map(|&(path, major, minor)| Node {
            path: path.into(),
            kind: FileType::CharacterDevice,
            device: rustix::fs::makedev(major, minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for (index, device) in devices.iter().enumerate() {
        let node = node(device, &format!("linux.devices[{index}]"))?;
        if node.path == Path::new(MULTIPLEXER) {
            continue;
        }
        match nodes.iter_mut().find(|known| known.path == node.path) {
            Some(known) => *known = node,
            None => nodes.push(node),
        }
    }
    Ok(nodes)
}

fn node(device: &Device, field: &str) -> Result<Node, Error> {
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => {
            return Err(invalid(
                &format!("{field}.type"),
                &format!("{other:?} is none of c, u, b, p"),
            ));
        }
    };
    if !device.path.is_absolute() {
        return Err(invalid(
            &format!("{field}.path"),
            &format!("{:?} is not absolute", device.path),
        ));
    }
    let number = |value: i64, name: &str| {
        u32::try_from(value).map_err(|_| {
            invalid(
                &format!("{field}.{name}"),
                &format!("{value} is not a device number"),
            )
        })
    };
    for (name, id) in [("uid", device.uid), ("gid", device.gid)] {
        if id == Some(crate::spec::NO_ID) {
            let reason = "4294967295 stands for no user or group";
            return Err(invalid(&format!("{field}.{name}"), reason));
        }
    }
    let fifo = kind == FileType::Fifo;
    let (major, minor) = if fifo {
        (0, 0)
    } else {
        (
            number(device.major, "major")?,
            number(device.minor, "minor")?,
        )
    };
    Ok(Node {
        path: device.path.clone(),
        kind,
        device: rustix::fs::makedev(major, minor),
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

/// Makes the nodes below `root`; where the user namespace forbids that, binds
/// the host's. The mask of the process is 0.
pub(crate) fn make(root: &RootDir, nodes: &[Node], bind: bool) -> Result<(), Failure> {
    // Most nodes stand in /dev: its descriptor is kept from one to the next.
    let mut directory: Option<(&Path, OwnedFd)> = None;
    for node in nodes {
        let fail = || format!("{:?}", node.path);
        if bind {
            bind_node(root, node).map_err(Step::Device.on(fail()))?;
            continue;
        }
        let parent = node.path.parent().unwrap_or(Path::new("/"));
        if directory.as_ref().is_none_or(|(path, _)| *path != parent) {
            let (opened, _) = root.parent(&node.path).map_err(Step::Device.on(fail()))?;
            directory = Some((parent, opened));
        }
        if let (Some((_, directory)), Some(name)) = (&directory, node.path.file_name()) {
            make_node(root, directory, name, node)?;
        }
    }
    Ok(())
}

fn make_node(
    root: &RootDir,
    directory: &OwnedFd,
    name: &OsStr,
    node: &Node,
) -> Result<(), Failure> {
    let fail = || format!("{:?}", node.path);
    match rustix::fs::mknodat(
        directory,
        name,
        node.kind,
        Mode::from_raw_mode(node.mode),
        node.device,
    ) {
        Ok(()) => (),
        Err(Errno::EXIST) => return existing(directory, name, node),
        // The root of a user namespace that we were started in (rootless podman's) makes none.
        Err(Errno::PERM) => return bind_node(root, node).map_err(Step::Device.on(fail())),
        Err(errno) => return Err(Step::Device.on(fail())(errno)),
    }
    if node.uid != 0 || node.gid != 0 {
        let (uid, gid) = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
        rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Step::Device.on(fail()))?;
    }
    Ok(())
}

/// A node that the image brings is taken only if it is that very device: a
/// symbolic link in its place would lead all later uses astray.
fn existing(directory: &OwnedFd, name: &OsStr, node: &Node) -> Result<(), Failure> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Step::Device.on(format!("{:?}", node.path)))?;
    let found = FileType::from_raw_mode(stat.st_mode);
    let why = if found != node.kind {
        wrong_kind(node, found)
    } else if found != FileType::Fifo && stat.st_rdev != node.device {
        wrong_number(node, stat.st_rdev)
    } else {
        return Ok(());
    };
    Err(Step::Device.refuses(format!("{:?}", node.path), why))
}

/// runc's words, then what is there.
fn wrong_kind(node: &Node, found: FileType) -> String {
    let (path, found, wanted) = (node.path.display(), kind(found), kind(node.kind));
    format!("{path} has incorrect ftype: {found} doesn't match expected {wanted}")
}

/// The same of a device with another number.
fn wrong_number(node: &Node, found: Dev) -> String {
    let number = |device| format!("{}:{}", major(device), minor(device));
    format!(
        "{} has incorrect major:minor: {} doesn't match expected {}",
        node.path.display(),
        number(found),
        number(node.device)
    )
}

/// A kind of file, for a person.
fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::BlockDevice => "block device",
        FileType::CharacterDevice => "character device",
        FileType::Fifo => "fifo",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::RegularFile => "regular file",
        _ => "other file",
    }
}

fn bind_node(root: &RootDir, node: &Node) -> std::io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let source = rustix::mount::open_tree(CWD, &node.path, flags)?;
    let target = match root.open_without_links(&node.path, OFlags::PATH) {
        Ok(target) => target,
        Err(Errno::NOENT) => root.create(&node.path, Stub::File)?,
        Err(errno) => return Err(errno.into()),
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(
        source.as_fd(),
        "",
        target.as_fd(),
        "",
        flags,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_replaces_a_default() {
        let device = Device {
            kind: "c".into(),
            path: "/dev/null".into(),
            major: 1,
            minor: 3,
            uid: Some(7),
            ..Device::default()
        };
        let nodes = nodes(&[device]).unwrap();
        assert_eq!(nodes.len(), DEFAULTS.len());
        assert_eq!(nodes[0].uid, 7);
    }

    #[test]
    fn the_hosts_terminals_are_not_shared() {
        let device = Device {
            kind: "c".into(),
            path: "/dev/ptmx".into(),
            major: 5,
            minor: 2,
            ..Device::default()
        };
        assert_eq!(nodes(&[device]).unwrap(), nodes(&[]).unwrap());
    }

    #[test]
    fn unknown_kinds_are_refused() {
        let device = Device {
            kind: "x".into(),
            path: "/dev/x".into(),
            ..Device::default()
        };
        assert!(
            nodes(&[device])
                .unwrap_err()
                .to_string()
                .contains("linux.devices[0].type")
        );
    }
}
