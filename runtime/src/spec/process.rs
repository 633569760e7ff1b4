//! `process`: what runs in the container and as whom (config.md, "Process").

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{invalid, nullable};
use crate::error::Error;

/// The program of a container, or one that `exec` adds to it.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    /// Whether its standard streams are a new terminal.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub terminal: bool,
    /// First size of that terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Ids of the process.
    #[serde(default, deserialize_with = "nullable")]
    pub user: User,
    /// argv; the first entry is searched in the container's `PATH`.
    #[serde(default, deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// The whole environment, `NAME=value` each.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// Working directory, absolute, inside the container.
    #[serde(default, deserialize_with = "nullable")]
    pub cwd: PathBuf,
    /// The five capability sets. Absent: the process has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub rlimits: Vec<Rlimit>,
    /// Whether execve may never grant privileges.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub no_new_privileges: bool,
    /// AppArmor profile.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub apparmor_profile: String,
    /// SELinux label.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub selinux_label: String,
    /// Value for the kernel's choice of victims when memory runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Scheduler of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// I/O priority of its process group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// CPUs of processes that `exec` adds; not of the container's first one.
    #[serde(
        rename = "execCPUAffinity",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// `process.scheduler`: names and numbers as in `sched_setattr(2)`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct Scheduler {
    /// Policy, such as `SCHED_FIFO`.
    #[serde(default)]
    pub policy: String,
    /// Nice value, -20 is the most urgent.
    #[serde(default, deserialize_with = "nullable")]
    pub nice: i32,
    /// Static priority of the real-time policies.
    #[serde(default, deserialize_with = "nullable")]
    pub priority: i32,
    /// Flags, such as `SCHED_FLAG_RESET_ON_FORK`.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub flags: Vec<String>,
    /// Nanoseconds of run time in each period (`SCHED_DEADLINE`).
    #[serde(default, deserialize_with = "nullable")]
    pub runtime: u64,
    /// Nanoseconds within which the run time is given (`SCHED_DEADLINE`).
    #[serde(default, deserialize_with = "nullable")]
    pub deadline: u64,
    /// Nanoseconds of a period (`SCHED_DEADLINE`).
    #[serde(default, deserialize_with = "nullable")]
    pub period: u64,
}

/// `process.ioPriority`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct IoPriority {
    /// Class, such as `IOPRIO_CLASS_BE`.
    pub class: String,
    /// Level in the class: from 0, the highest, to 7.
    pub priority: i32,
}

/// `process.execCPUAffinity`: lists such as `0-3,7`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct ExecCpuAffinity {
    /// CPUs before the process is in the container's cgroup.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub initial: String,
    /// CPUs after that.
    #[serde(
        rename = "final",
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub last: String,
}

/// Rows and columns of a terminal, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// `process.user` (config.md, "POSIX-platform User"); numbers only.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct User {
    /// User id in the container.
    #[serde(default)]
    pub uid: u32,
    /// Group id in the container.
    #[serde(default)]
    pub gid: u32,
    /// File mode creation mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Further groups.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub additional_gids: Vec<u32>,
}

/// `process.capabilities`: names as in `capabilities(7)`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct Capabilities {
    /// What execve may ever grant.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub bounding: Vec<String>,
    /// What is in force.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub effective: Vec<String>,
    /// What file capabilities may add to.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub inheritable: Vec<String>,
    /// What may become effective.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub permitted: Vec<String>,
    /// What an unprivileged program keeps over execve.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub ambient: Vec<String>,
}

/// One of `process.rlimits`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Rlimit {
    /// Name, such as `RLIMIT_NOFILE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Ceiling; the unit is the resource's own.
    pub hard: u64,
    /// Value in force.
    pub soft: u64,
}

/// The id that system calls take for "unchanged": nobody can have it
/// (`chown(2)`, `setresuid(2)`).
pub(crate) const NO_ID: u32 = u32::MAX;

impl Process {
    /// Checks what the types do not: `field` is where the process stands in
    /// its file.
    pub(crate) fn check(&self, field: &str) -> Result<(), Error> {
        if self.args.is_empty() {
            return Err(invalid(&format!("{field}.args"), "must not be empty"));
        }
        if !self.cwd.is_absolute() {
            let reason = format!("{:?} is not an absolute path", self.cwd);
            return Err(invalid(&format!("{field}.cwd"), &reason));
        }
        let ids = [("user.uid", self.user.uid), ("user.gid", self.user.gid)];
        let groups = self.user.additional_gids.iter();
        let ids = ids
            .into_iter()
            .chain(groups.map(|&gid| ("user.additionalGids", gid)));
        if let Some((name, id)) = ids.into_iter().find(|(_, id)| *id == NO_ID) {
            let reason = format!("{id} stands for no user or group");
            return Err(invalid(&format!("{field}.{name}"), &reason));
        }
        let nul = |text: &String| text.contains('\0');
        if let Some(index) = self.args.iter().position(nul) {
            return Err(invalid(
                &format!("{field}.args[{index}]"),
                "contains a NUL byte",
            ));
        }
        if let Some(index) = self.env.iter().position(nul) {
            return Err(invalid(
                &format!("{field}.env[{index}]"),
                "contains a NUL byte",
            ));
        }
        if let Some(index) = self
            .env
            .iter()
            .position(|e| e.find('=').is_none_or(|at| at == 0))
        {
            let reason = format!("{:?} is not NAME=value", self.env[index]);
            return Err(invalid(&format!("{field}.env[{index}]"), &reason));
        }
        Ok(())
    }
}
