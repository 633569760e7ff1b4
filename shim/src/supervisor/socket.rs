//! The sockets in a container's folder.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, send, socket_with, sockopt,
};
use rustix::process::umask;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// Listens on `name` in the current directory. A leftover of that name goes away.
///
/// # Errors
/// What the kernel says.
pub fn listen_at(name: &str) -> io::Result<OwnedFd> {
    listen_in(Path::new("."), name)
}

/// Listens on `name` in `folder`, however long the folder's path is, for our
/// own user alone. A leftover of that name goes away.
///
/// # Errors
/// What the kernel says.
pub fn listen_in(folder: &Path, name: &str) -> io::Result<OwnedFd> {
    let fd = packet_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    bind_in(&fd, folder, name, Mode::RWXU)?;
    listen(&fd, BACKLOG)?;
    Ok(fd)
}

/// Binds a socket to `name` in `folder`, however long the folder's path is. A
/// leftover of that name goes away.
///
/// # Errors
/// What the kernel says.
pub fn bind_in(fd: &OwnedFd, folder: &Path, name: &str, mode: Mode) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
        Err(err) if err != rustix::io::Errno::NOENT => return Err(err.into()),
        _ => {}
    }
    let path = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
    // Nobody may connect before the permissions are right.
    let before = umask(Mode::RWXG | Mode::RWXO);
    let bound = bind(fd, &SocketAddrUnix::new(path)?);
    umask(before);
    bound?;
    Ok(rustix::fs::chmodat(&folder, name, mode, AtFlags::empty())?)
}

/// The next connection of our own user or root, if any waits. Others are turned away.
///
/// # Errors
/// What the kernel says.
pub fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let fd = match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(fd) => fd,
        Err(
            rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED,
        ) => return Ok(None),
        Err(err) => return Err(err.into()),
    };
    let peer = sockopt::socket_peercred(&fd)?;
    let welcome = peer.uid.is_root() || peer.uid == rustix::process::geteuid();
    Ok(welcome.then_some(fd))
}

/// Connects to socket `name` in `folder`, however long the folder's path is.
///
/// # Errors
/// What the kernel says.
pub fn connect_to(folder: &Path, name: &str) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let dir = rustix::fs::open(
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let fd = packet_socket(SocketFlags::CLOEXEC)?;
    connect(
        &fd,
        &SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?,
    )?;
    Ok(fd)
}

/// Sends a packet without waiting. `false`: there is no room now.
///
/// # Errors
/// The peer is gone.
pub fn try_send(fd: &OwnedFd, packet: &[u8]) -> io::Result<bool> {
    match send(fd, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => {
            Ok(false)
        }
        Err(err) => Err(err.into()),
    }
}

fn packet_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}
