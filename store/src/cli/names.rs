//! `tag`, `untag`, `rmi`: names of images.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use teu_store::{Reference, Store};

use super::{Outcome, people_bytes};

/// Give an image another name
#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// Name or id of an image of the store
    image: String,
    /// The new name
    name: Reference,
}

impl Tag {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        store.tag(&self.image, &self.name)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Take names of images away, and remove what nothing needs any more
#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// Names, or ids of images
    #[arg(required = true)]
    images: Vec<String>,
    /// An id takes all names of its image away
    #[arg(short, long)]
    force: bool,
}

impl Rmi {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let mut out = std::io::stdout().lock();
        for image in &self.images {
            for name in store.untag(image, self.force)? {
                writeln!(out, "untagged {}", name.familiar())?;
            }
        }
        let removed = store.gc()?;
        if removed.files > 0 {
            writeln!(
                out,
                "removed {} files, {}",
                removed.files,
                people_bytes(removed.bytes)
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Take names of images away; what they named stays until `gc`
#[derive(Debug, Args)]
pub(crate) struct Untag {
    /// Names, or ids of images
    #[arg(required = true)]
    images: Vec<String>,
    /// An id takes all names of its image away
    #[arg(short, long)]
    force: bool,
}

impl Untag {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let mut out = std::io::stdout().lock();
        for image in &self.images {
            for name in store.untag(image, self.force)? {
                writeln!(out, "untagged {}", name.familiar())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
