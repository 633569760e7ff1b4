//! Readiness, passed on from the container to the service manager of the host.
//!
//! The container writes to `BUNDLE/notify/notify.sock`, which its caller shows
//! it. Only two words pass, whole and alone: that it is ready, and that it is
//! still alive. All else (main pid, descriptors to keep) would be the
//! container speaking for the host. Source: `sd_notify(3)`.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, sendto,
    socket_with,
};

use crate::Error;
use crate::error::At as _;
use crate::supervisor::socket;

/// Largest message read, in bytes; what does not fit is cut off.
const MESSAGE_BYTES_MAX: usize = 4096;
/// How often a busy service manager is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// Messages that pass, the more important first.
const PASSED_ON: [&[u8]; 2] = [b"READY=1", b"WATCHDOG=1"];

/// Both sockets.
#[derive(Debug)]
pub struct Notify {
    /// Where the container writes to.
    pub socket: OwnedFd,
    host: SocketAddrUnix,
    /// What the service manager had no room for.
    waiting: Option<&'static [u8]>,
}

impl Notify {
    /// Listens in `bundle` for what is passed on to `host`: a path, or `@NAME`
    /// for an abstract socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(bundle: &Path, host: &Path) -> Result<Self, Error> {
        use std::os::unix::ffi::OsStrExt as _;
        let host = match host.as_os_str().as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name),
            None => SocketAddrUnix::new(host),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        let fd = fd.call("socket")?;
        let folder = bundle.join("notify");
        let everybody = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        let bound = socket::bind_in(&fd, &folder, "notify.sock", everybody);
        bound.at("listen on", &folder.join("notify.sock"))?;
        Ok(Self {
            socket: fd,
            host: host.call("sd-notify socket")?,
            waiting: None,
        })
    }

    /// Passes on a message that is there.
    pub fn hear(&mut self) {
        let mut message = [0; MESSAGE_BYTES_MAX];
        if let Ok((n, _)) = recv(&self.socket, &mut message[..], RecvFlags::DONTWAIT)
            && let Some(word) = passed_on(&message[..n])
        {
            self.waiting = Some(word);
            self.retry();
        }
    }

    /// When [`Notify::retry`] is wanted.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        self.waiting.map(|_| RETRY)
    }

    /// Tries again what had no room. A service manager that is gone hears nothing.
    pub fn retry(&mut self) {
        if let Some(word) = self.waiting {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            if sendto(&self.socket, word, flags, &self.host) != Err(Errno::AGAIN) {
                self.waiting = None;
            }
        }
    }
}

/// What of a message passes.
fn passed_on(message: &[u8]) -> Option<&'static [u8]> {
    let lines = || message.split(|byte| *byte == b'\n');
    PASSED_ON
        .into_iter()
        .find(|word| lines().any(|line| line == *word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn two_words_pass_and_nothing_else() {
        assert_eq!(passed_on(b"READY=1"), Some(&b"READY=1"[..]));
        assert_eq!(
            passed_on(b"WATCHDOG=1\nSTATUS=x\nREADY=1\n"),
            Some(&b"READY=1"[..])
        );
        assert_eq!(passed_on(b"WATCHDOG=1\n"), Some(&b"WATCHDOG=1"[..]));
        for other in [&b"MAINPID=1"[..], b"READY=10", b"NOTREADY=1", b"", b"\n"] {
            assert_eq!(passed_on(other), None, "{other:?}");
        }
    }

    #[test]
    fn readiness_reaches_the_host() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("notify")).unwrap();
        let path = folder.path().join("host");
        let host = UnixDatagram::bind(&path).unwrap();
        host.set_nonblocking(true).unwrap();
        let mut notify = Notify::open(folder.path(), &path).unwrap();
        let container = UnixDatagram::unbound().unwrap();
        let door = folder.path().join("notify/notify.sock");
        container.send_to(b"MAINPID=1", &door).unwrap();
        container.send_to(b"STATUS=up\nREADY=1", &door).unwrap();
        notify.hear();
        notify.hear();
        let mut text = [0; 64];
        let n = host.recv(&mut text).unwrap();
        assert_eq!(&text[..n], b"READY=1");
        assert!(host.recv(&mut text).is_err());
        drop(host);
        container.send_to(b"WATCHDOG=1", &door).unwrap();
        notify.hear();
        assert_eq!(notify.patience(), None, "nobody is there");
    }
}
