//! What the runtime and init say to each other.
//!
//! ```text
//!  runtime                     init
//!     --> Go                       named in the state, id maps written
//!     <-- Unshared                 only with time offsets: /proc/PID/timens_offsets waits
//!     --> Offset
//!     <-- Mounted                  only with hooks: the old root is still visible
//!     --> Hooked
//!     <-- Terminal + descriptor    only in the foreground with a terminal
//!     <-- Ready                    nothing left but the start
//!     --> Start                    only `run` and `exec`; after `create` the gate says it
//!     <-- Failed                   instead of any of these
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

/// Longest text of a failure, in bytes: two paths of PATH_MAX would be cut,
/// which loses nothing that a person reads.
const DETAIL_BYTES_MAX: usize = 3072;

/// Longest packet: tag, step, errno, text.
const PACKET_BYTES_MAX: usize = DETAIL_BYTES_MAX + 16;

/// A failure of init: at which step, on what, and the kernel's word for why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What was attempted.
    pub step: Step,
    /// The error number; 0 where the text says it all.
    pub errno: i32,
    /// On what.
    pub detail: String,
}

impl std::error::Error for Failure {}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = self.step.words();
        f.write_str(words)?;
        if !words.is_empty() && !self.detail.is_empty() {
            f.write_str(" ")?;
        }
        f.write_str(&self.detail)?;
        match self.errno {
            0 => Ok(()),
            // The words of runc, which orchestrators search for.
            libc::ENOENT => f.write_str(": no such file or directory"),
            libc::EACCES => f.write_str(": permission denied"),
            libc::EPERM => f.write_str(": operation not permitted"),
            errno => write!(f, ": {}", io::Error::from_raw_os_error(errno)),
        }
    }
}

macro_rules! steps {
    ($($(#[doc = $doc:literal])* $name:ident = $words:literal,)*) => {
        /// What init may be doing when it fails.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Step { $($(#[doc = $doc])* $name,)* }

        impl Step {
            const ALL: &[Step] = &[$(Step::$name,)*];

            /// The attempt, as the user reads it before its object.
            fn words(self) -> &'static str {
                match self { $(Step::$name => $words,)* }
            }
        }
    };
}

steps! {
    /// Anything said by the text alone.
    Other = "",
    /// The program to run.
    Program = "exec:",
    /// Talking to the runtime.
    Talk = "talk to the runtime:",
    /// Becoming leader of a session.
    Session = "start a session",
    /// setns(2).
    Join = "join",
    /// A cgroup of version 1, by the process itself.
    Cgroup = "join cgroup",
    /// unshare(2).
    Unshare = "unshare",
    /// Ids inside the user namespace.
    MapIds = "take the ids of",
    /// Propagation of the root mount.
    Propagation = "set propagation of",
    /// The root file system itself.
    Rootfs = "prepare rootfs",
    /// A mount point that is not there.
    MountPoint = "create mount point",
    /// A mount.
    Mount = "mount",
    /// A device node.
    Device = "create device",
    /// A symbolic link of /dev.
    Symlink = "create symlink",
    /// An entry of maskedPaths.
    Mask = "mask path",
    /// An entry of readonlyPaths.
    Readonly = "make path read-only",
    /// pivot_root(2) and what belongs to it.
    Pivot = "pivot_root into",
    /// A kernel parameter.
    Sysctl = "write sysctl",
    /// sethostname(2).
    Hostname = "set hostname",
    /// setdomainname(2).
    Domainname = "set domainname",
    /// A hook inside the container.
    Hook = "error running",
    /// The terminal.
    Terminal = "set up terminal:",
    /// The session keyring.
    Keyring = "join session keyring",
    /// A resource limit.
    Rlimit = "error setting rlimits for ready process:",
    /// A capability set.
    Capabilities = "apply caps:",
    /// Ids of the process.
    User = "set",
    /// A file under /proc/self.
    Label = "apply",
    /// Scheduling and the like.
    Attribute = "set",
    /// chdir(2).
    Cwd = "chdir to cwd",
    /// The seccomp filter.
    Seccomp = "load seccomp filter",
    /// Waiting for `start`.
    Gate = "wait for start on",
}

impl Step {
    /// A failure of this step: `.map_err(Step::Mount.on("proc"))`.
    pub(crate) fn on<E: Into<io::Error>>(
        self,
        detail: impl Into<String>,
    ) -> impl FnOnce(E) -> Failure {
        move |error| {
            let error: io::Error = error.into();
            match error.raw_os_error() {
                Some(errno) => Failure {
                    step: self,
                    errno,
                    detail: detail.into(),
                },
                None => self.says(format!("{}: {error}", detail.into())),
            }
        }
    }

    /// A failure that no system call reported.
    pub(crate) fn says(self, detail: impl Into<String>) -> Failure {
        Failure {
            step: self,
            errno: 0,
            detail: detail.into(),
        }
    }
}

impl Failure {
    /// The bytes of the failure, for a packet or a shared page.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut detail = self.detail.as_bytes();
        detail = &detail[..detail.len().min(DETAIL_BYTES_MAX)];
        let mut bytes = vec![self.step as u8];
        bytes.extend_from_slice(&self.errno.to_ne_bytes());
        bytes.extend_from_slice(detail);
        bytes
    }

    /// Reads what [`Failure::encode`] wrote; anything else gives `None`.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Failure> {
        let (&step, rest) = bytes.split_first()?;
        let (errno, detail) = rest.split_first_chunk::<4>()?;
        Some(Failure {
            step: *Step::ALL.get(usize::from(step))?,
            errno: i32::from_ne_bytes(*errno),
            detail: String::from_utf8_lossy(detail).into_owned(),
        })
    }
}

/// What init says.
#[derive(Debug)]
pub(crate) enum FromInit {
    /// In its new time namespace, whose offsets may be written now.
    Unshared,
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

    /// Waits for the next message.
    pub(crate) fn receive(&self) -> io::Result<FromInit> {
        let mut packet = [0u8; PACKET_BYTES_MAX];
        let (length, descriptor) = receive_with_fd(&self.0, &mut packet)?;
        let malformed =
            || io::Error::new(io::ErrorKind::InvalidData, "malformed message from init");
        let Some((&tag, body)) = packet[..length].split_first() else {
            return Ok(FromInit::Gone);
        };
        match tag {
            UNSHARED => Ok(FromInit::Unshared),
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
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [io::IoSliceMut::new(packet)];
        rustix::net::recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        Err(Errno::CONNRESET) => return Ok((0, None)),
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
    fn a_failure_survives_the_wire() {
        let failure = Failure {
            step: Step::Mount,
            errno: libc::EPERM,
            detail: "proc on \"/proc\"".into(),
        };
        assert_eq!(Failure::decode(&failure.encode()), Some(failure.clone()));
        assert_eq!(
            failure.to_string(),
            "mount proc on \"/proc\": operation not permitted"
        );
    }

    #[test]
    fn garbage_is_not_a_failure() {
        assert_eq!(Failure::decode(&[]), None);
        assert_eq!(Failure::decode(&[255, 0, 0, 0, 0]), None);
        assert_eq!(Failure::decode(&[1, 0]), None);
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
