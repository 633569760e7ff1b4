//! Users of a running container, by its own /etc/passwd and /etc/group.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::Error;
use crate::error::At as _;

/// Largest account file read, in bytes; it comes from the image.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// How often an open is tried again that a rename elsewhere on the host disturbed. `openat2(2)`, EAGAIN.
const OPEN_TRIES: usize = 128;

/// A user as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) additional_gids: Vec<u32>,
    pub(super) home: String,
}

/// Resolves `USER[:GROUP]` in the container whose first process is `pid`.
pub(super) fn of_container(pid: i32, text: &str) -> Result<User, Error> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, path.as_str(), flags, Mode::empty()).at("open", path.as_ref())?;
    resolve(text, &read(&root, "etc/passwd"), &read(&root, "etc/group"))
}

/// A file below `root`, as seen from inside; empty where it cannot be read.
fn read(root: &OwnedFd, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..OPEN_TRIES {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN) => {}
            Err(_) => break,
            Ok(fd) => {
                let (file, mut bytes) = (File::from(fd), Vec::new());
                let regular = file.metadata().is_ok_and(|meta| meta.is_file());
                if regular && file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).is_ok() {
                    return String::from_utf8_lossy(&bytes).into_owned();
                }
                break;
            }
        }
    }
    String::new()
}

/// Numbers are numbers, whatever the files call them; names are looked up.
fn resolve(text: &str, passwd: &str, group: &str) -> Result<User, Error> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number = id(user);
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| match number {
            Some(uid) => fields.get(2).and_then(|field| id(field)) == Some(uid),
            None => fields.first() == Some(&user),
        });
    let field = |at: usize| entry.as_ref().and_then(|fields| fields.get(at)).copied();
    let uid = number.or_else(|| id(field(2)?));
    let uid = uid.ok_or_else(|| {
        Error::Invalid(format!(
            "the container has no user {user:?} in its /etc/passwd"
        ))
    })?;
    let gid = match wanted_group {
        None => field(3).and_then(id).unwrap_or(0),
        Some(name) => group_id(name, group)?,
    };
    let name = field(0).unwrap_or(user);
    let additional_gids = if wanted_group.is_some() {
        Vec::new()
    } else {
        memberships(name, group, gid)
    };
    let home = field(5)
        .filter(|home| !home.is_empty())
        .unwrap_or("/")
        .to_owned();
    Ok(User {
        uid,
        gid,
        additional_gids,
        home,
    })
}

fn group_id(text: &str, group: &str) -> Result<u32, Error> {
    if let Some(gid) = id(text) {
        return Ok(gid);
    }
    let mut lines = group.lines().map(|line| line.split(':'));
    let gid = lines.find_map(|mut fields| (fields.next()? == text).then(|| id(fields.nth(1)?))?);
    gid.ok_or_else(|| {
        Error::Invalid(format!(
            "the container has no group {text:?} in its /etc/group"
        ))
    })
}

/// Groups that list the user as a member.
fn memberships(name: &str, group: &str, primary: u32) -> Vec<u32> {
    let member = |line: &str| {
        let fields: Vec<_> = line.split(':').collect();
        let gid = id(fields.get(2)?)?;
        (gid != primary && fields.get(3)?.split(',').any(|member| member == name)).then_some(gid)
    };
    group.lines().filter_map(member).collect()
}

/// A user or group by number: digits only (`+0` is not root), and not the number that stands for none.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:100:101::/srv:/bin/false\n7:x:9:9::/odd:\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:101:\nlog:x:4:web,other\n";

    #[test]
    fn names_and_numbers() {
        let user =
            |text: &str| resolve(text, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.home));
        assert_eq!(user("web").unwrap(), (100, 101, "/srv".into()));
        assert_eq!(user("100").unwrap(), (100, 101, "/srv".into()));
        assert_eq!(user("4711").unwrap(), (4711, 0, "/".into()));
        assert_eq!(
            user("7").unwrap(),
            (7, 0, "/".into()),
            "a number is not a name"
        );
        assert_eq!(user("web:log").unwrap().1, 4);
        assert_eq!(user("0:55").unwrap().1, 55);
        assert!(user("nobody").is_err() && user("web:none").is_err() && user("").is_err());
    }

    // CVE-2024-40635: numbers beyond what the kernel has do not become another user.
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
            assert!(resolve(text, PASSWD, GROUP).is_err(), "{text:?}");
            let group = format!("1:{text}");
            assert!(resolve(&group, PASSWD, GROUP).is_err(), "{group:?}");
        }
        assert_eq!(
            resolve("2147483648", PASSWD, GROUP).unwrap().uid,
            2_147_483_648
        );
    }

    #[test]
    fn groups_of_the_user_come_along_unless_one_was_named() {
        assert_eq!(resolve("web", PASSWD, GROUP).unwrap().additional_gids, [4]);
        assert!(
            resolve("web:www", PASSWD, GROUP)
                .unwrap()
                .additional_gids
                .is_empty()
        );
    }
}
