//! `start`: makes sure that a shim looks after the pod, and says where it listens.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::address::{self, Bound};
use super::bootstrap::{self, Bootstrap};
use super::flags::{Flags, KEEP};
use super::{ADDRESS_FILE, SOCKET_DIR_LINK, bundle};
use crate::Error;
use crate::error::At as _;
use crate::supervisor::cgroups::Cgroups;

/// Annotations that say which pod a container belongs to; the first one there is decides.
const GROUPS: [&str; 2] = [
    "io.containerd.runc.v2.group",
    "io.kubernetes.cri.sandbox-id",
];
/// Largest `config.json` read, in bytes. The runtime refuses larger ones too.
const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// The kernel's largest OOM score adjustment.
const OOM_SCORE_MAX: i32 = 1000;
/// Set where containers shall not share a core with others: containerd's `SCHED_CORE=1`.
const SCHED_CORE: &str = "SCHED_CORE";

/// Runs in the bundle. Returns what goes to standard output.
///
/// # Errors
/// Why nobody looks after the pod now.
pub fn start(flags: &Flags, input: &[u8]) -> Result<Vec<u8>, Error> {
    let has_version = std::env::var_os(bootstrap::VERSION_VARIABLE).is_some();
    let asked = bootstrap::understand(input, &flags.id, &flags.namespace, has_version);
    let dir = asked.socket_dir.as_deref().unwrap_or(address::DIR);
    if asked.socket_dir.is_some() {
        remember(dir)?;
    }
    let group = group(Path::new("config.json")).unwrap_or_else(|| flags.id.clone());
    let socket = address::path(Path::new(dir), &flags.address, &flags.namespace, &group);
    let address = address::address(&socket);
    if let Bound::Ours(listener) = address::listen_at(&socket)? {
        serve(flags, &asked, listener).inspect_err(|_| {
            let _: std::io::Result<()> = std::fs::remove_file(&socket);
        })?;
    }
    // containerd 1.6 finds the shim by this after a restart of its own.
    write_address(&address)?;
    Ok(bootstrap::answer(asked.dialect, &address))
}

/// The pod that the container's annotations name.
fn group(config: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    let mut config: Config = bundle::read_json(config, CONFIG_BYTES_MAX)?;
    GROUPS
        .iter()
        .find_map(|name| config.annotations.remove(*name))
}

/// Leaves a link to the folder of sockets, for who has no parameters to look at.
fn remember(dir: &str) -> Result<(), Error> {
    let link = Path::new(SOCKET_DIR_LINK);
    match std::os::unix::fs::symlink(dir, link) {
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.at("make", link),
    }
}

fn write_address(address: &str) -> Result<(), Error> {
    let space = PathBuf::from(format!(".{ADDRESS_FILE}"));
    std::fs::write(&space, address).at("write", &space)?;
    std::fs::rename(&space, ADDRESS_FILE).at("rename", &space)
}

/// Starts the process that looks after the pod.
fn serve(flags: &Flags, asked: &Bootstrap, listener: OwnedFd) -> Result<(), Error> {
    if std::env::var_os(SCHED_CORE).is_some_and(|value| !value.is_empty()) {
        share_core()?;
    }
    // What starts here inherits where this process is, and what it is worth.
    settle(asked)?;
    let mut keeper = command(flags)?;
    keeper.arg(KEEP).stdin(Stdio::from(listener));
    keeper.spawn().call("execute the shim")?;
    Ok(())
}

/// This program once more, in a process group of its own, for the same container.
///
/// # Errors
/// What the kernel says.
pub(super) fn command(flags: &Flags) -> Result<Command, Error> {
    let program = PathBuf::from("/proc/self/exe");
    let program = std::fs::read_link(&program).at("read", &program)?;
    let mut command = Command::new(&program);
    command.args(arguments(flags)).process_group(0);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

fn arguments(flags: &Flags) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    for (flag, value) in [
        ("-namespace", &flags.namespace),
        ("-id", &flags.id),
        ("-address", &flags.address),
    ] {
        words.extend([flag.into(), value.into()]);
    }
    if flags.debug {
        words.push("-debug".into());
    }
    words
}

/// Puts this process where the shim is to be counted, and a little nearer to the OOM killer than containerd.
fn settle(asked: &Bootstrap) -> Result<(), Error> {
    let group = asked
        .options
        .as_ref()
        .map_or("", |options| options.shim_cgroup.as_str());
    if !group.is_empty() {
        join(group)?;
    }
    let parent = PathBuf::from(format!("/proc/{}/oom_score_adj", parent_id()));
    let score = bundle::read_text(&parent)?
        .trim()
        .parse::<i32>()
        .unwrap_or(0);
    let path = PathBuf::from("/proc/self/oom_score_adj");
    let score = (score + 1).min(OOM_SCORE_MAX).to_string();
    std::fs::write(&path, score).at("write", &path)
}

/// Moves this process into the cgroups at `group`, in each hierarchy that has one there.
fn join(group: &str) -> Result<(), Error> {
    let cgroups = Cgroups::at(group);
    let folders = cgroups.as_ref().map(Cgroups::folders).unwrap_or_default();
    let mut there = folders.iter().filter(|folder| folder.is_dir()).peekable();
    if there.peek().is_none() {
        return Err(Error::Invalid(format!(
            "there is no cgroup {group:?} for the shim"
        )));
    }
    for folder in there {
        let path = folder.join("cgroup.procs");
        std::fs::write(&path, std::process::id().to_string()).at("write", &path)?;
    }
    Ok(())
}

/// Makes a core scheduling group of this process, which the next one inherits.
fn share_core() -> Result<(), Error> {
    use rustix::thread::{CoreSchedulingScope, create_core_scheduling_cookie};
    let own = rustix::process::getpid();
    create_core_scheduling_cookie(own, CoreSchedulingScope::ProcessGroup)
        .call("prctl(PR_SCHED_CORE)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_annotation_names_the_pod() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        for (text, expected) in [
            (
                r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","x":"y"}}"#,
                Some("pod"),
            ),
            (
                r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#,
                Some("g"),
            ),
            ("{}", None),
        ] {
            std::fs::write(&config, text).unwrap();
            assert_eq!(group(&config).as_deref(), expected);
        }
        assert_eq!(group(Path::new("/nosuch")), None);
    }
}
