//! Classic BPF, written from its end to its start: all jumps go forward, so
//! whatever an instruction jumps to is there already and its distance is known.

use libc::sock_filter;

/// A place to jump to: counted from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label(usize);

/// A conditional jump (`linux/bpf_common.h`): compares the accumulator with a constant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Jump {
    /// Equal.
    Eq = 0x10,
    /// Greater, unsigned.
    Gt = 0x20,
    /// Greater or equal, unsigned.
    Ge = 0x30,
}

/// `BPF_LD | BPF_W | BPF_ABS`
const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_K`; the operation is added.
const JUMP: u16 = 0x05;
/// `BPF_ALU | BPF_AND | BPF_K`
const AND: u16 = 0x54;
/// `BPF_RET | BPF_K`
const RETURN: u16 = 0x06;
/// How far a conditional jump reaches, less the instructions that may yet come between.
const REACH: usize = u8::MAX as usize - 2;

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    backwards: Vec<sock_filter>,
    /// The last place of each result: one `ret` serves all that reach it.
    results: Vec<(u32, Label)>,
}

impl Assembler {
    /// With room for a usual program, so that it is allocated once.
    pub(super) fn new() -> Self {
        Self {
            backwards: Vec::with_capacity(1024),
            results: Vec::with_capacity(8),
        }
    }

    /// The finished program.
    pub(super) fn finish(mut self) -> Vec<sock_filter> {
        self.backwards.reverse();
        self.backwards
    }

    /// A place that returns `result` to the kernel.
    pub(super) fn result(&mut self, result: u32) -> Label {
        let near = self.backwards.len().saturating_sub(REACH);
        if let Some((_, label)) = self
            .results
            .iter()
            .find(|(known, label)| *known == result && label.0 > near)
        {
            return *label;
        }
        let label = self.push(RETURN, 0, 0, result);
        self.results.retain(|(known, _)| *known != result);
        self.results.push((result, label));
        label
    }

    /// Loads the word at `offset` of `seccomp_data` into the accumulator.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_to(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// Masks the accumulator.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.fall_to(next);
        self.push(AND, 0, 0, mask)
    }

    /// Compares the accumulator with `constant`.
    pub(super) fn branch(&mut self, jump: Jump, constant: u32, yes: Label, no: Label) -> Label {
        let no = self.reachable(no);
        let yes = self.reachable(yes);
        let (yes, no) = (self.distance(yes), self.distance(no));
        self.push(JUMP | jump as u16, yes, no, constant)
    }

    /// `label`, or an unconditional jump to it, which reaches any distance.
    fn reachable(&mut self, label: Label) -> Label {
        let distance = self.backwards.len() - label.0 - 1;
        if distance <= REACH {
            return label;
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a program has at most 4096 instructions"
        )]
        self.push(JUMP, 0, 0, distance as u32)
    }

    /// Sees to it that what is written next goes on with `next`.
    fn fall_to(&mut self, next: Label) {
        let distance = self.backwards.len() - next.0 - 1;
        if distance > 0 {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "a program has at most 4096 instructions"
            )]
            self.push(JUMP, 0, 0, distance as u32);
        }
    }

    fn distance(&self, label: Label) -> u8 {
        u8::try_from(self.backwards.len() - label.0 - 1).unwrap_or(u8::MAX)
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.backwards.push(sock_filter { code, jt, jf, k });
        Label(self.backwards.len() - 1)
    }
}
