//! What a container is doing, derived from its folder and the process table.

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::{Exit, Folder, exit, lock};
use crate::Error;

/// Longest `/proc/PID/stat` read, in bytes: 52 numbers and a name of 64 bytes.
const STAT_BYTES_MAX: usize = 4096;

/// A process, so named that another one can never be taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid, in our pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot (`proc_pid_stat(5)`, field 22).
    pub start: u64,
}

impl Process {
    /// The process that has `pid` now; `None` where there is none, or only a zombie of it.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&text[..text.len().min(STAT_BYTES_MAX)]).into_owned();
        // The name may hold blanks and parentheses: fields are counted after its last one.
        let (_, fields) = text.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?; // field 22; `state` was field 3
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start })
    }

    /// Whether this very process still lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Its pid for system calls.
    #[must_use]
    pub fn as_pid(&self) -> Option<Pid> {
        Pid::from_raw(self.pid)
    }
}

/// `state.json`: who runs. Written by the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The boot in which the pids mean something.
    pub boot: String,
    /// The shim.
    pub shim: Process,
    /// The container's first process, once it exists.
    pub init: Option<Process>,
    /// When it was created.
    pub created: Option<String>,
    /// Whether its program was about to be started: without, it never was.
    #[serde(default)]
    pub starting: bool,
    /// When its program was started.
    pub started: Option<String>,
}

impl State {
    /// The container's first process, if it still lives.
    #[must_use]
    pub fn living_init(&self) -> Option<Process> {
        (self.boot == boot_id())
            .then_some(self.init?)
            .filter(Process::is_alive)
    }
}

/// This boot's id, `random(4)`; empty where the kernel does not tell.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Somebody is making it.
    Creating,
    /// It exists, its program was not started.
    Created,
    /// It runs under its shim.
    Running,
    /// It ended, and this is how.
    Exited(Exit),
    /// Its shim died, it lives on: nothing is logged, its exit status will only
    /// be known to who watches (`teu wait`).
    Unsupervised(Process),
    /// Its shim died and it is no longer there: how it ended, or whether it ever ran, nobody
    /// saw. Or its shim died before it started the program, which nobody can do any more.
    Lost,
}

impl Status {
    /// One word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited(_) => "exited",
            Self::Unsupervised(_) => "unsupervised",
            Self::Lost => "lost",
        }
    }

    /// Whether processes of it may be there.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self {
            Self::Creating | Self::Created | Self::Running | Self::Unsupervised(_) => true,
            Self::Exited(_) | Self::Lost => false,
        }
    }
}

/// Looks at a container without changing anything.
///
/// # Errors
/// I/O errors; a folder that vanishes meanwhile is one.
pub fn observe(folder: &Folder) -> Result<Status, Error> {
    if let Some(exit) = exit::read(&folder.exit())? {
        return Ok(Status::Exited(exit));
    }
    let held = lock::is_held(&folder.lock())?;
    let state: Option<State> = folder.read_json("state.json")?;
    if held {
        return Ok(match state {
            Some(State {
                started: Some(_), ..
            }) => Status::Running,
            Some(State { init: Some(_), .. }) => Status::Created,
            _ => Status::Creating,
        });
    }
    // The exit record comes before the lock is given up: look again.
    if let Some(exit) = exit::read(&folder.exit())? {
        return Ok(Status::Exited(exit));
    }
    Ok(state
        .as_ref()
        .filter(|state| state.starting)
        .and_then(State::living_init)
        .map_or(Status::Lost, Status::Unsupervised))
}

#[cfg(test)]
mod tests {
    use super::super::folder::tests::{place, record};
    use super::*;

    #[test]
    fn a_process_is_not_mistaken_for_another_with_its_pid() {
        let me = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(
            !Process {
                start: me.start + 1,
                ..me
            }
            .is_alive()
        );
        assert!(Process::of(i32::MAX).is_none());
    }

    #[test]
    fn the_folder_tells_the_state() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let (folder, held) = Folder::create(&place, &record(&"a".repeat(64), "x")).unwrap();
        assert_eq!(observe(&folder).unwrap(), Status::Creating);

        let me = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let mut state = State {
            boot: boot_id(),
            shim: me,
            init: Some(me),
            created: None,
            starting: false,
            started: None,
        };
        folder.write_json("state.json", &state).unwrap();
        assert_eq!(observe(&folder).unwrap(), Status::Created);

        state.starting = true;
        state.started = Some(crate::clock::now());
        folder.write_json("state.json", &state).unwrap();
        assert_eq!(observe(&folder).unwrap(), Status::Running);

        drop(held);
        assert_eq!(observe(&folder).unwrap(), Status::Unsupervised(me));
        state.starting = false;
        folder.write_json("state.json", &state).unwrap();
        assert_eq!(observe(&folder).unwrap(), Status::Lost, "never started");
        state.starting = true;
        state.init = Some(Process { start: 1, ..me });
        folder.write_json("state.json", &state).unwrap();
        assert_eq!(observe(&folder).unwrap(), Status::Lost);

        let ended = Exit {
            status: Some(3),
            finished: crate::clock::now(),
            ..Exit::default()
        };
        exit::write(&ended, &folder.exit_space(), &folder.exit()).unwrap();
        assert_eq!(observe(&folder).unwrap(), Status::Exited(ended));
    }
}
