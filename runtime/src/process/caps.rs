//! Capability sets (`capabilities(7)`).

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::init::{Failure, Step};
use crate::spec::Capabilities;

/// The names in the order of their numbers.
pub(crate) const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The five sets, a bit a capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    /// What execve may ever grant.
    pub bounding: u64,
    /// What is in force.
    pub effective: u64,
    /// What file capabilities may add to.
    pub inheritable: u64,
    /// What may become effective.
    pub permitted: u64,
    /// What survives execve without privileges.
    pub ambient: u64,
}

/// The bit of a name, with or without `CAP_`, in any case.
pub(crate) fn bit(name: &str) -> Option<u64> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES
        .iter()
        .position(|known| known[4..] == *name)
        .map(|index| 1 << index)
}

impl Sets {
    /// Reads names. Unknown ones are left out with a warning: a profile
    /// written for a newer kernel must not keep a container from starting.
    pub(crate) fn parse(spec: Option<&Capabilities>, warnings: &mut Vec<String>) -> Sets {
        let Some(spec) = spec else {
            return Sets::default();
        };
        let mut unknown: Vec<&str> = Vec::new();
        let mut read = |names: &'_ [String]| {
            let mut set = 0;
            for name in names {
                match bit(name) {
                    Some(bit) => set |= bit,
                    None => {
                        warnings.extend((!unknown.contains(&name.as_str())).then(|| name.clone()))
                    }
                }
            }
            set
        };
        let mut sets = Sets {
            bounding: read(&spec.bounding),
            effective: read(&spec.effective),
            inheritable: read(&spec.inheritable),
            permitted: read(&spec.permitted),
            ambient: read(&spec.ambient),
        };
        unknown.clear();
        warnings.sort_unstable();
        warnings.dedup();
        for name in warnings.iter_mut() {
            *name = format!("ignoring unknown or unavailable capabilities: [{name}]");
        }
        let possible = sets.ambient & sets.permitted & sets.inheritable;
        if possible != sets.ambient {
            let names: Vec<_> = names(sets.ambient & !possible).collect();
            warnings.push(format!(
                "can't raise ambient capability {}: it is not permitted and inheritable",
                names.join(" ")
            ));
            sets.ambient = possible;
        }
        sets
    }
}

/// The names of the bits of a set.
pub(crate) fn names(set: u64) -> impl Iterator<Item = &'static str> {
    NAMES
        .iter()
        .enumerate()
        .filter(move |(index, _)| set & (1 << index) != 0)
        .map(|(_, name)| *name)
}

/// Takes everything but `keep` out of the bounding set. Needs CAP_SETPCAP.
pub(crate) fn bound(keep: u64) -> Result<(), Failure> {
    for index in 0..u64::BITS {
        if keep & (1 << index) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(
            1 << index,
        )) {
            Ok(()) => (),
            // Past the last capability of this kernel.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(Step::Capabilities.on("drop from the bounding set")(errno)),
        }
    }
    Ok(())
}

/// Sets effective, permitted and inheritable at once. `capset(2)`; allocates nothing.
pub(crate) fn set(effective: u64, permitted: u64, inheritable: u64) -> rustix::io::Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(inheritable),
    };
    rustix::thread::set_capabilities(None, sets)
}

/// Raises the ambient set; its members must be permitted and inheritable.
pub(crate) fn raise_ambient(set: u64) -> Result<(), Failure> {
    for index in (0..u64::BITS).filter(|index| set & (1 << index) != 0) {
        let capability = CapabilitySet::from_bits_retain(1 << index);
        rustix::thread::configure_capability_in_ambient_set(capability, true)
            .map_err(Step::Capabilities.on("raise ambient"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_spelling() {
        assert_eq!(bit("CAP_CHOWN"), Some(1));
        assert_eq!(bit("sys_admin"), Some(1 << 21));
        assert_eq!(bit("CAP_CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(bit("CAP_NONSENSE"), None);
    }

    #[test]
    fn unknown_names_warn_once_and_are_left_out() {
        let list = vec!["CAP_KILL".to_owned(), "CAP_NONSENSE".to_owned()];
        let spec = Capabilities {
            bounding: list.clone(),
            permitted: list,
            ..Capabilities::default()
        };
        let mut warnings = Vec::new();
        let sets = Sets::parse(Some(&spec), &mut warnings);
        assert_eq!(sets.permitted, 1 << 5);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn ambient_needs_the_other_two() {
        let one = vec!["CAP_KILL".to_owned()];
        let spec = Capabilities {
            ambient: one.clone(),
            permitted: one,
            ..Capabilities::default()
        };
        let mut warnings = Vec::new();
        assert_eq!(Sets::parse(Some(&spec), &mut warnings).ambient, 0);
        assert!(warnings[0].contains("CAP_KILL"));
    }

    #[test]
    fn no_section_means_no_capability() {
        assert_eq!(Sets::parse(None, &mut Vec::new()), Sets::default());
    }
}
