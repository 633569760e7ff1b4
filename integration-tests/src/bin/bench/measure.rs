//! Measuring one command: wall time, CPU time of its whole tree, peak memory.
#![allow(
    unsafe_code,
    reason = "wait4(2) gives the resource usage of one child; no safe wrapper does"
)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What one execution took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// From the start to the end of the command.
    pub(crate) wall: Duration,
    /// User and system time of the command and of all it waited for.
    pub(crate) cpu: Duration,
    /// Largest resident set of any process among them, KiB.
    pub(crate) peak_kib: u64,
}

/// One of the things compared: a name and how it does the task once.
pub(crate) struct Contender<'a> {
    /// As it stands in the table, version included.
    pub(crate) name: String,
    /// Does the task in round N, untimed parts excluded by the implementor.
    pub(crate) task: Box<dyn FnMut(usize) -> Sample + 'a>,
}

/// Lets every contender do the task once a round, in turn, so that a busy
/// moment of the machine hits all; one round before them warms the caches.
pub(crate) fn in_turn(contenders: &mut [Contender<'_>], rounds: usize) -> Vec<Vec<Sample>> {
    let mut samples = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for (index, contender) in contenders.iter_mut().enumerate() {
            let sample = (contender.task)(round);
            if round > 0 {
                samples[index].push(sample);
            }
        }
    }
    samples
}

/// Runs a command to its end and measures it.
///
/// # Panics
/// When it cannot be started or fails: a failing contender must not look fast.
pub(crate) fn run(command: &mut Command) -> Sample {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    #[expect(clippy::zombie_processes, reason = "wait4 below waits for it")]
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pid is our child's, which nobody else waits for; both pointers are to live memory.
    let pid = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, usage.as_mut_ptr()) };
    let wall = begin.elapsed();
    assert!(
        pid > 0 && status == 0,
        "{command:?} ended with wait status {status:#x}"
    );
    // SAFETY: zero-initialised, and filled in by the successful call.
    let usage = unsafe { usage.assume_init() };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64)
    };
    Sample {
        wall,
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        peak_kib: usage.ru_maxrss as u64,
    }
}

/// Several samples as one: what a task of several commands took together.
pub(crate) fn sum(samples: impl IntoIterator<Item = Sample>) -> Sample {
    samples.into_iter().fold(
        Sample {
            wall: Duration::ZERO,
            cpu: Duration::ZERO,
            peak_kib: 0,
        },
        |all, one| Sample {
            wall: all.wall + one.wall,
            cpu: all.cpu + one.cpu,
            peak_kib: all.peak_kib.max(one.peak_kib),
        },
    )
}

/// The median by `value`.
pub(crate) fn median(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The first line that `PROGRAM --version` prints, or nothing where there is no such program.
pub(crate) fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.replace(" version", ""))
}
