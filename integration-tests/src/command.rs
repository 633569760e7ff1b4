//! Running a program to its end, with a time limit, and judging what it did.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a command may take before it is killed and the test fails.
/// Generous: the machines are shared, and only a hang should be caught.
pub const TIME_LIMIT: Duration = Duration::from_secs(120);

/// What a finished program printed and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Its standard error; bytes that are not UTF-8 are replaced.
    pub stderr: String,
}

impl Outcome {
    /// The exit status as a shell shows it: 128+n when a signal ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(127))
    }

    /// Asserts the exit status.
    ///
    /// # Panics
    /// With both outputs, when the program ended otherwise.
    #[must_use = "nothing more is checked than the status"]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "exit status of {self}");
        self
    }

    /// Asserts success and gives the standard output without its last newline.
    ///
    /// # Panics
    /// With both outputs, when the program failed.
    pub fn succeeds(self) -> String {
        assert!(self.status.success(), "{self}");
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// Asserts a failure with this status whose message holds every one of `parts`,
    /// and that it was a message, not a panic.
    ///
    /// # Panics
    /// When it succeeded, ended with another status, or said something else.
    pub fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code(), code, "exit status of {self}");
        assert!(!self.stderr.contains("panicked at"), "{self}");
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "{part:?} not in the message of {self}"
            );
        }
        self
    }

    /// Asserts that standard output holds `part`.
    ///
    /// # Panics
    /// When it does not.
    #[must_use = "nothing more is checked than this part"]
    pub fn prints(self, part: &str) -> Self {
        assert!(self.stdout.contains(part), "{part:?} not printed by {self}");
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ({})\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.line, self.status, self.stdout, self.stderr
        )
    }
}

/// Runs `command` to its end, feeding `input`; kills its process group at `limit`.
///
/// # Panics
/// When it cannot be started or exceeds the limit.
#[must_use]
pub fn run_limited(mut command: Command, input: &[u8], limit: Duration) -> Outcome {
    let line = line(&command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("start `{line}`: {error}"));
    let stdin = child.stdin.take();
    let input = input.to_owned();
    let feeder = std::thread::spawn(move || {
        use std::io::Write;
        // The program may end without reading everything.
        let _ = stdin.map(|mut pipe| pipe.write_all(&input));
    });
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait(&mut child, limit).unwrap_or_else(|| {
        let _ = rustix::process::kill_process_group(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::KILL,
        );
        let _ = child.wait();
        panic!("`{line}` did not end within {limit:?}")
    });
    let _ = feeder.join();
    Outcome {
        line,
        status,
        stdout: text(stdout, limit),
        stderr: text(stderr, limit),
    }
}

/// The command line as a person would type it, roughly.
fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(200);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

type Collector = (JoinHandle<()>, std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

/// Reads a pipe on a thread of its own, so that neither side blocks.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Option<Collector> {
    let bytes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let shared = bytes.clone();
    let mut pipe = pipe?;
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 16384];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if let Ok(mut bytes) = shared.lock() {
                bytes.extend_from_slice(&buffer[..count]);
            }
        }
    });
    Some((reader, bytes))
}

/// What was read. A background process may hold the pipe open after the
/// program's end: then what came within a moment counts.
fn text(collector: Option<Collector>, limit: Duration) -> String {
    let Some((reader, bytes)) = collector else {
        return String::new();
    };
    let deadline = Instant::now() + limit.min(Duration::from_millis(500));
    while !reader.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    bytes.lock().map_or_else(
        |_| String::new(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}
