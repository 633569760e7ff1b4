//! Base images: from the store, or pulled into it.

use crate::plan;
use crate::progress::{Progress, Style};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use teu_store::image::Platform;
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
    /// It has one platform, and that is another.
    #[error(
        "the image in the store is for {is_for}, and {wanted} is wanted: pull that with teu-store pull --platform {wanted}"
    )]
    Platform {
        /// For what it is.
        is_for: String,
        /// What was asked for.
        wanted: String,
    },
    /// The program said no.
    #[error("copy it into the store{0}")]
    Failed(String),
    /// It is not in the store, and no registry gave it.
    #[error("not in the store, and it cannot be pulled{0}")]
    Pull(String),
}

/// Copies an image out of an OCI layout, `PATH[:TAG][@DIGEST]`, into the store.
///
/// # Errors
/// The layout has no such image, or cannot be read.
pub fn copy_layout(
    program: &Path,
    store: &Store,
    layout: &str,
    name: &str,
) -> Result<(), ImageError> {
    // A digest says all that a tag could.
    let place = match layout.split_once('@') {
        Some((place, digest)) => {
            let path = place.split(':').next().unwrap_or(place);
            format!("{path}:@{digest}")
        }
        None => layout.to_owned(),
    };
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
        platform: &Platform,
    ) -> Result<plan::Image, Box<dyn std::error::Error + Send + Sync>> {
        let store = |error| ImageError::Store(Box::new(error));
        let image = match self.store.find_image_for(name, platform) {
            Ok(image) => image,
            Err(teu_store::Error::NoSuchImage(_)) => {
                let reference: Reference = name.parse().map_err(ImageError::Name)?;
                self.pull(&reference, platform)?;
                self.store.find_image_for(name, platform).map_err(store)?
            }
            Err(error) => return Err(store(error).into()),
        };
        let is_for = (&image.config.os, &image.config.architecture);
        let is_other = is_for != (&platform.os, &platform.architecture);
        // Of this machine's own platform the linter speaks.
        if is_other && !Platform::host().accepts(platform) {
            let error = ImageError::Platform {
                is_for: format!("{}/{}", is_for.0, is_for.1),
                wanted: platform.to_string(),
            };
            return Err(error.into());
        }
        Ok(plan::Image {
            name: name.to_owned(),
            platform: platform.clone(),
            layers: image.config.rootfs.diff_ids.clone(),
            config: image.config,
        })
    }
}

impl StoreImages<'_> {
    /// Pulls an image. On a terminal the puller shows its own progress, and its own errors.
    fn pull(&self, reference: &Reference, platform: &Platform) -> Result<(), ImageError> {
        let is_own = *platform == Platform::host();
        let which = match is_own {
            true => String::new(),
            false => format!(" for {platform}"),
        };
        self.progress.note(&format!("pulling {reference}{which}"));
        let terminal = self.progress.style() == Style::Terminal;
        let mut command = Command::new(self.puller);
        command
            .arg("--root")
            .arg(self.store.root_path())
            .arg("pull");
        if !is_own {
            command.args(["--platform", &platform.to_string()]);
        }
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
