//! `RUN --mount=type=ssh`: a socket of ours that leads to an agent of the user.
//!
//! The agent's own socket belongs to the user and must not be made another's. Ours has the owner and
//! the permissions that the Dockerfile asks for, and is gone with the step.

use rustix::fs::{Mode, OFlags, open};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Most connections at once: what a step may cost us in threads.
const CONNECTIONS_MAX: usize = 64;

/// A forwarded agent. Dropped, nobody is let through any more.
#[derive(Debug)]
pub(super) struct Forwarded {
    socket: Short,
    ended: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

/// A socket's path by way of its opened folder: a socket's address has room for 107 bytes only.
#[derive(Debug)]
struct Short {
    path: PathBuf,
    /// What the path leads through.
    _folder: OwnedFd,
}

impl Short {
    fn new(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(folder, flags, Mode::empty())?;
        Ok(Self {
            path: Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name),
            _folder: folder,
        })
    }
}

impl Forwarded {
    /// Listens at `socket` and leads whoever comes to `agent`.
    ///
    /// # Errors
    /// As `bind(2)`, or there is no agent.
    pub(super) fn start(agent: &Path, socket: &Path) -> io::Result<Self> {
        let (agent, socket) = (Short::new(agent)?, Short::new(socket)?);
        // Not when the first key is needed, in the middle of a step.
        UnixStream::connect(&agent.path)?;
        let listener = UnixListener::bind(&socket.path)?;
        let ended = Arc::new(AtomicBool::new(false));
        let over = ended.clone();
        let thread = std::thread::spawn(move || accept(&listener, &agent, &over));
        Ok(Self {
            socket,
            ended,
            listener: Some(thread),
        })
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener; it then sees that it is over.
        drop(UnixStream::connect(&self.socket.path));
        if let Some(thread) = self.listener.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &UnixListener, agent: &Short, ended: &AtomicBool) {
    let connections = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(inside), Ok(outside)) = (stream, UnixStream::connect(&agent.path)) else {
            continue;
        };
        if connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            connections.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let connections = connections.clone();
        std::thread::spawn(move || {
            lead(&inside, &outside);
            connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Copies both ways until both sides have said all.
fn lead(inside: &UnixStream, outside: &UnixStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| copy(inside, outside));
        copy(outside, inside);
    });
}

fn copy(mut from: &UnixStream, mut to: &UnixStream) {
    // A side that is gone has nothing to be told.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_is_said_arrives_and_the_answer_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let agent = dir.path().join("agent");
        let listener = UnixListener::bind(&agent).unwrap();
        let answering = std::thread::spawn(move || {
            // The first is the look whether the agent is there.
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(&asked).unwrap();
        });
        let socket = deep.join("socket");
        let forwarded = Forwarded::start(&agent, &socket).unwrap();
        let mut stream = UnixStream::connect(&Short::new(&socket).unwrap().path).unwrap();
        stream.write_all(b"ping").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "ping");
        answering.join().unwrap();
        drop(forwarded);
        assert!(Forwarded::start(&dir.path().join("none"), &deep.join("s")).is_err());
    }
}
