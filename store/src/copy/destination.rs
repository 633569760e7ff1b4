//! Where a copy goes: what a walk asks of it. Registries here, layouts in [`super::layout`].

use super::walk::Content;
use crate::digest::Digest;
use crate::image::Descriptor;
use crate::registry::{Client, Uploaded};
use crate::transfer::Error;

/// A place that takes blobs and documents as they are.
pub(super) trait Destination: Sync {
    /// Whether several blobs may come at once.
    fn takes_several(&self) -> bool;

    /// Whether documents and layers should be of OCI's types.
    fn wants_oci(&self) -> bool;

    /// Takes a blob, unless it is there; in a word or two, how it came to be there.
    fn blob(&self, content: &Content<'_>) -> Result<&'static str, Error>;

    /// Takes a manifest or an index whose content is there.
    fn document(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error>;

    /// Takes the document that the name is to mean from now on.
    fn top(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error>;
}

/// A repository of a registry.
pub(super) struct ToRegistry {
    pub(super) client: Client,
    /// The repository of the same registry that the image comes from.
    pub(super) mount_from: Option<String>,
    pub(super) tag: Option<String>,
    /// What the name says the image is.
    pub(super) digest: Option<Digest>,
}

impl Destination for ToRegistry {
    fn takes_several(&self) -> bool {
        true
    }

    fn wants_oci(&self) -> bool {
        false
    }

    fn blob(&self, content: &Content<'_>) -> Result<&'static str, Error> {
        let blob = content.blob;
        let how =
            self.client
                .upload(&blob.digest, blob.size, content, self.mount_from.as_deref())?;
        Ok(match how {
            Uploaded::Sent => "copied",
            Uploaded::Present => "already there",
            Uploaded::Mounted => "mounted from another repository there",
        })
    }

    fn document(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
        let name = descriptor.digest.to_string();
        Ok(self
            .client
            .put_manifest(&name, &descriptor.media_type, bytes)?)
    }

    fn top(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
        if let Some(named) = self.digest.filter(|named| *named != descriptor.digest) {
            return Err(Error::OtherDigest {
                named: Box::new(named),
                found: Box::new(descriptor.digest),
            });
        }
        let name = self
            .tag
            .clone()
            .unwrap_or_else(|| descriptor.digest.to_string());
        Ok(self
            .client
            .put_manifest(&name, &descriptor.media_type, bytes)?)
    }
}
