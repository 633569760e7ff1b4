//! Where a pod's shim listens.
//!
//! A socket in the file system, mode 0600 in a folder of mode 0700: an abstract one could be reached
//! by every container in the host's network namespace (CVE-2020-15257).

use std::fs::{DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use rustix::process::umask;
use sha2::{Digest as _, Sha256};

use super::ttrpc::client;
use crate::Error;
use crate::error::At as _;

/// Where containerd's shims listen, unless it says otherwise.
pub const DIR: &str = "/run/containerd/s";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// What an address begins with.
const SCHEME: &str = "unix://";

/// The socket of the pod `group` in `namespace` of the containerd at `grpc`: one for each, at
/// a path whose length does not depend on theirs.
#[must_use]
pub fn path(dir: &Path, grpc: &str, namespace: &str, group: &str) -> PathBuf {
    let digest = Sha256::digest(clean(&[grpc, namespace, group].join("/")).as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    dir.join(hex)
}

/// A path without `//`, `.` and `..`, as Go's `path.Clean` gives it.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if rooted { format!("/{joined}") } else { joined }
}

/// As containerd dials it.
#[must_use]
pub fn address(socket: &Path) -> String {
    format!("{SCHEME}{}", socket.display())
}

/// The socket of an address; `None` for one of another kind.
#[must_use]
pub fn socket_of(address: &str) -> Option<&Path> {
    address.trim().strip_prefix(SCHEME).map(Path::new)
}

/// A place to listen, or that somebody does.
#[derive(Debug)]
pub enum Bound {
    /// It is ours.
    Ours(OwnedFd),
    /// A shim of this pod listens there.
    Taken,
}

/// Listens at `socket`, unless somebody does. What a dead shim left there goes away. Of
/// several that try at once, one gets it and the others find it.
///
/// # Errors
/// What the kernel says.
pub fn listen_at(socket: &Path) -> Result<Bound, Error> {
    let dir = socket.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .at("make", dir)?;
    let lock = File::open(dir).at("open", dir)?;
    flock(&lock, FlockOperation::LockExclusive).at("lock", dir)?;
    match try_listen(socket) {
        Err(Errno::ADDRINUSE) => {}
        listener => return listener.map(Bound::Ours).at("listen at", socket),
    }
    if is_alive(socket) {
        return Ok(Bound::Taken);
    }
    std::fs::remove_file(socket).at("remove", socket)?;
    try_listen(socket).map(Bound::Ours).at("listen at", socket)
}

fn try_listen(socket: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // From its first moment nobody else may connect to it.
    let mask = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = SocketAddrUnix::new(socket).and_then(|address| bind(&fd, &address));
    umask(mask);
    bound?;
    listen(&fd, BACKLOG)?;
    Ok(fd)
}

/// Whether somebody listens at `socket`, even if too busy to accept now.
#[must_use]
pub fn is_alive(socket: &Path) -> bool {
    match client::dial(socket) {
        Ok(_) => true,
        Err(err) => err.kind() == std::io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_containerds() {
        assert_eq!(
            clean("/run//containerd/./x/../c.sock/ns/id"),
            "/run/containerd/c.sock/ns/id"
        );
        assert_eq!(clean("/../a"), "/a");
        assert_eq!(clean("a/../../b"), "../b");
        let socket = path(
            Path::new(DIR),
            "/run/containerd/containerd.sock",
            "default",
            "c1",
        );
        // printf %s /run/containerd/containerd.sock/default/c1 | sha256sum
        assert_eq!(
            address(&socket),
            "unix:///run/containerd/s/d25aa4ef11a84e954e74a5bcff06557d0b6ea8d0c00243896f29826694bbd888"
        );
        assert_eq!(socket_of("unix:///run/s\n"), Some(Path::new("/run/s")));
        assert_eq!(socket_of("vsock://2:1"), None);
    }

    #[test]
    fn one_listens_and_the_next_finds_it_and_a_dead_one_is_replaced() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s/x");
        let Bound::Ours(listener) = listen_at(&socket).unwrap() else {
            panic!()
        };
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&socket), mode(socket.parent().unwrap())),
            (0o600, 0o700)
        );
        assert!(matches!(listen_at(&socket).unwrap(), Bound::Taken));
        drop(listener);
        assert!(!is_alive(&socket));
        assert!(matches!(listen_at(&socket).unwrap(), Bound::Ours(_)));
    }
}
