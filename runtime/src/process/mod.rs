//! The program of a container: planned from `process`, then carried out by
//! init up to `execve(2)`.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::error::Error;
use crate::spec::{ConsoleSize, Process, invalid};

pub(crate) mod apply;
pub(crate) mod caps;
pub(crate) mod execution;
mod explain;
pub(crate) mod keyring;
pub(crate) mod label;
pub(crate) mod lookup;
pub(crate) mod rlimit;
pub(crate) mod terminal;

/// Everything about the program, checked and in the kernel's form.
#[derive(Debug)]
pub(crate) struct Plan {
    /// argv.
    pub args: Vec<CString>,
    /// The environment, without HOME where that is still to be found.
    pub env: Vec<CString>,
    /// Whether HOME must be looked up in the container's passwd file.
    pub needs_home: bool,
    /// Value of PATH, if there is one.
    pub search_path: Option<String>,
    /// Working directory inside the container.
    pub cwd: PathBuf,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// Capability sets; all empty where the specification has none.
    pub caps: caps::Sets,
    /// Words about capabilities that were left out.
    pub warnings: Vec<String>,
    /// Resource limits.
    pub rlimits: Vec<rlimit::Limit>,
    /// Whether execve may never grant privileges.
    pub no_new_privs: bool,
    /// The terminal, with its first size.
    pub terminal: Option<Option<ConsoleSize>>,
    /// Value for `/proc/PID/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// CPUs, scheduler and the like.
    pub execution: execution::Plan,
    /// Labels of security modules.
    pub labels: Vec<label::Label>,
    /// Whether the runtime is no root, and reaches only what anyone may look into.
    pub rootless: bool,
    /// Label of a keyring that is made for the process.
    pub key_label: Option<label::Label>,
}

/// The mask that a process has unless its specification says otherwise.
const UMASK_DEFAULT: u32 = 0o022;

impl Plan {
    /// Plans from a checked `process` and what all processes have in common.
    pub(crate) fn new(process: &Process, common: execution::Common<'_>) -> Result<Plan, Error> {
        let mut warnings = Vec::new();
        let caps = caps::Sets::parse(process.capabilities.as_ref(), &mut warnings);
        let rlimits = process
            .rlimits
            .iter()
            .enumerate()
            .map(|(index, limit)| rlimit::Limit::parse(limit, index));
        let mut env = environment(&process.env);
        let home = env.iter().position(|entry| entry.starts_with(b"HOME="));
        let home_is_empty = home.is_some_and(|index| env[index].len() == b"HOME=".len());
        if let (true, Some(index)) = (home_is_empty, home) {
            env.remove(index);
        }
        let search_path = env.iter().find_map(|entry| entry.strip_prefix(b"PATH="));
        Ok(Plan {
            needs_home: home.is_none() || home_is_empty,
            search_path: search_path.map(|path| String::from_utf8_lossy(path).into_owned()),
            args: c_strings(process.args.iter().map(OsStr::new))?,
            env: c_strings(env.iter().map(|entry| OsStr::from_bytes(entry)))?,
            cwd: process.cwd.clone(),
            uid: process.user.uid,
            gid: process.user.gid,
            groups: process.user.additional_gids.clone(),
            umask: process.user.umask.unwrap_or(UMASK_DEFAULT),
            caps,
            warnings,
            rlimits: rlimits.collect::<Result<_, _>>()?,
            no_new_privs: process.no_new_privileges,
            terminal: process.terminal.then_some(process.console_size),
            oom_score_adj: process.oom_score_adj,
            execution: execution::Plan::new(process, common)?,
            labels: label::plan(process, label::HOST)?,
            rootless: !rustix::process::geteuid().is_root(),
            key_label: label::of_keys(process),
        })
    }
}

impl Plan {
    /// Tells the program of `count` sockets that it is passed from descriptor
    /// 3 on. It is process 1 in its own eyes (`sd_listen_fds(3)`).
    #[must_use]
    pub(crate) fn listening(mut self, count: u32) -> Plan {
        if count > 0 {
            let known = [&b"LISTEN_FDS="[..], b"LISTEN_PID="];
            self.env
                .retain(|entry| !known.iter().any(|name| entry.as_bytes().starts_with(name)));
            let told = [format!("LISTEN_FDS={count}"), "LISTEN_PID=1".into()];
            self.env.extend(
                told.into_iter()
                    .filter_map(|entry| CString::new(entry).ok()),
            );
        }
        self
    }
}

/// One entry a name: the last one wins, at the place of the first.
fn environment(entries: &[String]) -> Vec<&[u8]> {
    let mut out: Vec<&[u8]> = Vec::with_capacity(entries.len() + 1);
    let name = |entry: &[u8]| {
        entry
            .iter()
            .position(|&byte| byte == b'=')
            .unwrap_or(entry.len())
    };
    // Names are few, but a hostile file may have many: sorting would lose the
    // order that programs print, so a set remembers where each name stands.
    let mut places = std::collections::BTreeMap::new();
    for entry in entries {
        let entry = entry.as_bytes();
        match places.entry(&entry[..name(entry)]) {
            std::collections::btree_map::Entry::Occupied(place) => out[*place.get()] = entry,
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(out.len());
                out.push(entry);
            }
        }
    }
    out
}

/// Strings with the NUL at the end that the kernel wants.
pub(crate) fn c_strings<'a>(
    strings: impl Iterator<Item = &'a OsStr>,
) -> Result<Vec<CString>, Error> {
    strings
        .map(|text| {
            CString::new(text.as_bytes()).map_err(|_| invalid("process", "contains a NUL byte"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(env: &[&str]) -> Plan {
        let process = Process {
            env: env.iter().map(|e| (*e).to_owned()).collect(),
            ..Process::default()
        };
        Plan::new(&process, execution::Common::default()).unwrap()
    }

    #[test]
    fn the_last_of_two_variables_wins() {
        let plan = plan(&["A=1", "HOME=/x", "A=2"]);
        assert_eq!(plan.env, [c"A=2".to_owned(), c"HOME=/x".to_owned()]);
        assert!(!plan.needs_home);
    }

    #[test]
    fn an_empty_home_is_looked_up() {
        let plan = plan(&["HOME=/x", "HOME="]);
        assert!(plan.needs_home);
        assert!(plan.env.is_empty());
    }

    #[test]
    fn without_a_mask_it_is_022() {
        assert_eq!(plan(&[]).umask, 0o022);
    }
}
