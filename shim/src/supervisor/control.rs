//! The `ctl` socket: who asks for what, and gets which answer.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::net::{RecvFlags, recv};

use super::machine::{Answer, Asker};
use super::poller::{Poller, Token};
use super::protocol::{MESSAGE_BYTES_MAX, Request, encode};
use super::socket::try_send;

/// Connections to `ctl` at once; each `teu run` in the foreground, `stop` and `wait` holds one.
const CONNECTIONS_MAX: usize = 256;

/// All connections to `ctl`.
#[derive(Debug, Default)]
pub struct Control {
    connections: Vec<(Asker, OwnedFd)>,
    next: Asker,
}

/// What a ready connection said.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing after all.
    Nothing,
    /// A request.
    Request(Request),
    /// Something that is no request.
    Nonsense,
    /// It left.
    Gone,
}

impl Control {
    /// Takes a connection in; one too many is turned away.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add(&mut self, fd: OwnedFd, poller: &Poller) -> io::Result<()> {
        if self.connections.len() < CONNECTIONS_MAX {
            self.next = self.next.wrapping_add(1);
            poller.add(&fd, Token::Control(self.next), EventFlags::IN)?;
            self.connections.push((self.next, fd));
        }
        Ok(())
    }

    /// Reads a request.
    pub fn hear(&mut self, asker: Asker) -> Heard {
        let Some((_, fd)) = self.connections.iter().find(|(id, _)| *id == asker) else {
            return Heard::Nothing;
        };
        let mut message = [0; MESSAGE_BYTES_MAX];
        match recv(fd, &mut message[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.drop_connection(asker),
            Ok((n, _)) => Request::parse(&message[..n]).map_or(Heard::Nonsense, Heard::Request),
            // A reset (it left an answer unread) is said once, before what it had sent.
            Err(
                rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET,
            ) => Heard::Nothing,
            Err(_) => self.drop_connection(asker),
        }
    }

    /// Sends an answer. Who does not read its answers is let go.
    pub fn answer(&mut self, asker: Asker, answer: &Answer) {
        if let Some((_, fd)) = self.connections.iter().find(|(id, _)| *id == asker)
            && !matches!(try_send(fd, &encode(answer)), Ok(true))
        {
            self.drop_connection(asker);
        }
    }

    fn drop_connection(&mut self, asker: Asker) -> Heard {
        self.connections.retain(|(id, _)| *id != asker);
        Heard::Gone
    }
}
