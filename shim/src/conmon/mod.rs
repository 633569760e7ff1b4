//! The supervisor as podman and cri-o start it: in the place of conmon.
//!
//! [`life`] decides, [`session`] carries out. Around them: [`cli`] says what
//! was asked, [`parent`] speaks with who asked, [`call`] executes the runtime,
//! [`log`] keeps output, [`bundle`] lets others in, [`ending`] leaves what they
//! look for afterwards.
//!
//! Names, words and shapes that callers see are conmon's: `--name` options,
//! JSON lines on inherited pipes, files in the bundle. What it does for a
//! container is the supervisor's own: one thread, no memory that grows, no
//! output lost.

pub mod bundle;
pub mod call;
pub mod cli;
pub mod daemon;
pub mod diary;
pub mod ending;
pub mod life;
pub mod log;
pub mod notify;
pub mod parent;
pub mod session;
pub mod token;

use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use crate::Error;
use crate::error::chain;
use cli::{Level, Mode, Options};
use diary::Diary;
use parent::Protocol;
use session::Session;

/// The version of conmon whose options and files these are.
const VERSION: &str = "2.1.12";

/// Runs conmon's command line, without the program's own name.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let options = match cli::read("conmon", arguments) {
        Ok(Ok(options)) => options,
        Ok(Err(help)) => return print(&help, ExitCode::SUCCESS),
        Err(bad) => {
            let line = format!("conmon: option parsing failed: {bad}\n");
            return print(&line, ExitCode::FAILURE);
        }
    };
    if options.version {
        let own = env!("CARGO_PKG_VERSION");
        let text = format!("conmon version {VERSION}\ncommit: teu-shim {own}\n");
        return print(&text, ExitCode::SUCCESS);
    }
    let Some(id) = &options.cid else {
        eprintln!("conmon: Container ID not provided. Use --cid");
        return ExitCode::FAILURE;
    };
    // Before anything is opened here.
    let open = crate::sys::inherited();
    let level = options.level();
    let least = *level.as_ref().unwrap_or(&Level::Error);
    let diary = Diary::new(least, options.syslog, &id.to_string_lossy());
    let result = level.and_then(|_| supervise(&options, open, &diary));
    result.unwrap_or_else(|err| {
        diary.say(Level::Error, &chain(&err));
        ExitCode::FAILURE
    })
}

/// What was asked for goes to standard output; a reader that is gone is no error.
fn print(text: &str, code: ExitCode) -> ExitCode {
    let _: std::io::Result<()> = std::io::stdout().write_all(text.as_bytes());
    code
}

/// From the options to the end. In the caller's child, which leaves with the container's status.
fn supervise(options: &Options, open: Vec<OwnedFd>, diary: &Diary) -> Result<ExitCode, Error> {
    let mode = options.mode()?;
    let protocol = Protocol {
        newer: options.api_version,
        exec: options.exec,
    };
    let inherited = daemon::inherited(protocol, open)?;
    let drivers = log::plan(&options.log_paths)?;
    let logs = drivers.open(options)?;
    if options.no_partial_message && !drivers.journal {
        let words = "--no-container-partial-message has no effect without journald log driver";
        diary.say(Level::Warning, words);
    }
    let oom_score = daemon::outlive_memory();
    if let Some(pipe) = &inherited.parent.start {
        parent::wait_for_start(pipe)?;
    }
    if !options.sync && daemon::fork(options.conmon_pidfile.as_deref())? {
        return Ok(ExitCode::SUCCESS);
    }
    let waits = matches!(mode, Mode::Exec { attach: true, .. });
    if waits && inherited.parent.attach.is_none() {
        return Err(Error::Invalid(
            "--attach specified but _OCI_ATTACHPIPE was not".to_owned(),
        ));
    }
    if !drivers.passthrough {
        daemon::leave_streams()?;
    }
    daemon::settle()?;
    let mut session = Session::new(
        session::Order {
            options,
            mode,
            diary,
            passthrough: drivers.passthrough,
            oom_score,
        },
        inherited,
        logs,
    )?;
    session.run()
}
