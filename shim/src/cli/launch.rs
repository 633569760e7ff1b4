//! Starting a container's shim, and hearing whether it could make the container.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use crate::container::{Folder, Lock, Place};
use crate::error::At as _;
use crate::supervisor::report;
use crate::{Error, siblings};

/// Longest report, in bytes.
const REPORT_BYTES_MAX: u64 = 16 * 1024;

/// Why there is no container.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether a shim has taken the container over, and so has written down why and cleaned up.
    pub(super) supervised: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            supervised: false,
        }
    }
}

/// Starts the shim, which takes the container over, and waits until the
/// container exists. It does not matter what becomes of this process meanwhile.
pub(super) fn launch(place: &Place, folder: &Folder, lock: Lock) -> Result<(), Failure> {
    let program = siblings::find("teu-shim")?;
    let mut child = Command::new(&program)
        .args(["run", "--root"])
        .arg(&place.data)
        .arg("--state")
        .arg(&place.state)
        .arg(folder.id.as_str())
        .current_dir("/")
        .stdin(lock.share()?)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .at("execute", &program)?;
    drop(lock); // the shim's copy is the last one: it is free when the shim lets it go
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut report = BufReader::new(stdout).take(REPORT_BYTES_MAX);
        report.read_line(&mut line).at("listen to", &program)?;
    }
    match line
        .trim_end()
        .split_once(' ')
        .unwrap_or((line.trim_end(), ""))
    {
        (report::CREATED, _) => Ok(()),
        // The exit status is derived from the runtime's own words only.
        (report::REFUSED, reason) => Err(Failure {
            error: Error::Runtime {
                message: reason.to_owned(),
            },
            supervised: true,
        }),
        (report::FAILED, reason) => Err(Failure {
            error: Error::Child {
                program: "teu-shim".into(),
                message: reason.to_owned(),
            },
            supervised: true,
        }),
        _ => {
            let died = child
                .wait()
                .map_or_else(|err| err.to_string(), |status| status.to_string());
            let error = Error::Child {
                program: "teu-shim".into(),
                message: format!("teu-shim ended early: {died}"),
            };
            Err(Failure {
                error,
                supervised: false,
            })
        }
    }
}
