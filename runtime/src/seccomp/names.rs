//! Names and numbers of system calls.
//!
//! The tables are texts, read by the compiler: at run time each is a constant
//! without pointers, so that it costs neither relocations at start nor parsing,
//! and those of other machines are not in the program at all. They are written
//! by `syscalls/generate.py` from the kernel's headers.

use super::abis::Abi;
use crate::spec::seccomp::Arch;

/// Most columns of a table.
const COLUMNS_MAX: usize = 3;
/// An architecture does not have the call.
const NONE: u16 = u16::MAX;
/// Arm's own calls start at 0xf0000 (`__ARM_NR_BASE`); they are kept as 0xf000 and up.
const ARM_BASE: u32 = 0xf_0000;
const ARM_KEPT: u16 = 0xf000;
/// Bit 30 marks a call of x32 (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// The calls of a machine, with a column for each of its ABIs.
#[derive(Debug)]
pub(super) struct Table {
    text: &'static str,
    /// Sorted by name.
    rows: &'static [Row],
}

/// One call.
#[derive(Debug, Clone, Copy)]
struct Row {
    name_at: u16,
    name_bytes: u8,
    numbers: [u16; COLUMNS_MAX],
}

/// Reads the table of that file.
macro_rules! table {
    ($file:literal) => {{
        const TEXT: &str = include_str!(concat!("syscalls/", $file, ".txt"));
        static ROWS: [Row; count(TEXT)] = parse(TEXT);
        Table {
            text: TEXT,
            rows: &ROWS,
        }
    }};
}

pub(super) static ARM: Table = table!("arm");
pub(super) static LOONGARCH: Table = table!("loongarch");
pub(super) static M68K: Table = table!("m68k");
pub(super) static MIPS: Table = table!("mips");
pub(super) static POWERPC: Table = table!("powerpc");
pub(super) static RISCV: Table = table!("riscv");
pub(super) static S390: Table = table!("s390");
pub(super) static X86: Table = table!("x86");

/// The numbers of one call on every ABI of a machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers(&'static [u16; COLUMNS_MAX]);

impl Table {
    /// Looks a call up by its name.
    pub(super) fn numbers(&self, name: &str) -> Option<Numbers> {
        self.rows
            .binary_search_by(|row| self.name(row).cmp(name))
            .ok()
            .map(|at| Numbers(&self.rows[at].numbers))
    }

    fn name(&self, row: &Row) -> &'static str {
        let at = row.name_at as usize;
        &self.text[at..at + row.name_bytes as usize]
    }

    /// Every call of `abi`, for tests that try them all.
    #[cfg(test)]
    pub(super) fn all(&self, abi: &Abi) -> Vec<(&'static str, u32)> {
        self.rows
            .iter()
            .filter_map(|row| Some((self.name(row), Numbers(&row.numbers).on(abi)?)))
            .collect()
    }
}

impl Numbers {
    /// The number on `abi`, an ABI of this table's machine, as `seccomp_data.nr` carries it.
    pub(super) fn on(self, abi: &Abi) -> Option<u32> {
        match self.0[abi.column] {
            NONE => None,
            number if abi.arch == Arch::X32 => Some(X32_BIT | u32::from(number)),
            number if number >= ARM_KEPT => Some(ARM_BASE | u32::from(number - ARM_KEPT)),
            number => Some(u32::from(number)),
        }
    }
}

/// How many calls the text has.
const fn count(text: &str) -> usize {
    let text = text.as_bytes();
    let (mut at, mut lines) = (0, 0);
    while at < text.len() {
        lines += (text[at] == b'\n') as usize;
        at += 1;
    }
    lines - 1 // the first is a comment
}

/// Reads the text. Runs in the compiler: a wrong line does not compile.
const fn parse<const ROWS: usize>(text: &str) -> [Row; ROWS] {
    let text = text.as_bytes();
    let mut rows = [Row {
        name_at: 0,
        name_bytes: 0,
        numbers: [NONE; COLUMNS_MAX],
    }; ROWS];
    let (mut at, mut row) = (0, 0);
    assert!(text[0] == b'#', "the first line is a comment");
    while text[at] != b'\n' {
        at += 1;
    }
    at += 1;
    while at < text.len() {
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
        at += 1;
        row += 1;
    }
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

#[cfg(test)]
mod tests {
    use super::super::abis::MACHINES;
    use super::*;

    #[test]
    fn the_tables_are_sorted_and_whole() {
        for table in [
            &ARM, &LOONGARCH, &M68K, &MIPS, &POWERPC, &RISCV, &S390, &X86,
        ] {
            let names = table.rows.iter().map(|row| table.name(row));
            assert!(names.is_sorted_by(|a, b| a < b));
            let columns = table.text.lines().next().unwrap().split(' ').skip(5);
            let columns = columns.count();
            for line in table.text.lines().skip(1) {
                assert_eq!(line.split(' ').skip(1).count(), columns, "{line}");
            }
        }
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
            ("set_tls", Arch::Arm, Some(0xf0005)),
            ("sync_file_range2", Arch::Arm, Some(341)),
            ("arm_sync_file_range", Arch::Arm, Some(341)),
            ("read", Arch::Mips, Some(4003)),
            ("socketcall", Arch::Mipsel, Some(4102)),
            ("read", Arch::Mips64, Some(5000)),
            ("openat", Arch::Mipsel64, Some(5247)),
            ("socketcall", Arch::Mips64, None),
            ("read", Arch::Mips64N32, Some(6000)),
            ("openat", Arch::Mipsel64N32, Some(6251)),
            ("openat", Arch::Ppc, Some(286)),
            ("openat", Arch::Ppc64, Some(286)),
            ("openat", Arch::Ppc64le, Some(286)),
            ("mmap2", Arch::Ppc, Some(192)),
            ("mmap2", Arch::Ppc64, None),
            ("socketcall", Arch::Ppc64le, Some(102)),
            ("openat", Arch::S390, Some(288)),
            ("openat", Arch::S390x, Some(288)),
            ("chown", Arch::S390, Some(182)),
            ("chown", Arch::S390x, Some(212)),
            ("statx", Arch::S390x, Some(379)),
            ("s390_pci_mmio_read", Arch::S390x, Some(353)),
            ("file_setattr", Arch::Riscv64, Some(469)),
            ("riscv_hwprobe", Arch::Riscv64, Some(258)),
            ("openat", Arch::Loongarch64, Some(56)),
            ("openat", Arch::M68k, Some(288)),
        ] {
            let mut found = 0;
            for machine in MACHINES {
                for abi in machine.abis.iter().filter(|abi| abi.arch == arch) {
                    let numbers = machine.table.numbers(name);
                    let on = numbers.and_then(|numbers| numbers.on(abi));
                    assert_eq!(on, number, "{name} {arch:?}");
                    found += 1;
                }
            }
            assert!(found > 0, "{arch:?}");
        }
        assert!(X86.numbers("nosuch").is_none());
    }

    #[test]
    fn the_host_agrees() {
        use super::super::abis::HOST;
        for (name, number) in [
            ("openat", libc::SYS_openat),
            ("seccomp", libc::SYS_seccomp),
            ("bpf", libc::SYS_bpf),
        ] {
            let on = HOST.table.numbers(name).unwrap().on(&HOST.abis[0]);
            assert_eq!(on.map(libc::c_long::from), Some(number));
        }
    }
}
