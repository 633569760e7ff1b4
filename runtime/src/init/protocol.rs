//! What the runtime and init say to each other.
//!
//! ```text
//!  runtime                     init
//!     --> Go                       named in the state, id maps written
//!     <-- Unshared                 only with time offsets: /proc/PID/timens_offsets waits
//!     --> Offset
//!     <-- WantsHelper              only where a bind source is out of its reach
//!     --> Helper + descriptor
//!     <-- Mounted                  only with hooks: the old root is still visible
//!     --> Hooked
//!     <-- Terminal + descriptor    only in the foreground with a terminal
//!     <-- Ready                    nothing left but the start
//!     --> Start                    only `run` and `exec`; after `create` the gate says it
//!     <-- Failed                   instead of any of these
//!     <-- Traced                   any number at any time; only with --trace
//!     <-- Debug + text             only with `--debug`, before any of these
//!     end of file                  execve, or death
//! ```
//!
//! One SOCK_SEQPACKET pair carries it: one packet is one message, and the
//! end of either process is the end of file of the other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::failure::{Failure, Step};
use crate::log::Log;

/// Longest packet, in bytes: a tag and a failure.
const PACKET_BYTES_MAX: usize = 1 + Failure::BYTES_MAX;

/// What init says.
#[derive(Debug)]
pub(crate) enum FromInit {
    /// In its new time namespace, whose offsets may be written now.
    Unshared,
    /// It cannot look up a bind source itself.
    WantsHelper,
    /// The root is mounted and not yet switched to.
    Mounted,
    /// The master side of the terminal.
    Terminal(OwnedFd),
    /// Only the start is missing.
    Ready,
    /// It cannot go on and ends.
    Failed(Failure),
    /// The pid of the process that a joining helper made for us.
    Pid(i32),
    /// A word for whoever debugs.
    Debug(String),
    /// End of file: execve, or death.
    Gone,
}

/// What the runtime says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ToInit {
    /// Named in the state and mapped: side effects may begin.
    Go = 1,
    /// Time offsets are written.
    Offset,
    /// Comes with the connection to who looks up bind sources.
    Helper,
    /// The hooks of this moment have run.
    Hooked,
    /// Become the program.
    Start,
}

const UNSHARED: u8 = 1;
const MOUNTED: u8 = 2;
const TERMINAL: u8 = 3;
const READY: u8 = 4;
const FAILED: u8 = 5;
const PID: u8 = 6;
const DEBUG: u8 = 8;
const WANTS_HELPER: u8 = 9;

/// Tag of a step that is done, for [`crate::trace`] alone.
pub(crate) const TRACED: u8 = 7;

/// The runtime's end.
#[derive(Debug)]
pub(crate) struct RuntimeEnd(pub OwnedFd);

/// Init's end.
#[derive(Debug)]
pub(crate) struct InitEnd(pub OwnedFd);

/// Makes both ends. `socketpair(2)`.
pub(crate) fn pair() -> io::Result<(RuntimeEnd, InitEnd)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok((RuntimeEnd(ours), InitEnd(theirs)))
}

impl RuntimeEnd {
    /// Says something; an init that is gone is found when it is listened to.
    pub(crate) fn send(&self, message: ToInit) -> io::Result<()> {
        match rustix::net::send(&self.0, &[message as u8], SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for the next message that needs an answer; words for whoever
    /// debugs go to `log` on the way.
    pub(crate) fn hear(&self, log: &Log) -> io::Result<FromInit> {
        loop {
            match self.receive()? {
                FromInit::Debug(text) => log.debug(|| text),
                message => return Ok(message),
            }
        }
    }

    /// Waits for the next message; steps that are told on the way go to the trace.
    pub(crate) fn receive(&self) -> io::Result<FromInit> {
        let mut packet = [0u8; PACKET_BYTES_MAX];
        let (length, descriptor) = loop {
            let received = receive_with_fd(&self.0, &mut packet)?;
            match packet[..received.0].split_first() {
                Some((&TRACED, step)) => crate::trace::heard(step),
                _ => break received,
            }
        };
        let malformed =
            || io::Error::new(io::ErrorKind::InvalidData, "malformed message from init");
        let Some((&tag, body)) = packet[..length].split_first() else {
            return Ok(FromInit::Gone);
        };
        match tag {
            UNSHARED => Ok(FromInit::Unshared),
            WANTS_HELPER => Ok(FromInit::WantsHelper),
            MOUNTED => Ok(FromInit::Mounted),
            TERMINAL => descriptor.map(FromInit::Terminal).ok_or_else(malformed),
            READY => Ok(FromInit::Ready),
            FAILED => Failure::decode(body)
                .map(FromInit::Failed)
                .ok_or_else(malformed),
            PID => {
                let pid = body.first_chunk::<4>().ok_or_else(malformed)?;
                Ok(FromInit::Pid(i32::from_ne_bytes(*pid)))
            }
            DEBUG => Ok(FromInit::Debug(String::from_utf8_lossy(body).into_owned())),
            _ => Err(malformed()),
        }
    }
}

impl InitEnd {
    /// Waits for exactly this message. End of file means that the runtime is
    /// dead: so must init be, quietly.
    pub(crate) fn expect(&self, wanted: ToInit) -> Result<(), Failure> {
        let mut packet = [0u8; 1];
        let (_, length) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.0, &mut packet[..], RecvFlags::empty())
        })
        .map_err(Step::Talk.on(format!("{wanted:?}")))?;
        if length == 0 {
            crate::sys::exit(1);
        }
        if packet[0] != wanted as u8 {
            return Err(Step::Talk.says(format!("expected {wanted:?}, got message {}", packet[0])));
        }
        Ok(())
    }

    fn send(&self, packet: &[u8]) -> Result<(), Failure> {
        rustix::net::send(&self.0, packet, SendFlags::NOSIGNAL).map_err(Step::Talk.on("send"))?;
        Ok(())
    }

    /// Says [`FromInit::Unshared`].
    pub(crate) fn unshared(&self) -> Result<(), Failure> {
        self.send(&[UNSHARED])
    }

    /// Says [`FromInit::WantsHelper`] and waits for the connection to it.
    pub(crate) fn helper(&self) -> io::Result<RuntimeEnd> {
        let gone = || io::Error::other("no helper for bind sources");
        rustix::net::send(&self.0, &[WANTS_HELPER], SendFlags::NOSIGNAL)?;
        let mut packet = [0u8; 1];
        let (_, connection) = receive_with_fd(&self.0, &mut packet)?;
        let wanted = packet[0] == ToInit::Helper as u8;
        connection
            .filter(|_| wanted)
            .map(RuntimeEnd)
            .ok_or_else(gone)
    }

    /// Says [`FromInit::Mounted`].
    pub(crate) fn mounted(&self) -> Result<(), Failure> {
        self.send(&[MOUNTED])
    }

    /// Says [`FromInit::Ready`].
    pub(crate) fn ready(&self) -> Result<(), Failure> {
        self.send(&[READY])
    }

    /// Says [`FromInit::Pid`].
    pub(crate) fn pid(&self, pid: i32) -> Result<(), Failure> {
        let [a, b, c, d] = pid.to_ne_bytes();
        self.send(&[PID, a, b, c, d])
    }

    /// Says [`FromInit::Failed`]; nothing can be done if that fails too.
    pub(crate) fn failed(&self, failure: &Failure) {
        let mut packet = vec![FAILED];
        packet.extend_from_slice(&failure.encode());
        let _ = self.send(&packet);
    }

    /// Says [`FromInit::Debug`]; a word that gets lost is no harm.
    pub(crate) fn debug(&self, text: &str) {
        let text = &text.as_bytes()[..text.len().min(PACKET_BYTES_MAX - 1)];
        let _ = self.send(&[&[DEBUG], text].concat());
    }

    /// Hands the terminal's master side over.
    pub(crate) fn terminal(&self, master: impl AsFd) -> Result<(), Failure> {
        send_with_fd(&self.0, &[TERMINAL], master).map_err(Step::Terminal.on("send its descriptor"))
    }
}

/// Sends one packet with one descriptor. `sendmsg(2)`, `SCM_RIGHTS`.
pub(crate) fn send_with_fd(
    socket: impl AsFd,
    packet: &[u8],
    descriptor: impl AsFd,
) -> io::Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(
        socket,
        &[io::IoSlice::new(packet)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives one packet and the descriptor that may come with it.
pub(crate) fn receive_with_fd(
    socket: impl AsFd,
    packet: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut receive = || {
        rustix::io::retry_on_intr(|| {
            let mut parts = [io::IoSliceMut::new(packet)];
            rustix::net::recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        })
    };
    let received = match receive() {
        // The other side ended without reading all that we said. That is told
        // once, and before what it said itself, which waits behind it.
        Err(Errno::CONNRESET) => receive()?,
        other => other?,
    };
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((received.bytes, descriptor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_heard_even_if_ours_were_not() {
        let (runtime, init) = pair().unwrap();
        runtime.send(ToInit::Start).unwrap();
        init.failed(&Step::Cwd.says("x"));
        drop(init);
        assert!(matches!(runtime.receive().unwrap(), FromInit::Failed(_)));
        assert!(matches!(runtime.receive().unwrap(), FromInit::Gone));
    }

    #[test]
    fn a_message_crosses_and_the_end_is_seen() {
        let (runtime, init) = pair().unwrap();
        runtime.send(ToInit::Go).unwrap();
        init.expect(ToInit::Go).unwrap();
        init.failed(&Step::Cwd.says("x"));
        assert!(matches!(runtime.receive().unwrap(), FromInit::Failed(f) if f.step == Step::Cwd));
        drop(init);
        assert!(matches!(runtime.receive().unwrap(), FromInit::Gone));
    }
}
