//! A cache that is elsewhere: its list is read when the build begins, a layer when it is needed.

use super::document::{Offer, offer};
use super::{ExchangeError, From, Place, options};
use crate::cache::Key;
use crate::storage::Storage;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use teu_store::image::{DOCUMENT_BYTES_MAX, Descriptor, Document, Index, Manifest};
use teu_store::registry::{Access, Client};
use teu_store::{DiffId, Digest};

/// How a layout's list says what an entry is called; image-spec, annotations.md.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A cache that can be asked.
#[derive(Debug)]
pub struct Import {
    origin: Origin,
    offer: Offer,
}

#[derive(Debug)]
enum Origin {
    Registry(Box<Client>),
    Layout(PathBuf),
}

impl Import {
    /// Reads the list. A registry or layout without such a name offers nothing.
    ///
    /// # Errors
    /// The place cannot be read, or what is there is no cache.
    pub fn open(from: &From) -> Result<Self, ExchangeError> {
        match &from.place {
            Place::Registry { name, insecure } => {
                let client = Client::connect(name, Access::Pull, &[], &options(*insecure))?;
                let wanted = name.digest().map_or_else(
                    || name.tag().unwrap_or("latest").to_owned(),
                    |digest| digest.to_string(),
                );
                let fetched = match client.manifest(&wanted) {
                    Err(teu_store::registry::Error::NotFound { .. }) => None,
                    other => Some(other?.bytes),
                };
                let origin = Origin::Registry(Box::new(client));
                Self::read(origin, &name.to_string(), fetched)
            }
            Place::Local { directory, tag } => {
                let target = listed(directory, tag)?;
                let origin = Origin::Layout(directory.clone());
                let bytes = target.map(|target| origin.bytes(&target)).transpose()?;
                Self::read(origin, &directory.display().to_string(), bytes)
            }
            Place::Inline => Ok(Self {
                origin: Origin::Layout(PathBuf::new()),
                offer: Offer::default(),
            }),
        }
    }

    fn read(origin: Origin, what: &str, bytes: Option<Vec<u8>>) -> Result<Self, ExchangeError> {
        let Some(bytes) = bytes else {
            return Ok(Self {
                origin,
                offer: Offer::default(),
            });
        };
        let offer = match manifest(&origin, what, &bytes)? {
            Some(manifest) => {
                let config = origin.bytes(&manifest.config)?;
                offer(what, &manifest, &config)?
            }
            None => Offer::default(),
        };
        Ok(Self { origin, offer })
    }

    /// Whether the cache has what a key made; if so it is in the store afterwards.
    ///
    /// # Errors
    /// It offers the layer and does not give it.
    pub fn fetch(&self, key: &Key, storage: &Storage) -> Result<Option<DiffId>, ExchangeError> {
        let Some(layer) = self.offer.keys.get(key) else {
            return Ok(None);
        };
        let Some(blob) = self.offer.blobs.get(layer) else {
            return Ok(None);
        };
        if !storage.has_layer(layer).unwrap_or(false) {
            storage.ingest(self.origin.open(blob)?, blob, layer)?;
        }
        Ok(Some(*layer))
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.offer.keys.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.offer.keys.is_empty()
    }
}

/// The manifest; of an index the one for this machine, if there is one.
fn manifest(origin: &Origin, what: &str, bytes: &[u8]) -> Result<Option<Manifest>, ExchangeError> {
    let bad = |error: teu_store::image::BadDocument| ExchangeError::Document {
        what: what.to_owned(),
        why: crate::build::chain(&error),
    };
    match Document::parse(bytes, None).map_err(bad)? {
        Document::Manifest(manifest) => Ok(Some(*manifest)),
        Document::Index(index) => {
            let Some(entry) = index.select(&teu_store::image::Platform::host()) else {
                return Ok(None);
            };
            let bytes = match origin {
                Origin::Registry(client) => client.manifest(&entry.digest.to_string())?.bytes,
                Origin::Layout(_) => origin.bytes(entry)?,
            };
            match Document::parse(&bytes, Some(&entry.media_type)).map_err(bad)? {
                Document::Manifest(manifest) => Ok(Some(*manifest)),
                Document::Index(_) => Ok(None),
            }
        }
    }
}

impl Origin {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, ExchangeError> {
        match self {
            Self::Registry(client) => Ok(Box::new(client.blob(&blob.digest, blob.size)?)),
            Self::Layout(directory) => {
                let path = directory
                    .join("blobs")
                    .join(blob.digest.algorithm().name())
                    .join(blob.digest.hex());
                let file =
                    File::open(&path).map_err(|source| ExchangeError::File { path, source })?;
                Ok(Box::new(file))
            }
        }
    }

    /// A document's bytes, checked.
    fn bytes(&self, document: &Descriptor) -> Result<Vec<u8>, ExchangeError> {
        let mut bytes = Vec::new();
        let bad = |why: &str| ExchangeError::Document {
            what: document.digest.to_string(),
            why: why.to_owned(),
        };
        self.open(document)?
            .take(DOCUMENT_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error| bad(&error.to_string()))?;
        if Digest::of(&bytes) != document.digest {
            return Err(bad("its content is another"));
        }
        Ok(bytes)
    }
}

/// What a tag means in a layout; nothing where there is no layout yet.
fn listed(directory: &Path, tag: &str) -> Result<Option<Descriptor>, ExchangeError> {
    let path = directory.join("index.json");
    let mut text = Vec::new();
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.and_then(|file| file.take(DOCUMENT_BYTES_MAX).read_to_end(&mut text)),
    }
    .map_err(|source| ExchangeError::File {
        path: path.clone(),
        source,
    })?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| ExchangeError::Document {
        what: path.display().to_string(),
        why: error.to_string(),
    })?;
    let named = |entry: &Descriptor| {
        entry
            .annotations
            .get(REF_NAME)
            .is_some_and(|own| own == tag)
    };
    Ok(index.manifests.into_iter().find(named))
}
