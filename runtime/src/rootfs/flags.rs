//! The flags of one mount, and what becomes of them on a new mount, on a bind
//! mount, and on a bind mount whose flags the kernel has locked.

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID,
    MS_NOSYMFOLLOW, MS_RDONLY, MS_RELATIME, MS_STRICTATIME,
};
use rustix::fs::StatVfsMountFlags;

use crate::sys::MountAttr;

/// Flags about access times that exclude each other.
const ATIME_CHOICE: u64 = MS_NOATIME | MS_RELATIME | MS_STRICTATIME;

/// All flags about access times.
const ATIME: u64 = ATIME_CHOICE | MS_NODIRATIME;

/// Flags that a mount namespace of another user namespace inherits and may
/// not take away (`mount_namespaces(7)`).
const LOCKABLE: u64 = MS_RDONLY | MS_NODEV | MS_NOEXEC | MS_NOSUID | ATIME;

/// Flags beside access times, with their attributes.
const PLAIN: [(u64, u64); 5] = [
    (MS_RDONLY, MOUNT_ATTR_RDONLY),
    (MS_NOSUID, MOUNT_ATTR_NOSUID),
    (MS_NODEV, MOUNT_ATTR_NODEV),
    (MS_NOEXEC, MOUNT_ATTR_NOEXEC),
    (MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW),
];

/// Flags of a mount, as `mount(2)` names them: its old form is what runc's
/// behaviour is defined by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// `MS_*` asked for.
    pub set: u64,
    /// `MS_*` refused by name (`rw`, `exec`, `atime`).
    pub cleared: u64,
}

/// Why flags cannot be had in this user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locked {
    /// These would have to be taken away.
    Clear(u64),
    /// Access times are these, and something else was asked for.
    Atime(u64),
}

impl Flags {
    /// A later word wins over an earlier one about the same flag.
    pub(crate) fn word(&mut self, flag: u64, sets: bool) {
        let (to, from) = if sets {
            (&mut self.set, &mut self.cleared)
        } else {
            (&mut self.cleared, &mut self.set)
        };
        *to |= flag;
        *from &= !flag;
    }

    /// Whether the mount is to be read-only.
    pub(crate) fn read_only(self) -> bool {
        self.set & MS_RDONLY != 0
    }

    /// The same without read-only: for a mount that is filled first.
    pub(crate) fn writable(self) -> Flags {
        Flags {
            set: self.set & !MS_RDONLY,
            ..self
        }
    }

    /// `MOUNT_ATTR_*` of a new mount, for `fsmount(2)`.
    pub(crate) fn attributes(self) -> u64 {
        plain(self.set) | access_times(self.set)
    }

    /// What a bind mount becomes: exactly what was asked for, whatever its
    /// source is; access times stay unless one of their flags was asked for.
    /// Nothing where no flag was named at all.
    pub(crate) fn exact(self) -> MountAttr {
        if self == Flags::default() {
            return MountAttr::default();
        }
        let mut all = PLAIN.iter().fold(0, |all, (_, attribute)| all | attribute);
        let mut set = plain(self.set);
        if self.set & ATIME != 0 {
            all |= MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME;
            set |= access_times(self.set);
        }
        MountAttr {
            set,
            clear: all & (!set | MOUNT_ATTR__ATIME),
            propagation: 0,
        }
    }

    /// The second attempt, where the kernel refused [`Flags::exact`]: the
    /// locked flags of the source stay, unless that is against the wish.
    pub(crate) fn beside_locked(self, source: StatVfsMountFlags) -> Result<MountAttr, Locked> {
        let source = flags_of(source);
        let refused = source & self.cleared & LOCKABLE;
        if refused != 0 {
            return Err(Locked::Clear(refused));
        }
        if self.set & ATIME != 0 && self.set & ATIME != source & ATIME {
            return Err(Locked::Atime(source & ATIME));
        }
        let kept = Flags {
            set: self.set & !ATIME | source & LOCKABLE & !ATIME,
            cleared: self.cleared,
        };
        Ok(kept.exact())
    }

    /// What changes on a mount that is there (`remount`): only what is named.
    pub(crate) fn change(self) -> MountAttr {
        let mut attr = MountAttr::default();
        for flag in (0..u64::BITS).map(|bit| 1 << bit) {
            if self.set & flag != 0 {
                attr.word(flag, true);
            }
            // A choice that is named outweighs another that is refused.
            let chosen = flag & ATIME_CHOICE != 0 && self.set & ATIME_CHOICE != 0;
            if self.cleared & flag != 0 && !chosen {
                attr.word(flag, false);
            }
        }
        attr
    }
}

impl MountAttr {
    /// Adds what one word says about a flag, for this mount and those below; a
    /// later word wins.
    pub(crate) fn word(&mut self, flag: u64, sets: bool) {
        let (set, clear) = match (flag & ATIME_CHOICE != 0, sets) {
            (true, true) => (access_times(flag), MOUNT_ATTR__ATIME),
            (true, false) => (0, MOUNT_ATTR__ATIME),
            (false, true) => (attribute(flag), 0),
            (false, false) => (0, attribute(flag)),
        };
        self.set = self.set & !clear | set;
        self.clear = self.clear & !(set & !MOUNT_ATTR__ATIME) | clear;
    }
}

impl std::fmt::Display for Locked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Locked::Clear(flags) => write!(f, "cannot clear locked flags {}", names(*flags)),
            Locked::Atime(flags) => {
                write!(f, "cannot change locked atime flags {}", names(*flags))
            }
        }
    }
}

/// Attributes of the flags that are not about the choice of access times.
fn plain(flags: u64) -> u64 {
    let named = PLAIN.iter().filter(|(flag, _)| flags & flag != 0);
    named.fold(0, |all, (_, attribute)| all | attribute)
}

fn attribute(flag: u64) -> u64 {
    plain(flag)
        | if flag & MS_NODIRATIME != 0 {
            MOUNT_ATTR_NODIRATIME
        } else {
            0
        }
}

/// Attributes of access times as `mount(2)` decides them: strictatime before
/// noatime before relatime, which is what remains.
fn access_times(flags: u64) -> u64 {
    let choice = if flags & MS_STRICTATIME != 0 {
        MOUNT_ATTR_STRICTATIME
    } else if flags & MS_NOATIME != 0 {
        MOUNT_ATTR_NOATIME
    } else {
        0
    };
    choice | attribute(flags & MS_NODIRATIME)
}

/// `MS_*` of a mount that is there. Strict access times are the absence of others.
fn flags_of(mount: StatVfsMountFlags) -> u64 {
    // statvfs(3) and mount(2) number these alike, but for relatime.
    let mut flags = mount.bits() & (LOCKABLE & !ATIME_CHOICE | MS_NOATIME);
    if mount.contains(StatVfsMountFlags::RELATIME) {
        flags |= MS_RELATIME;
    }
    if flags & ATIME_CHOICE == 0 {
        flags |= MS_STRICTATIME;
    }
    flags
}

fn names(flags: u64) -> String {
    const NAMES: [(u64, &str); 8] = [
        (MS_RDONLY, "ro"),
        (MS_NOSUID, "nosuid"),
        (MS_NODEV, "nodev"),
        (MS_NOEXEC, "noexec"),
        (MS_NOATIME, "noatime"),
        (MS_NODIRATIME, "nodiratime"),
        (MS_RELATIME, "relatime"),
        (MS_STRICTATIME, "strictatime"),
    ];
    let named = NAMES.iter().filter(|(flag, _)| flags & flag != 0);
    named.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: u64 = MOUNT_ATTR_RDONLY
        | MOUNT_ATTR_NOSUID
        | MOUNT_ATTR_NODEV
        | MOUNT_ATTR_NOEXEC
        | MOUNT_ATTR_NOSYMFOLLOW;

    fn flags(words: &[(u64, bool)]) -> Flags {
        let mut flags = Flags::default();
        words
            .iter()
            .for_each(|&(flag, sets)| flags.word(flag, sets));
        flags
    }

    #[test]
    fn a_bind_mount_without_words_keeps_everything() {
        assert_eq!(flags(&[]).exact(), MountAttr::default());
    }

    #[test]
    fn one_word_clears_all_others_but_access_times() {
        let attr = flags(&[(MS_NODEV, false)]).exact();
        assert_eq!((attr.set, attr.clear), (0, EVERY));
        let attr = flags(&[(MS_RDONLY, true)]).exact();
        assert_eq!(attr.set, MOUNT_ATTR_RDONLY);
        assert_eq!(attr.clear, EVERY & !MOUNT_ATTR_RDONLY);
    }

    #[test]
    fn an_access_time_word_decides_all_access_times() {
        let attr = flags(&[(MS_NODIRATIME, true)]).exact();
        assert_eq!(attr.set, MOUNT_ATTR_NODIRATIME);
        assert_eq!(attr.clear & MOUNT_ATTR__ATIME, MOUNT_ATTR__ATIME);
        let attr = flags(&[(MS_NOATIME, false)]).exact();
        assert_eq!(attr.clear & MOUNT_ATTR__ATIME, 0);
        let both = flags(&[(MS_NODIRATIME, true), (MS_STRICTATIME, true)]);
        let attr = both.exact();
        assert_eq!(attr.set, MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_STRICTATIME);
    }

    #[test]
    fn locked_flags_stay_unless_that_is_against_the_wish() {
        let source = StatVfsMountFlags::RDONLY | StatVfsMountFlags::RELATIME;
        let attr = flags(&[(MS_NOSUID, true)]).beside_locked(source).unwrap();
        assert_eq!(attr.set, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID);
        assert_eq!(attr.clear & (MOUNT_ATTR_RDONLY | MOUNT_ATTR__ATIME), 0);
        let refused = flags(&[(MS_RDONLY, false)]).beside_locked(source);
        assert_eq!(refused, Err(Locked::Clear(MS_RDONLY)));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "cannot clear locked flags ro"
        );
    }

    #[test]
    fn locked_access_times_can_only_be_asked_for_as_they_are() {
        let relatime = StatVfsMountFlags::RELATIME;
        let strict = flags(&[(MS_STRICTATIME, true)]);
        assert_eq!(
            strict.beside_locked(relatime),
            Err(Locked::Atime(MS_RELATIME))
        );
        assert!(strict.beside_locked(StatVfsMountFlags::empty()).is_ok());
        assert!(
            flags(&[(MS_RELATIME, true)])
                .beside_locked(relatime)
                .is_ok()
        );
    }

    #[test]
    fn a_remount_changes_what_it_names() {
        let attr = flags(&[(MS_RDONLY, false), (MS_NOATIME, true)]).change();
        assert_eq!(attr.set, MOUNT_ATTR_NOATIME);
        assert_eq!(attr.clear, MOUNT_ATTR_RDONLY | MOUNT_ATTR__ATIME);
    }
}
