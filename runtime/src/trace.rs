//! `--trace FILE`: when each step of `create`, `start`, `run` and `exec` was
//! done, by the runtime and by the container's first process.
//!
//! ```text
//! # teu-runtime run web, 2026-11-21T13:08:00Z
//! #    µs   took process  step
//!       0      0 runtime  begin
//!     141    141 runtime  read config.json
//!     952     16 init     mount proc on "/proc"
//!    1630    203 runtime  the program runs
//! ```
//!
//! A line says that a step is done: when, in microseconds since the beginning,
//! and how long after the previous line of the same process. The first process
//! tells its steps over the connection that it has with the runtime anyway; it
//! holds no descriptor of the file. Without `--trace` there is no system call
//! and no reading of clocks: a look at one variable is all.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::SendFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::error::Error;
use crate::init::protocol::TRACED;
use crate::time;

/// Longest text of a step, in bytes; a packet holds it.
const STEP_BYTES_MAX: usize = 512;

/// Which process has done a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Who {
    /// The command itself.
    Runtime,
    /// Whoever joins namespaces on behalf of another.
    Helper,
    /// The container's first process.
    Init,
    /// A process that `exec` adds.
    Process,
}

impl Who {
    const ALL: [Who; 4] = [Who::Runtime, Who::Helper, Who::Init, Who::Process];

    fn word(self) -> &'static str {
        match self {
            Who::Runtime => "runtime",
            Who::Helper => "helper",
            Who::Init => "init",
            Who::Process => "process",
        }
    }
}

/// One step that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    nanos: u64,
    who: Who,
    step: String,
}

/// What this process does with its steps.
enum Timeline {
    /// Collects them, and those of others.
    Collects {
        file: File,
        marks: Vec<Mark>,
        times: Times,
    },
    /// Tells them to the runtime. `behind`: how much its clock is shifted.
    Tells {
        socket: OwnedFd,
        who: Who,
        behind: i64,
    },
}

thread_local! {
    static TIMELINE: RefCell<Option<Timeline>> = const { RefCell::new(None) };
}

/// Nanoseconds of the clock that all processes of the host share.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec as u64)
}

/// Begins the timeline of `command`, in a file that is emptied.
pub(crate) fn begin(path: &str, command: &str) -> Result<(), Error> {
    let begun = now();
    let mut file = File::create(path).map_err(Error::on("open trace file", path))?;
    let head = format!(
        "# teu-runtime {command}, {}\n#    µs   took process  step\n",
        time::rfc3339(time::now())
    );
    file.write_all(head.as_bytes())
        .map_err(Error::on("write trace file", path))?;
    let first = Mark {
        nanos: begun,
        who: Who::Runtime,
        step: "begin".into(),
    };
    TIMELINE.set(Some(Timeline::Collects {
        file,
        marks: vec![first],
        times: Times {
            begun,
            last: Default::default(),
        },
    }));
    Ok(())
}

/// Whether anybody wants to know.
pub(crate) fn wanted() -> bool {
    TIMELINE.with_borrow(Option::is_some)
}

/// Notes that a step is done.
pub(crate) fn step(text: &str) {
    step_of(|| text.to_owned());
}

/// Notes that a step is done whose words cost something to make.
pub(crate) fn step_of(text: impl FnOnce() -> String) {
    TIMELINE.with_borrow_mut(|timeline| match timeline {
        None => (),
        Some(Timeline::Collects { marks, .. }) => {
            marks.push(Mark {
                nanos: now(),
                who: Who::Runtime,
                step: text(),
            });
        }
        Some(Timeline::Tells {
            socket,
            who,
            behind,
        }) => {
            let mark = Mark {
                nanos: now().wrapping_add_signed(*behind),
                who: *who,
                step: text(),
            };
            // Whoever has stopped listening misses nothing that matters.
            let _ = rustix::net::send(&*socket, &mark.encode(), SendFlags::NOSIGNAL);
        }
    });
}

/// In a new process: from now on its steps are told over `socket`, until
/// execve(2) closes it.
pub(crate) fn tell(socket: impl AsFd, who: Who) {
    if !wanted() {
        return;
    }
    let behind = TIMELINE.with_borrow(|timeline| match timeline {
        Some(Timeline::Tells { behind, .. }) => *behind,
        _ => 0,
    });
    let told = rustix::io::fcntl_dupfd_cloexec(socket, 3).ok();
    let next = told.map(|socket| Timeline::Tells {
        socket,
        who,
        behind,
    });
    // The descriptors that it held are closed already, and their numbers may
    // be in use again.
    std::mem::forget(TIMELINE.replace(next));
}

/// The same for a process that was not traced until now.
pub(crate) fn tell_from_now_on(socket: impl AsFd, who: Who) {
    if let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(socket, 3) {
        TIMELINE.set(Some(Timeline::Tells {
            socket,
            who,
            behind: 0,
        }));
    }
}

/// Ends the telling: nobody will listen.
pub(crate) fn fall_silent() {
    TIMELINE.set(None);
}

/// Runs `join`, which enters a time namespace whose clocks may be shifted.
pub(crate) fn across_clocks<T>(join: impl FnOnce() -> T) -> T {
    if !wanted() {
        return join();
    }
    let before = now();
    let joined = join();
    TIMELINE.with_borrow_mut(|timeline| {
        if let Some(Timeline::Tells { behind, .. }) = timeline {
            *behind += before.wrapping_sub(now()) as i64;
        }
    });
    joined
}

/// Takes in what a child has told: the packet without its tag.
pub(crate) fn heard(packet: &[u8]) {
    TIMELINE.with_borrow_mut(|timeline| {
        if let (Some(Timeline::Collects { marks, .. }), Some(mark)) =
            (timeline, Mark::decode(packet))
        {
            marks.push(mark);
        }
    });
}

/// Writes what was collected since the last time. A trace that cannot be
/// written must not keep the command from its work.
pub(crate) fn write() {
    TIMELINE.with_borrow_mut(|timeline| {
        if let Some(Timeline::Collects { file, marks, times }) = timeline {
            let text = times.lines(std::mem::take(marks));
            let _ = file.write_all(text.as_bytes());
        }
    });
}

/// The times that those of the next lines are compared with, in nanoseconds.
struct Times {
    begun: u64,
    last: [Option<u64>; Who::ALL.len()],
}

impl Times {
    /// The lines of marks, in order of their times.
    fn lines(&mut self, mut marks: Vec<Mark>) -> String {
        marks.sort_by_key(|mark| mark.nanos);
        let micros = |from: u64, to: u64| to.saturating_sub(from) / 1000;
        let mut text = String::new();
        let mut previous = marks.first().map_or(self.begun, |mark| mark.nanos);
        for mark in marks {
            let since = self.last[mark.who as usize].unwrap_or(previous);
            text.push_str(&format!(
                "{:>7} {:>6} {:<8} {}\n",
                micros(self.begun, mark.nanos),
                micros(since, mark.nanos),
                mark.who.word(),
                mark.step.replace('\n', "\\n"),
            ));
            self.last[mark.who as usize] = Some(mark.nanos);
            previous = mark.nanos;
        }
        text
    }
}

impl Mark {
    fn encode(&self) -> Vec<u8> {
        let step = self.step.as_bytes();
        let mut bytes = vec![TRACED, self.who as u8];
        bytes.extend_from_slice(&self.nanos.to_ne_bytes());
        bytes.extend_from_slice(&step[..step.len().min(STEP_BYTES_MAX)]);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Mark> {
        let (&who, rest) = bytes.split_first()?;
        let (nanos, step) = rest.split_first_chunk::<8>()?;
        Some(Mark {
            nanos: u64::from_ne_bytes(*nanos),
            who: *Who::ALL.get(usize::from(who))?,
            step: String::from_utf8_lossy(step).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(micros: u64, who: Who, step: &str) -> Mark {
        Mark {
            nanos: (micros + 5) * 1000,
            who,
            step: step.into(),
        }
    }

    #[test]
    fn a_step_survives_the_wire() {
        let step = mark(7, Who::Init, "mount proc on \"/proc\"");
        let packet = step.encode();
        assert_eq!(packet[0], TRACED);
        assert_eq!(Mark::decode(&packet[1..]), Some(step));
        assert_eq!(Mark::decode(&[9; 12]), None);
        assert_eq!(Mark::decode(&[0; 3]), None);
    }

    #[test]
    fn steps_are_shown_in_order_of_time_with_what_each_took() {
        let mut times = Times {
            begun: 5000,
            last: Default::default(),
        };
        let marks = vec![
            mark(0, Who::Runtime, "begin"),
            mark(100, Who::Runtime, "clone"),
            mark(400, Who::Runtime, "ready"),
            mark(150, Who::Init, "a\nb"),
            mark(350, Who::Init, "c"),
        ];
        assert_eq!(
            times.lines(marks),
            "      0      0 runtime  begin\n    100    100 runtime  clone\n    150     50 init     a\\nb\n    \
             350    200 init     c\n    400    300 runtime  ready\n"
        );
    }
}
