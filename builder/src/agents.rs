//! What signs with the user's ssh keys, for git and for steps that ask: an agent that runs already, or one of ours that
//! holds the keys of files. The keys themselves are never shown to a step.
//!
//! ```text
//! teu-build                        ssh-agent -a agent sh -c 'echo $SSH_AGENT_PID; exec cat'
//!   starts  ─────────────────────►   is cat, and has the agent as its child
//!   learns the agent's number ◄───
//!   ssh-add - < key
//!   ends: tells the agent to end, and cat by the end of its input
//! ```
//!
//! When this program is killed, cat sees the end of its input, and the agent that its parent is gone: it looks every
//! ten seconds. OpenSSH's own programs do it: no other code has to know what a key is.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Where OpenSSH's programs are found.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Largest file of a key, in bytes; one of 16384 bits has 13 KB.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// The agent's socket in its folder.
const SOCKET: &str = "agent";

/// Says the agent's number, then waits until nobody holds the other end of its input.
const HOLD: &str = "echo $SSH_AGENT_PID; exec cat";

/// Who signs for a build.
#[derive(Debug)]
pub struct Agent {
    /// Its name in the Dockerfile.
    pub id: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// The socket of an agent that runs already.
    Socket(PathBuf),
    /// Files of keys, and the agent that holds them once the build began.
    Keys(Vec<PathBuf>, OnceLock<Held>),
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// A file.
    #[error("{action} {path:?}")]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program of OpenSSH.
    #[error("execute {0}, which key files of --ssh need (package openssh-client)")]
    Execute(&'static str, #[source] io::Error),
    /// The agent did not start.
    #[error("start an agent for the keys of --ssh: ssh-agent says nothing")]
    Silent,
    /// A file that holds no key that can be used as it is.
    #[error(
        "use the key {0:?}: ssh-add does not take it{1}; of a key with a passphrase give the agent: --ssh ID=SOCKET"
    )]
    Key(PathBuf, String),
    /// Several sockets, or something else than a key beside others.
    #[error("{0:?} is not the file of a key")]
    NoKey(PathBuf),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    let path = path.to_owned();
    move |source| AgentError::File {
        action,
        path,
        source,
    }
}

impl Agent {
    /// Takes what `--ssh ID=PLACE` names: a socket, or key files with commas between them.
    ///
    /// # Errors
    /// Something of it is not there, or neither.
    pub fn of(id: &str, place: &str) -> Result<Self, AgentError> {
        let paths: Vec<PathBuf> = place.split(',').map(PathBuf::from).collect();
        let mut kinds = Vec::new();
        for path in &paths {
            let meta = std::fs::metadata(path).map_err(failed("look up", path))?;
            kinds.push(meta.file_type());
        }
        let place = match (&paths[..], &kinds[..]) {
            ([socket], [kind]) if kind.is_socket() => Place::Socket(socket.clone()),
            _ => {
                let other = kinds.iter().position(|kind| !kind.is_file());
                if let Some(other) = other {
                    return Err(AgentError::NoKey(paths[other].clone()));
                }
                Place::Keys(paths, OnceLock::new())
            }
        };
        Ok(Self {
            id: id.to_owned(),
            place,
        })
    }

    /// Starts the agent that holds the keys, with its socket in the new directory `folder`. One that runs is left alone.
    ///
    /// # Errors
    /// OpenSSH's programs are not here, or a key cannot be used.
    pub fn start(&self, folder: &Path) -> Result<(), AgentError> {
        if let Place::Keys(paths, held) = &self.place {
            std::fs::create_dir_all(folder).map_err(failed("create", folder))?;
            let agent = Held::start(folder)?;
            paths.iter().try_for_each(|path| agent.add(path))?;
            // A build is opened once.
            let _ = held.set(agent);
        }
        Ok(())
    }

    /// Where it listens; nowhere before it was started.
    pub fn socket(&self) -> Option<PathBuf> {
        match &self.place {
            Place::Socket(path) => Some(path.clone()),
            Place::Keys(_, held) => Some(held.get()?.folder.join(SOCKET)),
        }
    }
}

/// An agent of ours. Dropped, it ends.
#[derive(Debug)]
struct Held {
    folder: PathBuf,
    /// Its input ends with us.
    holder: Child,
    agent: OwnedFd,
}

impl Held {
    fn start(folder: &Path) -> Result<Self, AgentError> {
        let mut command = program("ssh-agent", folder);
        command.args(["-a", SOCKET, "sh", "-c", HOLD]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let execute = |source| AgentError::Execute("ssh-agent", source);
        let mut holder = command.spawn().map_err(execute)?;
        let mut line = String::new();
        if let Some(output) = holder.stdout.take() {
            let _ = BufReader::new(output).read_line(&mut line);
        }
        let number = line.trim().parse().ok().and_then(Pid::from_raw);
        let agent = number.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let Some(agent) = agent else {
            drop(holder.stdin.take());
            let _ = holder.wait();
            return Err(AgentError::Silent);
        };
        Ok(Self {
            folder: folder.to_owned(),
            holder,
            agent,
        })
    }

    /// Gives it a key. The file is read here: whose it is, and who else may read it, is the user's affair.
    fn add(&self, path: &Path) -> Result<(), AgentError> {
        let mut key = Vec::new();
        let file = File::open(path).map_err(failed("open", path))?;
        let read = file.take(KEY_BYTES_MAX + 1).read_to_end(&mut key);
        read.map_err(failed("read", path))?;
        if key.len() as u64 > KEY_BYTES_MAX {
            return Err(AgentError::NoKey(path.to_owned()));
        }
        let mut command = program("ssh-add", &self.folder);
        command
            .args(["-q", "-"])
            .env("SSH_AUTH_SOCK", SOCKET)
            // Nobody is asked for a passphrase.
            .env("SSH_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let execute = |source| AgentError::Execute("ssh-add", source);
        let mut child = command.spawn().map_err(execute)?;
        if let Some(mut input) = child.stdin.take() {
            // What it did not read shows in how it ends.
            let _ = input.write_all(&key);
        }
        let output = child.wait_with_output().map_err(execute)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        let last = last.map(|line| format!(" ({})", line.trim()));
        Err(AgentError::Key(path.to_owned(), last.unwrap_or_default()))
    }
}

/// A program with nothing of our environment, in a group of its own: Ctrl-C reaches us, and we end it in order.
fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(name);
    command
        .current_dir(folder)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .process_group(0);
    command
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.agent, Signal::TERM);
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::test_kill_process;

    #[test]
    fn keys_are_held_and_the_agent_ends_with_us() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED keys_are_held_and_the_agent_ends_with_us: no ssh-keygen");
            return;
        }
        let place = format!("{0},{0}", key.display());
        let agent = Agent::of("default", &place).unwrap();
        assert_eq!(agent.socket(), None);
        let folder = dir.path().join("f".repeat(120));
        agent.start(&folder).unwrap();
        assert!(agent.socket().unwrap().exists());
        let Place::Keys(_, held) = &agent.place else {
            panic!()
        };
        let holder = Pid::from_raw(held.get().unwrap().holder.id().try_into().unwrap()).unwrap();
        let listed = program("ssh-add", &folder)
            .arg("-l")
            .env("SSH_AUTH_SOCK", SOCKET)
            .output();
        assert!(String::from_utf8_lossy(&listed.unwrap().stdout).contains("ED25519"));
        assert!(test_kill_process(holder).is_ok());
        drop(agent);
        assert!(test_kill_process(holder).is_err());
        std::fs::write(dir.path().join("none"), "no key").unwrap();
        let none = Agent::of("x", &dir.path().join("none").display().to_string()).unwrap();
        let said = none.start(&dir.path().join("g")).unwrap_err().to_string();
        assert!(said.contains("ssh-add does not take it"), "{said}");
        assert!(Agent::of("x", "/nonexistent").is_err() && Agent::of("x", "/").is_err());
    }
}
