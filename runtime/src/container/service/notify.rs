//! Telling the service manager that the container is ready (sd_notify(3)).
//!
//! The container writes to a socket in a folder of its state that is mounted
//! in it. Of what it says only its readiness is passed on, with the pid that the
//! manager is to watch: no container steers its manager otherwise.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::error::Error;
use crate::init::protocol::send_with_fd;
use crate::state::Locked;

/// Folder in the container's state.
pub(crate) const FOLDER: &str = "notify";

/// The same as the container sees it.
pub(super) const FOLDER_INSIDE: &str = "/run/notify";

/// The socket as the container sees it.
pub(super) const INSIDE: &str = "/run/notify/notify.sock";

/// Name of the socket in the folder.
const SOCKET: &str = "notify.sock";

/// Longest message that is read, in bytes; a line that says more is cut.
const MESSAGE_BYTES_MAX: usize = 4096;

/// How long the manager may take to answer that it has read all, in seconds: as
/// long as runc waits. Old ones never answer.
const BARRIER_SECONDS_MAX: i64 = 30;

/// Stands between the container and the manager.
#[derive(Debug)]
pub(crate) struct Proxy {
    inside: OwnedFd,
    manager: OwnedFd,
}

/// Makes the folder of the socket, before the container mounts it.
pub(crate) fn make_folder(locked: &Locked) -> Result<(), Error> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(locked.dir(), FOLDER, mode).map_err(Error::on("create folder", FOLDER))
}

/// Removes the folder with its socket; that it is gone is no error.
pub(crate) fn remove_folder(locked: &Locked) -> Result<(), Error> {
    let fail = || Error::on::<Errno>("remove folder", FOLDER);
    let socket = format!("{FOLDER}/{SOCKET}");
    for (name, flags) in [
        (socket.as_str(), AtFlags::empty()),
        (FOLDER, AtFlags::REMOVEDIR),
    ] {
        match rustix::fs::unlinkat(locked.dir(), name, flags) {
            Ok(()) | Err(Errno::NOENT) => (),
            Err(errno) => return Err(fail()(errno)),
        }
    }
    Ok(())
}

impl Proxy {
    /// Listens in the folder, if the container has one, for the manager at
    /// `address`.
    pub(crate) fn listen(locked: &Locked, address: &OsStr) -> Result<Option<Proxy>, Error> {
        let fail = || Error::on::<Errno>("listen on", INSIDE);
        let flags =
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let folder = match rustix::fs::openat(locked.dir(), FOLDER, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(fail())?,
        };
        let inside = socket().map_err(fail())?;
        // Through the descriptor: a socket address holds 108 bytes only.
        let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        let bound = SocketAddrUnix::new(path.as_str())
            .and_then(|address| rustix::net::bind(&inside, &address));
        bound.map_err(fail())?;
        // Whoever the container runs as may write to it.
        let all = Mode::from_raw_mode(0o777);
        rustix::fs::chmodat(&folder, SOCKET, all, AtFlags::empty()).map_err(fail())?;
        let manager = connect(address).map_err(Error::on("connect to", address))?;
        Ok(Some(Proxy { inside, manager }))
    }

    /// Waits until the container says that it is ready, or ends; `watched` is
    /// the pid for the manager.
    pub(crate) fn wait(&self, init: BorrowedFd<'_>, watched: u32) -> Result<(), Error> {
        loop {
            let mut events = [
                PollFd::new(&self.inside, PollFlags::IN),
                PollFd::new(&init, PollFlags::IN),
            ];
            let waited = rustix::io::retry_on_intr(|| poll(&mut events, None));
            waited.map_err(Error::at("wait for", "the container to be ready"))?;
            let ended = !events[1].revents().is_empty();
            if self.pass_on(watched)? || ended {
                return Ok(());
            }
        }
    }

    /// Reads what the container has said, without waiting. Once it has said that
    /// it is ready, tells the manager so, and returns true.
    pub(crate) fn pass_on(&self, watched: u32) -> Result<bool, Error> {
        let mut message = [0; MESSAGE_BYTES_MAX];
        loop {
            let read = rustix::net::recv(&self.inside, &mut message[..], RecvFlags::DONTWAIT);
            let length = match read {
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => continue,
                read => {
                    read.map_err(Error::at("read", "what the container notifies"))?
                        .0
                }
            };
            if let Some(ready) = ready_line(&message[..length]) {
                self.tell(ready, watched)
                    .map_err(Error::at("notify", "the service manager"))?;
                return Ok(true);
            }
        }
    }

    fn tell(&self, ready: &[u8], watched: u32) -> std::io::Result<()> {
        let line = [ready, b"\n"].concat();
        rustix::net::send(&self.manager, &line, SendFlags::NOSIGNAL)?;
        let pid = format!("MAINPID={watched}\n");
        rustix::net::send(&self.manager, pid.as_bytes(), SendFlags::NOSIGNAL)?;
        // The manager closes the pipe when it has read everything before it.
        let (closed, barrier) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        send_with_fd(&self.manager, b"BARRIER=1", &barrier)?;
        drop(barrier);
        let patience = Timespec {
            tv_sec: BARRIER_SECONDS_MAX,
            tv_nsec: 0,
        };
        let mut events = [PollFd::new(&closed, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut events, Some(&patience)))?;
        Ok(())
    }
}

impl AsFd for Proxy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }
}

fn socket() -> rustix::io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
}

/// Connects to the manager: a path, or with `@` a name in no folder.
fn connect(address: &OsStr) -> rustix::io::Result<OwnedFd> {
    let manager = socket()?;
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(address)?,
    };
    rustix::net::connect(&manager, &address)?;
    Ok(manager)
}

/// The line of a message that says whether the service is ready.
fn ready_line(message: &[u8]) -> Option<&[u8]> {
    let mut lines = message.split(|&byte| byte == b'\n');
    lines.find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readiness_is_heard() {
        assert_eq!(ready_line(b"READY=1\nSTATUS=fine"), Some(&b"READY=1"[..]));
        assert_eq!(ready_line(b"STATUS=x\nREADY=1"), Some(&b"READY=1"[..]));
        assert_eq!(ready_line(b"MAINPID=1\nSTATUS=READY=1"), None);
        assert_eq!(ready_line(b""), None);
    }
}
