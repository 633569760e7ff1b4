//! kill -9 of shims, at random moments of their containers' lives. What is told of a
//! container's end is true, or that nobody knows; and nothing is left behind.

mod conmon;
mod containerd;
mod own;

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::Verdict;

/// What a container exits with by itself.
const OWN_STATUS: u32 = 7;

/// containerd's face.
pub(crate) fn containerd(quick: bool) -> Verdict {
    containerd::run(quick)
}

/// conmon's face.
pub(crate) fn conmon(quick: bool) -> Verdict {
    conmon::run(count(quick))
}

/// teu's own.
pub(crate) fn own(quick: bool) -> Verdict {
    own::run(count(quick))
}

fn count(quick: bool) -> u32 {
    if quick { 10 } else { 200 }
}

/// What became of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The true status.
    True,
    /// That nobody knows it.
    Unknown,
    /// It did not come to be, and nothing was told of its end.
    Failed,
    /// It ended, and nobody was told.
    Lost,
    /// Something else than what happened.
    False,
}

/// When a shim is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after it was there.
    AfterStart(Duration),
    /// So long after the container has said that it exits.
    AfterMark(Duration),
}

impl Moment {
    /// Whether it is there, for a shim that is there since `begin`, and a container that
    /// has said so since `marked`.
    fn is_now(self, begin: Instant, marked: Option<Instant>) -> bool {
        match self {
            Self::AfterStart(time) => begin.elapsed() >= time,
            Self::AfterMark(time) => marked.is_some_and(|at| at.elapsed() >= time),
        }
    }
}

/// All kills of a run.
#[derive(Debug)]
struct Tally {
    random: u64,
    outcomes: Vec<Outcome>,
    left: Vec<String>,
}

impl Tally {
    /// None yet. The seed is printed, so that a run can be repeated.
    fn new() -> Self {
        let random = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(1, |since| since.as_nanos() as u64 | 1);
        println!("  seed {random}");
        Self {
            random,
            outcomes: Vec::new(),
            left: Vec::new(),
        }
    }

    /// A moment for the `n`-th. A container lives about 300 ms from the start of its
    /// shim on. Every other kill comes where it hurts most: right when it exits.
    fn moment(&mut self, n: u32) -> Moment {
        // xorshift
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if n.is_multiple_of(2) {
            Moment::AfterStart(Duration::from_micros(self.random % 700_000))
        } else {
            Moment::AfterMark(Duration::from_micros(self.random % 10_000))
        }
    }

    fn note(&mut self, outcome: Outcome, left: Vec<String>) {
        self.outcomes.push(outcome);
        self.left.extend(left);
    }

    fn sum(&self, outcome: Outcome) -> usize {
        self.outcomes.iter().filter(|one| **one == outcome).count()
    }

    /// Says how often what happened, and judges what holds for every face.
    fn judge(&self, verdict: &mut Verdict) {
        println!(
            "  {} kills: {} true, {} unknown, {} never came to be, {} untold, {} false; {} leftovers",
            self.outcomes.len(),
            self.sum(Outcome::True),
            self.sum(Outcome::Unknown),
            self.sum(Outcome::Failed),
            self.sum(Outcome::Lost),
            self.sum(Outcome::False),
            self.left.len()
        );
        for line in &self.left {
            println!("  {line}");
        }
        verdict.check(self.sum(Outcome::False) == 0, "no status is false");
        verdict.check(self.sum(Outcome::Lost) == 0, "every end is told");
        verdict.check(self.left.is_empty(), "nothing is left behind");
    }
}

/// How the process behind `pidfd` ended, once somebody has reaped it. `None`: nobody
/// does, or the kernel is older than Linux 6.15.
fn truth_of(pidfd: &OwnedFd) -> Option<u32> {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match exit_status(pidfd) {
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            status => return status,
        }
    }
}

/// What the kernel remembers of it. `PIDFD_GET_INFO`.
#[allow(unsafe_code, reason = "an ioctl that rustix does not offer")]
fn exit_status(pidfd: &OwnedFd) -> Option<u32> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: the request's size is that of the structure the pointer leads to.
    let rc = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    if rc != 0 || info.mask & u64::from(libc::PIDFD_INFO_EXIT) == 0 {
        return None;
    }
    let code = info.exit_code.cast_unsigned();
    Some(match code & 0x7f {
        0 => code >> 8 & 0xff,
        signal => 128 + signal,
    })
}

/// The process whose pid is in a file, while it is there.
fn process_in(file: &Path) -> Option<(Pid, OwnedFd)> {
    let text = std::fs::read_to_string(file).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?)?;
    Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?))
}

/// kill -9. That it is gone already is no error.
fn kill(pid: Pid) {
    let _: rustix::io::Result<()> = kill_process(pid, Signal::KILL);
}

/// The processes whose command lines hold all of `words`.
fn processes(words: &[&str]) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_one = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        !line.is_empty() && words.iter().all(|word| line.contains(word))
    };
    pids.filter(is_one).filter_map(Pid::from_raw).collect()
}

/// What `left` finds that does not go away within some seconds.
fn what_stays(left: impl Fn() -> Vec<String>) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(5);
    while !left().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    left()
}
