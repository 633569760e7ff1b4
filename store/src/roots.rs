//! Roots: who uses which layers outside any image's name. `roots/<escaped id>`, one small JSON file each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::{ChainId, DiffId, Digest};
use crate::error::{Context, Error};
use crate::images::Image;
use crate::lock::Mode;
use crate::probe::UpperPlace;
use crate::store::{self, Store};

/// What a root keeps from `gc`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RootRecord {
    /// Layers, bottom first; with them the corrections of their chain.
    pub(crate) layers: Vec<DiffId>,
    /// A manifest with all it names, for what must be told about the image later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<Digest>,
}

/// Layers that are pinned and available as directories, until the root is released.
/// Dropping the value releases nothing: containers outlive the program that starts them.
#[derive(Debug)]
pub struct Root {
    store: Store,
    id: String,
    lowers: Vec<PathBuf>,
    upper: UpperPlace,
}

impl Root {
    /// The directories to give to an overlay file system, top first. Empty for an image without layers.
    pub fn lowers(&self) -> &[PathBuf] {
        &self.lowers
    }

    /// Where the overlay's upper directory can lie.
    pub fn upper_place(&self) -> UpperPlace {
        self.upper
    }

    /// Releases the root; see [`Store::release_root`].
    pub fn release(self) -> Result<(), Error> {
        self.store.release_root(&self.id)
    }
}

impl Store {
    /// Pins `layers`, bottom first, under `id` and makes them available as directories in this mount namespace.
    /// An id that is in use is given the new layers. Killed on its way, [`Store::release_root`] cleans up.
    pub fn root(&self, id: &str, layers: &[DiffId]) -> Result<Root, Error> {
        self.pin(id, layers, None)
    }

    /// As [`Store::root`]; the image that they are the layers of is pinned, too.
    pub(crate) fn pin(
        &self,
        id: &str,
        layers: &[DiffId],
        image: Option<&Image>,
    ) -> Result<Root, Error> {
        let work = self.begin()?;
        let manifest = image.map(Image::manifest_digest);
        let documents = manifest.into_iter().chain(image.map(Image::id));
        let documents: Vec<Digest> = documents.collect();
        let chain = ChainId::of(layers);
        let content = layers.iter().map(|layer| &layer.0);
        work.want(
            content
                .chain(chain.as_ref().map(|chain| &chain.0))
                .chain(&documents),
        )?;
        if let Some(missing) = documents.iter().find(|document| !self.has_blob(document)) {
            return Err(Error::NoSuchBlob(*missing));
        }
        if !self.stands(layers)? {
            for layer in layers {
                if !work.adapt_layer(layer)? {
                    return Err(Error::NoSuchLayer(*layer));
                }
            }
            work.settle(layers, &[])?;
        }
        let record = RootRecord {
            layers: layers.to_vec(),
            manifest,
        };
        let text = serde_json::to_vec(&record).map_err(|source| Error::Json {
            what: id.to_owned(),
            source,
        })?;
        {
            let _gc = self.gc_lock(Mode::Shared)?;
            // Not durable: after a power cut nobody uses the layers any more.
            store::replace_file_volatile(work.scratch(), &self.root_file(id), &text)?;
        }
        let lowers = self.make_views(layers)?;
        Ok(Root {
            store: self.clone(),
            id: id.to_owned(),
            lowers,
            upper: self.upper_place()?,
        })
    }

    /// Releases root `id`; views that no other root names are unmounted. That there is no such root is fine.
    pub fn release_root(&self, id: &str) -> Result<(), Error> {
        let path = self.root_file(id);
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(err).context("remove", path);
            }
            _ => {}
        }
        self.drop_views()
    }

    /// Whether there is a root `id`.
    pub(crate) fn has_root(&self, id: &str) -> bool {
        self.root_file(id).exists()
    }

    /// All roots.
    pub(crate) fn root_records(&self) -> Result<Vec<RootRecord>, Error> {
        let folder = self.folder("roots");
        let mut records = Vec::new();
        for entry in fs::read_dir(&folder).context("list", &folder)? {
            records.extend(read(&entry.context("list", &folder)?.path())?);
        }
        Ok(records)
    }

    fn root_file(&self, id: &str) -> PathBuf {
        self.folder("roots").join(crate::refs::file_name(id))
    }
}

/// A root's record; `None` where it has just been released, or a power cut has emptied it.
fn read(path: &Path) -> Result<Option<RootRecord>, Error> {
    let text = match fs::read(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(text) if text.is_empty() => return Ok(None),
        other => other.context("read", path)?,
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| Error::Json {
            what: path.display().to_string(),
            source,
        })
}
