//! `bundle create`, `bundle release`, `unpack`: images as containers.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use teu_store::Store;
use teu_store::bundle::{self, Request};

use super::Outcome;

/// Largest request read, in bytes. Real ones have a few KiB.
const REQUEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Turn images into bundles that share the store's layers
#[derive(Debug, Args)]
pub(crate) struct Bundle {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a bundle, pin its image, and print as JSON what its root file system stands on
    Create {
        /// Name of the pin; `bundle release` takes it
        #[arg(long)]
        id: String,
        /// What the container is to be, as JSON; - reads it from standard input
        #[arg(long, value_name = "FILE")]
        request: Option<PathBuf>,
        /// Name or id of an image of the store
        image: String,
        /// The bundle's folder
        dir: PathBuf,
    },
    /// Let go of a bundle's image; that it is let go already is fine
    Release {
        /// The name given to `bundle create`
        id: String,
    },
}

impl Bundle {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        match self.command {
            Command::Create {
                id,
                request,
                image,
                dir,
            } => {
                let request = request
                    .map(|path| read_request(&path))
                    .transpose()?
                    .unwrap_or_default();
                let image = store.find_image(&image)?;
                let bundle = bundle::write(store, &id, &image, &request, &dir)?;
                writeln!(
                    std::io::stdout().lock(),
                    "{}",
                    serde_json::to_string(&bundle)?
                )?;
            }
            Command::Release { id } => store.release_root(&id)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn read_request(path: &Path) -> Result<Request, Box<dyn std::error::Error>> {
    let mut text = String::new();
    let limited: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(|err| format!("open {path:?}: {err}"))?)
    };
    limited.take(REQUEST_BYTES_MAX).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text).map_err(|err| format!("parse the request {path:?}: {err}"))?)
}

/// Copy an image into a bundle that does not need the store afterwards
#[derive(Debug, Args)]
pub(crate) struct Unpack {
    /// Name or id of an image of the store
    image: String,
    /// The bundle's folder; missing or empty
    bundle: PathBuf,
}

impl Unpack {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let image = store.find_image(&self.image)?;
        bundle::unpack(store, &image, &Request::default(), &self.bundle)?;
        Ok(ExitCode::SUCCESS)
    }
}
