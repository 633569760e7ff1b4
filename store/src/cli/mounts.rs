//! `mount`, `umount`: images as read-only directories.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use teu_store::Store;

use super::Outcome;

/// Show an image as a read-only directory, and print which
#[derive(Debug, Args)]
pub(crate) struct Mount {
    /// Name or id of an image of the store
    image: String,
    /// Where; made if missing [default: a folder of the store]
    dir: Option<PathBuf>,
}

impl Mount {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let dir = store.mount_image(&self.image, self.dir.as_deref())?;
        writeln!(std::io::stdout().lock(), "{}", dir.display())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Take a directory of `mount` away
#[derive(Debug, Args)]
pub(crate) struct Umount {
    /// The directory
    dir: PathBuf,
}

impl Umount {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        store.unmount_image(&self.dir)?;
        Ok(ExitCode::SUCCESS)
    }
}
