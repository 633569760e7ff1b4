//! Terminals: how the runtime hands one over, and how it is set.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept_with, bind, listen, recvmsg, socket_with,
};
use rustix::process::umask;
use rustix::termios::{OptionalActions, OutputModes, tcgetattr, tcsetattr};

use crate::Error;
use crate::error::At as _;

/// The socket on which the runtime hands over the terminal's other end.
#[derive(Debug)]
pub struct Console {
    listener: OwnedFd,
    folder: OwnedFd,
    name: String,
}

impl Console {
    /// Listens in `folder`; only our own user may connect.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn listen(folder: &Path, name: &str) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(folder, flags, Mode::empty()).at("open", folder)?;
        let (family, stream) = (AddressFamily::UNIX, SocketType::STREAM);
        let listener = socket_with(family, stream, SocketFlags::CLOEXEC, None).call("socket")?;
        let console = Self {
            listener,
            folder: directory,
            name: name.to_owned(),
        };
        console.forget(); // of a killed predecessor
        let address = SocketAddrUnix::new(console.path()).call("socket address")?;
        let before = umask(Mode::RWXG | Mode::RWXO);
        let bound = bind(&console.listener, &address);
        umask(before);
        bound.at("bind", &folder.join(name))?;
        listen(&console.listener, 1).call("listen")?;
        Ok(console)
    }

    /// Where the runtime finds it while this process lives: through a
    /// descriptor of ours, so it is short, whatever the folder's path is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let folder = self.folder.as_raw_fd();
        format!("/proc/{}/fd/{folder}/{}", std::process::id(), self.name).into()
    }

    fn forget(&self) {
        let _: rustix::io::Result<()> =
            rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
    }

    /// Takes the terminal, which the runtime has sent before it reports
    /// success. It does not block, and returns the carriage at a line's end, as a
    /// client's terminal in raw mode needs it: older versions of runc leave that
    /// out, and what is written before it is set here then lacks it.
    ///
    /// # Errors
    /// What the kernel says, or that none was sent.
    pub fn receive(self) -> Result<OwnedFd, Error> {
        set_nonblocking(&self.listener)?;
        let connection =
            accept_with(&self.listener, SocketFlags::CLOEXEC).call("accept the terminal")?;
        let mut name = [0; 4096]; // the terminal's path, for logs only
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut name)];
        recvmsg(&connection, &mut parts, &mut control, flags).call("receive the terminal")?;
        let terminal = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let terminal =
            terminal.ok_or_else(|| Error::Invalid("the runtime sent no terminal".into()))?;
        set_nonblocking(&terminal)?;
        let mut mode = tcgetattr(&terminal).call("tcgetattr")?;
        mode.output_modes |= OutputModes::ONLCR;
        tcsetattr(&terminal, OptionalActions::Now, &mode).call("tcsetattr")?;
        Ok(terminal)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Reading and writing `fd` never waits any more. `fcntl(2)`.
///
/// # Errors
/// What the kernel says.
pub fn set_nonblocking(fd: impl AsFd) -> Result<(), Error> {
    let flags = rustix::fs::fcntl_getfl(&fd).call("fcntl")?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).call("fcntl")
}
