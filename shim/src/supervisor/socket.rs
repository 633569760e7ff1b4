//! The sockets in a container's folder.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, send, socket_with, sockopt,
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// Listens on `name` in the current directory. A leftover of that name goes away.
///
/// # Errors
/// What the kernel says.
pub fn listen_at(name: &str) -> io::Result<OwnedFd> {
    match std::fs::remove_file(name) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let fd = packet_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    bind(&fd, &SocketAddrUnix::new(name)?)?;
    rustix::fs::chmod(name, Mode::RWXU)?;
    listen(&fd, BACKLOG)?;
    Ok(fd)
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
