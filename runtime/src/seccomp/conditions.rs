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

/// Writes "go to `yes` if the condition holds, else to `no`".
pub(super) fn condition(
    out: &mut Assembler,
    arg: &Arg,
    width: Width,
    yes: Label,
    no: Label,
) -> Label {
    match width {
        Width::Long => long(out, arg, yes, no),
        Width::Int => int(out, arg, yes, no),
    }
}

fn long(out: &mut Assembler, arg: &Arg, yes: Label, no: Label) -> Label {
    let (high, low) = halves(arg.value);
    let (high_at, low_at) = offsets(arg.index);
    match arg.op {
        Operator::Eq => equal(out, arg.index, u64::MAX, arg.value, yes, no),
        Operator::Ne => equal(out, arg.index, u64::MAX, arg.value, no, yes),
        Operator::MaskedEq => equal(out, arg.index, arg.value, arg.value_two, yes, no),
        Operator::Gt | Operator::Ge | Operator::Lt | Operator::Le => {
            // Lt is the opposite of Ge, Le that of Gt: one comparison serves two.
            let (jump, greater, not) = ordered(arg.op, yes, no);
            let lower = out.branch(jump, low, greater, not);
            let lower = out.load(low_at, lower);
            let same = out.branch(Jump::Eq, high, lower, not);
            let higher = out.branch(Jump::Gt, high, greater, same);
            out.load(high_at, higher)
        }
    }
}

fn int(out: &mut Assembler, arg: &Arg, yes: Label, no: Label) -> Label {
    let low_half = u64::from(u32::MAX);
    match arg.op {
        Operator::Eq => equal(out, arg.index, low_half, arg.value & low_half, yes, no),
        Operator::Ne => equal(out, arg.index, low_half, arg.value & low_half, no, yes),
        Operator::MaskedEq => equal(
            out,
            arg.index,
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
                    out.load(offsets(arg.index).1, test)
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
fn equal(out: &mut Assembler, index: u32, mask: u64, value: u64, yes: Label, no: Label) -> Label {
    if value & !mask != 0 {
        return no;
    }
    let (high_mask, low_mask) = halves(mask);
    let (high, low) = halves(value);
    let (high_at, low_at) = offsets(index);
    let mut entry = yes;
    for (mask, value, offset) in [(low_mask, low, low_at), (high_mask, high, high_at)] {
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

/// Where the high and the low half of an argument are.
fn offsets(index: u32) -> (u32, u32) {
    let at = ARGUMENTS + 8 * index;
    if cfg!(target_endian = "little") {
        (at + 4, at)
    } else {
        (at, at + 4)
    }
}
