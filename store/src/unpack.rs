//! Unpacks an image into a directory of its own: every file is copied, nothing refers to the store afterwards.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use crate::digest::DiffId;
use crate::dirs;
use crate::error::{Context, Error};
use crate::store::Store;
use crate::tree::Tree;

impl Store {
    /// Writes what `layers`, bottom first, mean together into `target`, which must be missing or empty.
    /// Interrupted, it leaves a part.
    pub fn unpack(&self, layers: &[DiffId], target: &Path) -> Result<(), Error> {
        self.unpack_tree(layers, target).map(|_| ())
    }

    /// As [`Store::unpack`]; the tree that was written.
    pub(crate) fn unpack_tree(&self, layers: &[DiffId], target: &Path) -> Result<Tree, Error> {
        let work = self.begin()?;
        work.want(layers.iter().map(|layer| &layer.0))?;
        match fs::create_dir(target) {
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.context("create directory", target)?,
        }
        if fs::read_dir(target)
            .context("list", target)?
            .next()
            .is_some()
        {
            return Err(Error::NotEmpty(target.to_owned()));
        }
        let tars = layers.iter().map(|layer| Ok(self.layer_tar(layer)?.0));
        let tars = tars.collect::<Result<Vec<File>, Error>>()?;
        let tree = self.flat_tree(layers)?;
        let tars: Vec<&File> = tars.iter().collect();
        let root = File::open(target).context("open", target)?;
        let written = dirs::write(&tree, &tars, root.as_fd(), dirs::Form::Plain);
        written.map_err(|source| Error::Unpack {
            target: target.to_owned(),
            source,
        })?;
        Ok(tree)
    }
}
