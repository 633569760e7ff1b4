//! From `USER name:group` to numbers, by the image's own `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! Read from inside the image's root, as regular files of bounded size: a passwd may be a link to /dev/zero
//! (security.md, S23). The host's name services are never asked.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

/// Largest passwd or group read, in bytes; with a million users one has some 50 MB, which no image has.
pub(super) const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// How often an open is tried again when somebody renames a directory on the host meanwhile.
const TRIES: usize = 128;
/// Largest user or group id.
const ID_MAX: u32 = u32::MAX - 1;

/// A user, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups; the first is the group itself, as docker has it.
    pub additional_gids: Vec<u32>,
    /// The home directory, where passwd knows one.
    pub home: Option<String>,
}

/// Why a user could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// passwd has no such name.
    #[error("the image's /etc/passwd knows no user {0:?}")]
    NoUser(String),
    /// group has no such name.
    #[error("the image's /etc/group knows no group {0:?}")]
    NoGroup(String),
    /// One of the files.
    #[error("read the image's {path}")]
    Read {
        /// Which.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Finds `wanted` (`""`, `user`, `uid`, `user:group`, `uid:gid`) in `rootfs`. Numbers are taken as numbers;
/// a number that passwd knows brings its groups and home.
pub(super) fn resolve(rootfs: BorrowedFd<'_>, wanted: &str) -> Result<User, UserError> {
    let passwd = read(rootfs, "/etc/passwd")?;
    let group = read(rootfs, "/etc/group")?;
    find(&passwd, &group, wanted)
}

/// The content of a file in the image; empty where there is none.
fn read(rootfs: BorrowedFd<'_>, path: &'static str) -> Result<String, UserError> {
    let failed = |source| UserError::Read { path, source };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut opened = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        opened = openat2(rootfs, path, flags, Mode::empty(), resolve);
        if !matches!(opened, Err(Errno::AGAIN)) {
            break;
        }
    }
    let file = match opened {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        other => other.map_err(|errno| failed(errno.into()))?,
    };
    let stat = fstat(&file).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::other(format!(
            "it has more than {FILE_BYTES_MAX} bytes"
        ))));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn find(passwd: &str, group: &str, wanted: &str) -> Result<User, UserError> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user);
    let entry = entries(passwd, 7).find(|fields| match number {
        Some(uid) => id(fields[2]) == Some(uid),
        None => fields[0] == user,
    });
    let uid = number.or_else(|| entry.as_ref().and_then(|fields| id(fields[2])));
    let uid = uid.ok_or_else(|| UserError::NoUser(user.to_owned()))?;
    let home = entry
        .as_ref()
        .map(|fields| fields[5].to_owned())
        .filter(|home| home.starts_with('/'));
    if let Some(name) = wanted_group {
        let named = || {
            entries(group, 4)
                .find(|fields| fields[0] == name)
                .and_then(|fields| id(fields[2]))
        };
        let gid = id(name)
            .or_else(named)
            .ok_or_else(|| UserError::NoGroup(name.to_owned()))?;
        // A group that is asked for replaces all others.
        return Ok(User {
            uid,
            gid,
            additional_gids: vec![gid],
            home,
        });
    }
    let gid = entry.as_ref().and_then(|fields| id(fields[3])).unwrap_or(0);
    let mut additional_gids = vec![gid];
    if let Some(name) = entry.map(|fields| fields[0]) {
        let member = |fields: &Vec<&str>| fields[3].split(',').any(|member| member == name);
        for further in entries(group, 4)
            .filter(member)
            .filter_map(|fields| id(fields[2]))
        {
            if !additional_gids.contains(&further) {
                additional_gids.push(further);
            }
        }
    }
    Ok(User {
        uid,
        gid,
        additional_gids,
        home,
    })
}

/// The lines with at least `count` fields.
fn entries(text: &str, count: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(move |fields| fields.len() >= count)
}

fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id <= ID_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/srv:/bin/sh\nbroken:x\n1234:x:7:8::/:/x\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,web\nweb:x:1001:\nadm:x:4:root\n";

    /// What is wanted, and what is found: user, group, all groups, home.
    type Row = (&'static str, u32, u32, &'static [u32], Option<&'static str>);

    #[test]
    fn names_and_numbers() {
        let rows: [Row; 8] = [
            ("", 0, 0, &[0, 10, 4], Some("/root")),
            ("web", 1000, 1001, &[1001, 10], Some("/srv")),
            ("1000", 1000, 1001, &[1001, 10], Some("/srv")),
            ("web:adm", 1000, 4, &[4], Some("/srv")),
            ("web:", 1000, 1001, &[1001, 10], Some("/srv")),
            ("5000", 5000, 0, &[0], None),
            ("5000:6000", 5000, 6000, &[6000], None),
            // A name of digits only is a number.
            ("1234", 1234, 0, &[0], None),
        ];
        for (wanted, uid, gid, additional, home) in rows {
            let user = User {
                uid,
                gid,
                additional_gids: additional.to_vec(),
                home: home.map(str::to_owned),
            };
            assert_eq!(find(PASSWD, GROUP, wanted).unwrap(), user, "{wanted:?}");
        }
        assert!(matches!(
            find(PASSWD, GROUP, "nobody"),
            Err(UserError::NoUser(_))
        ));
        assert!(matches!(
            find(PASSWD, GROUP, "web:nobody"),
            Err(UserError::NoGroup(_))
        ));
        assert!(matches!(
            find(PASSWD, GROUP, "4294967295"),
            Err(UserError::NoUser(_))
        ));
    }

    // CVE-2024-40635, CVE-2026-46680: numbers beyond what the kernel has do not become another user.
    #[test]
    fn odd_numbers_are_nobody() {
        for text in [
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "-1",
            "+0",
            " 0",
            "0x0",
            "\u{660}",
        ] {
            assert!(find(PASSWD, GROUP, text).is_err(), "{text:?}");
            let group = format!("1:{text}");
            assert!(find(PASSWD, GROUP, &group).is_err(), "{group:?}");
        }
        let uid = find(PASSWD, GROUP, "2147483648").map(|user| user.uid);
        assert!(uid.is_ok_and(|uid| uid == 2_147_483_648));
    }

    // security.md, S23.
    #[test]
    fn odd_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let root = File::open(dir.path()).unwrap();
        let root = std::os::fd::AsFd::as_fd(&root);
        assert_eq!(resolve(root, "0").unwrap().uid, 0);
        std::os::unix::fs::symlink("/dev/zero", etc.join("group")).unwrap();
        // The link leads to the image's own /dev, which is not there.
        assert_eq!(resolve(root, "0").unwrap().uid, 0);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            etc.join("passwd"),
            FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(resolve(root, "0").is_err());
        std::fs::remove_file(etc.join("passwd")).unwrap();
        File::create(etc.join("passwd"))
            .unwrap()
            .set_len(300 << 20)
            .unwrap();
        assert!(resolve(root, "0").is_err());
    }
}
