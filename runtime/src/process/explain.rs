//! Why a program cannot be executed, in words that help.
//!
//! The kernel says ENOENT for a missing interpreter just as for a missing
//! program, and ENOEXEC for nearly everything else; the file itself says more.

use std::ffi::{CStr, OsStr};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::init::{Failure, Step};

/// Bytes of a program that are looked at: the kernel reads 256 of a script,
/// and the program headers of an ELF file stand within the first page.
const HEAD_BYTES: u64 = 4096;

/// The failure of a program that the lookup refused.
pub(super) fn refused(shown: &str, path: &CStr, errno: Errno) -> Failure {
    let object = format!("{shown:?}");
    let failure = |reason: String| Failure {
        errno: errno.raw_os_error(),
        ..Step::Program.refuses(&object, reason)
    };
    if errno == Errno::NOENT {
        return failure(format!("stat {shown}")).hint(missing(path));
    }
    let Ok(stat) = rustix::fs::stat(path) else {
        return failure(String::new());
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => failure("is a directory".into()),
        FileType::RegularFile if stat.st_mode & 0o111 == 0 => {
            failure(String::new()).hint("the file has no execute permission: chmod +x it")
        }
        FileType::RegularFile if on_noexec(path) => failure(String::new()).hint(NOEXEC),
        FileType::RegularFile => failure(String::new()).hint(format!(
            "its mode is {:04o}, owner {}:{}: this user may not execute it",
            stat.st_mode & 0o7777,
            stat.st_uid,
            stat.st_gid
        )),
        _ => failure("is not a regular file".into()),
    }
}

/// The failure of a name that is in no directory of PATH.
pub(super) fn not_found(shown: &str, path: Option<&str>) -> Failure {
    let failure = Step::Program.refuses(format!("{shown:?}"), "executable file not found in $PATH");
    match path {
        None | Some("") => {
            failure.hint("process.env has no PATH: set one, or give an absolute path")
        }
        Some(path) => failure.hint(format!("PATH={path}")),
    }
}

const NOEXEC: &str =
    "its file system is mounted noexec: mount it with exec, or put the program elsewhere";

/// Which part of a missing path is missing.
fn missing(path: &CStr) -> String {
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    if path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
        let target = path.read_link().unwrap_or_default();
        return format!("it is a symbolic link to {target:?}, which is not in the container");
    }
    match crate::file::first_missing(path) {
        Some(missing) => format!("the container has no {missing:?}"),
        None => "the container has no such file".into(),
    }
}

/// Completes the failure of an execve by what the file itself tells.
pub(super) fn failed(path: &CStr, failure: Failure) -> Failure {
    match reason(
        Path::new(OsStr::from_bytes(path.to_bytes())),
        failure.errno,
        INTERPRETERS_MAX,
    ) {
        Some(reason) => failure.hint(reason),
        None => failure,
    }
}

/// How many interpreters of interpreters are followed: as many as the kernel does.
const INTERPRETERS_MAX: u32 = 5;

fn reason(path: &Path, errno: i32, depth: u32) -> Option<String> {
    if errno == libc::E2BIG {
        return Some("its arguments and its environment are larger than the kernel takes".into());
    }
    let head = head(path)?;
    if head.starts_with(b"#!") {
        return script(&head, errno, depth);
    }
    match errno {
        libc::ENOENT => {
            let loader = elf_interpreter(&head)?;
            (!Path::new(&loader).exists()).then(|| {
                format!(
                    "its loader {loader:?} is missing in the container: \
                     link the program statically, or take an image with that C library"
                )
            })
        }
        libc::ENOEXEC => Some(not_executable(&head)),
        libc::ELIBBAD => Some("its loader is not for this machine, or is damaged".into()),
        libc::EACCES if noexec(path) => Some(NOEXEC.into()),
        _ => None,
    }
}

/// The first bytes of a regular file; others are not even opened for reading.
fn head(path: &Path) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    Some(head)
}

fn on_noexec(path: &CStr) -> bool {
    noexec(Path::new(OsStr::from_bytes(path.to_bytes())))
}

fn noexec(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.bits() & libc::ST_NOEXEC != 0)
}

/// What is wrong with the interpreter of a script. The kernel gives its error
/// as that of the script.
fn script(head: &[u8], errno: i32, depth: u32) -> Option<String> {
    let line = head[2..].split(|&byte| byte == b'\n').next()?;
    let words = line.trim_ascii_start();
    let interpreter = words.split(|byte| *byte == b' ' || *byte == b'\t').next()?;
    if line.ends_with(b"\r") {
        return Some("its first line ends in CR LF: save it with Unix line ends".into());
    }
    if interpreter.is_empty() {
        return Some("no interpreter stands behind the #! of its first line".into());
    }
    let path = Path::new(OsStr::from_bytes(interpreter));
    let Ok(found) = path.metadata() else {
        return Some(format!(
            "its interpreter {path:?} is missing in the container"
        ));
    };
    if found.is_dir() {
        return Some(format!("its interpreter {path:?} is a directory"));
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Some(format!(
            "its interpreter {path:?} has no execute permission"
        ));
    }
    let inner = reason(path, errno, depth.checked_sub(1)?)?;
    Some(format!("of its interpreter {path:?}: {inner}"))
}

fn not_executable(head: &[u8]) -> String {
    if head.is_empty() {
        return "the file is empty".into();
    }
    if !head.starts_with(b"\x7fELF") {
        return if head.contains(&0) {
            "it is not a program for Linux".into()
        } else {
            "it is text without #! and an interpreter in its first line".into()
        };
    }
    let big = head.get(5) == Some(&2);
    match (head.get(18), head.get(19)) {
        (Some(&first), Some(&second)) => {
            let bytes = [first, second];
            let machine = if big {
                u16::from_be_bytes(bytes)
            } else {
                u16::from_le_bytes(bytes)
            };
            let name = MACHINES
                .iter()
                .find(|(number, _)| *number == machine)
                .map_or("another machine", |(_, name)| *name);
            if name == std::env::consts::ARCH {
                return "the program is damaged or cut off".into();
            }
            format!(
                "the program is for {name}, this machine is {}: take an image for it",
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
fn elf_interpreter(head: &[u8]) -> Option<PathBuf> {
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
        let name = head
            .get(offset..offset.checked_add(length)?)?
            .strip_suffix(b"\0")?;
        return Some(Path::new(OsStr::from_bytes(name)).to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_from_windows_is_recognised() {
        let said = |head: &[u8]| script(head, libc::ENOENT, 1).unwrap();
        assert!(said(b"#!/bin/sh\r\necho\r\n").contains("CR LF"));
        assert!(said(b"#!/bin/sh -e\r\n").contains("CR LF"));
        assert!(said(b"#! /no/such/sh -e\n").contains("\"/no/such/sh\""));
        assert!(said(b"#!/proc\n").contains("directory"));
        assert!(said(b"#! \n").contains("no interpreter"));
    }

    #[test]
    fn a_foreign_program_is_named() {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(64, 0);
        head[18] = 22;
        assert!(not_executable(&head).contains("s390x"));
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
        assert_eq!(elf_interpreter(&file), Some(PathBuf::from("/lib/ld.")));
        assert_eq!(elf_interpreter(&file[..100]), None);
        assert_eq!(elf_interpreter(b"\x7fELF\x02\x01"), None);
    }
}
