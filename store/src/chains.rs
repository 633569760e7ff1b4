//! Stacks of layers: what must be laid over a plain overlay of them so that it shows what the image means.
//! See [`crate::tree::corrections`] for the reasons. `images/<alg>/<hex>` keeps the answer by chain id.

use std::fs::{self, File};
use std::path::PathBuf;

use crate::digest::{ChainId, DiffId};
use crate::error::{Context, Error};
use crate::layers::Layer;
use crate::probe::Backend;
use crate::store::{self, Store};
use crate::transaction::Transaction;
use crate::tree::{self, Dependence, Tree};

impl Transaction {
    /// Settles what `layers`, bottom first, need over their plain stack. All layers must be here and wanted.
    /// `known` are layers just taken in, whose content need not be read again.
    pub(crate) fn settle(&self, layers: &[DiffId], known: &[Layer]) -> Result<(), Error> {
        let store = self.store();
        let Some(chain) = ChainId::of(layers) else {
            return Ok(());
        };
        self.want([&chain.0])?;
        if store.is_settled(&chain)? {
            return Ok(());
        }
        if store.is_plain_stack(layers)? {
            // Not durable: it is empty however much of it a power cut leaves.
            let path = store.corrections_path(&chain);
            return store::replace_file_volatile(self.scratch(), &path, b"");
        }
        let mut trees = Vec::new();
        for layer in layers {
            let tree = known
                .iter()
                .find(|known| known.diff_id == *layer)
                .and_then(|layer| layer.tree.clone());
            trees.push(match tree {
                Some(tree) => tree,
                None => store.layer_tree(layer)?.into(),
            });
        }
        let trees: Vec<&Tree> = trees.iter().map(AsRef::as_ref).collect();
        match tree::corrections(&trees).map_err(|source| Error::Stack(chain, source))? {
            None => store::replace_file(self.scratch(), &store.corrections_path(&chain), b""),
            Some(tree) => self.write_corrections(&chain, layers, &tree),
        }
    }

    fn write_corrections(
        &self,
        chain: &ChainId,
        layers: &[DiffId],
        tree: &Tree,
    ) -> Result<(), Error> {
        let store = self.store();
        let tars: Vec<File> = layers
            .iter()
            .map(|layer| Ok(store.layer_tar(layer)?.0))
            .collect::<Result<_, Error>>()?;
        let tars: Vec<&File> = tars.iter().collect();
        match store.backend()? {
            Backend::Erofs => {
                let target = store.corrections_path(chain);
                self.write_index(tree, &tars, chain.0.uuid(), &chain.to_string(), &target)
                    .map(|_| ())
            }
            Backend::Directory => self.write_directory(tree, &tars, &store.corrections_dir(chain)),
        }
    }
}

impl Store {
    /// The layers' dependences, from their records.
    fn dependences(&self, layers: &[DiffId]) -> Result<Vec<Dependence>, Error> {
        layers
            .iter()
            .map(|layer| {
                Ok(self
                    .record(layer)?
                    .ok_or(Error::NoSuchLayer(*layer))?
                    .dependence)
            })
            .collect()
    }

    /// Whether a plain overlay of the layers shows what they mean.
    pub(crate) fn is_plain_stack(&self, layers: &[DiffId]) -> Result<bool, Error> {
        Ok(Dependence::is_plain_stack(&self.dependences(layers)?))
    }

    /// Whether it is known what the chain needs: the one question that is asked of a chain however long it is.
    pub(crate) fn is_settled(&self, chain: &ChainId) -> Result<bool, Error> {
        let image = fs::metadata(self.corrections_path(chain)).ok();
        Ok(match self.backend()? {
            Backend::Erofs => image.is_some(),
            Backend::Directory => {
                image.is_some_and(|file| file.len() == 0) || self.corrections_dir(chain).is_dir()
            }
        })
    }

    /// Where the chain's corrections are; `None` where it needs none. The chain must be settled.
    pub(crate) fn corrections(&self, layers: &[DiffId]) -> Result<Option<PathBuf>, Error> {
        let Some(chain) = ChainId::of(layers) else {
            return Ok(None);
        };
        let image = self.corrections_path(&chain);
        let size = match fs::metadata(&image) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => None,
            other => Some(other.context("stat", &image)?.len()),
        };
        Ok(match (size, self.backend()?) {
            (Some(0), _) => None,
            (_, Backend::Directory) => Some(self.corrections_dir(&chain)),
            (_, Backend::Erofs) => Some(image),
        })
    }
}
