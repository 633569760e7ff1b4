//! Conditions on arguments as instructions.

use super::assembler::{Assembler, Jump, Label};
use crate::spec::seccomp::{Arg, Operator};

/// Where the arguments start in `seccomp_data`, in bytes.
const ARGUMENTS: u32 = 16;

/// How much of an argument a system call of an ABI sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// All 64 bits.
    Long,
    /// The lower 32 bits: on a 32-bit ABI the rest is not the program's to set,
    /// or (x32) not the kernel's to read.
    Int,
}

/// Which half of an argument comes first in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endian {
    /// The low one.
    Little,
    /// The high one.
    Big,
}

/// How the arguments of an ABI lie in `seccomp_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) width: Width,
    pub(super) endian: Endian,
}

/// Writes "go to `yes` if the condition holds, else to `no`".
pub(super) fn condition(
    out: &mut Assembler,
    arg: &Arg,
    layout: Layout,
    yes: Label,
    no: Label,
) -> Label {
    let offsets = layout.endian.offsets(arg.index);
    match layout.width {
        Width::Long => long(out, arg, offsets, yes, no),
        Width::Int => int(out, arg, offsets, yes, no),
    }
}

fn long(out: &mut Assembler, arg: &Arg, at: Offsets, yes: Label, no: Label) -> Label {
    let (high, low) = halves(arg.value);
    match arg.op {
        Operator::Eq => equal(out, at, u64::MAX, arg.value, yes, no),
        Operator::Ne => equal(out, at, u64::MAX, arg.value, no, yes),
        Operator::MaskedEq => equal(out, at, arg.value, arg.value_two, yes, no),
        Operator::Gt | Operator::Ge | Operator::Lt | Operator::Le => {
            // Lt is the opposite of Ge, Le that of Gt: one comparison serves two.
            let (jump, greater, not) = ordered(arg.op, yes, no);
            let lower = out.branch(jump, low, greater, not);
            let lower = out.load(at.low, lower);
            let same = out.branch(Jump::Eq, high, lower, not);
            let higher = out.branch(Jump::Gt, high, greater, same);
            out.load(at.high, higher)
        }
    }
}

fn int(out: &mut Assembler, arg: &Arg, at: Offsets, yes: Label, no: Label) -> Label {
    let low_half = u64::from(u32::MAX);
    match arg.op {
        Operator::Eq => equal(out, at, low_half, arg.value & low_half, yes, no),
        Operator::Ne => equal(out, at, low_half, arg.value & low_half, no, yes),
        Operator::MaskedEq => equal(
            out,
            at,
            arg.value & low_half,
            arg.value_two & low_half,
            yes,
            no,
        ),
        Operator::Gt | Operator::Ge | Operator::Lt | Operator::Le => {
            let (jump, greater, not) = ordered(arg.op, yes, no);
            match u32::try_from(arg.value) {
                Ok(value) => {
                    let test = out.branch(jump, value, greater, not);
                    out.load(at.low, test)
                }
                // No 32-bit argument is that large.
                Err(_) => not,
            }
        }
    }
}

fn ordered(op: Operator, yes: Label, no: Label) -> (Jump, Label, Label) {
    match op {
        Operator::Ge => (Jump::Ge, yes, no),
        Operator::Lt => (Jump::Ge, no, yes),
        Operator::Le => (Jump::Gt, no, yes),
        _ => (Jump::Gt, yes, no),
    }
}

/// `argument & mask == value`, each half where its mask is not empty.
fn equal(out: &mut Assembler, at: Offsets, mask: u64, value: u64, yes: Label, no: Label) -> Label {
    if value & !mask != 0 {
        return no;
    }
    let (high_mask, low_mask) = halves(mask);
    let (high, low) = halves(value);
    let mut entry = yes;
    for (mask, value, offset) in [(low_mask, low, at.low), (high_mask, high, at.high)] {
        if mask == 0 {
            continue;
        }
        entry = out.branch(Jump::Eq, value, entry, no);
        if mask != u32::MAX {
            entry = out.and(mask, entry);
        }
        entry = out.load(offset, entry);
    }
    entry
}

fn halves(value: u64) -> (u32, u32) {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the halves are what is wanted"
    )]
    ((value >> 32) as u32, value as u32)
}

/// Where the halves of an argument are in `seccomp_data`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offsets {
    high: u32,
    low: u32,
}

impl Endian {
    fn offsets(self, index: u32) -> Offsets {
        let at = ARGUMENTS + 8 * index;
        let (high, low) = match self {
            Self::Little => (at + 4, at),
            Self::Big => (at, at + 4),
        };
        Offsets { high, low }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_lie_as_the_machine_orders_them() {
        let offsets = |endian: Endian| [0, 5].map(|index| endian.offsets(index));
        let at = |high, low| Offsets { high, low };
        assert_eq!(offsets(Endian::Little), [at(20, 16), at(60, 56)]);
        assert_eq!(offsets(Endian::Big), [at(16, 20), at(56, 60)]);
    }
}
