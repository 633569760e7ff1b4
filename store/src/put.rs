//! How an image becomes one: manifest and configuration over layers that are here, its name last.

use std::collections::BTreeMap;

use serde_json::Map;

use crate::digest::{DiffId, Digest};
use crate::error::Error;
use crate::image::{Descriptor, Document, ImageConfig, Manifest, media_type};
use crate::layers::Layer;
use crate::reference::Reference;
use crate::transaction::Transaction;

impl Transaction {
    /// Stores an image of `layers`, bottom first, and gives it `name`; its manifest's digest. The configuration's list
    /// of layers is filled in. Durable: when the name is there, so is all that it names.
    pub fn put_image(
        &self,
        mut config: ImageConfig,
        layers: &[Layer],
        name: Option<&Reference>,
    ) -> Result<Digest, Error> {
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        let json = |what: &'static str| {
            move |source| Error::Json {
                what: what.into(),
                source,
            }
        };
        let config = serde_json::to_vec(&config).map_err(json("the image configuration"))?;
        let config = self.put_bytes(media_type::OCI_CONFIG, &config)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.into()),
            config,
            layers: layers.iter().map(|layer| layer.blob.clone()).collect(),
            annotations: BTreeMap::new(),
            other: Map::new(),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(json("the manifest"))?;
        let manifest = self.put_bytes(media_type::OCI_MANIFEST, &manifest)?;
        self.complete(&manifest, layers)?;
        if let Some(name) = name {
            self.store().set_ref(name, &manifest)?;
        }
        Ok(manifest.digest)
    }

    /// Checks that the image of `manifest` is whole, settles its stack of layers, and gives it `name`:
    /// the last step of a pull or an import, when all blobs and layers are in. `layers` are those just taken in;
    /// the others must be here already. Where `name` is to mean an index that holds the manifest, `target` is that index.
    pub fn finish_image(
        &self,
        manifest: &Descriptor,
        layers: &[Layer],
        target: Option<&Descriptor>,
        name: Option<&Reference>,
    ) -> Result<(), Error> {
        self.complete(manifest, layers)?;
        let target = target.unwrap_or(manifest);
        self.want([&target.digest])?;
        if let Some(name) = name {
            self.store().set_ref(name, target)?;
        }
        Ok(())
    }

    /// Everything the manifest names is here, and its layers can be stacked.
    fn complete(&self, manifest: &Descriptor, layers: &[Layer]) -> Result<(), Error> {
        let store = self.store();
        self.want([&manifest.digest])?;
        let Document::Manifest(document) = store.read_document(manifest)? else {
            return Err(Error::Inconsistent {
                image: manifest.digest,
                why: "it is an index, not a manifest".into(),
            });
        };
        let blobs = document
            .layers
            .iter()
            .chain([&document.config])
            .map(|blob| &blob.digest);
        self.want(blobs.clone())?;
        if let Some(missing) = blobs.into_iter().find(|blob| !store.has_blob(blob)) {
            return Err(Error::NoSuchBlob(*missing));
        }
        let image = store.resolve(manifest.clone(), None)?;
        let diff_ids: &[DiffId] = &image.config.rootfs.diff_ids;
        self.want(diff_ids.iter().map(|layer| &layer.0))?;
        for layer in diff_ids {
            if !self.adapt_layer(layer)? {
                return Err(Error::NoSuchLayer(*layer));
            }
        }
        self.settle(diff_ids, layers)
    }
}
