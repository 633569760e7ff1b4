//! The ids of a user namespace: mapped by newuidmap(1) and newgidmap(1), by root itself, or one alone.
//!
//! ```text
//! teu-build                               teu-build map-ids PID ...
//!   starts  ──────────────────────────────►  waits for a byte on its standard input
//!   makes its user namespace
//!   writes the byte  ─────────────────────►  newgidmap PID ..., newuidmap PID ...
//!   is root  ◄────────────────────────────  ends
//! ```
//!
//! End of file instead of the byte ends the helper: nothing is left of a build that was killed meanwhile.

use super::Refused;
use rustix::process::{getegid, geteuid};
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use teu_store::bundle::{Ids, lender};

/// The word with which this program starts itself as helper.
pub const MAP_IDS: &str = "map-ids";

/// How many ids there are; one less than this is what root's own namespace is told by.
const ALL_IDS: u64 = 4_294_967_295;

/// Who maps the ids of the new namespace, and which.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lent {
    /// By their helpers, for a user to whom they are lent.
    ByPrograms(Ids),
    /// By root, who lacks other privileges, itself: all that it has.
    ByRoot { users: String, groups: String },
}

/// This user and this group, outside of any namespace of ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    uid: u32,
    gid: u32,
}

/// Asked before a user namespace is made: in it, until they are mapped, ids have no numbers.
pub(super) fn own() -> Own {
    Own {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    }
}

fn missing(why: String, advice: String) -> Refused {
    Refused {
        attempt: "find subordinate ids",
        why,
        advice: Some(advice),
    }
}

/// Which ids can be had besides the user's own.
///
/// # Errors
/// None, and what is missing.
pub(super) fn to_lend() -> Result<Lent, Refused> {
    if geteuid().is_root() {
        let all = |path| fs::read_to_string(path).map(|map| identity(&map));
        if let (Ok(users), Ok(groups)) = (all("/proc/self/uid_map"), all("/proc/self/gid_map")) {
            return Ok(Lent::ByRoot { users, groups });
        }
    }
    for program in ["newuidmap", "newgidmap"] {
        if lender(program).is_none() {
            return Err(missing(
                format!("{program} is not installed"),
                "install newuidmap and newgidmap (package uidmap, or shadow-utils)".to_owned(),
            ));
        }
    }
    let ids = Ids::of_this_user();
    for (list, file) in [(&ids.users, "/etc/subuid"), (&ids.groups, "/etc/subgid")] {
        if list.len() < 2 {
            let uid = geteuid().as_raw();
            return Err(missing(
                format!("{file} lends none to user {uid}"),
                format!("add a line such as {uid}:100000:65536 to {file}"),
            ));
        }
    }
    Ok(Lent::ByPrograms(ids))
}

/// A map of all ids of a namespace to themselves. The last one is left out where these are all there are: so nobody takes
/// the new namespace for the host's.
fn identity(map: &str) -> String {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (first, count) = (fields.next()?, fields.nth(1)?.parse::<u64>().ok()?);
        Some(format!("{first} {first} {}\n", count.min(ALL_IDS - 1)))
    };
    map.lines().filter_map(line).collect()
}

/// The helper, waiting.
#[derive(Debug)]
pub(super) struct Helper {
    child: Child,
}

impl Helper {
    /// Starts it; it does nothing yet.
    ///
    /// # Errors
    /// This program cannot be executed again.
    pub(super) fn start(lent: &Lent) -> Result<Self, Refused> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(MAP_IDS).arg(std::process::id().to_string());
        match lent {
            Lent::ByPrograms(ids) => command.args([pairs(&ids.users), pairs(&ids.groups)]),
            Lent::ByRoot { users, groups } => command.args(["root", users, groups]),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let child = command.stderr(Stdio::piped()).spawn();
        let child = child.map_err(|error| Refused {
            attempt: "start the helper that maps ids",
            why: error.to_string(),
            advice: None,
        })?;
        Ok(Self { child })
    }

    /// Lets it map the ids of the namespace that this process is now in.
    ///
    /// # Errors
    /// What it said.
    pub(super) fn map(mut self) -> Result<(), Refused> {
        let said = |why: String| Refused {
            attempt: "map subordinate ids",
            advice: advice(&why),
            why,
        };
        let input = self.child.stdin.take();
        // What fails here shows in how it ends.
        let _ = input.map(|mut input| input.write_all(b"."));
        let output = self.child.wait_with_output();
        let output = output.map_err(|error| said(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(said(text.split_whitespace().collect::<Vec<_>>().join(" ")))
    }
}

/// Why programs that lend ids would not be able to.
fn advice(said: &str) -> Option<String> {
    if said.contains("Cannot determine your user name") {
        let own = geteuid().as_raw();
        return Some(format!(
            "user {own} has no line in /etc/passwd, which newuidmap wants"
        ));
    }
    if super::knobs::status("NoNewPrivs").is_some_and(|value| value == "1") {
        return Some("no_new_privs is set for this process (in containers: allowPrivilegeEscalation: false, or --security-opt no-new-privileges), which takes newuidmap its privileges".to_owned());
    }
    let unprivileged = ["newuidmap", "newgidmap"]
        .into_iter()
        .filter_map(lender)
        .find(|program| !is_privileged(program));
    unprivileged.map(|program| {
        let program = program.display();
        format!("{program} is neither setuid nor has file capabilities: chmod u+s {program}")
    })
}

fn is_privileged(program: &PathBuf) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let setuid = fs::metadata(program).is_ok_and(|meta| meta.permissions().mode() & 0o4000 != 0);
    let mut value = [0; 64];
    setuid || rustix::fs::getxattr(program, "security.capability", &mut value[..]).is_ok()
}

/// Ranges as words of a command line: first id outside, and how many.
fn pairs(ranges: &[(u32, u32)]) -> String {
    let words: Vec<String> = ranges
        .iter()
        .map(|(first, count)| format!("{first} {count}"))
        .collect();
    words.join(" ")
}

/// The lines of a map, as words: first id inside, first outside, how many.
fn map(pairs: &str) -> Vec<String> {
    let numbers: Vec<&str> = pairs.split_whitespace().collect();
    let mut inside = 0;
    let mut words = Vec::new();
    for pair in numbers.chunks_exact(2) {
        words.extend([inside.to_string(), pair[0].to_owned(), pair[1].to_owned()]);
        inside += pair[1].parse::<u64>().unwrap_or(0);
    }
    words
}

/// What the helper does: `map-ids PID USERS GROUPS`, or `map-ids PID root USERS GROUPS`.
pub fn helper(arguments: &[String]) -> ExitCode {
    let mut go = [0];
    if !matches!(io::stdin().read(&mut go), Ok(1)) {
        return ExitCode::FAILURE;
    }
    let mapped = match arguments {
        [pid, users, groups] => {
            lend("newgidmap", pid, groups).and_then(|()| lend("newuidmap", pid, users))
        }
        [pid, _root, users, groups] => fs::write(format!("/proc/{pid}/gid_map"), groups)
            .and_then(|()| fs::write(format!("/proc/{pid}/uid_map"), users)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    match mapped {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn lend(program: &str, pid: &str, ranges: &str) -> io::Result<()> {
    let path = lender(program).ok_or(io::ErrorKind::NotFound)?;
    let status = Command::new(path).arg(pid).args(map(ranges)).status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program}: {status}")))
}

/// Maps the user to root, and nobody else; user_namespaces(7). What is mapped already stays.
pub(super) fn map_one(own: Own) -> Result<(), Refused> {
    let write = |file: &str, text: &str| match fs::read_to_string(file) {
        Ok(known) if file.ends_with("_map") && !known.trim().is_empty() => Ok(()),
        _ => fs::write(file, text),
    };
    let is_open = fs::read_to_string("/proc/self/gid_map").is_ok_and(|map| map.trim().is_empty());
    let denied = if is_open {
        write("/proc/self/setgroups", "deny")
    } else {
        Ok(())
    };
    denied
        .and_then(|()| write("/proc/self/gid_map", &format!("0 {} 1", own.gid)))
        .and_then(|()| write("/proc/self/uid_map", &format!("0 {} 1", own.uid)))
        .map_err(|error| {
            let errno = rustix::io::Errno::from_io_error(&error);
            Refused::by_kernel("map the user's id", errno.unwrap_or(rustix::io::Errno::IO))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps() {
        assert_eq!(
            pairs(&[(1000, 1), (100_000, 65_536)]),
            "1000 1 100000 65536"
        );
        let words = map("1000 1 100000 65536 500000 10");
        assert_eq!(words.join(" "), "0 1000 1 1 100000 65536 65537 500000 10");
        assert_eq!(
            identity("         0          0 4294967295\n"),
            "0 0 4294967294\n"
        );
        assert_eq!(identity("0 1000 1\n1 100000 9\n"), "0 0 1\n1 1 9\n");
    }
}
