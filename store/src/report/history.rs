//! How an image came to be: its history (image-spec, config.md, "history") beside its layers.

use serde::Serialize;

use crate::digest::{DiffId, Digest};
use crate::images::Image;

/// A step of an image's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When; RFC 3339, as the image says.
    pub created: Option<String>,
    /// The command.
    pub created_by: Option<String>,
    /// Who.
    pub author: Option<String>,
    /// A remark.
    pub comment: Option<String>,
    /// The layer that the step made, if one.
    pub layer: Option<DiffId>,
    /// The layer's blob.
    pub blob: Option<Digest>,
    /// Bytes of the blob.
    pub size: u64,
}

impl Image {
    /// The steps, latest first. Layers and history are paired in their order; what either has too many stands alone,
    /// because nothing makes an image tell the truth here.
    pub fn history(&self) -> Vec<Step> {
        let layers = self
            .config
            .rootfs
            .diff_ids
            .iter()
            .zip(&self.manifest.layers);
        let mut layers = layers.map(|(layer, blob)| (*layer, blob));
        let mut steps = Vec::new();
        for entry in &self.config.history {
            let layer = match entry.empty_layer {
                true => None,
                false => layers.next(),
            };
            steps.push(Step {
                created: entry.created.clone(),
                created_by: entry.created_by.clone(),
                author: entry.author.clone(),
                comment: entry.comment.clone(),
                layer: layer.map(|(layer, _)| layer),
                blob: layer.map(|(_, blob)| blob.digest),
                size: layer.map_or(0, |(_, blob)| blob.size),
            });
        }
        steps.extend(layers.map(|(layer, blob)| Step {
            created: None,
            created_by: None,
            author: None,
            comment: None,
            layer: Some(layer),
            blob: Some(blob.digest),
            size: blob.size,
        }));
        steps.reverse();
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Descriptor, Document, History, ImageConfig, media_type};

    fn image(layers: u8, history: &[bool]) -> Image {
        let blob =
            |n: u8| Descriptor::new(media_type::OCI_LAYER, Digest::of(&[n]), u64::from(n) + 1);
        let manifest = serde_json::json!({"schemaVersion": 2, "config": blob(99), "layers": (0..layers).map(blob).collect::<Vec<_>>()});
        let Ok(Document::Manifest(manifest)) =
            Document::parse(manifest.to_string().as_bytes(), None)
        else {
            panic!("a manifest")
        };
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = (0..layers).map(|n| DiffId(Digest::of(&[n]))).collect();
        config.history = history
            .iter()
            .map(|empty_layer| History {
                empty_layer: *empty_layer,
                ..History::default()
            })
            .collect();
        Image {
            reference: None,
            manifest_descriptor: blob(98),
            manifest: *manifest,
            config,
        }
    }

    #[test]
    fn steps_and_layers_are_paired_in_their_order() {
        let sizes = |layers, history: &[bool]| -> Vec<u64> {
            let steps = image(layers, history).history();
            steps.iter().map(|step| step.size).collect()
        };
        assert_eq!(sizes(2, &[false, true, false]), [2, 0, 1]);
        assert_eq!(sizes(2, &[true]), [2, 1, 0]);
        assert_eq!(sizes(1, &[false, false]), [0, 1]);
        assert_eq!(sizes(0, &[]), [0; 0]);
    }
}
