//! Why a program cannot be executed, in words that help.
//!
//! The kernel says ENOENT for a missing interpreter just as for a missing
//! program, and ENOEXEC for nearly everything else; the file itself says more.

use std::ffi::CStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// Bytes of a program that are looked at: the kernel reads 256 of a script,
/// and the program headers of an ELF file stand within the first page.
const HEAD_BYTES: u64 = 4096;

/// Words for a program that the lookup refused.
pub(super) fn refused(path: &CStr, errno: Errno) -> String {
    let reason = match errno {
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::NOENT => "no such file or directory".to_owned(),
        errno => std::io::Error::from(errno).to_string(),
    };
    let Ok(stat) = rustix::fs::stat(path) else {
        return reason;
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => format!("is a directory: {reason}"),
        FileType::RegularFile if stat.st_mode & 0o111 == 0 => {
            format!("{reason} (the file has no execute permission: chmod +x it)")
        }
        _ => reason,
    }
}

/// Words about a program whose execve failed with `errno`.
pub(super) fn failed(path: &CStr, errno: Errno) -> Option<String> {
    let head = head(path)?;
    match errno {
        Errno::NOENT | Errno::ACCESS if head.starts_with(b"#!") => script(&head),
        Errno::NOENT => {
            let loader = elf_interpreter(&head)?;
            let loader = String::from_utf8_lossy(loader).into_owned();
            (!exists(&loader)).then(|| format!("its loader {loader:?} is missing in the container"))
        }
        Errno::NOEXEC => Some(not_executable(&head)),
        Errno::ACCESS if on_noexec(path) => Some("the file system is mounted noexec".into()),
        _ => None,
    }
}

fn head(path: &CStr) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    Some(head)
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

fn on_noexec(path: &CStr) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.bits() & libc::ST_NOEXEC != 0)
}

fn script(head: &[u8]) -> Option<String> {
    let line = head[2..].split(|&byte| byte == b'\n').next()?;
    let words = line.trim_ascii_start();
    let interpreter = words.split(|byte| *byte == b' ' || *byte == b'\t').next()?;
    if interpreter.ends_with(b"\r") {
        return Some("its first line ends in CR LF: save it with Unix line ends".into());
    }
    let name = String::from_utf8_lossy(interpreter).into_owned();
    let path = Path::new(std::ffi::OsStr::from_bytes(interpreter));
    (!path.exists()).then(|| format!("its interpreter {name:?} is missing in the container"))
}

fn not_executable(head: &[u8]) -> String {
    if head.is_empty() {
        return "the file is empty".into();
    }
    if !head.starts_with(b"\x7fELF") {
        return "neither a program nor a script with #! in its first line".into();
    }
    match (head.get(18), head.get(19)) {
        (Some(&low), Some(&high)) => {
            let machine = u16::from_le_bytes([low, high]);
            let name = MACHINES
                .iter()
                .find(|(number, _)| *number == machine)
                .map_or("another machine", |(_, name)| *name);
            format!(
                "the program is for {name}, this machine is {}",
                std::env::consts::ARCH
            )
        }
        _ => "the program is cut off".into(),
    }
}

/// `e_machine` of the machines that images are made for (`elf(5)`).
const MACHINES: [(u16, &str); 8] = [
    (3, "i386"),
    (8, "mips"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
];

/// The PT_INTERP of a little-endian ELF file of 32 or 64 bits (`elf(5)`).
fn elf_interpreter(head: &[u8]) -> Option<&[u8]> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, bytes: usize| {
        let field = head.get(at..at.checked_add(bytes)?)?;
        Some(
            field
                .iter()
                .rev()
                .fold(0u64, |sum, &byte| sum << 8 | u64::from(byte)),
        )
    };
    if !head.starts_with(b"\x7fELF") || head.get(5) != Some(&1) {
        return None;
    }
    let wide = head.get(4) == Some(&2);
    // Offsets of e_phoff, e_phentsize, e_phnum; then of p_offset, p_filesz.
    let (table, size, count) = if wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    for index in 0..count.min(64) {
        let entry = usize::try_from(table.checked_add(index * size)?).ok()?;
        if number(entry, 4)? != PT_INTERP {
            continue;
        }
        let (offset, length) = if wide {
            (
                number(entry.checked_add(8)?, 8)?,
                number(entry.checked_add(32)?, 8)?,
            )
        } else {
            (
                number(entry.checked_add(4)?, 4)?,
                number(entry.checked_add(16)?, 4)?,
            )
        };
        let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        return head
            .get(offset..offset.checked_add(length)?)?
            .strip_suffix(b"\0");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_from_windows_is_recognised() {
        assert!(script(b"#!/bin/sh\r\necho\r\n").unwrap().contains("CR LF"));
        assert!(
            script(b"#! /no/such/sh -e\n")
                .unwrap()
                .contains("\"/no/such/sh\"")
        );
        assert_eq!(script(b"#!/proc\n"), None);
    }

    #[test]
    fn a_foreign_program_is_named() {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(64, 0);
        head[18] = 183;
        assert!(not_executable(&head).contains("aarch64"));
        assert!(not_executable(b"hello").contains("#!"));
        assert!(not_executable(b"").contains("empty"));
    }

    #[test]
    fn the_loader_of_a_dynamic_program_is_found() {
        let mut file = vec![0u8; 256];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64; // e_phoff
        file[54] = 56; // e_phentsize
        file[56] = 1; // e_phnum
        file[64] = 3; // PT_INTERP
        file[72] = 200; // p_offset
        file[96] = 9; // p_filesz
        file[200..209].copy_from_slice(b"/lib/ld.\0");
        assert_eq!(elf_interpreter(&file), Some(&b"/lib/ld."[..]));
        assert_eq!(elf_interpreter(&file[..100]), None);
        assert_eq!(elf_interpreter(b"\x7fELF\x02\x01"), None);
    }
}
