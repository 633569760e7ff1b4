//! Images of the store: from a name or an id to manifest and configuration.

use std::str::FromStr;

use crate::digest::Digest;
use crate::error::Error;
use crate::image::{Descriptor, Document, ImageConfig, Manifest, Platform};
use crate::reference::Reference;
use crate::refs::RefRecord;
use crate::store::Store;
use crate::transaction::Transaction;

/// Fewest hex digits that are taken for the beginning of an image id, as docker.
const SHORT_ID_DIGITS_MIN: usize = 4;

/// How often a name that means something else each time is asked again.
const TRIES: usize = 16;

/// An image, read and checked against its digests.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name it was found by, if by a name.
    pub reference: Option<Reference>,
    /// Describes the manifest.
    pub manifest_descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: ImageConfig,
}

impl Image {
    /// The manifest's digest: what a registry calls the image.
    pub fn manifest_digest(&self) -> Digest {
        self.manifest_descriptor.digest
    }

    /// The configuration's digest: the image's id.
    pub fn id(&self) -> Digest {
        self.manifest.config.digest
    }

    /// Bytes of the image as a registry would send it.
    pub fn packed_bytes(&self) -> u64 {
        let layers = self.manifest.layers.iter();
        layers.map(|layer| layer.size).sum::<u64>() + self.manifest.config.size
    }
}

impl Transaction {
    /// The image that `name` means, and what the name leads to: the manifest, or an index. All of it stays until the
    /// transaction ends, whoever takes the name away.
    pub(crate) fn hold(&self, name: &str) -> Result<(Image, Descriptor), Error> {
        for _ in 0..TRIES {
            let (_, target) = self.store().find(name)?;
            if let Some(image) = self.hold_target(name, &target)? {
                return Ok((image, target));
            }
        }
        Err(Error::Contended(name.to_owned()))
    }

    /// Announces `target`, which `name` was found to lead to. Its image, if the name leads there still: then all that it
    /// names is here, because a name keeps it, and stays, because the collector heard of it while that was so.
    pub(crate) fn hold_target(
        &self,
        name: &str,
        target: &Descriptor,
    ) -> Result<Option<Image>, Error> {
        self.want([&target.digest])?;
        let (image, now) = self.store().find(name)?;
        Ok((now == *target).then_some(image))
    }
}

impl Store {
    /// The image that `name` (a reference, an image id, the beginning of one, or a manifest's digest) means.
    pub fn find_image(&self, name: &str) -> Result<Image, Error> {
        Ok(self.find(name)?.0)
    }

    /// As [`Store::find_image`]; what the name leads to, too.
    fn find(&self, name: &str) -> Result<(Image, Descriptor), Error> {
        let parsed = Reference::from_str(name);
        if let Ok(reference) = &parsed
            && let Some(found) = self.try_image(reference)?
        {
            return Ok(found);
        }
        let is_id = name.starts_with("sha256:") || name.starts_with("sha512:") || is_short_id(name);
        if !is_id {
            parsed?;
            return Err(Error::NoSuchImage(name.to_owned()));
        }
        self.find_by_id(name)
    }

    /// The image of `name` for `platform`: of a name that means several images the one for it, if that is here. A name
    /// that means a single image means that one, whatever it is for.
    pub fn find_image_for(&self, name: &str, platform: &Platform) -> Result<Image, Error> {
        let image = self.find_image(name)?;
        let target = self.target(&image)?;
        let Document::Index(index) = self.read_document(&target)? else {
            return Ok(image);
        };
        let missing = || Error::NoSuchImage(name.to_owned());
        let entry = index.select(platform).cloned().ok_or_else(missing)?;
        if entry.digest == image.manifest_digest() {
            return Ok(image);
        }
        if !self.has_blob(&entry.digest) {
            return Err(missing());
        }
        match self.read_document(&entry)? {
            Document::Manifest(manifest) => self.load(entry, *manifest, image.reference),
            Document::Index(_) => Err(missing()),
        }
    }

    /// What the name that `image` was found by leads to, which may be an index; without a name the manifest.
    pub fn target(&self, image: &Image) -> Result<Descriptor, Error> {
        let record = image
            .reference
            .as_ref()
            .map(|found| self.get_ref(found))
            .transpose()?
            .flatten();
        Ok(record.map_or_else(|| image.manifest_descriptor.clone(), |record| record.target))
    }

    /// Gives the image `name` the further name `new`; an index stays an index.
    pub fn tag(&self, name: &str, new: &Reference) -> Result<(), Error> {
        let work = self.begin()?;
        let (_, target) = work.hold(name)?;
        self.set_ref(new, &target)
    }

    /// Does `work` with the image that `name` means; once more where the name was given to another image meanwhile, and this
    /// one was collected.
    pub(crate) fn with_image<T>(
        &self,
        name: &str,
        mut work: impl FnMut(&Image) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..TRIES {
            let (image, target) = self.find(name)?;
            match work(&image) {
                Err(error) if error.is_absence() && self.find(name)?.1 != target => {}
                done => return done,
            }
        }
        Err(Error::Contended(name.to_owned()))
    }

    /// What was found out about a name's image; nothing where that went wrong because the name was taken away, or
    /// given to another image, meanwhile.
    pub(crate) fn unless_gone<T>(
        &self,
        record: &RefRecord,
        found: Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match found {
            Err(_) if !self.still_means(record)? => Ok(None),
            found => found.map(Some),
        }
    }

    /// Whether a name means now what its record said.
    pub(crate) fn still_means(&self, record: &RefRecord) -> Result<bool, Error> {
        let now = self.get_ref(&record.name)?;
        Ok(now.is_some_and(|now| now.target == record.target))
    }

    /// Takes names away: `name` itself, or the single name of the image whose id it is, or, by `force`, all its names.
    /// The names that went. Their content stays until [`Store::gc`].
    pub fn untag(&self, name: &str, force: bool) -> Result<Vec<Reference>, Error> {
        if let Ok(reference) = Reference::from_str(name)
            && self.remove_ref(&reference)?
        {
            return Ok(vec![reference]);
        }
        let image = self.find_image(name)?;
        let mut names = Vec::new();
        for record in self.list_refs()? {
            if self
                .resolve(record.target, None)
                .is_ok_and(|other| other.id() == image.id())
            {
                names.push(record.name);
            }
        }
        if names.len() > 1 && !force {
            let names: Vec<String> = names.iter().map(Reference::familiar).collect();
            return Err(Error::SeveralNames {
                id: image.id().short(),
                names: names.join(", "),
            });
        }
        for name in &names {
            self.remove_ref(name)?;
        }
        Ok(names)
    }

    /// The image that `reference` names.
    pub fn image(&self, reference: &Reference) -> Result<Image, Error> {
        let found = self.try_image(reference)?.map(|(image, _)| image);
        found.ok_or_else(|| Error::NoSuchImage(reference.familiar()))
    }

    /// The image of manifest `digest`, whether or not something names it.
    pub fn image_by_manifest(&self, digest: &Digest) -> Result<Image, Error> {
        let (_, size) = self.open_blob(digest)?;
        let bytes = self.read_blob(digest, size)?;
        let document = Document::parse(&bytes, None).map_err(|source| Error::Document {
            what: digest.to_string(),
            source,
        })?;
        let descriptor = Descriptor::new(document.media_type(), *digest, size);
        self.resolve(descriptor, None)
    }

    /// The image that `reference` names, and what that leads to.
    fn try_image(&self, reference: &Reference) -> Result<Option<(Image, Descriptor)>, Error> {
        for _ in 0..TRIES {
            let Some(record) = self.record_for(reference)? else {
                return Ok(None);
            };
            let image = self.resolve(record.target.clone(), Some(reference.clone()));
            if let Some(image) = self.unless_gone(&record, image)? {
                return Ok(Some((image, record.target)));
            }
        }
        Err(Error::Contended(reference.familiar()))
    }

    fn record_for(&self, reference: &Reference) -> Result<Option<RefRecord>, Error> {
        if let Some(record) = self.get_ref(reference)? {
            return Ok(Some(record));
        }
        // A name with tag and digest means the digest; one by digest alone may be here under a tag.
        let Some(digest) = reference.digest() else {
            return Ok(None);
        };
        Ok(self.list_refs()?.into_iter().find(|record| {
            record.name.name() == reference.name() && record.target.digest == digest
        }))
    }

    fn find_by_id(&self, name: &str) -> Result<(Image, Descriptor), Error> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let mut found: Option<(Image, Descriptor)> = None;
        for record in self.list_refs()? {
            let image = self.resolve(record.target.clone(), Some(record.name.clone()));
            let Some(image) = self.unless_gone(&record, image)? else {
                continue;
            };
            let matches =
                |digest: Digest| digest.hex().starts_with(hex) || digest.to_string() == name;
            if !matches(image.id()) && image.manifest_digest().to_string() != name {
                continue;
            }
            match &found {
                Some((other, _)) if other.id() != image.id() => {
                    return Err(Error::AmbiguousId(name.to_owned()));
                }
                Some(_) => {}
                None => found = Some((image, record.target)),
            }
        }
        found.ok_or_else(|| Error::NoSuchImage(name.to_owned()))
    }

    /// Reads what a descriptor leads to; of an index, the manifest for this machine.
    pub(crate) fn resolve(
        &self,
        target: Descriptor,
        reference: Option<Reference>,
    ) -> Result<Image, Error> {
        match self.read_document(&target)? {
            Document::Manifest(manifest) => self.load(target, *manifest, reference),
            Document::Index(index) => {
                let here = index
                    .manifests
                    .iter()
                    .filter(|entry| self.has_blob(&entry.digest))
                    .cloned()
                    .collect();
                let index = crate::image::Index {
                    manifests: here,
                    ..index
                };
                let entry = index
                    .select(&Platform::host())
                    .or(index.manifests.first())
                    .cloned();
                let entry = entry.ok_or(Error::NoSuchBlob(target.digest))?;
                match self.read_document(&entry)? {
                    Document::Manifest(manifest) => self.load(entry, *manifest, reference),
                    Document::Index(_) => Err(Error::Inconsistent {
                        image: target.digest,
                        why: "its index holds another index".into(),
                    }),
                }
            }
        }
    }

    fn load(
        &self,
        manifest_descriptor: Descriptor,
        manifest: Manifest,
        reference: Option<Reference>,
    ) -> Result<Image, Error> {
        let bytes = self.read_blob(&manifest.config.digest, manifest.config.size)?;
        let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            what: format!("image configuration {}", manifest.config.digest),
            source,
        })?;
        check_layers(&manifest_descriptor, &manifest, &config)?;
        Ok(Image {
            reference,
            manifest_descriptor,
            manifest,
            config,
        })
    }
}

/// A document whose descriptor is known.
pub(crate) fn parse_document(descriptor: &Descriptor, bytes: &[u8]) -> Result<Document, Error> {
    parse_announced(&descriptor.digest, Some(&descriptor.media_type), bytes)
}

/// A document as a registry sends it; `kind` is what it calls it.
pub(crate) fn parse_announced(
    digest: &Digest,
    kind: Option<&str>,
    bytes: &[u8],
) -> Result<Document, Error> {
    Document::parse(bytes, kind).map_err(|source| Error::Document {
        what: format!("manifest {digest}"),
        source,
    })
}

/// The manifest's layers and the configuration's diff ids are the same list (image-spec, config.md, "rootfs").
pub(crate) fn check_layers(
    descriptor: &Descriptor,
    manifest: &Manifest,
    config: &ImageConfig,
) -> Result<(), Error> {
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers == diff_ids {
        return Ok(());
    }
    let why = format!("the manifest has {layers} layers, the configuration {diff_ids}");
    Err(Error::Inconsistent {
        image: descriptor.digest,
        why,
    })
}

fn is_short_id(name: &str) -> bool {
    (SHORT_ID_DIGITS_MIN..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
