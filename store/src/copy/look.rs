//! Looking at an image where it is: its documents are read, its layers are not.

use super::source::{self, Source};
use super::{CopyOptions, Location};
use crate::image::{Descriptor, Platform};
use crate::transfer::Error;
use crate::{Image, Store, images};

/// An image somewhere.
pub struct Look {
    source: Source,
    target: Descriptor,
    bytes: Vec<u8>,
    platform: Platform,
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Look({})", self.target.digest)
    }
}

/// What an image says of itself, with the bytes in which it does.
#[derive(Debug, Clone)]
pub struct Looked {
    /// Manifest and configuration.
    pub image: Image,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The configuration's bytes.
    pub config: Vec<u8>,
}

impl Look {
    /// Opens the image at `place`.
    ///
    /// # Errors
    /// What the place refuses.
    pub fn open(store: &Store, place: &Location, options: &CopyOptions) -> Result<Self, Error> {
        let source = Source::open(store, place, options)?;
        let (target, bytes) = source.target()?;
        Ok(Self {
            source,
            target,
            bytes,
            platform: options.platform.clone(),
        })
    }

    /// Describes what the name leads to: a manifest, or an index.
    #[must_use]
    pub fn target(&self) -> &Descriptor {
        &self.target
    }

    /// The bytes of what the name leads to.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The image for the chosen platform.
    ///
    /// # Errors
    /// An index without one, an artifact that is no image, documents that are not what their digests say.
    pub fn image(&self) -> Result<Looked, Error> {
        let bytes = self.bytes.clone();
        let found = source::resolve(&self.source, &self.target, bytes, &self.platform)?;
        let (config, config_bytes) = source::config(&self.source, &found.manifest)?;
        images::check_layers(&found.descriptor, &found.manifest, &config)?;
        Ok(Looked {
            image: Image {
                reference: None,
                manifest_descriptor: found.descriptor,
                manifest: found.manifest,
                config,
            },
            manifest: found.bytes,
            config: config_bytes,
        })
    }
}
