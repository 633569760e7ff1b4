//! Puts right what a check found: from what is here where that suffices, else by fetching the image again.
//!
//! What is damaged is taken away first, under a transaction, so that nothing takes it for good; then
//!
//! 1. a tar is unpacked again from one of its blobs, if one is here and whole,
//! 2. a blob that is a layer's tar is named again by that tar, if that is whole,
//! 3. images of which something is missing still are fetched again by their digests,
//! 4. indexes, directories and corrections are made again from the tars.
//!
//! Names keep their meaning throughout. Killed on its way, the next repair goes on.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fs;
use std::io;

use super::{Checked, Damage};
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::digest::{ChainId, DiffId, Digest};
use crate::error::{Context, Error};
use crate::image::{Descriptor, Document, Platform, media_type};
use crate::layers::LayerRecord;
use crate::packed::Format;
use crate::reference::Reference;
use crate::refs::RefRecord;
use crate::store::{self, Store};
use crate::transaction::Transaction;

/// Fetches the image of this name, which has a digest, for this platform.
pub type Fetch<'f> = dyn FnMut(&Reference, &Platform) -> Result<(), Box<dyn StdError>> + 'f;

/// What was put right.
#[derive(Debug, Default)]
pub struct Repaired {
    /// In words, one each.
    pub done: Vec<String>,
    /// Images that could not be fetched, and why not.
    pub failed: Vec<(Reference, String)>,
}

impl Store {
    /// Puts right what `found` names. What remains wrong is found by the next [`Store::verify`].
    pub fn repair(&self, found: &Checked, fetch: &mut Fetch<'_>) -> Result<Repaired, Error> {
        let mut repaired = Repaired::default();
        let work = self.begin()?;
        let damaged = Damaged::of(found);
        damaged.take_away(&work)?;
        for layer in &damaged.tars {
            if let Some(blob) = work.unpack_again(layer)? {
                repaired
                    .done
                    .push(format!("layer {layer} was unpacked again from {blob}"));
            }
        }
        for blob in &damaged.blobs {
            if work.name_tar(&DiffId(*blob))? {
                repaired
                    .done
                    .push(format!("blob {blob} was linked to its tar"));
            }
        }
        for record in self.list_refs()? {
            if self.is_whole(&record) {
                continue;
            }
            match self.fetch_again(&record, fetch) {
                Ok(()) => repaired
                    .done
                    .push(format!("{} was fetched again", record.name.familiar())),
                Err(why) => repaired.failed.push((record.name, why.to_string())),
            }
        }
        for layer in &damaged.made {
            if work.make_again(layer)? {
                repaired
                    .done
                    .push(format!("layer {layer} was made again from its tar"));
            }
        }
        for layers in &damaged.chains {
            work.want(layers.iter().map(|layer| &layer.0))?;
            let all_here = layers.iter().all(|layer| self.tar_path(layer).is_file());
            if let (Some(chain), true) = (ChainId::of(layers), all_here) {
                work.settle(layers, &[])?;
                repaired
                    .done
                    .push(format!("the corrections of {chain} were made again"));
            }
        }
        Ok(repaired)
    }

    /// Whether all that a name leads to is here.
    fn is_whole(&self, record: &RefRecord) -> bool {
        self.images_of(&record.target).is_ok_and(|images| {
            !images.is_empty() && images.iter().all(|image| self.check_image(image).is_ok())
        })
    }

    /// Fetches what a name leads to by its digest, so that the name keeps its meaning.
    fn fetch_again(
        &self,
        record: &RefRecord,
        fetch: &mut Fetch<'_>,
    ) -> Result<(), Box<dyn StdError>> {
        // A registry knows what was built here by what it was sent.
        let name = record.name.with_digest(record.target.digest);
        let was_there = self.get_ref(&name)?.is_some();
        let mut platforms = self.platforms_here(&record.target);
        if platforms.is_empty() {
            platforms.push(Platform::host());
        }
        let fetched = platforms
            .iter()
            .try_for_each(|platform| fetch(&name, platform));
        if !was_there {
            self.remove_ref(&name)?;
        }
        fetched
    }

    /// For which platforms an index has images here, as far as it can be read.
    fn platforms_here(&self, target: &Descriptor) -> Vec<Platform> {
        let Ok(Document::Index(index)) = self.read_document(target) else {
            return Vec::new();
        };
        let here = index
            .manifests
            .into_iter()
            .filter(|entry| self.has_blob(&entry.digest));
        here.filter_map(|entry| entry.platform).collect()
    }
}

/// What has to be put right, sorted by what it takes.
#[derive(Default)]
struct Damaged {
    blobs: BTreeSet<Digest>,
    tars: BTreeSet<DiffId>,
    /// Layers whose index or directory is to be made again.
    made: BTreeSet<DiffId>,
    chains: BTreeSet<Vec<DiffId>>,
}

impl Damaged {
    fn of(found: &Checked) -> Damaged {
        let mut damaged = Damaged::default();
        for problem in &found.problems {
            match &problem.damage {
                Damage::Blob(digest) => {
                    damaged.blobs.insert(*digest);
                }
                Damage::Tar(layer) => {
                    damaged.tars.insert(*layer);
                }
                Damage::Index(layer) | Damage::Directory(layer) => {
                    damaged.made.insert(*layer);
                }
                Damage::Corrections(layers) => {
                    damaged.chains.insert(layers.clone());
                }
                // What of it is missing is found anew.
                Damage::Image(_) => {}
            }
        }
        damaged
    }

    /// Moves what is damaged out of the store; it goes when the transaction ends. A layer's record vouches for its
    /// other files, so it goes first.
    fn take_away(&self, work: &Transaction) -> Result<(), Error> {
        let store = work.store();
        for layer in &self.tars {
            work.want([&layer.0])?;
            for path in [
                store.record_path(layer),
                store.index_path(layer),
                store.dir_path(layer),
                store.tar_path(layer),
            ] {
                discard(work, &path)?;
            }
        }
        for blob in &self.blobs {
            work.want([blob])?;
            discard(work, &store.blob_path(blob))?;
        }
        for layers in &self.chains {
            if let Some(chain) = ChainId::of(layers) {
                work.want([&chain.0])?;
                discard(work, &store.corrections_path(&chain))?;
                discard(work, &store.corrections_dir(&chain))?;
            }
        }
        Ok(())
    }
}

fn discard(work: &Transaction, path: &std::path::Path) -> Result<(), Error> {
    let trash = work.scratch().join(store::unique_name("damaged")?);
    match store::rename_directory(path, &trash, RenameFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other.context("move away", path),
    }
}

impl Transaction {
    /// Unpacks a layer from a blob that is here; which it was.
    fn unpack_again(&self, layer: &DiffId) -> Result<Option<Digest>, Error> {
        for form in self.store().packed_forms(layer) {
            let kind = match form.format {
                Format::Tar => media_type::OCI_LAYER,
                Format::Gzip => media_type::OCI_LAYER_GZIP,
                Format::Zstd => media_type::OCI_LAYER_ZSTD,
            };
            let blob = Descriptor::new(kind, form.digest, form.size);
            if !self.has_blob(&blob.digest)? {
                continue;
            }
            let (content, _) = self.store().open_blob(&blob.digest)?;
            if self
                .ingest_layer(content, &blob, Some(layer), &mut |_| {})
                .is_ok()
            {
                return Ok(Some(blob.digest));
            }
        }
        Ok(None)
    }

    /// Makes a layer's tar its blob again; whether the tar is here.
    fn name_tar(&self, layer: &DiffId) -> Result<bool, Error> {
        self.want([&layer.0])?;
        let tar = self.store().tar_path(layer);
        let unfinished = self.scratch().join(store::unique_name("blob")?);
        match fs::hard_link(&tar, &unfinished) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.context("link", &tar)?,
        }
        store::name_file(&unfinished, &self.store().blob_path(&layer.0))?;
        Ok(true)
    }

    /// Makes again from its tar what serves a layer; whether it could be.
    fn make_again(&self, layer: &DiffId) -> Result<bool, Error> {
        self.want([&layer.0])?;
        let Some(record) = self.store().record(layer)? else {
            return Ok(false);
        };
        let mut record = LayerRecord {
            erofs: None,
            directory: false,
            ..record
        };
        let tree = self.store().layer_tree(layer)?;
        let (tar, _) = self.store().layer_tar(layer)?;
        self.make_mountable(layer, &tree, &tar, &mut record)?;
        Ok(true)
    }
}
