//! The compiled program against the profile itself, call by call.

use super::abis::MACHINES;
use super::conditions::{Endian, Width};
use super::*;
use crate::spec::seccomp::{Arg, Operator, Syscall};

/// docker's default profile (moby/profiles, Apache-2.0) as it reaches a runtime:
/// resolved for amd64 and docker's default capabilities.
const DOCKER: &str = include_str!("testdata/docker-default-amd64.json");

/// The machine most tests are about, whatever machine they run on.
const HOST: Machine = MACHINES[0];

fn machine(own: Arch) -> Machine {
    let found = MACHINES.into_iter().find(|it| it.abis[0].arch == own);
    found.unwrap()
}

/// One call as the filter sees it.
#[derive(Debug, Clone, Copy)]
struct Data {
    number: u32,
    arch: u32,
    args: [u64; 6],
}

impl Data {
    /// What the machine loads from its `struct seccomp_data`.
    fn word(&self, offset: u32, endian: Endian) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            at @ 16..64 if at % 4 == 0 => {
                let arg = self.args[(at - 16) as usize / 8];
                let is_low = (at % 8 == 0) == (endian == Endian::Little);
                (if is_low { arg } else { arg >> 32 }) as u32
            }
            other => panic!("load at {other}"),
        }
    }
}

/// Runs the program as the kernel would; the second is the number of steps.
fn run(filter: &[sock_filter], data: &Data) -> (u32, usize) {
    run_on(Endian::Little, filter, data)
}

fn run_on(endian: Endian, filter: &[sock_filter], data: &Data) -> (u32, usize) {
    let (mut at, mut accumulator, mut steps) = (0, 0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = filter[at];
        at += 1;
        steps += 1;
        let jump = |taken: bool| usize::from(if taken { jt } else { jf });
        match code {
            0x20 => accumulator = data.word(k, endian),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x06 => return (k, steps),
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What the profile says to a call, read as a person would, without tables or
/// ranges. `name` is the call's, `highest` the highest number that is named.
fn expected(profile: &Seccomp, name: Option<&str>, highest: u32, width: Width, data: &Data) -> u32 {
    let default = result_of(profile.default_action.unwrap(), profile.default_errno_ret).unwrap();
    let denies = !matches!(
        profile.default_action,
        Some(Action::Allow | Action::Log | Action::Trace)
    );
    if denies && data.number > highest {
        return RET_ERRNO | libc::ENOSYS as u32;
    }
    let mut found = None;
    for rule in &profile.syscalls {
        let result = result_of(rule.action, rule.errno_ret).unwrap();
        if !name.is_some_and(|name| rule.names.iter().any(|known| known == name))
            || result == default
        {
            continue;
        }
        if rule.args.is_empty() {
            return result;
        }
        if found.is_none() && rule.args.iter().all(|arg| holds(arg, width, data)) {
            found = Some(result);
        }
    }
    found.unwrap_or(default)
}

fn holds(arg: &Arg, width: Width, data: &Data) -> bool {
    let bits = if width == Width::Int {
        u64::from(u32::MAX)
    } else {
        u64::MAX
    };
    let have = data.args[arg.index as usize] & bits;
    match arg.op {
        Operator::Ne => have != arg.value & bits,
        Operator::Eq => have == arg.value & bits,
        Operator::MaskedEq => have & arg.value == arg.value_two & bits,
        Operator::Lt => have < arg.value,
        Operator::Le => have <= arg.value,
        Operator::Ge => have >= arg.value,
        Operator::Gt => have > arg.value,
    }
}

/// Values at which some condition of the profile changes its mind.
fn interesting(profile: &Seccomp) -> Vec<u64> {
    let mut values = vec![0, 1, u64::MAX, 1 << 32, u64::from(u32::MAX)];
    for arg in profile.syscalls.iter().flat_map(|rule| &rule.args) {
        for value in [arg.value, arg.value_two] {
            let flipped = [value ^ 1, value ^ (1 << 40), value | (1 << 63)];
            values.extend(
                [value, value.wrapping_add(1), value.wrapping_sub(1)]
                    .into_iter()
                    .chain(flipped),
            );
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

/// Tries every number on every ABI, or with `named` only those that the profile names.
fn check(profile: &Seccomp, named: bool) -> Program {
    check_on(&HOST, profile, named)
}

fn check_on(machine: &Machine, profile: &Seccomp, named: bool) -> Program {
    let program = compile_for(profile, machine).unwrap().unwrap();
    let values = interesting(profile);
    let is_named = |name: &str| {
        let names = |rule: &Syscall| rule.names.iter().any(|known| known == name);
        profile.syscalls.iter().any(names)
    };
    for abi in machine.abis {
        let known = machine.table.all(abi);
        let base = known.iter().map(|(_, number)| *number).min().unwrap();
        let highest = known
            .iter()
            .filter(|(name, _)| is_named(name))
            .map(|(_, number)| *number)
            .max();
        for number in (base..base + 600).chain([base + 0x3fff_ffff]) {
            let name = known
                .iter()
                .find(|(_, other)| *other == number)
                .map(|(name, _)| *name);
            if named && !name.is_some_and(is_named) {
                continue;
            }
            let tried = values
                .iter()
                .flat_map(|&value| [[value; 6], [0, value, 0, 0, 0, 0]]);
            for args in tried {
                let data = Data {
                    number,
                    arch: abi.audit,
                    args,
                };
                let (result, _) = run_on(abi.layout.endian, &program.filter, &data);
                let highest = highest.unwrap_or(u32::MAX);
                let wanted = expected(profile, name, highest, abi.layout.width, &data);
                assert_eq!(result, wanted, "{:?} {name:?} {data:x?}", abi.arch);
            }
        }
    }
    program
}

fn docker() -> Seccomp {
    serde_json::from_str(DOCKER).unwrap()
}

fn profile(default_action: Action, syscalls: Vec<Syscall>) -> Seccomp {
    Seccomp {
        default_action: Some(default_action),
        default_errno_ret: None,
        architectures: Arch::ALL.to_vec(),
        flags: None,
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

fn rule(name: &str, action: Action, args: &[(u32, u64, u64, Operator)]) -> Syscall {
    let args = args
        .iter()
        .map(|&(index, value, value_two, op)| Arg {
            index,
            value,
            value_two,
            op,
        })
        .collect();
    Syscall {
        names: vec![name.to_owned()],
        action,
        errno_ret: None,
        args,
    }
}

#[test]
fn dockers_profile_is_what_it_says_on_every_abi() {
    let program = check(&docker(), false);
    assert!(
        program.filter.len() < 800,
        "{} instructions",
        program.filter.len()
    );
    assert_eq!((program.flags, program.notifies), (1 << 2, false));
}

#[test]
fn dockers_profile_is_what_it_says_on_every_machine() {
    let profile = Seccomp {
        architectures: Arch::ALL.to_vec(),
        ..docker()
    };
    for machine in MACHINES {
        check_on(&machine, &profile, true);
    }
}

#[test]
fn the_path_through_dockers_profile_is_short() {
    let program = compile_for(&docker(), &HOST).unwrap().unwrap();
    let steps = |abi: &Abi| {
        let call = |number| {
            run(
                &program.filter,
                &Data {
                    number,
                    arch: abi.audit,
                    args: [0; 6],
                },
            )
            .1
        };
        (0..470).map(call).sum::<usize>() / 470
    };
    assert!(steps(&HOST.abis[0]) <= 12, "{}", steps(&HOST.abis[0]));
    assert!(steps(&HOST.abis[1]) <= 14, "{}", steps(&HOST.abis[1]));
}

#[test]
fn every_operator_holds_exactly_on_every_width() {
    let operators = [
        Operator::Ne,
        Operator::Eq,
        Operator::Lt,
        Operator::Le,
        Operator::Ge,
        Operator::Gt,
        Operator::MaskedEq,
    ];
    for op in operators {
        for value in [0, 5, 0xffff_ffff, 0x1_0000_0000, 0x12_3456_789a, u64::MAX] {
            for two in [0, value, value & 0xff] {
                for default in [Action::Errno, Action::Allow] {
                    let action = if default == Action::Allow {
                        Action::KillProcess
                    } else {
                        Action::Allow
                    };
                    let other = (1, 7, 0, Operator::Ge);
                    let rules = vec![
                        rule("mmap", action, &[(0, value, two, op)]),
                        rule("read", action, &[(0, value, two, op), other]),
                    ];
                    let profile = profile(default, rules);
                    for own in [Arch::X86_64, Arch::S390x] {
                        check_on(&machine(own), &profile, true);
                    }
                }
            }
        }
    }
}

#[test]
fn two_conditions_on_one_argument_are_alternatives() {
    let both = [(0, 1, 0, Operator::Eq), (0, 2, 0, Operator::Eq)];
    let program = compile_for(
        &profile(Action::Errno, vec![rule("read", Action::Allow, &both)]),
        &HOST,
    )
    .unwrap()
    .unwrap();
    let call = |first| {
        run(
            &program.filter,
            &Data {
                number: 0,
                arch: HOST.abis[0].audit,
                args: [first, 0, 0, 0, 0, 0],
            },
        )
        .0
    };
    assert_eq!(
        [call(1), call(2), call(3)],
        [RET_ALLOW, RET_ALLOW, RET_ERRNO | 1]
    );
}

#[test]
fn each_action_has_its_result() {
    for (action, errno, result) in [
        (Action::Kill, None, RET_KILL_THREAD),
        (Action::KillThread, None, RET_KILL_THREAD),
        (Action::KillProcess, None, RET_KILL_PROCESS),
        (Action::Trap, None, RET_TRAP),
        (Action::Errno, None, RET_ERRNO | 1),
        (Action::Errno, Some(38), RET_ERRNO | 38),
        (Action::Trace, Some(7), RET_TRACE | 7),
        (Action::Log, None, RET_LOG),
        (Action::Notify, None, RET_NOTIFY),
    ] {
        let mut profile = profile(Action::Allow, vec![rule("getpid", action, &[])]);
        profile.syscalls[0].errno_ret = errno;
        profile.listener_path = Some("/run/agent".to_owned());
        let program = check(&profile, false);
        let (got, _) = run(
            &program.filter,
            &Data {
                number: 39,
                arch: HOST.abis[0].audit,
                args: [0; 6],
            },
        );
        assert_eq!((got, program.notifies), (result, action == Action::Notify));
    }
}

#[test]
fn another_architecture_kills() {
    let mut docker = docker();
    docker.architectures.clear();
    let program = compile_for(&docker, &HOST).unwrap().unwrap();
    for (number, arch) in [
        (20, HOST.abis[1].audit),
        (X32_BIT | 39, HOST.abis[2].audit),
        (39, 0xdead),
    ] {
        assert_eq!(
            run(
                &program.filter,
                &Data {
                    number,
                    arch,
                    args: [0; 6]
                }
            )
            .0,
            RET_KILL_PROCESS
        );
    }
    assert_eq!(
        run(
            &program.filter,
            &Data {
                number: 39,
                arch: HOST.abis[0].audit,
                args: [0; 6]
            }
        )
        .0,
        RET_ALLOW
    );
}

#[test]
fn socketcall_cannot_walk_around_a_rule_for_socket() {
    let socketcall = |profile: &Seccomp, function: u64| {
        let program = compile_for(profile, &HOST).unwrap().unwrap();
        run(
            &program.filter,
            &Data {
                number: 102,
                arch: HOST.abis[1].audit,
                args: [function, 0, 0, 0, 0, 0],
            },
        )
        .0
    };
    let denied = profile(
        Action::Allow,
        vec![rule("socket", Action::Errno, &[(0, 16, 0, Operator::Eq)])],
    );
    assert_eq!(
        [socketcall(&denied, 1), socketcall(&denied, 2)],
        [RET_ERRNO | 1, RET_ALLOW]
    );
    let allowed = profile(Action::Errno, vec![rule("socket", Action::Allow, &[])]);
    assert_eq!(
        [socketcall(&allowed, 1), socketcall(&allowed, 2)],
        [RET_ALLOW, RET_ERRNO | 1]
    );
    let partly = profile(
        Action::Errno,
        vec![
            rule("socket", Action::Allow, &[(0, 2, 0, Operator::Eq)]),
            rule("socketcall", Action::Log, &[(0, 9, 0, Operator::Eq)]),
        ],
    );
    assert_eq!(
        socketcall(&partly, 1),
        RET_ERRNO | 1,
        "its domain cannot be seen"
    );
}

#[test]
fn newer_calls_are_enosys_only_where_the_default_denies() {
    let newer = |default| {
        let program = compile_for(
            &profile(default, vec![rule("read", Action::Log, &[])]),
            &HOST,
        )
        .unwrap()
        .unwrap();
        run(
            &program.filter,
            &Data {
                number: 1,
                arch: HOST.abis[0].audit,
                args: [0; 6],
            },
        )
        .0
    };
    assert_eq!(newer(Action::Errno), RET_ERRNO | 38);
    assert_eq!(newer(Action::KillProcess), RET_ERRNO | 38);
    assert_eq!(newer(Action::Allow), RET_ALLOW);
    assert_eq!(newer(Action::Trace), RET_TRACE | 1);
}

#[test]
fn unknown_names_are_skipped_and_flags_are_summed() {
    let mut profile = profile(
        Action::Errno,
        vec![
            rule("nosuch", Action::Allow, &[]),
            rule("getpid", Action::Allow, &[]),
        ],
    );
    profile.flags = Some(vec![Flag::Log, Flag::Tsync, Flag::WaitKillableRecv]);
    assert_eq!(check(&profile, false).flags, 0b00_0010);
    profile.flags = Some(Vec::new());
    assert_eq!(check(&profile, false).flags, 0);
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |profile: &Seccomp| compile_for(profile, &HOST).map(drop).unwrap_err();
    assert_eq!(
        refused(&profile(Action::Notify, Vec::new())),
        Error::NotifyDefault
    );
    let mut notify = profile(Action::Allow, vec![rule("mkdir", Action::Notify, &[])]);
    assert_eq!(refused(&notify), Error::NoListenerPath);
    notify.listener_path = Some("/run/agent".to_owned());
    notify.syscalls.push(rule("write", Action::Notify, &[]));
    assert_eq!(refused(&notify), Error::NotifyWrite);
    let sixth = profile(
        Action::Allow,
        vec![rule("mkdir", Action::Errno, &[(6, 0, 0, Operator::Eq)])],
    );
    assert_eq!(refused(&sixth), Error::ArgumentIndex { index: 6 });
    let mut errno = profile(Action::Errno, Vec::new());
    errno.default_errno_ret = Some(70_000);
    assert_eq!(refused(&errno), Error::ErrnoRet { value: 70_000 });
    let rules = (0..3000)
        .map(|at| rule("read", Action::Allow, &[(0, at, 0, Operator::Eq)]))
        .collect();
    assert!(matches!(
        refused(&profile(Action::Errno, rules)),
        Error::TooLong { .. }
    ));
    assert!(
        serde_json::from_str::<Seccomp>("{}")
            .is_ok_and(|empty| compile(&empty).is_ok_and(|none| none.is_none()))
    );
}
