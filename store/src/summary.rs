//! What a listing shows of an image, kept in the record of its name: whoever lists ten thousand names reads ten
//! thousand small files, and no manifest or configuration.
//!
//! A summary follows from the content that the name means, which its digest fixes. An index means another image on
//! another machine, and another one when more of it is pulled: so its summary says for which platform it was made,
//! and is made only of the image that the whole index offers that platform first.
//! Records without a summary, or with another machine's, are read the long way.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;
use crate::image::{Descriptor, Document, Platform};
use crate::images::Image;
use crate::processors::on_all_processors;
use crate::reference::Reference;
use crate::refs::{RefGlance, RefRecord, read_record};
use crate::store::Store;

/// What a listing shows of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The configuration's digest.
    pub id: Digest,
    /// The manifest's digest.
    pub manifest: Digest,
    /// When the image was made, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Go's GOARCH.
    pub architecture: String,
    /// Go's GOOS.
    pub os: String,
    /// How many layers it has.
    pub layers: usize,
    /// Bytes of it as a registry would send it.
    pub size: u64,
    /// Of an index: the machine's platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_for: Option<Platform>,
}

impl Summary {
    /// Of an image that was read.
    pub fn of(image: &Image) -> Summary {
        Summary {
            id: image.id(),
            manifest: image.manifest_digest(),
            created: image.config.created.clone(),
            architecture: image.config.architecture.clone(),
            os: image.config.os.clone(),
            layers: image.manifest.layers.len(),
            size: image.packed_bytes(),
            chosen_for: None,
        }
    }

    /// Whether it says what the name means on this machine.
    fn holds_on(&self, host: &Platform) -> bool {
        self.chosen_for.as_ref().is_none_or(|other| other == host)
    }
}

/// A name and what a listing shows of it.
#[derive(Debug)]
pub struct ListedImage {
    /// The name.
    pub name: Reference,
    /// What it means: a manifest's digest, or an index's.
    pub target: Digest,
    /// The manifest that registries got for it, where that is another.
    pub pushed: Option<Digest>,
    /// When the name was last given here; RFC 3339.
    pub updated: String,
    /// The image; of an index, this machine's.
    pub image: Summary,
}

/// All names, and those that could not be read.
#[derive(Debug, Default)]
pub struct ImageList {
    /// By name.
    pub images: Vec<ListedImage>,
    /// Why others are missing: damaged records, or content that is not here.
    pub unreadable: Vec<Error>,
}

impl Store {
    /// All names with what a listing shows of their images. What cannot be read hides nothing else.
    pub fn list_images(&self) -> Result<ImageList, Error> {
        let host = Platform::host();
        let paths = self.ref_paths()?;
        let parts = on_all_processors(&paths, |part| Ok::<_, Error>(read(part, &host)))?;
        let mut list = ImageList::default();
        let mut rest = Vec::new();
        for part in parts {
            list.images.extend(part.told);
            list.unreadable.extend(part.unreadable);
            rest.extend(part.untold);
        }
        self.look_at(&rest, &mut list)?;
        list.images.sort_by_cached_key(|image| image.name.clone());
        Ok(list)
    }

    /// Reads the images of names whose records say nothing of them; one with several names once.
    fn look_at(&self, paths: &[PathBuf], list: &mut ImageList) -> Result<(), Error> {
        let mut records: Vec<RefRecord> = Vec::new();
        for path in paths {
            match read_record(path) {
                Ok(record) => records.extend(record),
                Err(error) => list.unreadable.push(error),
            }
        }
        records.sort_by_cached_key(|record| record.target.digest);
        let parts = on_all_processors(&records, |part| {
            let alike = part.chunk_by(|a, b| a.target == b.target);
            let looked = alike.map(|alike| {
                let image = self.resolve(alike[0].target.clone(), None);
                (alike, image.map(|image| Summary::of(&image)))
            });
            Ok::<_, Error>(looked.collect::<Vec<_>>())
        })?;
        for (alike, image) in parts.into_iter().flatten() {
            match image {
                Ok(image) => list
                    .images
                    .extend(alike.iter().map(|record| listed(record, &image))),
                // The name was taken away meanwhile, and gc has been here.
                Err(_) if self.get_ref(&alike[0].name)?.is_none() => {}
                Err(source) => list.unreadable.push(Error::Name {
                    name: alike[0].name.familiar(),
                    source: Box::new(source),
                }),
            }
        }
        Ok(())
    }

    /// What a record of `target` may say of it; nothing where that would not stay true, or cannot be read.
    pub(crate) fn summary_of(&self, target: &Descriptor) -> Option<Summary> {
        let image = self.resolve(target.clone(), None).ok()?;
        let summary = Summary::of(&image);
        match self.read_document(target).ok()? {
            Document::Manifest(_) => Some(summary),
            Document::Index(index) => {
                let host = Platform::host();
                let first = index.select(&host)?.digest;
                (first == summary.manifest).then_some(Summary {
                    chosen_for: Some(host),
                    ..summary
                })
            }
        }
    }
}

/// What records say.
#[derive(Default)]
struct Read {
    told: Vec<ListedImage>,
    /// Their images must be read.
    untold: Vec<PathBuf>,
    unreadable: Vec<Error>,
}

fn read(paths: &[PathBuf], host: &Platform) -> Read {
    let mut read = Read::default();
    for path in paths {
        match read_record::<RefGlance>(path) {
            Ok(Some(record)) => match record.summary.filter(|summary| summary.holds_on(host)) {
                Some(image) => read.told.push(ListedImage {
                    name: record.name,
                    target: record.target.digest,
                    pushed: record.pushed.map(|pushed| pushed.digest),
                    updated: record.updated,
                    image,
                }),
                None => read.untold.push(path.clone()),
            },
            // It was taken away meanwhile.
            Ok(None) => {}
            Err(error) => read.unreadable.push(error),
        }
    }
    read
}

fn listed(record: &RefRecord, image: &Summary) -> ListedImage {
    ListedImage {
        name: record.name.clone(),
        target: record.target.digest,
        pushed: record.pushed.as_ref().map(|pushed| pushed.digest),
        updated: record.updated.clone(),
        image: image.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use crate::image::{ImageConfig, media_type};

    fn config(architecture: &str) -> ImageConfig {
        ImageConfig {
            architecture: architecture.into(),
            os: "linux".into(),
            ..ImageConfig::default()
        }
    }

    fn names(list: &ImageList) -> Vec<String> {
        let names = list.images.iter();
        names.map(|image| image.name.familiar()).collect()
    }

    #[test]
    fn a_listing_reads_the_records_alone_and_no_damage_hides_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let work = store.begin().unwrap();
        for name in ["a", "b", "c"] {
            let name: Reference = name.parse().unwrap();
            work.put_image(config("amd64"), &[], Some(&name)).unwrap();
        }
        let whole = store.list_images().unwrap();
        assert_eq!(names(&whole), ["a:latest", "b:latest", "c:latest"]);
        // One record as older versions wrote it, one torn.
        let path = |name: &str| store.ref_path(&name.parse().unwrap());
        let mut old: serde_json::Value =
            serde_json::from_slice(&fs::read(path("a")).unwrap()).unwrap();
        assert!(old.as_object_mut().unwrap().remove("summary").is_some());
        fs::write(path("a"), old.to_string()).unwrap();
        fs::write(path("b"), &fs::read(path("b")).unwrap()[..100]).unwrap();
        let list = store.list_images().unwrap();
        assert_eq!(names(&list), ["a:latest", "c:latest"]);
        assert_eq!(list.images[0].image, whole.images[0].image);
        assert_eq!(list.unreadable.len(), 1);
        // Without its content only the name that says nothing of it is missed.
        fs::remove_file(store.blob_path(&whole.images[0].image.manifest)).unwrap();
        let list = store.list_images().unwrap();
        assert_eq!(names(&list), ["c:latest"]);
        assert_eq!(list.unreadable.len(), 2);
    }

    #[test]
    fn of_an_index_only_the_best_image_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let work = store.begin().unwrap();
        let host = Platform::host();
        let other: Platform = "linux/s390x".parse().unwrap();
        let entry = |platform: &Platform| {
            let digest = work
                .put_image(config(&platform.architecture), &[], None)
                .unwrap();
            let size = fs::metadata(store.blob_path(&digest)).unwrap().len();
            let mut entry = Descriptor::new(media_type::OCI_MANIFEST, digest, size);
            entry.platform = Some(platform.clone());
            entry
        };
        let (own, foreign) = (entry(&host), entry(&other));
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
            "manifests": [own, foreign]});
        let index = index.to_string();
        let target = work
            .put_bytes(media_type::OCI_INDEX, index.as_bytes())
            .unwrap();
        let summary = store.summary_of(&target).unwrap();
        assert_eq!(summary.manifest, own.digest);
        assert!(summary.holds_on(&host) && !summary.holds_on(&other));
        // The own image may come yet: then it is what the name means.
        fs::remove_file(store.blob_path(&own.digest)).unwrap();
        assert_eq!(store.summary_of(&target), None);
    }
}
