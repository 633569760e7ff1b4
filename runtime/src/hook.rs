//! Hooks: programs that run at points of the container's life (config.md,
//! "POSIX-platform Hooks").

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use serde::Serialize;

use crate::container::signal;
use crate::process::apply::{Filter, Prepared};
use crate::spec::Hook;
use crate::sys::{self, CStrings, Forked};

/// What is kept of a hook's output for the error message, in bytes.
const OUTPUT_BYTES_MAX: usize = 2048;

/// Why a hook counts as failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be started.
    #[error("{path}")]
    Start {
        /// The program.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It ended with something else than success.
    #[error("{how}, stdout: {stdout}, stderr: {stderr}")]
    Failed {
        /// Exit status or signal.
        how: String,
        /// What it printed.
        stdout: String,
        /// What it printed to its standard error.
        stderr: String,
    },
    /// It ran longer than its timeout and was killed.
    #[error("hook ran past specified timeout of {0} seconds")]
    Timeout(i64),
}

/// The state that a hook reads from its standard input (runtime.md, "State").
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State<'a> {
    /// Version of the specification.
    pub oci_version: &'a str,
    /// The container.
    pub id: &'a str,
    /// `creating`, `created`, `running` or `stopped`.
    pub status: &'static str,
    /// Its init as the host sees it; left out where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Absolute path of the bundle.
    pub bundle: &'a Path,
    /// Annotations of the configuration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

/// Where hooks run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// In the runtime's namespaces, in the bundle where it is still there.
    Bundle,
    /// Where the caller is.
    Here,
    /// As the container's process: with its environment where a hook has none,
    /// its privileges, and this filter.
    Inside(&'a Prepared, Option<&'a Filter>),
}

/// Runs `hooks` in order, stops at the first failure and says which it was.
pub(crate) fn run_all(
    hooks: &[Hook],
    state: &State<'_>,
    place: Place<'_>,
) -> Result<(), (usize, Error)> {
    if hooks.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_vec(state).unwrap_or_default();
    for (index, hook) in hooks.iter().enumerate() {
        run(hook, state, &text, place).map_err(|error| (index, error))?;
    }
    Ok(())
}

fn run(hook: &Hook, state: &State<'_>, text: &[u8], place: Place<'_>) -> Result<(), Error> {
    let start = |source| Error::Start {
        path: hook.path.display().to_string(),
        source,
    };
    let outputs = outputs().map_err(start)?;
    let (pid, pidfd) = spawn(hook, text, &outputs, (place, state.bundle)).map_err(start)?;
    let deadline = hook.timeout.map(|seconds| {
        (
            seconds,
            Instant::now() + Duration::from_secs(seconds.unsigned_abs()),
        )
    });
    if let Some((seconds, deadline)) = deadline
        && !ended_before(&pidfd, deadline).map_err(start)?
    {
        let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
        let _ = wait(&pidfd);
        return Err(Error::Timeout(seconds));
    }
    let status = wait(&pidfd).map_err(start)?;
    let how = match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => return Ok(()),
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(number)) => format!("signal: {}", signal::words(number)),
        (None, None) => format!("process {pid} ended"),
    };
    let [stdout, stderr] = [read_output(&outputs[0]), read_output(&outputs[1])];
    Err(Error::Failed {
        how,
        stdout,
        stderr,
    })
}

/// Memory files for what the hook prints: unlike pipes they never block it.
fn outputs() -> std::io::Result<[OwnedFd; 2]> {
    let file = |name| rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC);
    Ok([file("hook-stdout")?, file("hook-stderr")?])
}

fn read_output(file: &OwnedFd) -> String {
    let mut text = [0u8; OUTPUT_BYTES_MAX];
    let length = rustix::io::pread(file, &mut text, 0).unwrap_or(0);
    String::from_utf8_lossy(&text[..length])
        .trim_end()
        .to_owned()
}

fn arguments(hook: &Hook) -> Vec<CString> {
    let path = CString::new(hook.path.as_os_str().as_bytes()).unwrap_or_default();
    if hook.args.is_empty() {
        return vec![path];
    }
    hook.args
        .iter()
        .map(|arg| CString::new(arg.as_bytes()).unwrap_or_default())
        .collect()
}

fn environment(hook: &Hook) -> Vec<CString> {
    if hook.env.is_empty() {
        let own = std::env::vars_os()
            .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
        return own.filter_map(|entry| CString::new(entry).ok()).collect();
    }
    hook.env
        .iter()
        .filter_map(|entry| CString::new(entry.as_bytes()).ok())
        .collect()
}

/// Starts the program with the state on its standard input. A failure of
/// execve comes back through a pipe that execve itself closes.
fn spawn(
    hook: &Hook,
    state: &[u8],
    outputs: &[OwnedFd; 2],
    place: (Place<'_>, &Path),
) -> std::io::Result<(i32, OwnedFd)> {
    let path = CString::new(hook.path.as_os_str().as_bytes())?;
    let args = CStrings::new(arguments(hook));
    let own_env = CStrings::new(environment(hook));
    let env = match place.0 {
        Place::Inside(process, _) if hook.env.is_empty() => process.env(),
        _ => &own_env,
    };
    let input = rustix::fs::memfd_create("hook-stdin", MemfdFlags::CLOEXEC)?;
    rustix::io::pwrite(&input, state, 0)?;
    let (failed, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    match sys::clone3(0, None)? {
        Forked::Child => {
            let error = become_hook(&path, &args, env, [&input, &outputs[0], &outputs[1]], place);
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            let _ = rustix::io::write(&report, &errno.to_ne_bytes());
            sys::exit(127);
        }
        Forked::Parent(pid, pidfd) => {
            drop(report);
            let mut errno = [0u8; 4];
            if rustix::io::retry_on_intr(|| rustix::io::read(&failed, &mut errno))? == errno.len() {
                let _ = wait(&pidfd);
                return Err(std::io::Error::from_raw_os_error(i32::from_ne_bytes(errno)));
            }
            Ok((pid.as_raw_nonzero().get(), pidfd))
        }
    }
}

fn become_hook(
    path: &CString,
    args: &CStrings,
    env: &CStrings,
    streams: [&OwnedFd; 3],
    (place, bundle): (Place<'_>, &Path),
) -> std::io::Error {
    // Init, inside, has done so for itself; /proc is the container's there.
    if !matches!(place, Place::Inside(..)) {
        sys::reset_signals();
    }
    for (number, stream) in streams.into_iter().enumerate() {
        if let Err(error) = sys::dup_onto(stream.as_fd(), number as i32) {
            return error;
        }
    }
    match place {
        Place::Here => (),
        // As with runc; a bundle that is gone after `create` is no reason to fail.
        Place::Bundle => drop(rustix::process::chdir(bundle)),
        Place::Inside(process, filter) => {
            if let Err(failure) = process.confine(filter) {
                return std::io::Error::from_raw_os_error(failure.errno);
            }
        }
    }
    sys::execve(path, args, env)
}

fn ended_before(pidfd: &OwnedFd, deadline: Instant) -> std::io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => (),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn wait(pidfd: &OwnedFd) -> std::io::Result<WaitIdStatus> {
    let status =
        rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED))?;
    status.ok_or_else(|| {
        std::io::Error::other(format!("nothing to wait for on {}", pidfd.as_raw_fd()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook {
            path: "/bin/sh".into(),
            args,
            env: vec!["X=y".into()],
            timeout,
        }
    }

    fn run_one(hook: Hook) -> Result<(), (usize, Error)> {
        let annotations = BTreeMap::new();
        let bundle = Path::new("/b");
        let state = State {
            oci_version: "1.0.2",
            id: "c",
            status: "creating",
            pid: Some(7),
            bundle,
            annotations: &annotations,
        };
        run_all(&[hook], &state, Place::Here)
    }

    #[test]
    fn a_hook_reads_the_state_and_has_its_own_environment() {
        run_one(hook(
            "grep -q '\"id\":\"c\"' && [ \"$X\" = y ] && [ -z \"$HOME\" ]",
            None,
        ))
        .unwrap();
    }

    #[test]
    fn a_failing_hook_shows_what_it_printed() {
        let (index, error) = run_one(hook("echo out; echo err >&2; exit 3", None)).unwrap_err();
        assert_eq!(
            (index, error.to_string().as_str()),
            (0, "exit status 3, stdout: out, stderr: err")
        );
    }

    #[test]
    fn a_slow_hook_is_killed() {
        let (_, error) = run_one(hook("sleep 30", Some(1))).unwrap_err();
        assert!(error.to_string().contains("timeout of 1 seconds"));
    }

    #[test]
    fn a_missing_hook_is_named() {
        let missing = Hook {
            path: "/no/such/hook".into(),
            ..Hook::default()
        };
        let (_, error) = run_one(missing).unwrap_err();
        assert_eq!(error.to_string(), "/no/such/hook");
    }
}
