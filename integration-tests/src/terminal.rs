//! A person at a terminal: what they type waits for what they see, not for a clock.

use crate::Scene;
use crate::scene::WAIT_LIMIT;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long is waited at once for something to be shown.
const LOOK: Duration = Duration::from_millis(20);

/// A terminal of 33 lines and 77 columns in which a program runs.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    name: CString,
    child: Child,
    /// All that was shown.
    shown: Vec<u8>,
    /// How much of it was waited for.
    seen: usize,
}

impl Terminal {
    /// Opens one, and starts a command in it, for which it is the controlling terminal.
    ///
    /// # Panics
    /// When there is none to be had, or the command cannot be started.
    #[must_use]
    pub fn run(command: &Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("open a terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let size = Winsize {
            ws_row: 33,
            ws_col: 77,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("set the window's size");
        let name = ptsname(&master, Vec::new()).expect("the terminal's name");
        let mut line = Command::new("setsid");
        line.arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            line.current_dir(folder);
        }
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => line.env(variable, value),
                None => line.env_remove(variable),
            };
        }
        let end = || Stdio::from(open(&name).expect("open the terminal's other end"));
        let child = line
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("start setsid");
        drop(line);
        rustix::io::ioctl_fionbio(&master, true).expect("ioctl");
        Self {
            master,
            name,
            child,
            shown: Vec::new(),
            seen: 0,
        }
    }

    /// [`Terminal::run`] with a line of the shell, in the scene.
    #[must_use]
    pub fn line(scene: &Scene, line: &str) -> Self {
        Self::run(&scene.command("sh", ["-c", line]))
    }

    /// Waits until this is shown, after what was waited for before.
    ///
    /// # Panics
    /// When it is not within a minute.
    pub fn see(&mut self, text: &str) {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let found = self.shown[self.seen..]
                .windows(text.len())
                .position(|part| part == text.as_bytes());
            if let Some(at) = found {
                self.seen += at + text.len();
                return;
            }
            let goes_on = self.look();
            assert!(
                goes_on && Instant::now() < deadline,
                "{text:?} is not shown: {}",
                self.text()
            );
        }
    }

    /// Waits until a program in it takes keys as they come.
    ///
    /// # Panics
    /// When none does within a minute.
    pub fn takes_keys(&mut self) {
        // What is asked of this end is answered for the other.
        let taken = self.wait("a program takes keys", |terminal| {
            tcgetattr(&terminal.master)
                .is_ok_and(|mode| !mode.local_modes.contains(LocalModes::ICANON))
        });
        assert!(taken, "no program takes keys: {}", self.text());
    }

    /// Types, and waits until it was read, as far as the kernel tells: it may still be on its
    /// way to the program's end.
    ///
    /// # Panics
    /// When nobody reads it within a minute.
    pub fn types(&mut self, keys: &str) {
        let mut left = keys.as_bytes();
        let deadline = Instant::now() + WAIT_LIMIT;
        while !left.is_empty() {
            assert!(Instant::now() < deadline, "nobody takes {left:?}");
            match rustix::io::write(&self.master, left) {
                Ok(written) => left = &left[written..],
                Err(Errno::AGAIN | Errno::INTR) => _ = self.look(),
                Err(error) => panic!("type: {error}"),
            }
        }
        // Where the program has ended by it, nobody is left to read.
        let _ = self.wait("what was typed is read", |terminal| {
            let end = open(&terminal.name);
            end.and_then(rustix::io::ioctl_fionread)
                .is_ok_and(|bytes| bytes == 0)
        });
    }

    /// Stops the program and lets it go on, as a shell does, which takes lines meanwhile.
    ///
    /// # Panics
    /// When the program cannot be stopped, or the terminal not set.
    pub fn stops_and_goes_on(&mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).expect("stop it");
        let stopped = waitpid(Some(pid), WaitOptions::UNTRACED).expect("wait for it");
        assert!(stopped.is_some_and(|(_, status)| status.stopped()));
        let mut mode = tcgetattr(&self.master).expect("tcgetattr");
        mode.local_modes |= LocalModes::ICANON;
        tcsetattr(&self.master, OptionalActions::Now, &mode).expect("tcsetattr");
        kill_process(pid, Signal::CONT).expect("let it go on");
    }

    /// Waits until the program has ended with this status; all that was shown.
    ///
    /// # Panics
    /// When it does not within a minute, or ends otherwise.
    pub fn ends_with(mut self, status: i32) -> String {
        let deadline = Instant::now() + WAIT_LIMIT;
        let ended = loop {
            let goes_on = self.look();
            if let Some(status) = self.child.try_wait().expect("wait for the program") {
                break status;
            }
            assert!(Instant::now() < deadline, "it stays: {}", self.text());
            if !goes_on {
                // The program's end is told after its terminal was closed.
                std::thread::sleep(LOOK);
            }
        };
        while self.read() {}
        assert_eq!(ended.code(), Some(status), "{}", self.text());
        self.text()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// `false`: nobody has the terminal open any more.
    fn wait(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + WAIT_LIMIT;
        while !condition(self) {
            if !self.look() {
                return false;
            }
            let in_time = Instant::now() < deadline;
            assert!(in_time, "waited in vain until {what}: {}", self.text());
        }
        true
    }

    /// Takes what is shown within a moment. `false`: nobody has the terminal open any more.
    fn look(&mut self) -> bool {
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK.subsec_nanos().into(),
        };
        let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
        let _ = poll(&mut ready, Some(&moment));
        let hung_up = ready[0].revents().contains(PollFlags::HUP);
        let read = self.read();
        read || !hung_up
    }

    /// Takes a block; whether there was one.
    fn read(&mut self) -> bool {
        let mut block = [0; 16384];
        match rustix::io::read(&self.master, &mut block) {
            Ok(length) => {
                self.shown.extend_from_slice(&block[..length]);
                length > 0
            }
            // EIO: nobody has the other end open.
            Err(Errno::AGAIN | Errno::INTR | Errno::IO) => false,
            Err(error) => panic!("read from the terminal: {error}"),
        }
    }
}

impl Drop for Terminal {
    /// Whoever is still there goes.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The programs' end.
fn open(name: &CString) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(name, flags, Mode::empty()).map(File::from)
}
