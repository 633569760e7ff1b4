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
    /// Reads the section. Which modes need nodes, which refuse them, and which
    /// flags go together is as in `set_mempolicy(2)`.
    pub(super) fn parse(spec: &MemoryPolicy) -> Result<Policy, Error> {
        let mode = MODES.iter().position(|name| *name == spec.mode);
        let mode = mode.ok_or_else(|| {
            let reason = format!("{:?} is not a memory policy", spec.mode);
            invalid("linux.memoryPolicy.mode", &reason)
        })?;
        let nodes = nodes(&spec.nodes)?;
        let (without, either) = (["MPOL_DEFAULT", "MPOL_LOCAL"], ["MPOL_PREFERRED"]);
        let name = spec.mode.as_str();
        if without.contains(&name) && nodes.is_some() {
            let reason = format!("must be empty with {name}");
            return Err(invalid("linux.memoryPolicy.nodes", &reason));
        }
        if nodes.is_none() && !without.contains(&name) && !either.contains(&name) {
            let reason = format!("must name a node with {name}");
            return Err(invalid("linux.memoryPolicy.nodes", &reason));
        }
        Ok(Policy {
            mode: mode as i32 | flags(&spec.flags)?,
            nodes,
        })
    }

    /// Applies it to the calling process; its children and programs inherit it.
    pub(super) fn apply(&self) -> Result<(), Failure> {
        sched::set_mempolicy(self.mode, self.nodes.as_ref().map(|nodes| &nodes[..]))
            .map_err(Step::Attribute.on("linux.memoryPolicy"))
    }
}

fn nodes(text: &str) -> Result<Option<NodeMask>, Error> {
    let ids =
        id_list::parse(text).map_err(|reason| invalid("linux.memoryPolicy.nodes", &reason))?;
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
                &format!("{name:?} is not a flag of memory policies"),
            )
        })?;
        bits |= FIRST_FLAG << place;
    }
    let both = FIRST_FLAG << 1 | FIRST_FLAG << 2;
    if bits & both == both {
        let reason = "has MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES, which exclude each other";
        return Err(invalid("linux.memoryPolicy.flags", reason));
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(mode: &str, nodes: &str, flags: &[&str]) -> Result<Policy, Error> {
        Policy::parse(&MemoryPolicy {
            mode: mode.into(),
            nodes: nodes.into(),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        })
    }

    #[test]
    fn modes_flags_and_nodes_become_numbers() {
        let policy = parse("MPOL_INTERLEAVE", "2-3,1023", &["MPOL_F_STATIC_NODES"]).unwrap();
        assert_eq!(
            policy.mode,
            libc::MPOL_INTERLEAVE | libc::MPOL_F_STATIC_NODES
        );
        let nodes = policy.nodes.unwrap();
        assert_eq!(
            (nodes[0], nodes.last()),
            (0b1100, Some(&(1 << (WORD_BITS - 1))))
        );
        let policy = parse("MPOL_BIND", "0", &["MPOL_F_NUMA_BALANCING"]).unwrap();
        assert_eq!(policy.mode, libc::MPOL_BIND | libc::MPOL_F_NUMA_BALANCING);
        let policy = parse("MPOL_PREFERRED", "", &["MPOL_F_RELATIVE_NODES"]).unwrap();
        assert_eq!(
            policy.mode,
            libc::MPOL_PREFERRED | libc::MPOL_F_RELATIVE_NODES
        );
        assert_eq!(parse("MPOL_LOCAL", "", &[]).unwrap().nodes, None);
    }

    #[test]
    fn mistakes_name_their_field() {
        let both = ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"];
        for (mode, nodes, flags, field) in [
            ("", "", &[][..], "mode "),
            ("MPOL_BEST", "", &[], "mode "),
            ("MPOL_BIND", "", &[], "nodes "),
            ("MPOL_DEFAULT", "0", &[], "nodes "),
            ("MPOL_BIND", "0-x", &[], "nodes "),
            ("MPOL_BIND", "0", &["MPOL_F_X"], "flags[0] "),
            ("MPOL_BIND", "0", &both, "flags "),
        ] {
            let error = parse(mode, nodes, flags).unwrap_err().to_string();
            assert!(
                error.contains(&format!("linux.memoryPolicy.{field}")),
                "{error}"
            );
        }
    }
}
