//! Steps' results between machines: `--cache-to` and `--cache-from`.
//!
//! A cache is an OCI manifest whose configuration is a list of keys and layers, and whose
//! layers are theirs; or an image, whose configuration has such a list for its own layers.
//!
//! ```text
//! parse.rs     type=registry,ref=... -> To, From
//! document.rs  the list
//! import.rs    what is there is looked up by key; a layer is fetched when a step needs it
//! export.rs    what a step made is sent when it ends, the list last
//! ```
//!
//! Neither ever fails a build: what does not work is said, and the steps run.

mod document;
mod export;
mod import;
mod parse;

pub use document::{INLINE_FIELD, Records};
pub use export::Export;
pub use import::Import;
pub use parse::{BadCache, From, Mode, Place, To};

use crate::cache::Key;
use crate::storage::{Storage, StorageError};
use std::path::PathBuf;
use teu_store::registry::{Options, TrustOptions};
use teu_store::{DiffId, Store};

/// Why a cache is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The registry.
    #[error(transparent)]
    Registry(Box<teu_store::registry::Error>),
    /// The store.
    #[error(transparent)]
    Store(Box<teu_store::Error>),
    /// The store, as a build uses it.
    #[error(transparent)]
    Storage(Box<StorageError>),
    /// A layer on its way.
    #[error(transparent)]
    Transfer(Box<teu_store::transfer::Error>),
    /// A file of a layout.
    #[error("read {path:?}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A document that is none, or lists what it has not.
    #[error("{what} is no build cache: {why}")]
    Document {
        /// What was read.
        what: String,
        /// What is wrong.
        why: String,
    },
}

impl std::convert::From<teu_store::registry::Error> for ExchangeError {
    fn from(error: teu_store::registry::Error) -> Self {
        Self::Registry(Box::new(error))
    }
}

impl std::convert::From<teu_store::Error> for ExchangeError {
    fn from(error: teu_store::Error) -> Self {
        Self::Store(Box::new(error))
    }
}

impl std::convert::From<StorageError> for ExchangeError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Box::new(error))
    }
}

impl std::convert::From<teu_store::transfer::Error> for ExchangeError {
    fn from(error: teu_store::transfer::Error) -> Self {
        Self::Transfer(Box::new(error))
    }
}

/// The caches of one build.
#[derive(Debug, Default)]
pub struct Exchange {
    imports: Vec<(Place, Import)>,
    exports: Vec<(Place, Export)>,
}

impl Exchange {
    /// Opens what is read and begins what is written; what cannot be read is said by `warn` and left out.
    pub fn begin(store: &Store, from: &[From], to: &[To], warn: &dyn Fn(&str)) -> Self {
        let mut imports = Vec::new();
        for one in from {
            match Import::open(one) {
                Ok(import) => imports.push((one.place.clone(), import)),
                Err(error) => warn(&told(&one.place, &error)),
            }
        }
        let sent = to.iter().filter(|to| to.place != Place::Inline);
        Self {
            imports,
            exports: sent
                .map(|to| (to.place.clone(), Export::begin(store, to)))
                .collect(),
        }
    }

    /// The layer that a key made elsewhere; it is in the store afterwards. What fails is said by `warn`.
    pub fn fetch(&self, key: &Key, storage: &Storage, warn: &dyn Fn(&str)) -> Option<DiffId> {
        self.imports.iter().find_map(|(place, import)| {
            import.fetch(key, storage).unwrap_or_else(|error| {
                warn(&told(place, &error));
                None
            })
        })
    }

    /// Hands a step's result to all caches that are written.
    pub fn offer(&self, keys: &[Key], layer: DiffId, in_result: bool) {
        for (_, export) in &self.exports {
            export.offer(keys, layer, in_result);
        }
    }

    /// Waits until all caches are written; what fails is said by `warn`.
    pub fn finish(&self, warn: &dyn Fn(&str)) {
        for (place, export) in &self.exports {
            if let Err(error) = export.finish() {
                warn(&told(place, &error));
            }
        }
    }
}

fn told(place: &Place, error: &ExchangeError) -> String {
    format!("warning: the cache {place}: {}", crate::build::chain(error))
}

/// How a cache's registry is spoken to.
fn options(insecure: bool) -> Options {
    Options {
        trust: TrustOptions {
            unverified: insecure,
            ..TrustOptions::default()
        },
        ..Options::default()
    }
}
