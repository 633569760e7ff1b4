//! `bundle create`, `bundle release`, `unpack`, `repack`: images as containers.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use teu_store::bundle::{self, Request};
use teu_store::image::History;
use teu_store::{Reference, RepackOptions, Store};

use super::Outcome;
use super::edit::epoch;
use super::transfer::print_result;

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

/// Make an image of a bundle that `unpack` made: what changed since becomes a new layer
#[derive(Debug, Args)]
pub(crate) struct Repack {
    /// The bundle's folder
    bundle: PathBuf,
    /// Name for the image
    name: Reference,
    /// Leave changes at this path in the container, and below it, out; may be repeated
    #[arg(long, value_name = "PATH")]
    mask: Vec<String>,
    /// What the history says of the layer
    #[arg(long, value_name = "TEXT", default_value = "teu-store repack")]
    created_by: String,
    /// Who made the layer
    #[arg(long)]
    author: Option<String>,
    /// A remark in the history
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// When the layer was made, RFC 3339 [default: as $SOURCE_DATE_EPOCH says, or else nothing]
    #[arg(long, value_name = "TIME")]
    created: Option<jiff::Timestamp>,
    /// Take note of what the bundle is now, so that the next repack makes a layer on this one
    #[arg(long)]
    refresh: bool,
}

impl Repack {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let options = RepackOptions {
            masked: self.mask,
            history: History {
                created: self.created.or_else(epoch).map(|time| time.to_string()),
                author: self.author,
                created_by: Some(self.created_by),
                comment: self.comment,
                ..History::default()
            },
            refresh: self.refresh,
        };
        let repacked = store.repack(&self.bundle, &self.name, &options)?;
        if repacked.members == 0 {
            eprintln!("nothing changed, so there is no new layer");
        }
        print_result(&self.name, &repacked.manifest)?;
        Ok(ExitCode::SUCCESS)
    }
}
