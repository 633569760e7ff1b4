//! `linux.memoryPolicy` (`set_mempolicy(2)`).

use libc::c_ulong;

use super::id_list::{self, IDS_MAX};
use crate::error::Error;
use crate::init::{Failure, Step};
use crate::spec::{MemoryPolicy, invalid};
use crate::sys::sched;

/// The names of the modes, at the place of their numbers.
pub(crate) const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

/// The names of the flags.
pub(crate) const FLAGS: [&str; 3] = [
    "MPOL_F_NUMA_BALANCING",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_STATIC_NODES",
];

/// The bit of the first of [`FLAGS`]; the others follow.
const FIRST_FLAG: i32 = 1 << 13;
const RELATIVE: i32 = FIRST_FLAG << 1;
const STATIC: i32 = FIRST_FLAG << 2;

/// Bits of a word of the kernel's bitmaps.
const WORD_BITS: usize = c_ulong::BITS as usize;

/// A bit a node.
type NodeMask = [c_ulong; IDS_MAX / WORD_BITS];

/// A policy in the kernel's form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    mode: i32,
    nodes: Option<NodeMask>,
}

impl Policy {
    /// Reads the section; an empty one is none. Which modes need nodes, and
    /// which flags go together, is for the kernel to judge.
    pub(super) fn parse(spec: &MemoryPolicy) -> Result<Option<Policy>, Error> {
        if spec.mode.is_empty() && spec.nodes.is_empty() && spec.flags.is_empty() {
            return Ok(None);
        }
        let mode = MODES.iter().position(|name| *name == spec.mode);
        let mode = mode.ok_or_else(|| {
            let reason = format!("is an invalid memory policy mode: {:?}", spec.mode);
            invalid("linux.memoryPolicy.mode", &reason)
        })?;
        Ok(Some(Policy {
            mode: mode as i32 | flags(&spec.flags)?,
            nodes: nodes(&spec.nodes)?,
        }))
    }

    /// Applies it to the calling process; its children and programs inherit it.
    pub(super) fn apply(&self) -> Result<(), Failure> {
        let nodes = self.nodes.as_ref().map(|nodes| &nodes[..]);
        sched::set_mempolicy(self.mode, nodes).map_err(|error| {
            let mut failure = Step::Attribute.on("linux.memoryPolicy")(error);
            failure.reason = "set_mempolicy".into();
            match self.doubt().filter(|_| failure.errno == libc::EINVAL) {
                Some(doubt) => failure.hint(doubt),
                None => failure,
            }
        })
    }

    /// What the kernel refuses about the policy (`set_mempolicy(2)`, EINVAL).
    fn doubt(&self) -> Option<&'static str> {
        let flags = self.mode & (FIRST_FLAG | RELATIVE | STATIC);
        let mode = self.mode & !flags;
        let without_nodes = [libc::MPOL_DEFAULT, libc::MPOL_LOCAL].contains(&mode);
        if flags & (RELATIVE | STATIC) == RELATIVE | STATIC {
            Some("MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES exclude each other")
        } else if without_nodes && self.nodes.is_some() {
            Some("MPOL_DEFAULT and MPOL_LOCAL take no nodes")
        } else if !without_nodes && mode != libc::MPOL_PREFERRED && self.nodes.is_none() {
            Some("the mode needs nodes")
        } else if self.nodes.is_some() {
            Some(
                "none of the nodes may be used: see /sys/devices/system/node/online and the cpuset",
            )
        } else {
            None
        }
    }
}

fn nodes(text: &str) -> Result<Option<NodeMask>, Error> {
    let ids = id_list::parse(text).map_err(|reason| {
        let reason = format!("is an invalid memory policy node list: it {reason}");
        invalid("linux.memoryPolicy.nodes", &reason)
    })?;
    if ids.is_empty() {
        return Ok(None);
    }
    let mut mask: NodeMask = [0; IDS_MAX / WORD_BITS];
    ids.into_iter()
        .for_each(|id| mask[id / WORD_BITS] |= 1 << (id % WORD_BITS));
    Ok(Some(mask))
}

fn flags(names: &[String]) -> Result<i32, Error> {
    let mut bits = 0;
    for (index, name) in names.iter().enumerate() {
        let place = FLAGS.iter().position(|known| known == name);
        let place = place.ok_or_else(|| {
            let field = format!("linux.memoryPolicy.flags[{index}]");
            invalid(
                &field,
                &format!("is an invalid memory policy flag: {name:?}"),
            )
        })?;
        bits |= FIRST_FLAG << place;
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(mode: &str, nodes: &str, flags: &[&str]) -> Result<Option<Policy>, Error> {
        Policy::parse(&MemoryPolicy {
            mode: mode.into(),
            nodes: nodes.into(),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        })
    }

    #[test]
    fn modes_flags_and_nodes_become_numbers() {
        let policy = parse("MPOL_INTERLEAVE", "2-3,1023", &["MPOL_F_STATIC_NODES"])
            .unwrap()
            .unwrap();
        assert_eq!(
            policy.mode,
            libc::MPOL_INTERLEAVE | libc::MPOL_F_STATIC_NODES
        );
        let nodes = policy.nodes.unwrap();
        assert_eq!(
            (nodes[0], nodes.last()),
            (0b1100, Some(&(1 << (WORD_BITS - 1))))
        );
        let policy = parse("MPOL_BIND", "0", &["MPOL_F_NUMA_BALANCING"])
            .unwrap()
            .unwrap();
        assert_eq!(policy.mode, libc::MPOL_BIND | libc::MPOL_F_NUMA_BALANCING);
        let policy = parse("MPOL_PREFERRED", "", &["MPOL_F_RELATIVE_NODES"])
            .unwrap()
            .unwrap();
        assert_eq!(
            policy.mode,
            libc::MPOL_PREFERRED | libc::MPOL_F_RELATIVE_NODES
        );
        assert_eq!(parse("MPOL_LOCAL", "", &[]).unwrap().unwrap().nodes, None);
    }

    #[test]
    fn an_empty_section_is_none() {
        assert_eq!(parse("", "", &[]).unwrap(), None);
    }

    #[test]
    fn mistakes_name_their_field() {
        for (mode, nodes, flags, field) in [
            ("", "0-7", &[][..], "mode is an invalid memory policy mode"),
            (
                "INTERLEAVE",
                "",
                &[],
                "mode is an invalid memory policy mode",
            ),
            (
                "MPOL_BIND",
                "0-x",
                &[],
                "nodes is an invalid memory policy node",
            ),
            (
                "MPOL_BIND",
                "0-9876543210",
                &[],
                "nodes is an invalid memory policy node",
            ),
            (
                "MPOL_BIND",
                "0",
                &["MPOL_F_X"],
                "flags[0] is an invalid memory policy flag",
            ),
        ] {
            let error = parse(mode, nodes, flags).unwrap_err().to_string();
            assert!(
                error.contains(&format!("linux.memoryPolicy.{field}")),
                "{error}"
            );
        }
    }

    #[test]
    fn what_the_kernel_will_refuse_is_known() {
        let both = ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"];
        for (mode, nodes, flags, doubt) in [
            ("MPOL_BIND", "", &[][..], "needs nodes"),
            ("MPOL_DEFAULT", "0", &[], "take no nodes"),
            ("MPOL_BIND", "0", &both, "exclude each other"),
        ] {
            let policy = parse(mode, nodes, flags).unwrap().unwrap();
            assert!(policy.doubt().unwrap().contains(doubt), "{mode}");
        }
        let preferred = parse("MPOL_PREFERRED", "", &[]).unwrap().unwrap();
        assert_eq!(preferred.doubt(), None);
    }
}
