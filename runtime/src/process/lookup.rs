//! Looking things up inside the container: the program in PATH, the home
//! directory in passwd.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Plan, explain};
use crate::init::{Failure, Step};

/// Largest passwd file that is searched, in bytes. A directory service may
/// export ten thousand users of 100 bytes; a device or a huge file would
/// otherwise be read for ever.
const PASSWD_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Finds the program as the user of the process, in its working directory.
pub(crate) fn program(plan: &Plan) -> Result<CString, Failure> {
    let name = plan
        .args
        .first()
        .ok_or_else(|| Step::Program.says("process.args is empty"))?;
    let shown = String::from_utf8_lossy(name.as_bytes()).into_owned();
    if name.as_bytes().contains(&b'/') {
        return match executable(name) {
            Ok(()) => Ok(name.clone()),
            Err(errno) => Err(explain::refused(&shown, name, errno)),
        };
    }
    let mut refused = None;
    for directory in plan.search_path.as_deref().unwrap_or("").split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let path = Path::new(directory).join(&shown);
        let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
            continue;
        };
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::ACCESS) => refused = Some(path),
            Err(_) => (),
        }
    }
    match refused {
        Some(path) => Err(explain::refused(&shown, &path, Errno::ACCESS)),
        None => Err(explain::not_found(&shown, plan.search_path.as_deref())),
    }
}

/// Whether this process may execute the regular file at `path`.
fn executable(path: &CStr) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// `HOME=` and the home directory of `uid` in the container's passwd file;
/// `/` where it has none.
pub(crate) fn home(uid: u32) -> CString {
    let found = passwd().and_then(|text| field_of(&text, uid, HOME));
    let mut entry = b"HOME=".to_vec();
    entry.extend(found.unwrap_or_else(|| b"/".to_vec()));
    CString::new(entry).unwrap_or_else(|_| c"HOME=/".to_owned())
}

fn passwd() -> Option<Vec<u8>> {
    // Not blocking: the image may have a FIFO in its place.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open("/etc/passwd", flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    crate::file::read_open(std::fs::File::from(file), PASSWD_BYTES_MAX).ok()
}

/// The name of `uid`, where this process sees a passwd file that has one.
pub(crate) fn name(uid: u32) -> Option<String> {
    let name = field_of(&passwd()?, uid, NAME)?;
    String::from_utf8(name).ok()
}

/// Where the home directory stands in a line of passwd(5):
/// name:password:uid:gid:comment:home:shell.
const HOME: usize = 5;
/// Where the name does.
const NAME: usize = 0;

/// A field of the line of `uid`; `None` where it is empty too.
fn field_of(passwd: &[u8], uid: u32, field: usize) -> Option<Vec<u8>> {
    let wanted = uid.to_string();
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        let found = fields.len() > HOME && fields[2] == wanted.as_bytes();
        (found && !fields[field].is_empty()).then(|| fields[field].to_vec())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_found_by_number_only() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/evil:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
        assert_eq!(field_of(passwd, 0, HOME).unwrap(), b"/root");
        assert_eq!(field_of(passwd, 1000, HOME).unwrap(), b"/home/user");
        assert_eq!(field_of(passwd, 1000, NAME).unwrap(), b"user");
        assert_eq!(field_of(passwd, 7, HOME), None);
        assert_eq!(field_of(b"broken\n:::\n\xff:x:7", 7, HOME), None);
    }
}
