//! Manifests and an index over what was built, in the store.

use super::{Annotation, Built, Level, Output};
use crate::attest::{self, Referring};
use crate::storage::{Storage, StorageError};
use std::collections::BTreeMap;
use teu_store::image::{Descriptor, ImageConfig, Index, Manifest, media_type};
use teu_store::progress::Progress;
use teu_store::transfer::Packing;
use teu_store::{Digest, Reference, transfer};

/// The documents of one output.
#[derive(Debug, Clone)]
pub(super) struct Documents {
    /// What a name is to mean: the manifest of a single image, or the index.
    pub(super) target: Descriptor,
    /// The configurations' digests, the images' ids, in the order of the platforms.
    pub(super) ids: Vec<Digest>,
    /// What is to be attached to which image, once that is in a registry.
    pub(super) referring: Vec<(Descriptor, Referring)>,
    /// Annotations of whatever lists the target.
    pub(super) annotations: BTreeMap<String, String>,
}

/// Why documents cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A layer cannot be packed.
    #[error("pack a layer")]
    Pack(#[from] transfer::Error),
    /// A document cannot be written as JSON.
    #[error("write a document")]
    Json(#[from] serde_json::Error),
}

impl From<teu_store::Error> for DocumentError {
    fn from(error: teu_store::Error) -> Self {
        Self::Storage(error.into())
    }
}

/// Makes what `output` asks for; layers are packed as it says, or as `default` says.
pub(super) fn documents(
    storage: &Storage,
    built: &[Built],
    output: &Output,
    names: &[Reference],
    annotations: &[Annotation],
    default: Packing,
    progress: &Progress,
) -> Result<Documents, DocumentError> {
    let packing = output.packing.unwrap_or(default);
    let all: Vec<&Annotation> = annotations.iter().chain(&output.annotations).collect();
    let mut manifests = Vec::new();
    let mut statements = Vec::new();
    let (mut ids, mut referring) = (Vec::new(), Vec::new());
    for one in built {
        let (config, layers) = packed(storage, one, packing, progress)?;
        let kind = if output.docker_types {
            media_type::DOCKER_MANIFEST
        } else {
            media_type::OCI_MANIFEST
        };
        let manifest = manifest(storage, one, output, config, layers, &all)?;
        let mut descriptor = storage.put_document(kind, &serde_json::to_vec(&manifest)?)?;
        storage.finish(&descriptor)?;
        ids.push(manifest.config.digest);
        descriptor.platform = Some(one.platform.clone());
        descriptor.annotations = chosen(&all, Level::ManifestDescriptor, one);
        let apart = attest::referring(&descriptor, names, &one.predicates);
        referring.extend(apart.into_iter().map(|apart| (descriptor.clone(), apart)));
        statements.extend(attest::manifest(
            storage,
            &descriptor,
            names,
            &one.predicates,
        )?);
        manifests.push(descriptor);
    }
    let top = |level| -> BTreeMap<String, String> {
        let of = all.iter().filter(|annotation| annotation.level == level);
        of.map(|one| (one.key.clone(), one.value.clone())).collect()
    };
    let (index_annotations, listed) = (top(Level::Index), top(Level::IndexDescriptor));
    let single =
        built.len() == 1 && !output.index && index_annotations.is_empty() && statements.is_empty();
    let target = match (single, &manifests[..]) {
        (true, [only]) => Descriptor {
            platform: None,
            annotations: BTreeMap::new(),
            ..only.clone()
        },
        _ => {
            // Images first: who looks for one takes the first that fits.
            manifests.extend(statements);
            index(storage, &manifests, output, index_annotations)?
        }
    };
    Ok(Documents {
        target,
        ids,
        referring,
        annotations: listed,
    })
}

/// The configuration, and the layers as the manifest names them.
fn packed(
    storage: &Storage,
    one: &Built,
    packing: Packing,
    progress: &Progress,
) -> Result<(ImageConfig, Vec<Descriptor>), DocumentError> {
    let mut config = one.config.clone();
    config.rootfs.diff_ids.clone_from(&one.layers);
    let mut layers = Vec::new();
    for layer in storage.stored(&one.layers)? {
        layers.push(storage.pack(&layer, packing, progress)?);
    }
    Ok((config, layers))
}

fn manifest(
    storage: &Storage,
    one: &Built,
    output: &Output,
    config: ImageConfig,
    mut layers: Vec<Descriptor>,
    annotations: &[&Annotation],
) -> Result<Manifest, DocumentError> {
    let (kind, config_kind) = if output.docker_types {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
    } else {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
    };
    for layer in &mut layers {
        let other = if output.docker_types {
            docker_layer(&layer.media_type)
        } else {
            oci_layer(&layer.media_type)
        };
        if let Some(other) = other {
            other.clone_into(&mut layer.media_type);
        }
    }
    Ok(Manifest {
        schema_version: 2,
        media_type: Some(kind.to_owned()),
        config: storage.put_document(config_kind, &serde_json::to_vec(&config)?)?,
        layers,
        annotations: chosen(annotations, Level::Manifest, one),
        other: serde_json::Map::new(),
    })
}

/// docker's name of a layer's type.
fn docker_layer(oci: &str) -> Option<&'static str> {
    Some(match oci {
        media_type::OCI_LAYER => media_type::DOCKER_LAYER,
        media_type::OCI_LAYER_GZIP => media_type::DOCKER_LAYER_GZIP,
        media_type::OCI_LAYER_ZSTD => media_type::DOCKER_LAYER_ZSTD,
        _ => return None,
    })
}

/// OCI's name of a layer's type: bases pulled from elsewhere may have docker's.
fn oci_layer(docker: &str) -> Option<&'static str> {
    Some(match docker {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER_ZSTD => media_type::OCI_LAYER_ZSTD,
        _ => return None,
    })
}

fn index(
    storage: &Storage,
    manifests: &[Descriptor],
    output: &Output,
    annotations: BTreeMap<String, String>,
) -> Result<Descriptor, DocumentError> {
    let kind = if output.docker_types {
        media_type::DOCKER_INDEX
    } else {
        media_type::OCI_INDEX
    };
    let index = Index {
        schema_version: 2,
        media_type: Some(kind.to_owned()),
        manifests: manifests.to_vec(),
        annotations,
        other: serde_json::Map::new(),
    };
    Ok(storage.put_document(kind, &serde_json::to_vec(&index)?)?)
}

/// The annotations of a level that are for this platform, or for any.
fn chosen(annotations: &[&Annotation], level: Level, one: &Built) -> BTreeMap<String, String> {
    let fits = |annotation: &&&Annotation| {
        let platform = annotation.platform.as_ref();
        annotation.level == level && platform.is_none_or(|wanted| wanted.accepts(&one.platform))
    };
    let of = annotations.iter().filter(fits);
    of.map(|one| (one.key.clone(), one.value.clone())).collect()
}
