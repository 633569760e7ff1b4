//! Names and numbers of system calls, for every architecture a host of ours can run.
//!
//! The table is one text, read by the compiler: at run time it is a constant
//! without pointers, so that it costs neither relocations at start nor parsing.

use crate::spec::seccomp::Arch;

/// Sorted by name, one call a line; the columns are those of [`COLUMNS`].
const TEXT: &str = include_str!("syscalls.txt");
/// The architectures of the columns, in their order.
const COLUMNS: [Arch; 9] = [
    Arch::X86_64,
    Arch::X86,
    Arch::X32,
    Arch::Aarch64,
    Arch::Arm,
    Arch::Riscv64,
    Arch::Loongarch64,
    Arch::Ppc64le,
    Arch::S390x,
];
/// Calls in the table.
const ROWS: usize = 499;
/// An architecture does not have the call.
const NONE: u16 = u16::MAX;
/// Arm's own calls start at 0xf0000 (`__ARM_NR_BASE`); they are kept as 0xf000 and up.
const ARM_BASE: u32 = 0xf_0000;
const ARM_KEPT: u16 = 0xf000;
/// Bit 30 marks a call of x32 (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// One call.
#[derive(Clone, Copy)]
struct Row {
    name_at: u16,
    name_bytes: u8,
    numbers: [u16; COLUMNS.len()],
}

static TABLE: [Row; ROWS] = parse();

/// The numbers of one call on every architecture.
#[derive(Clone, Copy)]
pub(super) struct Numbers(&'static [u16; COLUMNS.len()]);

/// Looks a call up by its name.
pub(super) fn numbers(name: &str) -> Option<Numbers> {
    TABLE
        .binary_search_by(|row| row.name().cmp(name))
        .ok()
        .map(|at| Numbers(&TABLE[at].numbers))
}

impl Numbers {
    /// The number on `arch`, as `seccomp_data.nr` carries it. Always `None` for
    /// an architecture without column.
    pub(super) fn on(self, arch: Arch) -> Option<u32> {
        let column = COLUMNS.iter().position(|&column| column == arch)?;
        match self.0[column] {
            NONE => None,
            number if arch == Arch::X32 => Some(X32_BIT | u32::from(number)),
            number if arch == Arch::Arm && number >= ARM_KEPT => {
                Some(ARM_BASE | u32::from(number - ARM_KEPT))
            }
            number => Some(u32::from(number)),
        }
    }
}

impl Row {
    fn name(&self) -> &'static str {
        let at = self.name_at as usize;
        &TEXT[at..at + self.name_bytes as usize]
    }
}

/// Reads the text. Runs in the compiler: a wrong line does not compile.
const fn parse() -> [Row; ROWS] {
    let text = TEXT.as_bytes();
    let mut rows = [Row {
        name_at: 0,
        name_bytes: 0,
        numbers: [NONE; COLUMNS.len()],
    }; ROWS];
    let (mut at, mut row) = (0, 0);
    while at < text.len() {
        if text[at] == b'#' {
            while text[at] != b'\n' {
                at += 1;
            }
            at += 1;
            continue;
        }
        let start = at;
        while text[at] != b' ' {
            at += 1;
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the text is below 64 KiB, a name below 256 bytes"
        )]
        {
            rows[row].name_at = start as u16;
            rows[row].name_bytes = (at - start) as u8;
        }
        let mut column = 0;
        while text[at] != b'\n' {
            at += 1; // the space
            let (number, end) = parse_number(text, at);
            rows[row].numbers[column] = number;
            column += 1;
            at = end;
        }
        assert!(column == COLUMNS.len(), "a line with too few columns");
        at += 1;
        row += 1;
    }
    assert!(row == ROWS, "ROWS is not the number of lines");
    rows
}

const fn parse_number(text: &[u8], from: usize) -> (u16, usize) {
    if text[from] == b'-' {
        return (NONE, from + 1);
    }
    let (mut at, mut number) = (from, 0u32);
    while text[at] != b' ' && text[at] != b'\n' {
        assert!(text[at].is_ascii_digit(), "neither a number nor a dash");
        number = number * 10 + (text[at] - b'0') as u32;
        at += 1;
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "both cases are below 0x10000"
    )]
    if number >= ARM_BASE {
        assert!(number < ARM_BASE + 0xfff, "not one of Arm's own calls");
        ((number - ARM_BASE) as u16 + ARM_KEPT, at)
    } else {
        assert!(number < ARM_KEPT as u32, "a number too large for the table");
        (number as u16, at)
    }
}

/// Every call of `arch`, for tests that try them all.
#[cfg(test)]
pub(super) fn all(arch: Arch) -> impl Iterator<Item = (&'static str, u32)> {
    TABLE
        .iter()
        .filter_map(move |row| Some((row.name(), Numbers(&row.numbers).on(arch)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(TABLE.iter().map(Row::name).is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn known_calls_have_their_numbers() {
        for (name, arch, number) in [
            ("read", Arch::X86_64, Some(0)),
            ("read", Arch::X86, Some(3)),
            ("read", Arch::X32, Some(X32_BIT)),
            ("execveat", Arch::X32, Some(X32_BIT | 545)),
            ("read", Arch::Aarch64, Some(63)),
            ("open", Arch::Aarch64, None),
            ("cacheflush", Arch::Arm, Some(0xf0002)),
            ("statx", Arch::S390x, Some(379)),
            ("file_setattr", Arch::Riscv64, Some(469)),
            ("read", Arch::Mips, None),
        ] {
            assert_eq!(numbers(name).unwrap().on(arch), number, "{name} {arch:?}");
        }
        assert!(numbers("nosuch").is_none());
    }

    #[test]
    fn the_host_agrees() {
        let own = if cfg!(target_arch = "x86_64") {
            Arch::X86_64
        } else {
            Arch::Aarch64
        };
        for (name, number) in [
            ("openat", libc::SYS_openat),
            ("seccomp", libc::SYS_seccomp),
            ("bpf", libc::SYS_bpf),
        ] {
            assert_eq!(
                numbers(name).unwrap().on(own).map(libc::c_long::from),
                Some(number)
            );
        }
    }
}
