//! Device rules on cgroup v2: a program that the kernel asks for every use of a
//! device node (`BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15).
//!
//! ```text
//! r2 = type   r3 = access   r4 = major   r5 = minor
//! for each exception: what differs jumps to the next; else return the opposite of the default
//! return the default
//! ```

use std::os::fd::AsFd;

use super::Error;
use super::devices::{Access, Kind, Node, Policy};
use super::dir::Dir;
use crate::sys::bpf;

/// Opcodes (`linux/bpf.h`, instruction-set.rst). 32-bit comparisons, since
/// numbers above 2^31 would be extended with their sign; Linux 5.1.
mod code {
    /// `BPF_LDX | BPF_MEM | BPF_W`
    pub(super) const LOAD: u8 = 0x61;
    /// `BPF_ALU | BPF_AND | BPF_K`
    pub(super) const AND: u8 = 0x54;
    /// `BPF_ALU | BPF_RSH | BPF_K`
    pub(super) const SHIFT_RIGHT: u8 = 0x74;
    /// `BPF_ALU64 | BPF_MOV | BPF_X`
    pub(super) const COPY: u8 = 0xbf;
    /// `BPF_ALU64 | BPF_MOV | BPF_K`
    pub(super) const SET: u8 = 0xb7;
    /// `BPF_JMP32 | BPF_JEQ | BPF_K`
    pub(super) const IF_EQUAL: u8 = 0x16;
    /// `BPF_JMP32 | BPF_JNE | BPF_K`
    pub(super) const IF_NOT_EQUAL: u8 = 0x56;
    /// `BPF_JMP | BPF_EXIT`
    pub(super) const EXIT: u8 = 0x95;
}

/// Registers: the result, the context, and what is read of it.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    value: u32,
}

impl Instruction {
    fn new(code: u8, to: u8, value: u32) -> Self {
        Self {
            code,
            to,
            from: 0,
            offset: 0,
            value,
        }
    }

    /// `struct bpf_insn` as the kernel lays it out.
    fn encoded(self) -> u64 {
        let registers = if cfg!(target_endian = "little") {
            self.from << 4 | self.to
        } else {
            self.to << 4 | self.from
        };
        let [o0, o1] = self.offset.to_ne_bytes();
        let [v0, v1, v2, v3] = self.value.to_ne_bytes();
        u64::from_ne_bytes([self.code, registers, o0, o1, v0, v1, v2, v3])
    }
}

/// The program of a policy.
fn program(policy: &Policy) -> Vec<Instruction> {
    let load = |to, offset| Instruction {
        from: CONTEXT,
        offset,
        ..Instruction::new(code::LOAD, to, 0)
    };
    // struct bpf_cgroup_dev_ctx: type in the lower half of the first word,
    // access in the upper; then major and minor.
    let mut out = vec![
        load(KIND, 0),
        Instruction {
            from: KIND,
            ..Instruction::new(code::COPY, ACCESS, 0)
        },
        Instruction::new(code::AND, KIND, 0xffff),
        Instruction::new(code::SHIFT_RIGHT, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for (node, access) in policy.exceptions.iter() {
        exception(&mut out, node, access, policy.allow);
    }
    result(&mut out, policy.allow);
    out
}

fn result(out: &mut Vec<Instruction>, allow: bool) {
    out.push(Instruction::new(code::SET, RESULT, allow.into()));
    out.push(Instruction::new(code::EXIT, 0, 0));
}

fn exception(out: &mut Vec<Instruction>, node: Node, access: Access, allowed_else: bool) {
    let kind = match node.kind {
        Kind::Block => 1, // BPF_DEVCG_DEV_BLOCK
        Kind::Char => 2,  // BPF_DEVCG_DEV_CHAR
    };
    let start = out.len();
    out.push(Instruction::new(code::IF_NOT_EQUAL, KIND, kind));
    for (register, number) in [(MAJOR, node.major), (MINOR, node.minor)] {
        out.extend(number.map(|number| Instruction::new(code::IF_NOT_EQUAL, register, number)));
    }
    if access != Access::ALL {
        // A granting exception must cover all that is asked for; a denying one
        // holds as soon as it covers any of it.
        let (mask, unless) = if allowed_else {
            (access.bits(), code::IF_EQUAL)
        } else {
            (Access::ALL.bits() & !access.bits(), code::IF_NOT_EQUAL)
        };
        out.push(Instruction {
            from: ACCESS,
            ..Instruction::new(code::COPY, SCRATCH, 0)
        });
        out.push(Instruction::new(code::AND, SCRATCH, mask.into()));
        out.push(Instruction::new(unless, SCRATCH, 0));
    }
    result(out, !allowed_else);
    let taken = out.len() - start;
    for (at, instruction) in out[start..].iter_mut().enumerate() {
        if matches!(instruction.code, code::IF_EQUAL | code::IF_NOT_EQUAL) {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_possible_wrap,
                reason = "an exception takes at most eight instructions"
            )]
            {
                instruction.offset = (taken - at - 1) as i16;
            }
        }
    }
}

/// Attaches the program of the policy to a cgroup, in place of what was
/// attached to it before; at no moment none of the two decides.
pub(super) fn restrict(dir: &Dir, policy: &Policy) -> Result<(), Error> {
    let failed = |action| {
        move |source| Error::Devices {
            action,
            path: dir.path().to_owned(),
            source,
        }
    };
    let code: Vec<u64> = program(policy)
        .into_iter()
        .map(Instruction::encoded)
        .collect();
    let new = bpf::load(&code).map_err(failed("load"))?;
    let old = bpf::attached(dir).map_err(failed("look for"))?;
    if let [one] = old.as_slice()
        && bpf::attach(dir, &new, Some(one.as_fd())).is_ok()
    {
        return Ok(());
    }
    bpf::attach(dir, &new, None).map_err(failed("attach"))?;
    old.iter()
        .try_for_each(|program| bpf::detach(dir, program).map_err(failed("detach")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::resources::DeviceRule;

    /// Runs the program as the kernel would.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> u64 {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u64; 6];
        let mut at = 0;
        loop {
            let now = program[at];
            at += 1;
            let to = usize::from(now.to);
            let low = registers[to] as u32;
            match now.code {
                code::LOAD => {
                    assert_eq!(now.from, CONTEXT);
                    registers[to] = context[(now.offset / 4) as usize].into();
                }
                code::AND => registers[to] = (low & now.value).into(),
                code::SHIFT_RIGHT => registers[to] = (low >> now.value).into(),
                code::COPY => registers[to] = registers[usize::from(now.from)],
                code::SET => registers[to] = now.value.into(),
                code::IF_EQUAL if low == now.value => at += now.offset as usize,
                code::IF_NOT_EQUAL if low != now.value => at += now.offset as usize,
                code::IF_EQUAL | code::IF_NOT_EQUAL => {}
                code::EXIT => return registers[0],
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_decides_as_the_policy_does() {
        for rules in [
            "[]",
            r#"[{"allow": true, "access": "rwm"}]"#,
            r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "major": 8, "access": "w"},
                {"allow": false, "type": "c", "minor": 11, "access": "rm"}]"#,
            r#"[{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
                {"allow": true, "type": "b", "minor": 4294967295, "access": "r"}]"#,
        ] {
            let rules: Vec<DeviceRule> = serde_json::from_str(rules).unwrap();
            let policy = Policy::new(&rules).unwrap();
            let program = program(&policy);
            for (kind, number) in [(Kind::Block, 1), (Kind::Char, 2)] {
                for major in [0, 1, 5, 8, 10, 136, u32::MAX] {
                    for minor in [0, 1, 3, 11, 200, 229, u32::MAX] {
                        for access in 1..8 {
                            let got = run(&program, number, access, major, minor);
                            let wanted = policy.allows(kind, major, minor, access as u8);
                            assert_eq!(got == 1, wanted, "{kind:?} {major}:{minor} {access}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_instruction_is_eight_bytes_in_the_kernels_order() {
        let load = Instruction {
            from: CONTEXT,
            offset: 4,
            ..Instruction::new(code::LOAD, MAJOR, 0)
        };
        let bytes = [0x61, 0x14, 4, 0, 0, 0, 0, 0];
        if cfg!(target_endian = "little") {
            assert_eq!(load.encoded().to_ne_bytes(), bytes);
        }
    }
}
