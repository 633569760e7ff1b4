//! epoll with names for what it watches.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::log::Stream;
use super::pump::Watched;

/// What a poller calls the things it watches; each program has an enum of its own.
pub trait Name: Copy {
    /// As the kernel keeps it.
    fn encode(self) -> u64;
    /// From what [`Name::encode`] made.
    fn decode(data: u64) -> Self;
}

/// For who watches one thing.
impl Name for () {
    fn encode(self) -> u64 {
        0
    }

    fn decode(_: u64) -> Self {}
}

/// What became ready, of the container of a stand-alone supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The signalfd.
    Signals,
    /// The container's first process ended.
    Init,
    /// Somebody connects to `attach`.
    AttachListener,
    /// Somebody connects to `ctl`.
    ControlListener,
    /// The container wrote.
    Output(Stream),
    /// The container reads.
    Input,
    /// An attached client.
    Client(u32),
    /// A client on `ctl`.
    Control(u32),
    /// The log can take more.
    Log,
}

impl From<Watched> for Token {
    fn from(watched: Watched) -> Self {
        match watched {
            Watched::Output(stream) => Self::Output(stream),
            Watched::Input => Self::Input,
            Watched::Client(id) => Self::Client(id),
            Watched::Log => Self::Log,
        }
    }
}

impl Name for Token {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Signals => (0, 0),
            Self::Init => (1, 0),
            Self::AttachListener => (2, 0),
            Self::ControlListener => (3, 0),
            Self::Output(Stream::Stdout) => (4, 0),
            Self::Output(Stream::Stderr) => (5, 0),
            Self::Input => (6, 0),
            Self::Client(id) => (7, id),
            Self::Control(id) => (8, id),
            Self::Log => (9, 0),
        };
        kind << 32 | u64::from(number)
    }

    fn decode(data: u64) -> Self {
        let number = (data & u64::from(u32::MAX)) as u32;
        match data >> 32 {
            0 => Self::Signals,
            1 => Self::Init,
            2 => Self::AttachListener,
            3 => Self::ControlListener,
            4 => Self::Output(Stream::Stdout),
            5 => Self::Output(Stream::Stderr),
            6 => Self::Input,
            7 => Self::Client(number),
            8 => Self::Control(number),
            _ => Self::Log,
        }
    }
}

/// Events taken from the kernel at once; the rest comes with the next call.
const BATCH: usize = 16;

/// An epoll descriptor, and names of type `N` for what it watches.
pub struct Poller<N = Token> {
    epoll: OwnedFd,
    batch: Vec<epoll::Event>,
    names: PhantomData<N>,
}

impl<N> std::fmt::Debug for Poller<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Poller").field(&self.epoll).finish()
    }
}

impl<N: Name> Poller<N> {
    /// A new one. `epoll_create1(2)`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            batch: Vec::with_capacity(BATCH),
            names: PhantomData,
        })
    }

    /// Watches `fd`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add(&self, fd: impl AsFd, name: N, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            fd,
            EventData::new_u64(name.encode()),
            flags,
        )?)
    }

    /// Watches `fd`, already watched, for something else.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn modify(&self, fd: impl AsFd, name: N, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            fd,
            EventData::new_u64(name.encode()),
            flags,
        )?)
    }

    /// Watches `fd` no longer; that it was not watched is no error.
    pub fn remove(&self, fd: impl AsFd) {
        let _: Result<(), rustix::io::Errno> = epoll::delete(&self.epoll, fd);
    }

    /// Waits for events, at most for `limit`. An interrupted wait yields none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<Vec<(N, EventFlags)>> {
        // Rounded up to a millisecond, the unit of the call beneath, so that a deadline has passed after it.
        let limit = limit.map(|limit| limit + Duration::from_millis(1));
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        self.batch.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.batch),
            limit.as_ref(),
        ) {
            Ok(_) => Ok(self
                .batch
                .iter()
                .map(|event| (N::decode(event.data.u64()), event.flags))
                .collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(err) => Err(err.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        for token in [
            Token::Signals,
            Token::Init,
            Token::AttachListener,
            Token::ControlListener,
            Token::Output(Stream::Stdout),
            Token::Output(Stream::Stderr),
            Token::Input,
            Token::Client(u32::MAX),
            Token::Control(7),
            Token::Log,
        ] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
