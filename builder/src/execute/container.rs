//! One container of the runtime: started, its output read, its status taken; killed when the build ends.

use crate::cancel::Cancel;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, PipeReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// The runtime's own programs need no more than this to be found.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes of output read at once.
const READ_BYTES: usize = 16 * 1024;

/// Largest log of the runtime that is read, in bytes. It writes a line or two.
const LOG_BYTES_MAX: u64 = 64 * 1024;

/// One line of runc's JSON log; the keys are part of its interface.
#[derive(serde::Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

/// How the runtime is called for one container.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    /// Its program.
    pub(crate) program: PathBuf,
    /// Its folder of container states.
    pub(crate) state: PathBuf,
    /// The container's id.
    pub(crate) id: String,
}

impl Runtime {
    /// Runs the bundle to its end, giving its output, both streams in one order, to `output`.
    ///
    /// # Errors
    /// The runtime cannot be executed, or its output not read.
    pub(crate) fn run(
        &self,
        bundle: &Path,
        step: usize,
        cancel: &Cancel,
        mut output: impl FnMut(&[u8]),
    ) -> io::Result<ExitStatus> {
        let (reader, mut child) = self.start(bundle)?;
        let (killer, pid) = (
            self.clone(),
            i32::try_from(child.id()).ok().and_then(Pid::from_raw),
        );
        cancel.started(step, move || killer.kill(pid));
        let read = copy_output(reader, &mut output);
        let status = child.wait();
        cancel.finished(step);
        read?;
        status
    }

    /// Runs the bundle at our own terminal, or on our own streams, to its end.
    ///
    /// # Errors
    /// The runtime cannot be executed.
    pub(crate) fn attend(&self, bundle: &Path) -> io::Result<ExitStatus> {
        let mut command = self.command();
        command.arg("run").arg("--bundle").arg(bundle).arg(&self.id);
        command.status()
    }

    fn start(&self, bundle: &Path) -> io::Result<(PipeReader, Child)> {
        let (reader, writer) = io::pipe()?;
        let mut command = self.command();
        command
            .arg("--log")
            .arg(self.log(bundle))
            .args(["--log-format", "json"]);
        command.arg("run").arg("--bundle").arg(bundle).arg(&self.id);
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        // A group of its own: Ctrl-C reaches us, and we kill in order.
        command.process_group(0);
        let child = command.spawn()?;
        Ok((reader, child))
    }

    fn log(&self, bundle: &Path) -> PathBuf {
        bundle.join("log.json")
    }

    /// What the runtime itself had to say, if it failed before the command could.
    pub(crate) fn complaint(&self, bundle: &Path) -> Option<String> {
        let mut text = String::new();
        let file = std::fs::File::open(self.log(bundle)).ok()?;
        file.take(LOG_BYTES_MAX).read_to_string(&mut text).ok()?;
        let errors = text
            .lines()
            .filter_map(|line| serde_json::from_str::<LogLine>(line).ok())
            .filter(|line| line.level == "error");
        errors.map(|line| line.msg).next_back()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // Nothing of our environment is the container's business.
        command
            .env_clear()
            .env("PATH", PATH)
            .arg("--root")
            .arg(&self.state);
        command
    }

    fn kill(&self, runtime: Option<Pid>) {
        let killed = self.quietly(&["kill", &self.id, "KILL"]);
        // There is no container yet: without its runtime there will be none.
        if !killed && let Some(pid) = runtime {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Removes what is left of the container, running or not.
    pub(crate) fn delete(&self) {
        self.quietly(&["delete", "--force", &self.id]);
    }

    fn quietly(&self, arguments: &[&str]) -> bool {
        let mut command = self.command();
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

fn copy_output(mut reader: PipeReader, output: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [0; READ_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => output(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// How a process ended, in words.
pub(crate) fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(127), _) => "exit status 127: the command was not found".to_owned(),
        (Some(126), _) => "exit status 126: the command cannot be executed".to_owned(),
        (Some(137), _) => {
            "exit status 137: killed by SIGKILL, perhaps for lack of memory".to_owned()
        }
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
    }
}
