//! What `docker save` writes: `manifest.json`, which lists for each image its
//! configuration, its names and its layers, all members of the same tar.
//!
//! Such an archive has no manifest in the OCI sense: we make one, whose layers
//! are the archive's tars as they are.

use super::detect::{self, Packing};
use super::members::Members;
use crate::digest::{Algorithm, DiffId, Digest, Hasher};
use crate::image::{DOCUMENT_BYTES_MAX, Descriptor, ImageConfig, Manifest, media_type};
use crate::transfer::Error;
use crate::transfer::intake::Origin;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};

/// The member that lists the images.
pub(crate) const LIST: &str = "manifest.json";

/// An image as `manifest.json` lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default, deserialize_with = "crate::image::null_is_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "crate::image::null_is_default")]
    layers: Vec<String>,
}

/// An image of an archive, with the manifest we made for it.
pub(crate) struct Listed {
    pub(crate) target: Descriptor,
    pub(crate) manifest: Vec<u8>,
    pub(crate) names: Vec<String>,
}

/// An archive as the origin of its images.
pub(crate) struct Archive {
    members: Members,
    /// Which member a digest means.
    places: HashMap<Digest, String>,
    /// Documents we read or made.
    documents: HashMap<Digest, Vec<u8>>,
}

impl Archive {
    /// Reads the list; the images in its order.
    pub(crate) fn read(members: Members, what: &str) -> Result<(Self, Vec<Listed>), Error> {
        let mut archive = Self {
            members,
            places: HashMap::new(),
            documents: HashMap::new(),
        };
        let list = archive.small(LIST)?;
        let entries: Vec<Entry> =
            serde_json::from_slice(&list).map_err(|error| Error::Archive {
                what: what.to_owned(),
                why: format!("its {LIST} is not docker's: {error}"),
            })?;
        let listed = entries
            .into_iter()
            .map(|entry| archive.image(entry, what))
            .collect::<Result<_, _>>()?;
        Ok((archive, listed))
    }

    fn image(&mut self, entry: Entry, what: &str) -> Result<Listed, Error> {
        let bytes = self.small(&entry.config)?;
        let config: ImageConfig =
            serde_json::from_slice(&bytes).map_err(|source| crate::Error::Json {
                what: format!("image configuration {:?}", entry.config),
                source,
            })?;
        if config.rootfs.diff_ids.len() != entry.layers.len() {
            let (layers, diff_ids) = (entry.layers.len(), config.rootfs.diff_ids.len());
            let why = format!("it lists {layers} layers where the configuration has {diff_ids}");
            return Err(Error::Archive {
                what: what.to_owned(),
                why,
            });
        }
        let layers = entry
            .layers
            .into_iter()
            .zip(&config.rootfs.diff_ids)
            .map(|(member, diff_id)| self.layer(member, diff_id))
            .collect::<Result<_, _>>()?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: self.document(media_type::OCI_CONFIG, bytes),
            layers,
            annotations: BTreeMap::new(),
            other: serde_json::Map::new(),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|source| crate::Error::Json {
            what: "a new manifest".into(),
            source,
        })?;
        let target = self.document(media_type::OCI_MANIFEST, manifest.clone());
        Ok(Listed {
            target,
            manifest,
            names: entry.repo_tags,
        })
    }

    /// Describes a layer. Most are plain tars, whose digest the configuration
    /// says; a packed one has to be read for its own.
    fn layer(&mut self, member: String, diff_id: &DiffId) -> Result<Descriptor, Error> {
        let size = self.members.size(&member)?;
        let failed = |source| {
            Error::from(crate::Error::Read {
                what: format!("layer {member:?}"),
                source,
            })
        };
        let mut start = Vec::new();
        self.members
            .open(&member)?
            .take(6)
            .read_to_end(&mut start)
            .map_err(failed)?;
        let (kind, digest) = match detect::packing(&start) {
            Packing::Plain | Packing::Foreign(_) => (media_type::OCI_LAYER, diff_id.0),
            Packing::Gzip => (media_type::OCI_LAYER_GZIP, self.digest(&member)?),
            Packing::Zstd => (media_type::OCI_LAYER_ZSTD, self.digest(&member)?),
        };
        self.places.insert(digest, member);
        Ok(Descriptor::new(kind, digest, size))
    }

    fn digest(&self, member: &str) -> Result<Digest, Error> {
        let mut content = self.members.open(member)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = content
                .read(&mut buffer)
                .map_err(|source| crate::Error::Read {
                    what: format!("layer {member:?}"),
                    source,
                })?;
            if count == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buffer[..count]);
        }
    }

    fn document(&mut self, kind: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::new(kind, Digest::of(&bytes), bytes.len() as u64);
        self.documents.insert(descriptor.digest, bytes);
        descriptor
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, Error> {
        let size = self.members.size(name)?;
        if size > DOCUMENT_BYTES_MAX {
            return Err(crate::Error::TooLarge {
                what: format!("{name:?}"),
                size,
                max: DOCUMENT_BYTES_MAX,
            }
            .into());
        }
        let mut bytes = Vec::new();
        self.members
            .open(name)?
            .read_to_end(&mut bytes)
            .map_err(|source| crate::Error::Read {
                what: format!("{name:?}"),
                source,
            })?;
        Ok(bytes)
    }
}

impl Origin for Archive {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        if let Some(bytes) = self.documents.get(&blob.digest) {
            return Ok(Box::new(Cursor::new(bytes)));
        }
        let member = self
            .places
            .get(&blob.digest)
            .ok_or(crate::Error::NoSuchBlob(blob.digest))?;
        Ok(Box::new(self.members.open(member)?))
    }
}
