//! The container's terminal: made from its own devpts, its master handed to
//! whoever will read and write it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{OFlags, Uid};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use crate::init::{Failure, Step};
use crate::rootfs::RootDir;
use crate::rootfs::root::Stub;
use crate::spec::ConsoleSize;
use crate::sys;

/// Magic number of devpts, `statfs(2)`.
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// Both sides of a new terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// For the outside.
    pub master: OwnedFd,
    /// For the container.
    pub peer: OwnedFd,
}

/// Opens a terminal of the devpts inside `root`, owned by `uid`. The peer
/// comes from the master itself (`TIOCGPTPEER`, Linux 4.13), so that no file
/// under /dev/pts is looked up by name.
pub(crate) fn open(
    root: &RootDir,
    size: Option<ConsoleSize>,
    uid: u32,
) -> Result<Terminal, Failure> {
    let fail = |what: &str| Step::Terminal.on::<Errno>(what.to_owned());
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = root
        .open_without_links(Path::new("/dev/pts/ptmx"), flags)
        .map_err(fail("open /dev/pts/ptmx"))?;
    let filesystem = rustix::fs::fstatfs(&master).map_err(fail("statfs /dev/pts/ptmx"))?;
    if filesystem.f_type as u64 != DEVPTS_SUPER_MAGIC {
        return Err(Step::Terminal.says("/dev/pts is not a devpts file system"));
    }
    unlockpt(&master).map_err(fail("unlock"))?;
    let peer = ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )
    .map_err(fail("open the peer"))?;
    match rustix::fs::fchown(&peer, Some(Uid::from_raw(uid)), None) {
        // A rootless container maps no other ids and needs no change.
        Ok(()) | Err(Errno::PERM | Errno::INVAL) => (),
        Err(errno) => return Err(fail("change owner")(errno)),
    }
    if let Some(ConsoleSize { height, width }) = size {
        let size = Winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).map_err(fail("set size"))?;
    }
    Ok(Terminal { master, peer })
}

impl Terminal {
    /// Adds no carriage returns from now on: the terminal that shows the output
    /// does. Who takes a terminal over by a socket expects it as it is born.
    pub(crate) fn show_elsewhere(&self) -> Result<(), Failure> {
        let fail = |what: &str| Step::Terminal.on::<Errno>(what.to_owned());
        let mut modes = tcgetattr(&self.master).map_err(fail("get attributes"))?;
        modes.output_modes &= !OutputModes::ONLCR;
        tcsetattr(&self.master, OptionalActions::Now, &modes).map_err(fail("set attributes"))
    }

    /// Makes the terminal the container's /dev/console.
    pub(crate) fn bind_console(&self, root: &RootDir) -> Result<(), Failure> {
        let fail = |what: &str| Step::Terminal.on::<std::io::Error>(format!("{what} /dev/console"));
        let path = Path::new("/dev/console");
        let place = match root.open_without_links(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => root.create(path, Stub::File).map_err(fail("create"))?,
            result => result.map_err(|errno| fail("open")(errno.into()))?,
        };
        let mount = crate::rootfs::mount::clone_at(self.peer.as_fd(), false)
            .map_err(|e| fail("clone for")(e.into()))?;
        crate::rootfs::mount::attach(mount, place).map_err(|e| fail("mount")(e.into()))
    }

    /// Makes the terminal the controlling one and the three standard streams.
    pub(crate) fn become_streams(&self) -> Result<(), Failure> {
        sys::set_controlling_terminal(self.peer.as_fd())
            .map_err(Step::Terminal.on("make it the controlling terminal"))?;
        for stream in 0..3 {
            sys::dup_onto(self.peer.as_fd(), stream)
                .map_err(Step::Terminal.on("make it a standard stream"))?;
        }
        Ok(())
    }
}
