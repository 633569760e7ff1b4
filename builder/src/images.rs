//! Base images: from the store, or pulled into it.

use crate::plan;
use crate::progress::{Progress, Style};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use teu_store::{Reference, Store};

/// Why a base image is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Its name is none.
    #[error(transparent)]
    Name(#[from] teu_store::reference::BadReference),
    /// The store.
    #[error(transparent)]
    Store(Box<teu_store::Error>),
    /// The program that pulls cannot be executed.
    #[error("execute {program:?}")]
    Execute {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The program said no.
    #[error("copy it into the store{0}")]
    Failed(String),
    /// It is not in the store, and no registry gave it.
    #[error("not in the store, and it cannot be pulled{0}")]
    Pull(String),
}

/// Copies an image out of an OCI layout, `PATH[:TAG]` or `PATH@DIGEST`, into the store.
///
/// # Errors
/// The layout has no such image, or cannot be read.
pub fn copy_layout(
    program: &Path,
    store: &Store,
    layout: &str,
    name: &str,
) -> Result<(), ImageError> {
    // A tag stands behind the last element of the path.
    let place = layout.replacen('@', ":@", 1);
    let mut command = Command::new(program);
    command.arg("--root").arg(store.root_path()).args([
        "copy",
        "--quiet",
        &format!("oci:{place}"),
        &format!("store:{name}"),
    ]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    run(command, program, ImageError::Failed)
}

/// Executes `program`; where it says no, its last line becomes the error.
fn run(
    mut command: Command,
    program: &Path,
    failed: fn(String) -> ImageError,
) -> Result<(), ImageError> {
    let output = command.spawn().and_then(Child::wait_with_output);
    let output = output.map_err(|source| ImageError::Execute {
        program: program.to_owned(),
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .map(|line| format!(": {}", line.trim()));
    Err(failed(last.unwrap_or_default()))
}

/// Finds base images in a store, pulling what is missing.
#[derive(Debug)]
pub struct StoreImages<'a> {
    /// The store.
    pub store: &'a Store,
    /// The program that pulls: `teu-store`.
    pub puller: &'a Path,
    /// Where pulls are shown.
    pub progress: &'a Progress,
}

impl plan::Images for StoreImages<'_> {
    fn image(
        &mut self,
        name: &str,
    ) -> Result<plan::Image, Box<dyn std::error::Error + Send + Sync>> {
        let store = |error| ImageError::Store(Box::new(error));
        let image = match self.store.find_image(name) {
            Ok(image) => image,
            Err(teu_store::Error::NoSuchImage(_)) => {
                let reference: Reference = name.parse().map_err(ImageError::Name)?;
                self.pull(&reference)?;
                self.store.image(&reference).map_err(store)?
            }
            Err(error) => return Err(store(error).into()),
        };
        Ok(plan::Image {
            name: name.to_owned(),
            layers: image.config.rootfs.diff_ids.clone(),
            config: image.config,
        })
    }
}

impl StoreImages<'_> {
    /// Pulls an image. On a terminal the puller shows its own progress, and its own errors.
    fn pull(&self, reference: &Reference) -> Result<(), ImageError> {
        self.progress.note(&format!("pulling {reference}"));
        let terminal = self.progress.style() == Style::Terminal;
        let mut command = Command::new(self.puller);
        command
            .arg("--root")
            .arg(self.store.root_path())
            .arg("pull");
        if terminal {
            command.stderr(Stdio::inherit());
        } else {
            command.arg("--quiet").stderr(Stdio::piped());
        }
        command
            .arg(reference.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        run(command, self.puller, ImageError::Pull)
    }
}
