//! Executing the store: an image becomes a bundle.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::container::record::Bundle;
use crate::container::{ContainerId, Place};
use crate::error::At as _;
use crate::{Error, siblings};

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Pull {
    /// Always, before it is used
    Always,
    /// If the store does not have it
    Missing,
    /// Not at all
    Never,
}

/// The store's program and its root.
pub(super) struct Store {
    program: PathBuf,
    root: PathBuf,
}

impl Store {
    pub(super) fn find(place: &Place) -> Result<Self, Error> {
        Ok(Self {
            program: siblings::find("teu-store")?,
            root: place.store(),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root);
        command
    }

    /// Makes the bundle, and pulls the image before where that is wanted.
    pub(super) fn create_pulling(
        &self,
        id: &ContainerId,
        folder: &Path,
        image: &str,
        request: &Value,
        pull: Pull,
    ) -> Result<Bundle, Error> {
        if pull == Pull::Always {
            self.pull(image)?;
        }
        match self.create(id, folder, image, request) {
            // Whether the image lacks is asked only after a failure: a run of a present image pays nothing.
            Err(_) if pull == Pull::Missing && !self.has(image)? => {
                self.pull(image)?;
                self.create(id, folder, image, request)
            }
            result => result,
        }
    }

    /// `bundle create`
    pub(super) fn create(
        &self,
        id: &ContainerId,
        folder: &Path,
        image: &str,
        request: &Value,
    ) -> Result<Bundle, Error> {
        let mut command = self.command();
        command
            .args([
                "bundle",
                "create",
                "--id",
                id.as_str(),
                "--request",
                "-",
                image,
            ])
            .arg(folder);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .at("execute", &self.program)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A store that does not read says why it failed; that is the better message.
            let _: std::io::Result<()> = stdin.write_all(request.to_string().as_bytes());
        }
        let output = self.checked(child.wait_with_output().at("wait for", &self.program)?)?;
        serde_json::from_slice(&output.stdout).map_err(|source| Error::Json {
            what: "the answer of teu-store bundle create".into(),
            source,
        })
    }

    /// `bundle release`. Idempotent.
    pub(super) fn release(&self, id: &ContainerId) -> Result<(), Error> {
        let output = self
            .command()
            .args(["bundle", "release", id.as_str()])
            .stdin(Stdio::null())
            .output();
        self.checked(output.at("execute", &self.program)?)
            .map(|_| ())
    }

    /// Takes away what `bundle create` made in `folder`, so that it can be made anew.
    pub(super) fn forget(&self, folder: &Path) -> Result<(), Error> {
        let config = folder.join("config.json");
        fs::remove_file(&config).at("remove", &config)?;
        let rootfs = folder.join("rootfs");
        fs::remove_dir(&rootfs).at("remove", &rootfs)
    }

    /// Whether the store has the image.
    pub(super) fn has(&self, image: &str) -> Result<bool, Error> {
        let status = self
            .command()
            .args(["inspect", image])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        Ok(status.at("execute", &self.program)?.success())
    }

    /// `pull`; what it says goes to standard error, since standard output is the container's.
    fn pull(&self, image: &str) -> Result<(), Error> {
        // That nobody reads it is no reason not to pull.
        let _: std::io::Result<()> = writeln!(std::io::stderr(), "teu: pulling {image}");
        let status = self
            .command()
            .args(["pull", image])
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .status();
        if status.at("execute", &self.program)?.success() {
            return Ok(());
        }
        Err(Error::Child {
            program: "teu-store".into(),
            message: format!(
                "image {image:?} is neither in the store nor could it be pulled; see above"
            ),
        })
    }

    fn checked(&self, output: Output) -> Result<Output, Error> {
        if output.status.success() {
            return Ok(output);
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        let message = match line.strip_prefix("teu-store: ").unwrap_or(line) {
            "" => format!("{} ended with {}", self.program.display(), output.status),
            line => line.to_owned(),
        };
        Err(Error::Child {
            program: "teu-store".into(),
            message,
        })
    }
}
