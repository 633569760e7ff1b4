//! Images of several platforms under one name (image-spec, image-index.md).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::Map;

use super::config::json;
use crate::digest::Digest;
use crate::error::Error;
use crate::image::{Descriptor, Document, Index, Platform, media_type};
use crate::images::Image;
use crate::reference::Reference;
use crate::store::Store;
use crate::transaction::Transaction;

/// How often a change is tried again when somebody gives the name another meaning meanwhile.
const TRIES: usize = 16;

/// Which manifest of an index is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// By its digest.
    Digest(Digest),
    /// By what it is for.
    Platform(Platform),
}

/// A text that names no member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a digest nor a platform such as linux/arm64")]
pub struct BadMember(String);

impl FromStr for Member {
    type Err = BadMember;

    fn from_str(text: &str) -> Result<Member, BadMember> {
        let digest = text.parse().map(Member::Digest);
        let member = digest.or_else(|_| text.parse().map(Member::Platform));
        member.map_err(|_| BadMember(text.to_owned()))
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Digest(digest) => digest.fmt(f),
            Member::Platform(platform) => platform.fmt(f),
        }
    }
}

impl Member {
    fn is(&self, entry: &Descriptor) -> bool {
        match self {
            Member::Digest(digest) => entry.digest == *digest,
            // linux/arm64 means linux/arm64/v8, too.
            Member::Platform(wanted) => entry.platform.as_ref().is_some_and(|platform| {
                let variant = wanted.variant.is_none() || wanted.variant == platform.variant;
                variant && wanted.os == platform.os && wanted.architecture == platform.architecture
            }),
        }
    }
}

/// A manifest of an index, as it is listed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IndexMember {
    /// What it is for.
    pub platform: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Bytes of the manifest.
    pub size: u64,
    /// Whether it is in the store.
    pub here: bool,
    /// Its annotations in the index.
    pub annotations: BTreeMap<String, String>,
}

impl Store {
    /// Makes `name` mean an index of `images`; the index's digest. Of a name that means an index itself,
    /// all its images that are here are taken.
    pub fn create_index(
        &self,
        name: &Reference,
        images: &[String],
        annotations: BTreeMap<String, String>,
    ) -> Result<Digest, Error> {
        let mut index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.into()),
            manifests: Vec::new(),
            annotations,
            other: Map::new(),
        };
        let work = self.begin()?;
        for entry in members(&work, images)? {
            let mut others = index.manifests.iter();
            if let Some(platform) = &entry.platform
                && others.any(|other| other.platform == entry.platform)
            {
                return Err(Error::SeveralMembers(platform.to_string()));
            }
            index.manifests.push(entry);
        }
        let (digest, _) = set_index(&work, name, &index, None)?;
        Ok(digest)
    }

    /// Adds `images` to index `name`, in place of those for the same platforms; the new index's digest.
    pub fn add_to_index(&self, name: &Reference, images: &[String]) -> Result<Digest, Error> {
        let work = self.begin()?;
        let entries = members(&work, images)?;
        change_index(&work, name, |index| {
            for entry in &entries {
                index
                    .manifests
                    .retain(|other| other.platform.is_none() || other.platform != entry.platform);
                index.manifests.push(entry.clone());
            }
            Ok(())
        })
    }

    /// Takes manifests out of index `name`; the new index's digest. That one is not in it is an error.
    pub fn remove_from_index(&self, name: &Reference, members: &[Member]) -> Result<Digest, Error> {
        change_index(&self.begin()?, name, |index| {
            for member in members {
                let before = index.manifests.len();
                index.manifests.retain(|entry| !member.is(entry));
                if index.manifests.len() == before {
                    return Err(Error::NoMember(member.to_string()));
                }
            }
            Ok(())
        })
    }

    /// Sets annotations of index `name`, or of one manifest in it; an empty value takes one away.
    /// The new index's digest.
    pub fn annotate_index(
        &self,
        name: &Reference,
        member: Option<&Member>,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Digest, Error> {
        change_index(&self.begin()?, name, |index| {
            let target = match member {
                None => &mut index.annotations,
                Some(member) => {
                    let entry = index.manifests.iter_mut().find(|entry| member.is(entry));
                    let missing = || Error::NoMember(member.to_string());
                    &mut entry.ok_or_else(missing)?.annotations
                }
            };
            for (key, value) in annotations {
                match value.is_empty() {
                    true => target.remove(key),
                    false => target.insert(key.clone(), value.clone()),
                };
            }
            Ok(())
        })
    }

    /// The manifests of index `name`.
    pub fn index_members(&self, name: &Reference) -> Result<Vec<IndexMember>, Error> {
        let (index, _) = self.read_index(name)?;
        let member = |entry: Descriptor| IndexMember {
            platform: entry.platform.map(|platform| platform.to_string()),
            here: self.has_blob(&entry.digest),
            digest: entry.digest,
            media_type: entry.media_type,
            size: entry.size,
            annotations: entry.annotations,
        };
        Ok(index.manifests.into_iter().map(member).collect())
    }

    fn read_index(&self, name: &Reference) -> Result<(Index, Descriptor), Error> {
        let record = self.get_ref(name)?;
        let target = record
            .ok_or_else(|| Error::NoSuchImage(name.familiar()))?
            .target;
        match self.read_document(&target)? {
            Document::Index(index) => Ok((index, target)),
            Document::Manifest(_) => Err(Error::NoIndex(name.familiar())),
        }
    }
}

/// Describes images as an index does, with the platforms that their configurations name. The images stay until the
/// transaction ends.
fn members(work: &Transaction, images: &[String]) -> Result<Vec<Descriptor>, Error> {
    let mut members = Vec::new();
    for name in images {
        let (_, target) = work.hold(name)?;
        let images = work.store().images_of(&target)?;
        members.extend(images.into_iter().map(described));
    }
    Ok(members)
}

fn change_index(
    work: &Transaction,
    name: &Reference,
    change: impl Fn(&mut Index) -> Result<(), Error>,
) -> Result<Digest, Error> {
    for _ in 0..TRIES {
        let (mut index, target) = work.store().read_index(name)?;
        change(&mut index)?;
        let (digest, is_set) = set_index(work, name, &index, Some(&target))?;
        if is_set {
            return Ok(digest);
        }
    }
    Err(Error::Contended(name.familiar()))
}

/// Stores `index` and makes `name` mean it, if that still means `before`; its digest, and whether it was set.
fn set_index(
    work: &Transaction,
    name: &Reference,
    index: &Index,
    before: Option<&Descriptor>,
) -> Result<(Digest, bool), Error> {
    let store = work.store();
    work.want(index.manifests.iter().map(|entry| &entry.digest))?;
    for entry in index
        .manifests
        .iter()
        .filter(|entry| store.has_blob(&entry.digest))
    {
        if let Document::Manifest(manifest) = store.read_document(entry)?
            && manifest.is_image()
        {
            work.finish_image(entry, &[], None, None)?;
        }
    }
    let media_type = index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX);
    let target = work.put_bytes(media_type, &json("the index", index)?)?;
    let is_set = match before {
        None => store.set_ref(name, &target).map(|()| true)?,
        Some(before) => store.replace_ref(name, before, &target)?,
    };
    Ok((target.digest, is_set))
}

fn described(image: Image) -> Descriptor {
    let text = |key: &str| image.config.other.get(key)?.as_str().map(str::to_owned);
    let features = image.config.other.get("os.features").cloned();
    let platform = Platform {
        os_version: text("os.version"),
        os_features: features
            .and_then(|list| serde_json::from_value(list).ok())
            .unwrap_or_default(),
        architecture: image.config.architecture,
        os: image.config.os,
        variant: image.config.variant,
    };
    Descriptor {
        platform: Some(platform),
        ..image.manifest_descriptor
    }
}
