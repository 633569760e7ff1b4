//! The ways into the kernel that a machine has, each with numbers of its own.
//!
//! The runtime has the numbers of the machine it is built for and of those
//! whose programs that machine also runs. A profile may name others: they are
//! not filtered, since their programs cannot run here, and were one to run all
//! the same, its first call would kill it.

use super::conditions::{Endian, Layout, Width};
use super::names::{self, Table};
use crate::spec::seccomp::Arch;

/// One way to enter the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abi {
    pub(super) arch: Arch,
    /// `AUDIT_ARCH_*` (`linux/audit.h`), as `seccomp_data.arch` carries it.
    pub(super) audit: u32,
    pub(super) layout: Layout,
    /// Its column in the table of its machine.
    pub(super) column: usize,
}

/// A machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    /// Its own ABI first, then those it also runs.
    pub(super) abis: &'static [Abi],
    pub(super) table: &'static Table,
}

/// The machine that the runtime is built for. What the others say below never
/// gets into the program: only one of them is asked for.
pub(super) const HOST: Machine = if cfg!(target_arch = "x86_64") {
    X86_64
} else if cfg!(target_arch = "x86") {
    X86
} else if cfg!(target_arch = "aarch64") {
    of_order(AARCH64, AARCH64_BIG)
} else if cfg!(target_arch = "arm") {
    of_order(ARM, ARM_BIG)
} else if cfg!(target_arch = "riscv64") {
    RISCV64
} else if cfg!(target_arch = "loongarch64") {
    LOONGARCH64
} else if cfg!(target_arch = "powerpc64") {
    of_order(PPC64LE, PPC64)
} else if cfg!(target_arch = "powerpc") {
    PPC
} else if cfg!(target_arch = "s390x") {
    S390X
} else if cfg!(any(target_arch = "mips64", target_arch = "mips64r6")) {
    of_order(MIPSEL64, MIPS64)
} else if cfg!(any(target_arch = "mips", target_arch = "mips32r6")) {
    of_order(MIPSEL, MIPS)
} else if cfg!(target_arch = "m68k") {
    M68K
} else {
    panic!("the numbers of this architecture's system calls are not known")
};

const fn of_order(little: Machine, big: Machine) -> Machine {
    if cfg!(target_endian = "little") {
        little
    } else {
        big
    }
}

/// ELF's number of a machine (`linux/elf-em.h`), and what is added to it
/// (`linux/audit.h`): `__AUDIT_ARCH_LE`, `__AUDIT_ARCH_64BIT`,
/// `__AUDIT_ARCH_CONVENTION_MIPS64_N32`.
const LITTLE: u32 = 0x4000_0000;
const WIDE: u32 = 0x8000_0000;
const N32: u32 = 0x2000_0000;
const EM_386: u32 = 3;
const EM_68K: u32 = 4;
const EM_MIPS: u32 = 8;
const EM_PPC: u32 = 20;
const EM_PPC64: u32 = 21;
const EM_S390: u32 = 22;
const EM_ARM: u32 = 40;
const EM_X86_64: u32 = 62;
const EM_AARCH64: u32 = 183;
const EM_RISCV: u32 = 243;
const EM_LOONGARCH: u32 = 258;

/// x32 shares the audit architecture of `x86_64`; bit 30 of the number tells
/// them apart.
const X86_64: Machine = machine(
    &names::X86,
    &[
        long(Arch::X86_64, EM_X86_64 | LITTLE, 0),
        int(Arch::X86, EM_386 | LITTLE, 1),
        Abi {
            audit: EM_X86_64 | LITTLE | WIDE,
            ..int(Arch::X32, EM_X86_64 | LITTLE, 2)
        },
    ],
);
const X86: Machine = machine(&names::X86, &[int(Arch::X86, EM_386 | LITTLE, 1)]);
const AARCH64: Machine = machine(
    &names::ARM,
    &[
        long(Arch::Aarch64, EM_AARCH64 | LITTLE, 0),
        int(Arch::Arm, EM_ARM | LITTLE, 1),
    ],
);
/// The kernel reports the same architecture whatever its order of bytes.
const AARCH64_BIG: Machine = machine(
    &names::ARM,
    &[
        big(long(Arch::Aarch64, EM_AARCH64 | LITTLE, 0)),
        big(int(Arch::Arm, EM_ARM | LITTLE, 1)),
    ],
);
const ARM: Machine = machine(&names::ARM, &[int(Arch::Arm, EM_ARM | LITTLE, 1)]);
const ARM_BIG: Machine = machine(&names::ARM, &[big(int(Arch::Arm, EM_ARM | LITTLE, 1))]);
const RISCV64: Machine = machine(&names::RISCV, &[long(Arch::Riscv64, EM_RISCV | LITTLE, 0)]);
const LOONGARCH64: Machine = machine(
    &names::LOONGARCH,
    &[long(Arch::Loongarch64, EM_LOONGARCH | LITTLE, 0)],
);
/// Its 32-bit programs, if the kernel runs any, have no name in a profile.
const PPC64LE: Machine = machine(
    &names::POWERPC,
    &[long(Arch::Ppc64le, EM_PPC64 | LITTLE, 0)],
);
const PPC64: Machine = machine(
    &names::POWERPC,
    &[long(Arch::Ppc64, EM_PPC64, 0), int(Arch::Ppc, EM_PPC, 1)],
);
const PPC: Machine = machine(&names::POWERPC, &[int(Arch::Ppc, EM_PPC, 1)]);
const S390X: Machine = machine(
    &names::S390,
    &[long(Arch::S390x, EM_S390, 0), int(Arch::S390, EM_S390, 1)],
);
const MIPS64: Machine = machine(
    &names::MIPS,
    &[
        long(Arch::Mips64, EM_MIPS, 0),
        int(Arch::Mips, EM_MIPS, 1),
        int(Arch::Mips64N32, EM_MIPS | WIDE | N32, 2),
    ],
);
const MIPSEL64: Machine = machine(
    &names::MIPS,
    &[
        long(Arch::Mipsel64, EM_MIPS | LITTLE, 0),
        int(Arch::Mipsel, EM_MIPS | LITTLE, 1),
        int(Arch::Mipsel64N32, EM_MIPS | LITTLE | WIDE | N32, 2),
    ],
);
const MIPS: Machine = machine(&names::MIPS, &[int(Arch::Mips, EM_MIPS, 1)]);
const MIPSEL: Machine = machine(&names::MIPS, &[int(Arch::Mipsel, EM_MIPS | LITTLE, 1)]);
const M68K: Machine = machine(&names::M68K, &[int(Arch::M68k, EM_68K, 0)]);

const fn machine(table: &'static Table, abis: &'static [Abi]) -> Machine {
    Machine { abis, table }
}

/// An ABI whose arguments have 64 bits.
const fn long(arch: Arch, audit: u32, column: usize) -> Abi {
    Abi {
        audit: audit | WIDE,
        ..abi(arch, audit, column, Width::Long)
    }
}

/// An ABI whose arguments have 32 bits.
const fn int(arch: Arch, audit: u32, column: usize) -> Abi {
    abi(arch, audit, column, Width::Int)
}

const fn abi(arch: Arch, audit: u32, column: usize, width: Width) -> Abi {
    let endian = if audit & LITTLE == 0 {
        Endian::Big
    } else {
        Endian::Little
    };
    Abi {
        arch,
        audit,
        layout: Layout { width, endian },
        column,
    }
}

/// `abi` on a machine whose order of bytes is not the one it is audited by.
const fn big(abi: Abi) -> Abi {
    let layout = Layout {
        endian: Endian::Big,
        ..abi.layout
    };
    Abi { layout, ..abi }
}

/// Every machine, for tests that try them all.
#[cfg(test)]
pub(super) const MACHINES: [Machine; 17] = [
    X86_64,
    X86,
    AARCH64,
    AARCH64_BIG,
    ARM,
    ARM_BIG,
    RISCV64,
    LOONGARCH64,
    PPC64LE,
    PPC64,
    PPC,
    S390X,
    MIPS64,
    MIPSEL64,
    MIPS,
    MIPSEL,
    M68K,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The constants of `linux/audit.h` as a compiler prints them.
    const AUDIT: [(Arch, u32); 19] = [
        (Arch::X86, 0x4000_0003),
        (Arch::X86_64, 0xc000_003e),
        (Arch::X32, 0xc000_003e),
        (Arch::Arm, 0x4000_0028),
        (Arch::Aarch64, 0xc000_00b7),
        (Arch::Mips, 0x0000_0008),
        (Arch::Mips64, 0x8000_0008),
        (Arch::Mips64N32, 0xa000_0008),
        (Arch::Mipsel, 0x4000_0008),
        (Arch::Mipsel64, 0xc000_0008),
        (Arch::Mipsel64N32, 0xe000_0008),
        (Arch::Ppc, 0x0000_0014),
        (Arch::Ppc64, 0x8000_0015),
        (Arch::Ppc64le, 0xc000_0015),
        (Arch::S390, 0x0000_0016),
        (Arch::S390x, 0x8000_0016),
        (Arch::Riscv64, 0xc000_00f3),
        (Arch::Loongarch64, 0xc000_0102),
        (Arch::M68k, 0x0000_0004),
    ];

    #[test]
    fn every_abi_has_the_number_that_the_kernel_reports() {
        for abi in MACHINES.iter().flat_map(|machine| machine.abis) {
            let known = AUDIT.iter().find(|(arch, _)| *arch == abi.arch);
            assert_eq!(known.map(|(_, audit)| *audit), Some(abi.audit), "{abi:?}");
        }
    }

    #[test]
    fn no_architecture_that_rust_compiles_for_is_left_out() {
        // Rust has no target for these.
        let without = [Arch::Parisc, Arch::Parisc64, Arch::Sh, Arch::Sheb];
        for arch in Arch::ALL {
            let abis = || MACHINES.iter().flat_map(|machine| machine.abis);
            let known = abis().any(|abi| abi.arch == arch);
            assert_ne!(known, without.contains(&arch), "{arch:?}");
        }
    }

    #[test]
    fn each_column_is_one_abi_and_the_first_is_the_machines_own() {
        for machine in MACHINES {
            let mut columns: Vec<_> = machine.abis.iter().map(|abi| abi.column).collect();
            assert!(columns.is_sorted(), "{machine:?}");
            columns.dedup();
            assert_eq!(columns.len(), machine.abis.len());
            let endian = machine.abis[0].layout.endian;
            assert!(machine.abis.iter().all(|abi| abi.layout.endian == endian));
        }
    }
}
