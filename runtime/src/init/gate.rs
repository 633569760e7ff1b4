//! The gate between `create` and `start`: a socket in the container's state
//! directory on which init waits, unprivileged and ready, until `start`
//! connects. The connection closes at `execve(2)`; what is sent over it
//! before that is the reason why there was none.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::protocol::{FromInit, InitEnd, RuntimeEnd};
use crate::log::Log;

/// Name of the socket. As long as it exists the container was not started.
pub(crate) const NAME: &str = "start";

/// The address through the directory's descriptor: a socket address holds
/// 108 bytes, which the state directories of orchestrators fill.
fn address(directory: impl AsFd) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(format!(
        "/proc/self/fd/{}/{NAME}",
        directory.as_fd().as_raw_fd()
    ))
}

fn socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Makes the gate; only who may enter the directory may come to it.
pub(crate) fn make(directory: impl AsFd) -> io::Result<OwnedFd> {
    let listener = socket()?;
    rustix::net::bind(&listener, &address(directory)?)?;
    rustix::net::listen(&listener, 1)?;
    Ok(listener)
}

/// Init's side: waits for `start`, and says whether it wants to hear of each
/// step: then its socket has a name. To learn that costs no system call.
pub(crate) fn wait(listener: impl AsFd) -> io::Result<(InitEnd, bool)> {
    let (connection, peer) = rustix::io::retry_on_intr(|| {
        rustix::net::acceptfrom_with(&listener, SocketFlags::CLOEXEC)
    })?;
    let peer = peer.and_then(|peer| SocketAddrUnix::try_from(peer).ok());
    let named = peer.is_some_and(|peer| peer.abstract_name().is_some());
    Ok((InitEnd(connection), named))
}

/// The side of `start`: knocks. `None` means that nobody waits behind it.
pub(crate) fn knock(directory: impl AsFd) -> io::Result<Option<RuntimeEnd>> {
    let connection = socket()?;
    if crate::trace::wanted() {
        // The kernel gives it a name of its own, `unix(7)`, "Autobind".
        rustix::net::bind(&connection, &SocketAddrUnix::new_unnamed())?;
    }
    match rustix::net::connect(&connection, &address(directory)?) {
        Ok(()) => Ok(Some(RuntimeEnd(connection))),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until init has become its program, and says why if it has not.
pub(crate) fn outcome(connection: &RuntimeEnd, log: &Log) -> io::Result<Option<super::Failure>> {
    match connection.hear(log)? {
        FromInit::Failed(failure) => Ok(Some(failure)),
        _ => Ok(None),
    }
}
