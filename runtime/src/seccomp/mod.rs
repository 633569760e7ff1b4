//! A seccomp profile compiled to one BPF program.
//!
//! Per ABI, calls with one result merge into ranges of numbers, found by binary
//! search; conditions on arguments follow at the leaves. The kernel runs the
//! program for every system call of the container, so its path should be short:
//! for docker's default profile about ten instructions.
//!
//! ```text
//! ld arch ── host's own ──> ld nr ── x32 bit ──> tree of x32
//!   │                         └────────────────> tree of x86_64
//!   ├─────── compat ──────> ld nr ─────────────> tree of x86
//!   └─────── any other ───> kill
//! ```
//!
//! In a tree, numbers above the highest one that the profile names give ENOSYS
//! when the profile denies by default: its author could not know them, and
//! programs fall back to older calls on ENOSYS, not on EPERM.

mod abis;
mod assembler;
mod conditions;
mod names;
mod rules;

use libc::sock_filter;

use abis::{Abi, HOST, Machine};
use assembler::{Assembler, Jump, Label};
use conditions::{Layout, condition};
use names::X32_BIT;
use rules::{Conditions, Rule, Rules};

use crate::spec::seccomp::{Action, Arch, Flag, Seccomp};

/// Most instructions of a filter (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;
/// Offsets in `seccomp_data` (seccomp(2)).
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// A compiled profile.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The filter, for `SECCOMP_SET_MODE_FILTER`.
    pub(crate) filter: Vec<sock_filter>,
    /// The flags asked for, `SECCOMP_FILTER_FLAG_*`. TSYNC is not among them,
    /// the runtime has one thread; nor is `NEW_LISTENER`, see `notifies`.
    pub(crate) flags: u32,
    /// Whether an agent decides on some calls, so that a listener is needed.
    pub(crate) notifies: bool,
}

/// Why a profile cannot be compiled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error("seccomp: argument index {index} is not in 0 to 5")]
    ArgumentIndex { index: u32 },
    #[error("seccomp: errnoRet {value} is not in 0 to 65535")]
    ErrnoRet { value: u32 },
    #[error("seccomp: more than 65536 rules")]
    TooManyRules,
    #[error(
        "seccomp: the profile compiles to {count} instructions, the kernel takes {INSTRUCTIONS_MAX}"
    )]
    TooLong { count: usize },
    #[error("seccomp: SCMP_ACT_NOTIFY cannot be used as default action")]
    NotifyDefault,
    #[error(
        "seccomp: SCMP_ACT_NOTIFY cannot be used for the write syscall: the runtime could not report"
    )]
    NotifyWrite,
    #[error("seccomp: rules without defaultAction")]
    NoDefaultAction,
    #[error("seccomp: SCMP_ACT_NOTIFY needs listenerPath")]
    NoListenerPath,
}

/// Compiles the profile for this host. `None`: it is empty, seccomp is off.
///
/// The host's own ABI is always part of the program. Architectures that the
/// host cannot run need no part; a call of an ABI that is not part kills.
pub(crate) fn compile(profile: &Seccomp) -> Result<Option<Program>, Error> {
    compile_for(profile, &HOST)
}

fn compile_for(profile: &Seccomp, host: &Machine) -> Result<Option<Program>, Error> {
    let Some(default_action) = profile.default_action else {
        return if profile.syscalls.is_empty() {
            Ok(None)
        } else {
            Err(Error::NoDefaultAction)
        };
    };
    if default_action == Action::Notify {
        return Err(Error::NotifyDefault);
    }
    let notifies = profile
        .syscalls
        .iter()
        .any(|rule| rule.action == Action::Notify);
    if notifies && profile.listener_path.as_deref().is_none_or(str::is_empty) {
        return Err(Error::NoListenerPath);
    }
    let [own, others @ ..] = host.abis else {
        unreachable!("a machine has an ABI of its own");
    };
    let rules = Rules::new(
        profile,
        result_of(default_action, profile.default_errno_ret)?,
        host.table,
    )?;
    // A tracer or a log is there to see new calls; ENOSYS would hide them.
    let unknown = match default_action {
        Action::Allow | Action::Log | Action::Trace => None,
        _ => Some(RET_ERRNO | libc::ENOSYS.cast_unsigned()),
    };
    let mut out = Assembler::new();
    let kill = out.result(RET_KILL_PROCESS);
    let (mut next, mut x32) = (kill, None);
    for abi in others
        .iter()
        .filter(|abi| profile.architectures.contains(&abi.arch))
    {
        let entry = tree(&mut out, &rules, abi, unknown);
        if abi.arch == Arch::X32 {
            x32 = Some(entry);
        } else {
            let entry = out.load(NUMBER_AT, entry);
            next = out.branch(Jump::Eq, abi.audit, entry, next);
        }
    }
    let mut entry = tree(&mut out, &rules, own, unknown);
    if own.arch == Arch::X86_64 {
        let other = x32.unwrap_or_else(|| out.result(RET_KILL_PROCESS));
        entry = out.branch(Jump::Ge, X32_BIT, other, entry);
    }
    entry = out.load(NUMBER_AT, entry);
    entry = out.branch(Jump::Eq, own.audit, entry, next);
    out.load(ARCH_AT, entry);
    let filter = out.finish();
    match filter.len() {
        count if count > INSTRUCTIONS_MAX => Err(Error::TooLong { count }),
        _ => Ok(Some(Program {
            filter,
            flags: flags(profile, notifies),
            notifies,
        })),
    }
}

/// The result of all numbers from `first` to the next one's first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range<'a> {
    first: u32,
    outcome: Outcome<'a>,
}

/// What a call comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome<'a> {
    /// The same, whatever the arguments.
    Result(u32),
    /// That of the first rule that holds, else the default.
    FirstOf(&'a [Rule]),
}

/// Writes the search for one ABI: the accumulator holds the number of the call.
fn tree(out: &mut Assembler, rules: &Rules<'_>, abi: &Abi, unknown: Option<u32>) -> Label {
    let (sorted, highest) = rules.of(abi);
    let ranges = ranges(&sorted, rules.default, highest.zip(unknown));
    search(out, &ranges, &|out, named| {
        first_of(out, rules, named, abi.layout)
    })
}

/// Merges neighbours of one result. `above` is the highest number known and
/// what comes above it.
fn ranges(sorted: &[Rule], default: u32, above: Option<(u32, u32)>) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = Vec::with_capacity(128);
    let mut push = |first, outcome| {
        if ranges.last().is_none_or(|last| last.outcome != outcome) {
            ranges.push(Range { first, outcome });
        }
    };
    let mut free = 0;
    for named in sorted.chunk_by(|a, b| a.number == b.number) {
        let number = named[0].number;
        if number > free {
            push(free, Outcome::Result(default));
        }
        // One rule without conditions says it for the call, wherever it stands: as libseccomp has it.
        let constant = named
            .iter()
            .find(|rule| rule.conditions == Conditions::None);
        push(
            number,
            constant.map_or(Outcome::FirstOf(named), |rule| Outcome::Result(rule.result)),
        );
        free = number + 1;
    }
    match above {
        Some((highest, unknown)) => {
            if free <= highest {
                push(free, Outcome::Result(default));
            }
            push(highest + 1, Outcome::Result(unknown));
        }
        None => push(free, Outcome::Result(default)),
    }
    ranges
}

fn search(
    out: &mut Assembler,
    ranges: &[Range<'_>],
    leaf: &dyn Fn(&mut Assembler, &[Rule]) -> Label,
) -> Label {
    if let [range] = ranges {
        return match range.outcome {
            Outcome::Result(result) => out.result(result),
            Outcome::FirstOf(named) => leaf(out, named),
        };
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    // A single result comes last: it is shared with others as long as it is near.
    let (below, above) = if low.len() == 1 {
        let above = search(out, high, leaf);
        (search(out, low, leaf), above)
    } else {
        let below = search(out, low, leaf);
        (below, search(out, high, leaf))
    };
    out.branch(Jump::Ge, high[0].first, above, below)
}

/// Writes the rules of one call, in order: the first that holds decides.
fn first_of(out: &mut Assembler, rules: &Rules<'_>, named: &[Rule], layout: Layout) -> Label {
    let mut otherwise = out.result(rules.default);
    for rule in named.iter().rev() {
        let mut entry = out.result(rule.result);
        for arg in rules.conditions(&rule.conditions).iter().rev() {
            entry = condition(out, arg, layout, entry, otherwise);
        }
        otherwise = entry;
    }
    otherwise
}

/// The result that the filter returns for an action. An errno where the action
/// has none is ignored, as runc does.
fn result_of(action: Action, errno: Option<u32>) -> Result<u32, Error> {
    let data = || {
        let value = errno.unwrap_or(libc::EPERM.cast_unsigned());
        if value > 0xffff {
            Err(Error::ErrnoRet { value })
        } else {
            Ok(value)
        }
    };
    Ok(match action {
        Action::Kill | Action::KillThread => RET_KILL_THREAD,
        Action::KillProcess => RET_KILL_PROCESS,
        Action::Trap => RET_TRAP,
        Action::Errno => RET_ERRNO | data()?,
        Action::Trace => RET_TRACE | data()?,
        Action::Log => RET_LOG,
        Action::Allow => RET_ALLOW,
        Action::Notify => RET_NOTIFY,
    })
}

/// The flags of seccomp(2). Without a word about flags the mitigation of
/// speculative store bypass, which costs all programs for the few that run
/// foreign code, is left off, as runc has it; an empty list means none.
fn flags(profile: &Seccomp, notifies: bool) -> u32 {
    let bit = |flag: &Flag| match flag {
        Flag::Tsync => 0,
        Flag::Log => 1 << 1,
        Flag::SpecAllow => 1 << 2,
        // The kernel refuses it where there is no listener.
        Flag::WaitKillableRecv => u32::from(notifies) << 5,
    };
    profile.flags.as_ref().map_or(1 << 2, |flags| {
        flags.iter().map(bit).fold(0, |all, bit| all | bit)
    })
}

#[cfg(test)]
mod tests;
