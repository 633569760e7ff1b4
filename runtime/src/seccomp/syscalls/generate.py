#!/usr/bin/env python3
"""Writes the tables of system calls beside this script from the kernel's headers.

Run by hand when a kernel brings new calls; the result is committed. Each
argument is an unpacked Debian package, the newest first: of each header the
first that exists is read. The package of a kernel has those of all its
architectures; the second is there for the 31-bit calls of s390, which newer
kernels no longer have.

    apt-get download linux-libc-dev=7.2.13-1 linux-libc-dev=6.12.107-1
    dpkg -x linux-libc-dev_7.2.13-1_all.deb new
    dpkg -x linux-libc-dev_6.12.107-1_all.deb old
    ./generate.py new old
"""

import re
import sys
from pathlib import Path

# File: its columns, each with the headers that number it.
FAMILIES = {
    "arm": {"aarch64": ["arm64/unistd_64.h"], "arm": ["arm/unistd-eabi.h", "arm/unistd.h"]},
    "loongarch": {"loongarch64": ["loongarch/unistd_64.h"]},
    "m68k": {"m68k": ["m68k/unistd_32.h"]},
    "mips": {
        "mips64": ["mips/unistd_n64.h"],
        "mips": ["mips/unistd_o32.h"],
        "mips64n32": ["mips/unistd_n32.h"],
    },
    "powerpc": {"ppc64": ["powerpc/unistd_64.h"], "ppc": ["powerpc/unistd_32.h"]},
    "riscv": {"riscv64": ["riscv/unistd_64.h"]},
    "s390": {"s390x": ["s390/unistd_64.h"], "s390": ["s390/unistd_32.h"]},
    "x86": {
        "x86_64": ["x86/unistd_64.h"],
        "x86": ["x86/unistd_32.h"],
        "x32": ["x86/unistd_x32.h"],
    },
}
# What the headers add the numbers to. x32's bit 30 is left out of the table.
BASES = {"unistd_o32.h": 4000, "unistd_n64.h": 5000, "unistd_n32.h": 6000, "unistd.h": 0xF0000}
CALL = re.compile(r"#define\s+__(?:ARM_)?NR_(\w+)\s+\(?(?:__\w+\s*\+\s*)?(\d+)\)?\s*$", re.M)
# One call, two names.
ALIAS = re.compile(r"#define\s+__NR_(\w+)\s+__NR_(\w+)\s*$", re.M)
# Not calls: where those of Arm start, and how many there are.
MARKS = {"BASE", "SYSCALL_BASE", "syscalls"}


def column(packages, headers):
    """The numbers of one architecture by name."""
    numbers = {}
    for header in headers:
        folder, name = header.split("/")
        inside = f"usr/lib/linux/uapi/{folder}/asm/{name}"
        found = [path for package in packages if (path := Path(package, inside)).exists()]
        if not found:
            sys.exit(f"{inside}: in none of {packages}")
        text, base = found[0].read_text(), BASES.get(name, 0)
        numbers |= {call: base + int(number) for call, number in CALL.findall(text) if call not in MARKS}
        numbers |= {alias: numbers[call] for alias, call in ALIAS.findall(text) if call in numbers}
    return numbers


def table(packages, columns):
    """The text of one family: a line for each call that any of its columns has."""
    numbers = [column(packages, headers) for headers in columns.values()]
    lines = ["# Written by generate.py. name " + " ".join(columns)]
    for call in sorted(set().union(*numbers)):
        lines.append(" ".join([call, *(str(known.get(call, "-")) for known in numbers)]))
    return "\n".join(lines) + "\n"


def main():
    packages = sys.argv[1:]
    if not packages:
        sys.exit(__doc__)
    for family, columns in FAMILIES.items():
        Path(__file__).with_name(f"{family}.txt").write_text(table(packages, columns))


main()
