//! From a registry into the store.

use super::Error;
use super::intake::{self, Origin};
use crate::Store;
use crate::digest::Digest;
use crate::image::{Descriptor, Document, Platform};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{Access, Client, Options};
use std::io::Read;

/// An image that was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// What the registry calls what the name means: the digest of its manifest, or of its index.
    pub digest: Digest,
    /// The manifest of the platform.
    pub manifest: Digest,
    /// The image's id.
    pub id: Digest,
}

/// Pulls `reference` for `platform` and gives it its name in the store.
///
/// The name appears last and at once; killed before, the store is as it was,
/// but for content that `gc` removes. The registry is always asked for the
/// manifest: who may not read it gets nothing, also of what is here.
///
/// # Errors
/// Whatever the registry or the store refuses; content that is not what its digest says.
pub fn pull(
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    options: &Options,
    progress: &Progress,
) -> Result<Pulled, Error> {
    let client = Client::connect(reference, Access::Pull, &[], options)?;
    let wanted = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or(crate::reference::DEFAULT_TAG).to_owned(),
    };
    let fetched = client.manifest(&wanted)?;
    let document =
        Document::parse(&fetched.bytes, fetched.media_type.as_deref()).map_err(|source| {
            crate::Error::Document {
                what: format!("manifest {}", fetched.digest),
                source,
            }
        })?;
    let size = fetched.bytes.len() as u64;
    let target = Descriptor::new(document.media_type(), fetched.digest, size);
    let work = store.begin()?;
    let taken = intake::image(&work, &client, &target, fetched.bytes, platform, progress)?;
    taken.name(&work, reference)?;
    Ok(Pulled {
        digest: taken.target.digest,
        manifest: taken.manifest.digest,
        id: taken.id,
    })
}

impl Origin for Client {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        Ok(Box::new(self.blob(&blob.digest, blob.size)?))
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn foreign(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        if !self.foreign_layers() {
            return Err(Error::ForeignLayer(blob.digest));
        }
        Ok(Box::new(self.foreign_layer(blob)?))
    }

    fn open_at(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + '_>, Error> {
        Ok(Box::new(self.blob_at(&blob.digest, blob.size, offset)?))
    }

    fn document(&self, document: &Descriptor) -> Result<Vec<u8>, Error> {
        if matches!(
            document.media_type.as_str(),
            crate::image::media_type::OCI_CONFIG | crate::image::media_type::DOCKER_CONFIG
        ) {
            let mut bytes = Vec::new();
            self.blob(&document.digest, document.size)?
                .take(document.size + 1)
                .read_to_end(&mut bytes)
                .map_err(|source| crate::Error::Read {
                    what: format!("blob {}", document.digest),
                    source,
                })?;
            return Ok(bytes);
        }
        Ok(self.manifest(&document.digest.to_string())?.bytes)
    }
}
