//! From a bundle that was unpacked and then changed to an image with one layer more, as `umoci repack`.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use super::changes::{self, Before};
use super::stamps::Stamps;
use crate::digest::Digest;
use crate::error::{Context, Error};
use crate::image::History;
use crate::layer;
use crate::reference::Reference;
use crate::store::Store;

/// How a bundle becomes an image.
#[derive(Debug, Clone, Default)]
pub struct RepackOptions {
    /// Absolute paths in the container that are no part of the layer, with all below them.
    pub masked: Vec<String>,
    /// What the history says of the layer.
    pub history: History,
    /// Take note of what the bundle is now, so that the next layer lies on this one.
    pub refresh: bool,
}

/// An image that was made of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repacked {
    /// The manifest's digest.
    pub manifest: Digest,
    /// How many members the new layer has; none where nothing changed, and then there is no new layer.
    pub members: u64,
    /// Bytes of the new layer's tar.
    pub size: u64,
}

impl Store {
    /// Makes `name` mean the image that was unpacked to `bundle`, with the changes below `bundle/rootfs` as a new layer.
    /// The image's layers must be here still. Nobody should change the bundle meanwhile.
    pub fn repack(
        &self,
        bundle: &Path,
        name: &Reference,
        options: &RepackOptions,
    ) -> Result<Repacked, Error> {
        let work = self.begin()?;
        let rootfs = bundle.join("rootfs");
        let root = File::open(&rootfs).context("open", &rootfs)?;
        let mut unpacked = None;
        let (stamps, tree) = Stamps::read(bundle, |manifest| {
            work.want([&manifest])?;
            let image = self.image_by_manifest(&manifest)?;
            work.want(image.config.rootfs.diff_ids.iter().map(|layer| &layer.0))?;
            let tree = self.flat_tree(&image.config.rootfs.diff_ids);
            unpacked = Some(image);
            tree
        })?;
        let image = unpacked.ok_or_else(|| Error::NotUnpacked(bundle.to_owned()))?;
        let mut layers = Vec::new();
        let mut tars = Vec::new();
        for layer in &image.config.rootfs.diff_ids {
            layers.push(work.layer(layer)?.ok_or(Error::NoSuchLayer(*layer))?);
            tars.push(self.layer_tar(layer)?.0);
        }
        let before = Before {
            tree: &tree,
            tars: &tars,
            stamps: &stamps,
        };
        let failed = |source| Error::Changes {
            folder: rootfs.clone(),
            source,
        };
        let masked = |path: &[u8]| options.masked.iter().any(|mask| is_below(path, mask));
        let changes = changes::find(&before, root.as_fd(), &masked).map_err(failed)?;
        if changes.is_empty() {
            work.finish_image(&image.manifest_descriptor, &[], None, Some(name))?;
            return Ok(Repacked {
                manifest: image.manifest_digest(),
                members: 0,
                size: 0,
            });
        }
        let writer = work.layer_writer()?;
        let (writer, members) =
            layer::from_changes(root.as_fd(), writer, &changes).map_err(failed)?;
        let layer = writer.finish()?;
        let size = layer.size;
        layers.push(layer);
        let mut config = image.config;
        if options.history.created.is_some() {
            config.created.clone_from(&options.history.created);
        }
        let told = config.history.iter().filter(|step| !step.empty_layer);
        // A history that is silent about other layers would be wrong about which this is.
        if told.count() == layers.len() - 1 {
            config.history.push(options.history.clone());
        }
        let manifest = work.put_image(config, &layers, Some(name))?;
        if options.refresh {
            let layers: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
            self.stamp(&self.flat_tree(&layers)?, &root, manifest, bundle)?;
        }
        Ok(Repacked {
            manifest,
            members,
            size,
        })
    }

    /// Notes in `bundle` that `tree`, of image `manifest`, is what lies in `root` now.
    pub(crate) fn stamp(
        &self,
        tree: &crate::tree::Tree,
        root: &File,
        manifest: Digest,
        bundle: &Path,
    ) -> Result<(), Error> {
        let beside = File::open(bundle).context("open", bundle)?;
        let stamps = Stamps::take(tree, root.as_fd(), beside.as_fd(), manifest);
        let stamps = stamps.context("look at", bundle)?;
        stamps.write(bundle)
    }
}

/// Whether `path`, relative to the root, is `mask` (absolute) or below it.
fn is_below(path: &[u8], mask: &str) -> bool {
    let mask = mask.trim_matches('/').as_bytes();
    path.strip_prefix(mask)
        .is_some_and(|rest| !mask.is_empty() && (rest.is_empty() || rest[0] == b'/'))
}
