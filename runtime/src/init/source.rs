//! The helper that looks up bind sources for an init in a user namespace: a
//! process with the runtime's privileges in init's mount namespace, made when
//! init first asks for it, gone when init asks no more.
//!
//! ```text
//!  helper                      init
//!     <-- place of a mount in the plan, four bytes
//!     --> one byte and a descriptor, or an error number, four bytes
//!     end of file: no more
//! ```

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::SendFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::launch::Launched;
use super::protocol::{self, RuntimeEnd, ToInit};
use crate::error::Error;
use crate::rootfs::idmap::Namespaces;
use crate::rootfs::op::MountOp;
use crate::rootfs::source;
use crate::sys::{self, Forked};

/// What a helper needs to know, kept by the runtime until init asks for it.
#[derive(Debug)]
pub(crate) struct Store {
    /// The mounts of the plan.
    pub mounts: Vec<MountOp>,
    /// The maps of idmapped ones.
    pub namespaces: Namespaces,
}

/// A helper at work.
#[derive(Debug)]
pub(crate) struct Helper(OwnedFd);

impl Helper {
    /// Makes the helper of `init` and gives init its end of the talk.
    pub(crate) fn start(store: &Store, init: &Launched) -> Result<Helper, Error> {
        let (theirs, ours) = protocol::pair().map_err(Error::at("create", "socket pair"))?;
        match sys::clone3(0, None).map_err(Error::at("clone", "helper"))? {
            Forked::Child => serve(store, &ours.0, init),
            Forked::Parent(_, pidfd) => {
                let message = [ToInit::Helper as u8];
                protocol::send_with_fd(&init.socket.0, &message, &theirs.0)
                    .map_err(Error::at("talk to", "init"))?;
                Ok(Helper(pidfd))
            }
        }
    }

    /// Waits for the helper's end, which follows init's last question or death.
    pub(crate) fn join(self) {
        let wait = || waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED);
        // Whatever became of it: its answers are what counts.
        let _ = rustix::io::retry_on_intr(wait);
    }
}

/// Answers until nobody asks; leaves only by _exit.
fn serve(store: &Store, socket: &OwnedFd, init: &Launched) -> ! {
    let mut keep = vec![socket.as_raw_fd(), init.pidfd.as_raw_fd()];
    keep.extend(store.namespaces.descriptors());
    // Neither the container's lock nor the other end of a pipe may stay open here.
    let joined = sys::close_all_but(3, &keep).and_then(|()| {
        let mounts = ThreadNameSpaceType::MOUNT;
        Ok(move_into_thread_name_spaces(init.pidfd.as_fd(), mounts)?)
    });
    loop {
        let mut place = [0u8; 4];
        match protocol::receive_with_fd(socket, &mut place) {
            Ok((4, _)) => (),
            _ => sys::exit(0),
        }
        let taken = match &joined {
            Ok(()) => take(store, u32::from_ne_bytes(place)),
            Err(error) => Err(io::Error::from_raw_os_error(errno(error))),
        };
        let answered = match taken {
            Ok(tree) => protocol::send_with_fd(socket, &[0], tree),
            Err(error) => {
                let number = errno(&error).to_ne_bytes();
                rustix::net::send(socket, &number, SendFlags::NOSIGNAL)
                    .map(drop)
                    .map_err(Into::into)
            }
        };
        if answered.is_err() {
            sys::exit(1);
        }
    }
}

fn take(store: &Store, place: u32) -> io::Result<OwnedFd> {
    let place = place as usize;
    let op = store.mounts.get(place).ok_or(rustix::io::Errno::INVAL)?;
    source::take(place, op, &store.namespaces)
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Init's side: asks for the source of the mount at `place`.
pub(super) fn ask(helper: &RuntimeEnd, place: usize) -> io::Result<OwnedFd> {
    let place = (place as u32).to_ne_bytes();
    rustix::net::send(&helper.0, &place, SendFlags::NOSIGNAL)?;
    let mut answer = [0u8; 4];
    match protocol::receive_with_fd(&helper.0, &mut answer)? {
        (_, Some(tree)) => Ok(tree),
        (4, None) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(answer))),
        _ => Err(io::Error::other("the helper for bind sources has ended")),
    }
}
