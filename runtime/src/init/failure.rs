//! What init says before it ends without becoming its program: values that
//! cross the socket, and become words only at their end.

use std::io;

use crate::error::{errno, locate};

/// Longest packet of a failure, in bytes: it must fit in the shared page.
const PACKET_BYTES: usize = 3072;

/// Longest object, reason, advice and pointer, in bytes. Two paths of PATH_MAX
/// would be cut, which loses nothing that a person reads.
const TEXT_BYTES_MAX: [usize; 4] = [1536, 896, 512, 112];

/// A failure of init: at which step, on what, and the kernel's word for why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What was attempted.
    pub step: Step,
    /// The error number; 0 where no system call failed.
    pub errno: i32,
    /// On what.
    pub object: String,
    /// What is wrong with it, where the kernel's word does not say it all.
    pub reason: String,
    /// What else is known that helps, or what to do.
    pub advice: String,
    /// Where in `config.json` it was asked for, as a JSON pointer; empty where
    /// the step itself says it.
    pub place: String,
}

impl std::error::Error for Failure {}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = self.step.words();
        f.write_str(words)?;
        let mut between = if words.is_empty() { "" } else { " " };
        let errno = self.errno_words();
        // The words of runc, which scripts search.
        let cwd = || format!("({}) set in config.json failed", self.object);
        let object = if self.step == Step::Cwd {
            cwd()
        } else {
            self.object.clone()
        };
        for part in [&object, &self.reason, &errno] {
            if !part.is_empty() {
                write!(f, "{between}{part}")?;
                between = ": ";
            }
        }
        match self.advice.as_str() {
            "" => Ok(()),
            advice => write!(f, " ({advice})"),
        }
    }
}

macro_rules! steps {
    ($($(#[doc = $doc:literal])* $name:ident = $words:literal $(@ $pointer:literal)?,)*) => {
        /// What init may be doing when it fails.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Step { $($(#[doc = $doc])* $name,)* }

        impl Step {
            const ALL: &[Step] = &[$(Step::$name,)*];

            /// The attempt, as the user reads it before its object.
            pub(crate) fn words(self) -> &'static str {
                match self { $(Step::$name => $words,)* }
            }

            /// Where in `config.json` this step is asked for, as a JSON pointer, if
            /// anywhere.
            fn pointer(self) -> &'static str {
                match self { $(Step::$name => concat!("", $($pointer)?),)* }
            }
        }
    };
}

steps! {
    /// Anything said by the text alone.
    Other = "",
    /// Finding the program to run.
    Program = "exec:" @ "/process/args/0",
    /// execve(2).
    Execve = "exec" @ "/process/args/0",
    /// Talking to the runtime.
    Talk = "talk to the runtime:",
    /// Becoming leader of a session.
    Session = "start a session",
    /// setns(2).
    Join = "join" @ "/linux/namespaces",
    /// A cgroup of version 1, by the process itself.
    Cgroup = "join cgroup" @ "/linux/cgroupsPath",
    /// unshare(2).
    Unshare = "unshare",
    /// Ids inside the user namespace.
    MapIds = "take the ids of" @ "/linux/uidMappings",
    /// Propagation of the root mount.
    Propagation = "set propagation of" @ "/linux/rootfsPropagation",
    /// The root file system itself.
    Rootfs = "prepare rootfs" @ "/root/path",
    /// A mount point that is not there.
    MountPoint = "create mount point" @ "/mounts",
    /// A mount.
    Mount = "error mounting" @ "/mounts",
    /// umount2(2).
    Unmount = "error unmounting",
    /// A device node.
    Device = "create device" @ "/linux/devices",
    /// A symbolic link of /dev.
    Symlink = "create symlink",
    /// An entry of maskedPaths.
    Mask = "mask path" @ "/linux/maskedPaths",
    /// An entry of readonlyPaths.
    Readonly = "make path read-only" @ "/linux/readonlyPaths",
    /// pivot_root(2) and what belongs to it.
    Pivot = "pivot_root into" @ "/root/path",
    /// A kernel parameter.
    Sysctl = "write sysctl" @ "/linux/sysctl",
    /// sethostname(2).
    Hostname = "set hostname" @ "/hostname",
    /// setdomainname(2).
    Domainname = "set domainname" @ "/domainname",
    /// A hook inside the container.
    Hook = "error running" @ "/hooks",
    /// The terminal.
    Terminal = "set up terminal:" @ "/process/terminal",
    /// The session keyring.
    Keyring = "join session keyring",
    /// A resource limit.
    Rlimit = "error setting rlimits for ready process:" @ "/process/rlimits",
    /// A capability set.
    Capabilities = "apply caps:" @ "/process/capabilities",
    /// Ids of the process.
    User = "set" @ "/process/user",
    /// A file under /proc/self.
    Label = "apply",
    /// Scheduling and the like.
    Attribute = "set",
    /// chdir(2).
    Cwd = "chdir to cwd" @ "/process/cwd",
    /// The seccomp filter.
    Seccomp = "load seccomp filter" @ "/linux/seccomp",
    /// Waiting for `start`.
    Gate = "wait for start on",
}

impl Step {
    /// A failure of this step: `.map_err(Step::Mount.on("proc"))`.
    pub(crate) fn on<E: Into<io::Error>>(
        self,
        object: impl Into<String>,
    ) -> impl FnOnce(E) -> Failure {
        move |error| {
            let error: io::Error = error.into();
            match error.raw_os_error() {
                Some(errno) => Failure {
                    errno,
                    ..self.refuses(object, "")
                },
                None => self.refuses(object, error.to_string()),
            }
        }
    }

    /// A failure that no system call reported, in words alone.
    pub(crate) fn says(self, reason: impl Into<String>) -> Failure {
        self.refuses("", reason)
    }

    /// A failure that no system call reported, on a named object.
    pub(crate) fn refuses(self, object: impl Into<String>, reason: impl Into<String>) -> Failure {
        Failure {
            step: self,
            errno: 0,
            object: object.into(),
            reason: reason.into(),
            advice: String::new(),
            place: String::new(),
        }
    }
}

impl Failure {
    /// Longest form of a failure, in bytes.
    pub(crate) const BYTES_MAX: usize = PACKET_BYTES;

    /// Says where in `config.json` the failed thing is asked for: the JSON
    /// pointer of a whole, before what is known of its part.
    #[must_use]
    pub(crate) fn at(mut self, place: &str) -> Failure {
        self.place.insert_str(0, place);
        self
    }

    /// Says what is wrong, beside the kernel's word.
    #[must_use]
    pub(crate) fn because(mut self, reason: impl Into<String>) -> Failure {
        self.reason = reason.into();
        self
    }

    /// Adds what may help.
    #[must_use]
    pub(crate) fn hint(mut self, advice: impl Into<String>) -> Failure {
        self.advice = advice.into();
        self
    }

    /// Where in `config.json` it was asked for, as a JSON pointer, if anywhere.
    pub(crate) fn pointer(&self) -> String {
        match (self.step, self.place.as_str()) {
            // Its objects are fields.
            (Step::Attribute, "") => locate::pointer_of(&self.object),
            (step, "") => step.pointer().into(),
            (_, place) => place.into(),
        }
    }

    fn errno_words(&self) -> String {
        match self.errno {
            0 => String::new(),
            errno => errno::words(errno),
        }
    }

    /// The bytes of the failure, for a packet or a shared page.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.step as u8];
        bytes.extend_from_slice(&self.errno.to_ne_bytes());
        let texts = [&self.object, &self.reason, &self.advice, &self.place];
        for (text, most) in texts.into_iter().zip(TEXT_BYTES_MAX) {
            let text = &text.as_bytes()[..text.len().min(most)];
            bytes.extend_from_slice(&(text.len() as u16).to_ne_bytes());
            bytes.extend_from_slice(text);
        }
        bytes
    }

    /// Reads what [`Failure::encode`] wrote; anything else gives `None`.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Failure> {
        let (&step, rest) = bytes.split_first()?;
        let (errno, mut rest) = rest.split_first_chunk::<4>()?;
        let mut text = || {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (text, after) = after.split_at_checked(u16::from_ne_bytes(*length).into())?;
            rest = after;
            Some(String::from_utf8_lossy(text).into_owned())
        };
        Some(Failure {
            step: *Step::ALL.get(usize::from(step))?,
            errno: i32::from_ne_bytes(*errno),
            object: text()?,
            reason: text()?,
            advice: text()?,
            place: text()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_wire() {
        let failure = Step::Mount.on("proc on \"/proc\"")(rustix::io::Errno::PERM)
            .at("/source")
            .at("/mounts/3")
            .hint("try again");
        assert_eq!(Failure::decode(&failure.encode()), Some(failure.clone()));
        assert_eq!(
            failure.to_string(),
            "error mounting proc on \"/proc\": operation not permitted (try again)"
        );
        assert_eq!(failure.pointer(), "/mounts/3/source");
    }

    #[test]
    fn the_longest_failure_fits() {
        let long = "x".repeat(5000);
        let failure = Step::Mount.refuses(&long, &long).at(&long).hint(&long);
        let bytes = failure.encode();
        assert!(bytes.len() <= Failure::BYTES_MAX, "{}", bytes.len());
        assert!(Failure::decode(&bytes).is_some());
    }

    #[test]
    fn garbage_is_not_a_failure() {
        assert_eq!(Failure::decode(&[]), None);
        assert_eq!(Failure::decode(&[255, 0, 0, 0, 0]), None);
        assert_eq!(Failure::decode(&[1, 0]), None);
        assert_eq!(Failure::decode(&[1, 0, 0, 0, 0, 255, 0]), None);
    }
}
