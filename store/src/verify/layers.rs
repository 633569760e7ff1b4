//! What is made of a layer's tar: its index, its directory, and the corrections over a stack of layers.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use super::{Checked, Damage};
use crate::digest::{ChainId, DiffId};
use crate::edit::{Before, Stamps, find_changes};
use crate::error::Error;
use crate::layers::Index;
use crate::probe::Backend;
use crate::store::Store;
use crate::tree::{self, Tree};

impl Store {
    /// The files that a layer's record speaks of.
    pub(super) fn check_layer(&self, layer: &DiffId, found: &mut Checked) -> Result<(), Error> {
        let record = match self.record(layer) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(()),
            Err(err) => {
                found.problem(Damage::Tar(*layer), &crate::error::chain(&err));
                return Ok(());
            }
        };
        if !fs::metadata(self.tar_path(layer)).is_ok_and(|tar| tar.len() == record.tar_size) {
            found.problem(Damage::Tar(*layer), "it is missing or of another size");
            return Ok(());
        }
        if let Some(index) = record.erofs {
            match File::open(self.index_path(layer)).and_then(|file| Index::of(&file)) {
                Ok(here) if here == index => {}
                Ok(_) => {
                    found.problem(Damage::Index(*layer), "its content is not what was written")
                }
                Err(err) => found.problem(Damage::Index(*layer), &err.to_string()),
            }
            found.files += 1;
            found.bytes += index.size;
        }
        if record.directory {
            let checked = self.layer_tar(layer).and_then(|(tar, _)| {
                let tree = self.layer_tree(layer)?;
                check_directory(&tree, &[tar], &self.dir_path(layer))
            });
            match checked {
                Ok(None) => {}
                Ok(Some(why)) => found.problem(Damage::Directory(*layer), &why),
                Err(err) => found.problem(Damage::Directory(*layer), &crate::error::chain(&err)),
            }
        }
        Ok(())
    }

    /// Makes a chain's corrections once more and compares.
    pub(super) fn check_corrections(
        &self,
        layers: &[DiffId],
        found: &mut Checked,
    ) -> Result<(), Error> {
        let Some(chain) = ChainId::of(layers) else {
            return Ok(());
        };
        if self.is_plain_stack(layers)? {
            return Ok(());
        }
        let mut trees = Vec::new();
        let mut tars = Vec::new();
        for layer in layers {
            trees.push(self.layer_tree(layer)?);
            tars.push(self.layer_tar(layer)?.0);
        }
        let trees: Vec<&Tree> = trees.iter().collect();
        let wanted = tree::corrections(&trees).map_err(|source| Error::Stack(chain, source))?;
        let path = self.corrections_path(&chain);
        let why = match (wanted, self.backend()?) {
            (None, _) if fs::metadata(&path).is_ok_and(|file| file.len() == 0) => None,
            (None, _) => Some("they should be empty".to_owned()),
            (Some(tree), Backend::Directory) => {
                check_directory(&tree, &tars, &self.corrections_dir(&chain))?
            }
            (Some(tree), Backend::Erofs) => {
                let work = self.begin()?;
                let again = work.scratch().join("corrections");
                let tars: Vec<&File> = tars.iter().collect();
                let name = chain.to_string();
                let wanted = work.write_index(&tree, &tars, chain.0.uuid(), &name, &again)?;
                let here = File::open(&path).and_then(|file| Index::of(&file));
                match here {
                    Ok(here) if here == wanted => None,
                    Ok(_) => Some("their content is not what belongs to these layers".to_owned()),
                    Err(err) => Some(err.to_string()),
                }
            }
        };
        if let Some(why) = why {
            found.problem(Damage::Corrections(layers.to_vec()), &why);
        }
        Ok(())
    }
}

/// Compares a directory, file by file, with the tree that was written there; how it differs.
fn check_directory(tree: &Tree, tars: &[File], path: &Path) -> Result<Option<String>, Error> {
    let root = match File::open(path) {
        Err(err) => return Ok(Some(err.to_string())),
        Ok(root) => root,
    };
    let before = Before {
        tree,
        tars,
        stamps: &Stamps::none(),
    };
    let changes =
        find_changes(&before, root.as_fd(), &|_| false).map_err(|source| Error::Changes {
            folder: path.to_owned(),
            source,
        })?;
    let first = changes.first();
    Ok(first.map(|path| {
        format!(
            "{:?} is not what was written",
            String::from_utf8_lossy(&path)
        )
    }))
}
