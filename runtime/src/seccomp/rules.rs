//! The rules of a profile, ordered by the numbers of one ABI.

use super::abis::Abi;
use super::names::{Numbers, Table, X32_BIT};
use super::{Error, result_of};
use crate::spec::seccomp::{Action, Arg, Operator, Seccomp};

/// A call for many: its name, the mask of its first argument, its functions by name.
type Multiplexer = (&'static str, u64, &'static [(&'static str, u64)]);

/// `socketcall` and `ipc`: one call for many, told apart by the first argument
/// (`linux/net.h`, `linux/ipc.h`). A rule for `socket` that did not see
/// `socketcall` could be walked around on a 32-bit ABI.
const MULTIPLEXED: [Multiplexer; 2] = [
    (
        "socketcall",
        u32::MAX as u64,
        &[
            ("accept", 5),
            ("accept4", 18),
            ("bind", 2),
            ("connect", 3),
            ("getpeername", 7),
            ("getsockname", 6),
            ("getsockopt", 15),
            ("listen", 4),
            ("recv", 10),
            ("recvfrom", 12),
            ("recvmmsg", 19),
            ("recvmsg", 17),
            ("send", 9),
            ("sendmmsg", 20),
            ("sendmsg", 16),
            ("sendto", 11),
            ("setsockopt", 14),
            ("shutdown", 13),
            ("socket", 1),
            ("socketpair", 8),
        ],
    ),
    (
        "ipc",
        // The upper half is a version that the kernel strips.
        0xffff,
        &[
            ("msgctl", 14),
            ("msgget", 13),
            ("msgrcv", 12),
            ("msgsnd", 11),
            ("semctl", 3),
            ("semget", 2),
            ("semop", 1),
            ("semtimedop", 4),
            ("shmat", 21),
            ("shmctl", 24),
            ("shmdt", 22),
            ("shmget", 23),
        ],
    ),
];

/// One rule for one number: all conditions hold, then the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) number: u32,
    pub(super) conditions: Conditions,
    pub(super) result: u32,
}

/// When a rule applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conditions {
    /// Always.
    None,
    /// When all of these of the profile hold: indices into its rules and their
    /// arguments; without the second, all arguments of the rule.
    Of(u16, Option<u8>),
    /// When the multiplexing call has this function in its first argument.
    Function { mask: u64, function: u64 },
}

/// The rules of a profile for every ABI.
pub(super) struct Rules<'a> {
    profile: &'a Seccomp,
    calls: Vec<Call>,
    /// What happens to a call without rule.
    pub(super) default: u32,
}

/// A name of a rule of the profile that the table knows.
struct Call {
    rule: u16,
    result: u32,
    numbers: Numbers,
    /// The call that multiplexes it, its mask and function number.
    within: Option<(Numbers, u64, u64)>,
}

impl<'a> Rules<'a> {
    /// Looks all names up. A name the table does not know is skipped, as runc does.
    pub(super) fn new(profile: &'a Seccomp, default: u32, table: &Table) -> Result<Self, Error> {
        let mut calls = Vec::with_capacity(512);
        let multiplexers =
            MULTIPLEXED.map(|(name, mask, functions)| (table.numbers(name), mask, functions));
        for (index, rule) in profile.syscalls.iter().enumerate() {
            if let Some(arg) = rule.args.iter().find(|arg| arg.index > 5) {
                return Err(Error::ArgumentIndex { index: arg.index });
            }
            let result = result_of(rule.action, rule.errno_ret)?;
            if rule.action == Action::Notify && rule.names.iter().any(|name| name == "write") {
                return Err(Error::NotifyWrite);
            }
            let rule_number = u16::try_from(index).map_err(|_| Error::TooManyRules)?;
            for name in &rule.names {
                let Some(numbers) = table.numbers(name) else {
                    continue;
                };
                let within = multiplexers.iter().find_map(|(outer, mask, functions)| {
                    let at = functions
                        .binary_search_by(|(function, _)| (*function).cmp(name))
                        .ok()?;
                    Some(((*outer)?, *mask, functions[at].1))
                });
                calls.push(Call {
                    rule: rule_number,
                    result,
                    numbers,
                    within,
                });
            }
        }
        Ok(Self {
            profile,
            calls,
            default,
        })
    }

    /// The rules of one ABI, by number, without those that say what happens anyway, those of one number in the profile's
    /// order; and the highest number that the profile names.
    pub(super) fn of(&self, abi: &Abi) -> (Vec<Rule>, Option<u32>) {
        let mut rules = Vec::with_capacity(self.calls.len() + 16);
        let mut highest = None;
        for call in &self.calls {
            if let Some(number) = call.numbers.on(abi) {
                highest = highest.max(Some(number));
                if call.result != self.default {
                    self.add(&mut rules, number, call);
                }
            }
            if let Some((outer, mask, function)) = call.within
                && let Some(number) = outer.on(abi).filter(|number| number & X32_BIT == 0)
                && call.result != self.default
                && self.holds_without_arguments(call)
            {
                rules.push(Rule {
                    number,
                    conditions: Conditions::Function { mask, function },
                    result: call.result,
                });
            }
        }
        rules.sort_by_key(|rule| rule.number);
        (rules, highest)
    }

    fn add(&self, rules: &mut Vec<Rule>, number: u32, call: &Call) {
        let args = &self.profile.syscalls[usize::from(call.rule)].args;
        let mut push = |conditions| {
            rules.push(Rule {
                number,
                conditions,
                result: call.result,
            })
        };
        if args.is_empty() {
            push(Conditions::None);
        } else if names_an_argument_twice(args) {
            // Two conditions on one argument are alternatives, and then all are: as runc reads them.
            for at in (0u8..).take(args.len()) {
                push(Conditions::Of(call.rule, Some(at)));
            }
        } else {
            push(Conditions::Of(call.rule, None));
        }
    }

    /// Behind a multiplexer the arguments are in memory, out of the filter's
    /// sight. A rule with conditions then holds for all calls if it is stricter
    /// than the default, and for none if it is laxer.
    fn holds_without_arguments(&self, call: &Call) -> bool {
        self.profile.syscalls[usize::from(call.rule)]
            .args
            .is_empty()
            || strictness(call.result) < strictness(self.default)
    }

    /// The conditions of a rule as arguments.
    pub(super) fn conditions(&self, conditions: &Conditions) -> Vec<Arg> {
        match *conditions {
            Conditions::None => Vec::new(),
            Conditions::Of(rule, None) => self.profile.syscalls[usize::from(rule)].args.clone(),
            Conditions::Of(rule, Some(at)) => {
                vec![self.profile.syscalls[usize::from(rule)].args[usize::from(at)]]
            }
            Conditions::Function { mask, function } => {
                vec![Arg {
                    index: 0,
                    value: mask,
                    value_two: function,
                    op: Operator::MaskedEq,
                }]
            }
        }
    }
}

fn names_an_argument_twice(args: &[Arg]) -> bool {
    args.iter()
        .enumerate()
        .any(|(at, arg)| args[..at].iter().any(|other| other.index == arg.index))
}

/// The kernel's own order of results, strictest first: the action as a signed
/// number (seccomp(2), "Return value", precedence).
fn strictness(result: u32) -> i32 {
    (result & 0xffff_0000).cast_signed()
}
