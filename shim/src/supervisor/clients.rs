//! Those who are attached: each gets all output from the moment it came.
//!
//! A client that reads slowly slows the container down, as a slow terminal
//! does; nothing is lost and nothing piles up. Once the container has ended
//! it must not be held back any more: what is then still on its way (at most
//! what the pipes held) waits in memory for each slow client.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;

use super::poller::{Name, Poller};
use super::pump::Watched;
use super::socket::try_send;

/// Clients attached at once. Each may cost a queue of its own at the end.
const CLIENTS_MAX: usize = 64;

/// One attached client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u32,
    pub(crate) fd: OwnedFd,
    /// It has not got the block of output that is on its way.
    owed: bool,
    /// Output that waits for it after the container's end.
    tail: VecDeque<Box<[u8]>>,
    /// It takes no more output; what it has sent as input counts nevertheless.
    deaf: bool,
    /// It sends no more input.
    pub(crate) input_ended: bool,
    /// It is gone.
    dead: bool,
    watched: Option<EventFlags>,
}

/// All attached clients.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    pub(crate) list: Vec<Client>,
    next_id: u32,
}

impl Clients {
    /// Takes a new client in; one too many is turned away.
    pub(crate) fn add(&mut self, fd: OwnedFd) {
        if self.list.len() < CLIENTS_MAX {
            self.next_id = self.next_id.wrapping_add(1);
            let id = self.next_id;
            self.list.push(Client {
                id,
                fd,
                owed: false,
                tail: VecDeque::new(),
                deaf: false,
                input_ended: false,
                dead: false,
                watched: None,
            });
        }
    }

    /// A new block of output is on its way: everybody is owed it.
    pub(crate) fn owe_all(&mut self) {
        for client in &mut self.list {
            client.owed = !client.deaf;
        }
    }

    /// Sends `packet` to those who are owed it. `true`: nobody is any more.
    /// With `queue`, those who cannot take it now get it later.
    pub(crate) fn deliver(&mut self, packet: &[u8], queue: bool) -> bool {
        for client in &mut self.list {
            if client.owed {
                client.deliver(packet, queue);
            }
        }
        self.list.iter().all(|client| client.dead || !client.owed)
    }

    /// Sends what waits for client `id`, as far as it takes it.
    pub(crate) fn flush(&mut self, id: u32) {
        if let Some(client) = self.get(id) {
            client.flush();
        }
    }

    /// The client is gone.
    pub(crate) fn bury(&mut self, id: u32) {
        if let Some(client) = self.get(id) {
            client.dead = true;
        }
    }

    pub(crate) fn get(&mut self, id: u32) -> Option<&mut Client> {
        self.list.iter_mut().find(|client| client.id == id)
    }

    /// Tells the poller what each client is waited for, and lets the dead go.
    /// With `input_busy`, nobody's input is read now. With `finished`, those
    /// who have got everything are closed.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn settle<N: Name + From<Watched>>(
        &mut self,
        poller: &Poller<N>,
        input_busy: bool,
        finished: bool,
    ) -> io::Result<()> {
        for client in &mut self.list {
            client.dead |= finished && client.tail.is_empty() && !client.owed;
            client.watch(poller, input_busy)?;
        }
        self.list.retain(|client| !client.dead);
        Ok(())
    }
}

impl Client {
    fn deliver(&mut self, packet: &[u8], queue: bool) {
        let sent = if self.tail.is_empty() {
            try_send(&self.fd, packet)
        } else {
            Ok(false)
        };
        match sent {
            Ok(true) => self.owed = false,
            Ok(false) if queue => {
                self.tail.push_back(packet.into());
                self.owed = false;
            }
            Ok(false) => {}
            Err(_) => self.deafen(),
        }
    }

    /// It has closed its end. Its input is read to the end, if that is not already so.
    fn deafen(&mut self) {
        self.deaf = true;
        self.owed = false;
        self.tail.clear();
        self.dead |= self.input_ended;
    }

    fn flush(&mut self) {
        while let Some(packet) = self.tail.front() {
            match try_send(&self.fd, packet) {
                Ok(true) => {
                    self.tail.pop_front();
                }
                Ok(false) => return,
                Err(_) => return self.deafen(),
            }
        }
    }

    /// A client whose input cannot be taken now is not watched at all, or the
    /// hang-up of one that left would be reported without end.
    fn watch<N: Name + From<Watched>>(
        &mut self,
        poller: &Poller<N>,
        input_busy: bool,
    ) -> io::Result<()> {
        let name = N::from(Watched::Client(self.id));
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !self.input_ended && !input_busy);
        flags.set(EventFlags::OUT, self.owed || !self.tail.is_empty());
        let parked = flags.is_empty() && !self.input_ended;
        let wanted = (!self.dead && !parked).then_some(flags);
        match (self.watched, wanted) {
            (None, Some(flags)) => poller.add(&self.fd, name, flags)?,
            (Some(old), Some(new)) if old != new => poller.modify(&self.fd, name, new)?,
            (Some(_), None) => poller.remove(&self.fd),
            _ => {}
        }
        self.watched = wanted;
        Ok(())
    }
}
