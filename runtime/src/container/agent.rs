//! The seccomp agent: whoever decides on system calls with SCMP_ACT_NOTIFY
//! receives the filter's listener (config-linux.md, "Seccomp").
//!
//! A process under its filter may not be able to say anything. It leaves the
//! number of the listener in the shared page and spins; the runtime takes the
//! descriptor out of it (`pidfd_getfd(2)`, Linux 5.6), passes it on, and notes
//! that in the page.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::PidfdGetfdFlags;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::hook;
use crate::init::protocol::{self, RuntimeEnd};
use crate::spec::seccomp::Seccomp;
use crate::state::State;
use crate::sys::SharedPage;

/// Pause between two looks into the page, in nanoseconds.
const PAUSE_NANOS: i64 = 200_000;

/// What was attempted where nobody answers: runc's words, which scripts look for.
pub(crate) const UNREACHED: &str =
    "failed to connect with seccomp agent specified in the seccomp profile:";

/// Where the listener goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Agent {
    /// Unix socket of the agent.
    pub path: PathBuf,
    /// Passed on as it is.
    pub metadata: Option<String>,
}

/// What the agent reads (config-linux.md, "The Container Process State").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: hook::State<'a>,
}

impl Agent {
    /// The agent that a profile names.
    pub(crate) fn of(profile: Option<&Seccomp>) -> Option<Agent> {
        let profile = profile?;
        Some(Agent {
            path: profile.listener_path.clone()?.into(),
            metadata: profile.listener_metadata.clone(),
        })
    }
}

/// A process that is about to load its filter.
#[derive(Debug)]
pub(crate) struct Filtered<'a> {
    /// Its pid.
    pub pid: i32,
    /// The same, safe against reuse.
    pub pidfd: &'a OwnedFd,
    /// The page that it shares with us.
    pub page: &'a SharedPage,
    /// Our connection to it.
    pub socket: &'a RuntimeEnd,
}

/// Waits for the listener of a process and hands it to the agent. Returns
/// without one when the process ends or speaks first: then it has failed.
pub(crate) fn introduce(
    agent: &Agent,
    process: &Filtered<'_>,
    state: &State,
    status: &'static str,
) -> Result<(), Error> {
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: PAUSE_NANOS,
    };
    let number = loop {
        if let Some(number) = process.page.offered() {
            break number;
        }
        // Only the end of the connection is of interest: what is said over it
        // is for others to read.
        let mut events = [PollFd::new(&process.socket.0, PollFlags::empty())];
        let ended = rustix::io::retry_on_intr(|| poll(&mut events, Some(&pause)));
        if ended.map_err(Error::at("wait for", "seccomp listener"))? > 0 {
            return Ok(());
        }
    };
    let listener = rustix::process::pidfd_getfd(process.pidfd, number, PidfdGetfdFlags::empty())
        .map_err(Error::at("take", "seccomp listener"))?;
    let socket = super::create::connect(&agent.path).map_err(|error| match error {
        Error::System { object, source, .. } => Error::System {
            action: UNREACHED,
            object,
            source,
        },
        other => other,
    })?;
    let message = Message {
        oci_version: &state.oci_version,
        fds: ["seccompFd"],
        pid: process.pid,
        metadata: agent.metadata.as_deref(),
        state: hook::State {
            oci_version: &state.oci_version,
            id: &state.id,
            status,
            pid: Some(state.pid),
            bundle: &state.bundle,
            annotations: &state.annotations,
        },
    };
    let path = agent.path.clone();
    let text = serde_json::to_vec(&message).map_err(|source| Error::Json { path, source })?;
    protocol::send_with_fd(socket.as_fd(), &text, listener.as_fd())
        .map_err(Error::on("send the seccomp listener to", &agent.path))?;
    process.page.accept();
    Ok(())
}
