//! Which images share which layers: all chains of the store as one forest.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest::{ChainId, DiffId};
use crate::error::Error;
use crate::image::Document;
use crate::reference::Reference;
use crate::store::Store;

/// A layer on those below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SharedLayer {
    /// The layer and all below it.
    pub chain: String,
    /// The layer alone.
    pub layer: DiffId,
    /// How many layers are below it.
    pub depth: usize,
    /// Whether more layers on the same one follow in the list.
    #[serde(skip)]
    pub has_sibling: bool,
    /// Bytes of its tar; `null` where it is not here.
    pub size: Option<u64>,
    /// Images whose topmost layer it is.
    pub top_of: Vec<Reference>,
    /// How many names lead to an image that has it in this place.
    pub used_by: usize,
}

#[derive(Default)]
struct Branch {
    top_of: Vec<Reference>,
    used_by: usize,
    above: BTreeMap<DiffId, Branch>,
}

impl Store {
    /// Every layer of every image, each below those that lie on it, in the order of a walk from the bottom up.
    pub fn shared_layers(&self) -> Result<Vec<SharedLayer>, Error> {
        let mut forest = Branch::default();
        for record in self.list_refs()? {
            let images = self.images_of(&record.target);
            for image in self.unless_gone(&record, images)?.into_iter().flatten() {
                let mut branch = &mut forest;
                for layer in &image.config.rootfs.diff_ids {
                    branch = branch.above.entry(*layer).or_default();
                    branch.used_by += 1;
                }
                branch.top_of.push(record.name.clone());
            }
        }
        let mut out = Vec::new();
        let mut pending = vec![(Vec::new(), &forest, false)];
        while let Some((chain, branch, has_sibling)) = pending.pop() {
            self.describe(&chain, branch, has_sibling, &mut out)?;
            for (at, (layer, above)) in branch.above.iter().rev().enumerate() {
                pending.push(([&chain[..], &[*layer]].concat(), above, at > 0));
            }
        }
        Ok(out)
    }

    fn describe(
        &self,
        chain: &[DiffId],
        branch: &Branch,
        has_sibling: bool,
        out: &mut Vec<SharedLayer>,
    ) -> Result<(), Error> {
        let (Some(layer), Some(id)) = (chain.last(), ChainId::of(chain)) else {
            return Ok(());
        };
        out.push(SharedLayer {
            chain: id.to_string(),
            layer: *layer,
            depth: chain.len() - 1,
            has_sibling,
            size: self.record(layer)?.map(|record| record.tar_size),
            top_of: branch.top_of.clone(),
            used_by: branch.used_by,
        });
        Ok(())
    }

    /// The images that a name's target leads to and that are here: one, or those of an index.
    pub(crate) fn images_of(
        &self,
        target: &crate::image::Descriptor,
    ) -> Result<Vec<crate::images::Image>, Error> {
        let Document::Index(index) = self.read_document(target)? else {
            return Ok(vec![self.resolve(target.clone(), None)?]);
        };
        let mut images = Vec::new();
        for entry in index.manifests {
            let is_image = self.has_blob(&entry.digest)
                && matches!(self.read_document(&entry)?, Document::Manifest(manifest) if manifest.is_image());
            if is_image {
                images.push(self.resolve(entry, None)?);
            }
        }
        Ok(images)
    }
}
