//! How the runtime is called, and what its process is given.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, set_parent_process_death_signal};

use super::cli::{Mode, Options};
use crate::Error;
use crate::error::At as _;
use crate::supervisor::terminal::{Console, set_nonblocking};

/// Most of the runtime's standard error that is told as the reason of its failure, in bytes.
const WORDS_BYTES_MAX: usize = 8191;
/// What systemd's socket activation names the process by that the sockets are meant for.
const LISTEN_PID: &str = "LISTEN_PID";

/// The runtime's arguments.
#[must_use]
pub fn arguments(
    options: &Options,
    mode: &Mode,
    bundle: &Path,
    pid_file: &Path,
    console: Option<&Path>,
) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let exec = matches!(mode, Mode::Exec { .. });
    if options.systemd_cgroup && !exec {
        words.push("--systemd-cgroup".into());
    }
    words.extend(options.runtime_args.iter().cloned());
    let mut add = |more: &[&OsStr]| words.extend(more.iter().map(|word| (*word).to_owned()));
    let word = OsStr::new;
    let command = match mode {
        Mode::Exec { .. } => "exec",
        Mode::Restore(_) => "restore",
        Mode::Create => "create",
    };
    add(&[word(command)]);
    if let Mode::Exec { spec, .. } = mode {
        add(&[
            word("--pid-file"),
            pid_file.as_os_str(),
            word("--process"),
            spec,
            word("--detach"),
        ]);
        if options.terminal {
            add(&[word("--tty")]);
        }
    } else {
        let (bundle, pid_file) = (bundle.as_os_str(), pid_file.as_os_str());
        add(&[word("--bundle"), bundle, word("--pid-file"), pid_file]);
        if options.no_pivot {
            add(&[word("--no-pivot")]);
        }
        if options.no_new_keyring {
            add(&[word("--no-new-keyring")]);
        }
    }
    if let Mode::Restore(image) = mode {
        let bundle = bundle.as_os_str();
        add(&[
            word("--detach"),
            word("--image-path"),
            image,
            word("--work-path"),
            bundle,
        ]);
    }
    for option in &options.runtime_opts {
        add(&[option]);
    }
    if let Some(console) = console {
        add(&[word("--console-socket"), console.as_os_str()]);
    }
    add(&[options.cid.as_deref().unwrap_or_default()]);
    words
}

/// The process's ends of its standard streams; without one it has /dev/null.
#[derive(Debug)]
pub enum Theirs {
    /// Pipes.
    Pipes {
        /// Standard input.
        stdin: Option<OwnedFd>,
        /// Standard output.
        stdout: Option<OwnedFd>,
        /// Standard error. It takes the runtime's own words until the process has it.
        stderr: OwnedFd,
    },
    /// The supervisor's own streams.
    Passthrough,
}

/// Our ends.
#[derive(Debug, Default)]
pub struct Ours {
    /// Where output comes from, by stream.
    pub output: [Option<OwnedFd>; 2],
    /// Where input goes.
    pub input: Option<OwnedFd>,
    /// Where the runtime sends the terminal.
    pub console: Option<Console>,
}

/// Streams as the options say. The socket for the terminal stands in
/// `bundle`, else in the folder for temporary files.
///
/// # Errors
/// What the kernel says.
pub fn streams(
    options: &Options,
    passthrough: bool,
    bundle: Option<&Path>,
) -> Result<(Theirs, Ours), Error> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).call("pipe2");
    let mut ours = Ours::default();
    if options.terminal {
        let folder = bundle.map_or_else(std::env::temp_dir, PathBuf::from);
        let name = format!("conmon-term.{}", std::process::id());
        ours.console = Some(Console::listen(&folder, &name)?);
    }
    if passthrough {
        return Ok((Theirs::Passthrough, ours));
    }
    let (mut stdin, mut stdout) = (None, None);
    if options.stdin && !options.terminal {
        let (read, write) = pipe()?;
        set_nonblocking(&write)?;
        (stdin, ours.input) = (Some(read), Some(write));
    }
    if !options.terminal {
        let (read, write) = pipe()?;
        set_nonblocking(&read)?;
        (ours.output[0], stdout) = (Some(read), Some(write));
    }
    let (read, stderr) = pipe()?;
    set_nonblocking(&read)?;
    ours.output[1] = Some(read);
    let theirs = Theirs::Pipes {
        stdin,
        stdout,
        stderr,
    };
    Ok((theirs, ours))
}

impl Ours {
    /// After the runtime's failure: what it said.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = Vec::with_capacity(WORDS_BYTES_MAX);
        if let Some(stderr) = &self.output[1] {
            let space = rustix::buffer::spare_capacity(&mut words);
            let _: rustix::io::Result<usize> = rustix::io::read(stderr, space);
        }
        String::from_utf8_lossy(&words).into_owned()
    }
}

/// Executes the runtime as a child that does not outlive us. Returns its pid.
///
/// # Errors
/// Why it cannot be executed.
pub fn execute(
    runtime: &OsStr,
    arguments: &[OsString],
    theirs: Theirs,
    replace_listen_pid: bool,
    oom_score: Option<String>,
) -> Result<Pid, Error> {
    let mut command = Command::new(runtime);
    command.args(arguments);
    if let Theirs::Pipes {
        stdin,
        stdout,
        stderr,
    } = theirs
    {
        let or_null = |end: Option<OwnedFd>| end.map_or_else(Stdio::null, Stdio::from);
        command
            .stdin(or_null(stdin))
            .stdout(or_null(stdout))
            .stderr(stderr);
    }
    let own_pid = std::process::id();
    let listen_pid = std::env::var(LISTEN_PID).ok();
    let renamed = listen_pid.is_some_and(|pid| replace_listen_pid || pid == own_pid.to_string());
    crate::sys::before_exec(&mut command, move || {
        crate::sys::unblock_signals()?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if renamed {
            crate::sys::set_variable(LISTEN_PID, &std::process::id().to_string())?;
        }
        if let Some(score) = &oom_score {
            // Raising it is always allowed; where it is not lowered, nothing was raised.
            let _: std::io::Result<()> = std::fs::write(super::daemon::OOM_SCORE, score);
        }
        Ok(())
    });
    let child = command.spawn().at("execute", Path::new(runtime))?;
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| Error::Invalid("the runtime has no pid".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conmon::cli;

    fn line(words: &str) -> String {
        let words = words.split_whitespace().map(OsString::from);
        let options = cli::read("conmon", words).unwrap().unwrap();
        let mode = match (&options.exec_process_spec, &options.restore) {
            (Some(spec), _) => Mode::Exec {
                spec: spec.clone(),
                attach: false,
            },
            (None, Some(image)) => Mode::Restore(image.clone()),
            (None, None) => Mode::Create,
        };
        let console = options.terminal.then_some(Path::new("/t"));
        let words = arguments(&options, &mode, Path::new("/b"), Path::new("/p"), console);
        words.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn the_runtime_is_called_as_conmon_calls_it() {
        assert_eq!(line("-c id"), "create --bundle /b --pid-file /p id");
        assert_eq!(
            line(
                "-c id -s -t --runtime-arg --log-level=debug --no-pivot --no-new-keyring --runtime-opt --preserve-fds --runtime-opt 2"
            ),
            "--systemd-cgroup --log-level=debug create --bundle /b --pid-file /p --no-pivot --no-new-keyring \
             --preserve-fds 2 --console-socket /t id"
        );
        assert_eq!(
            line("-c id -s -e --exec-process-spec /s -t"),
            "exec --pid-file /p --process /s --detach --tty --console-socket /t id"
        );
        assert_eq!(
            line("-c id --restore /ckpt --runtime-opt --tcp-established"),
            "restore --bundle /b --pid-file /p --detach --image-path /ckpt --work-path /b --tcp-established id"
        );
    }
}
