//! Manifests and indexes (image-spec, manifest.md and image-index.md; docker's schema 2).

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::descriptor::{Descriptor, Platform, version};
use super::{media_type, null_is_default};
use crate::digest::Digest;

/// Largest manifest, index or configuration we read, in bytes. Registries refuse manifests above 4 MiB
/// (distribution-spec, "Pushing manifests"), and a document is held in memory whole.
pub const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// An image manifest: one configuration and the layers, bottom first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u64,
    /// What the document says it is; OCI permits it to be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// Free text for people and tools; never steers us.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Fields we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An index: manifests of one image for several platforms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u64,
    /// What the document says it is; OCI permits it to be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests, in order of preference.
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// Free text for people and tools; never steers us.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Fields we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Either document a reference may lead to.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Several.
    Index(Index),
}

/// Bytes that are no manifest and no index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadDocument {
    /// Not JSON, or not of the right shape.
    #[error("parse the manifest")]
    Json(#[source] serde_json::Error),
    /// Docker's schema 1, which hashes nothing that it names.
    #[error(
        "the manifest is of docker's schema 1, which no registry should serve any more; push the image again with a current tool"
    )]
    Schema1,
    /// Another version.
    #[error("the manifest is of schema version {0}, only 2 is known")]
    Schema(u64),
    /// Could be read as either; GHSA-xmmx-7jpf-fx42.
    #[error("the document has both layers and manifests, so it could mean two things")]
    Ambiguous,
    /// Says one thing and was announced as another.
    #[error("the document calls itself {own:?} and was announced as {announced:?}")]
    Mismatch {
        /// Its own field `mediaType`.
        own: String,
        /// The descriptor's or the server's.
        announced: String,
    },
    /// Neither.
    #[error("the document is neither a manifest nor an index")]
    Neither,
}

/// What a document names, for who needs no more of it: much cheaper to read than the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Names {
    /// The manifests of an index.
    Index(Vec<Digest>),
    /// Of a container image, which has layers in the store.
    Image { config: Digest, layers: Vec<Digest> },
    /// Of anything else, such as a signature.
    Artifact(Vec<Digest>),
}

/// The few fields that tell the documents apart; `C` and `D` are what is read of a descriptor.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe<C, D> {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<C>,
    layers: Option<D>,
    manifests: Option<D>,
    fs_layers: Option<IgnoredAny>,
}

/// Of a descriptor, its content's name.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    pub(crate) digest: Digest,
}

/// Of a configuration's descriptor.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamedConfig {
    media_type: String,
    digest: Digest,
}

/// Which of the two a document is.
#[derive(Clone, Copy)]
enum Kind {
    Manifest,
    Index,
}

impl<C, D> Probe<C, D> {
    /// Which document this is. What could be read in two ways is refused, whatever it is called (CVE-2021-41190).
    fn kind(&self, announced: Option<&str>) -> Result<Kind, BadDocument> {
        match self.schema_version {
            Some(1) => return Err(BadDocument::Schema1),
            Some(2) => {}
            None if self.fs_layers.is_some() => return Err(BadDocument::Schema1),
            None => return Err(BadDocument::Neither),
            Some(other) => return Err(BadDocument::Schema(other)),
        }
        if (self.layers.is_some() || self.config.is_some() || self.fs_layers.is_some())
            && self.manifests.is_some()
        {
            return Err(BadDocument::Ambiguous);
        }
        if let (Some(own), Some(announced)) = (&self.media_type, announced)
            && own != announced
            && is_document(announced)
        {
            return Err(BadDocument::Mismatch {
                own: own.clone(),
                announced: announced.to_owned(),
            });
        }
        let kind = self
            .media_type
            .as_deref()
            .or(announced.filter(|kind| is_document(kind)));
        let indexed = self.manifests.is_some();
        match kind {
            Some(media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST) if !indexed => {
                Ok(Kind::Manifest)
            }
            Some(media_type::OCI_INDEX | media_type::DOCKER_INDEX) if indexed => Ok(Kind::Index),
            None if indexed => Ok(Kind::Index),
            None if self.config.is_some() => Ok(Kind::Manifest),
            _ => Err(BadDocument::Neither),
        }
    }
}

impl Names {
    /// Reads what a document names.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Names, BadDocument> {
        let probe: Probe<NamedConfig, Vec<Named>> =
            serde_json::from_slice(bytes).map_err(BadDocument::Json)?;
        let kind = probe.kind(None)?;
        let digests = |named: Option<Vec<Named>>| {
            let named = named.unwrap_or_default().into_iter();
            named.map(|named| named.digest).collect::<Vec<Digest>>()
        };
        match (kind, probe.config) {
            (Kind::Index, _) => Ok(Names::Index(digests(probe.manifests))),
            (Kind::Manifest, None) => Err(BadDocument::Neither),
            (Kind::Manifest, Some(config)) if is_image(&config.media_type) => Ok(Names::Image {
                config: config.digest,
                layers: digests(probe.layers),
            }),
            (Kind::Manifest, Some(config)) => {
                let mut blobs = digests(probe.layers);
                blobs.push(config.digest);
                Ok(Names::Artifact(blobs))
            }
        }
    }
}

impl Manifest {
    /// Whether it is of a container image, not of an artifact such as a signature.
    pub fn is_image(&self) -> bool {
        is_image(&self.config.media_type)
    }
}

impl Document {
    /// Reads a document; `announced` is the media type of its descriptor or of the server's answer, where known.
    pub fn parse(bytes: &[u8], announced: Option<&str>) -> Result<Document, BadDocument> {
        let probe: Probe<IgnoredAny, IgnoredAny> =
            serde_json::from_slice(bytes).map_err(BadDocument::Json)?;
        match probe.kind(announced)? {
            Kind::Manifest => manifest(bytes),
            Kind::Index => index(bytes),
        }
    }

    /// The media type to describe this document with.
    pub fn media_type(&self) -> &str {
        match self {
            Document::Manifest(manifest) => manifest
                .media_type
                .as_deref()
                .unwrap_or(media_type::OCI_MANIFEST),
            Document::Index(index) => index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX),
        }
    }
}

/// Whether a configuration of this media type is a container image's.
fn is_image(config: &str) -> bool {
    matches!(config, media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
}

fn is_document(media_type: &str) -> bool {
    matches!(
        media_type,
        media_type::OCI_MANIFEST
            | media_type::DOCKER_MANIFEST
            | media_type::OCI_INDEX
            | media_type::DOCKER_INDEX
    )
}

fn manifest(bytes: &[u8]) -> Result<Document, BadDocument> {
    serde_json::from_slice(bytes)
        .map(|manifest| Document::Manifest(Box::new(manifest)))
        .map_err(BadDocument::Json)
}

fn index(bytes: &[u8]) -> Result<Document, BadDocument> {
    serde_json::from_slice(bytes)
        .map(Document::Index)
        .map_err(BadDocument::Json)
}

impl Index {
    /// The manifest that runs best on `wanted`: of the very variant, else of the latest earlier one, else of none; of
    /// several equals the first. Entries without a platform match nothing, unless the index has a single entry.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let rank = |entry: &Descriptor| {
            let offered = entry.platform.as_ref().filter(|one| wanted.accepts(one))?;
            let version = offered.variant.as_deref().and_then(version);
            Some((
                offered.variant == wanted.variant,
                wanted.variant.is_some().then_some(version).flatten(),
            ))
        };
        let mut best: Option<(_, &Descriptor)> = None;
        for entry in &self.manifests {
            let Some(rank) = rank(entry) else {
                continue;
            };
            if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                best = Some((rank, entry));
            }
        }
        match (best, self.manifests.as_slice()) {
            (Some((_, entry)), _) => Some(entry),
            (None, [only]) => Some(only).filter(|only| only.platform.is_none()),
            (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(kind: &str) -> Value {
        serde_json::json!({"mediaType": kind, "digest": Digest::of(b"x"), "size": 1})
    }

    fn parse(value: &Value, announced: Option<&str>) -> Result<Document, BadDocument> {
        Document::parse(value.to_string().as_bytes(), announced)
    }

    #[test]
    fn unknown_fields_survive() {
        let value = serde_json::json!({"schemaVersion": 2, "config": descriptor("c"), "layers": [], "subject": descriptor("s")});
        let Document::Manifest(manifest) = parse(&value, None).unwrap() else {
            panic!("a manifest")
        };
        let names = Names::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!(names, Names::Artifact(vec![Digest::of(b"x")]));
        assert_eq!(serde_json::to_value(manifest).unwrap(), value);
    }

    // security.md, S14.
    #[test]
    fn ambiguous_documents_are_refused() {
        let both = serde_json::json!({"schemaVersion": 2, "config": descriptor("c"), "layers": [], "manifests": []});
        assert!(matches!(parse(&both, None), Err(BadDocument::Ambiguous)));
        let renamed = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "config": descriptor("c"), "layers": []});
        assert!(parse(&renamed, None).is_err());
        let announced = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": descriptor("c"), "layers": []});
        assert!(matches!(
            parse(&announced, Some(media_type::OCI_INDEX)),
            Err(BadDocument::Mismatch { .. })
        ));
        assert!(matches!(
            parse(&serde_json::json!({"schemaVersion": 1}), None),
            Err(BadDocument::Schema1)
        ));
    }

    // security.md, S26.
    #[test]
    fn negative_and_huge_sizes_do_not_parse() {
        for size in ["-1", "18446744073709551616", "1.5"] {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{}","size":{size}}},"layers":[]}}"#,
                Digest::of(b"x")
            );
            assert!(Document::parse(text.as_bytes(), None).is_err(), "{size}");
        }
    }

    #[test]
    fn the_best_variant_is_chosen() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let index = |platforms: &[&str]| Index {
            schema_version: 2,
            media_type: None,
            manifests: platforms
                .iter()
                .map(|text| {
                    let digest = Digest::of(text.as_bytes());
                    let mut entry = Descriptor::new(media_type::OCI_MANIFEST, digest, 1);
                    entry.platform = Some(platform(text));
                    entry
                })
                .collect(),
            annotations: BTreeMap::new(),
            other: Map::new(),
        };
        for (offered, wanted, chosen) in [
            (
                &["linux/arm64", "linux/arm64/v8"][..],
                "linux/arm64/v8",
                Some("linux/arm64/v8"),
            ),
            (
                &["linux/arm/v5", "linux/arm/v6"],
                "linux/arm/v7",
                Some("linux/arm/v6"),
            ),
            (
                &["linux/arm/v7", "linux/arm/v5"],
                "linux/arm/v6",
                Some("linux/arm/v5"),
            ),
            (&["linux/arm/v7"], "linux/arm/v6", None),
            (
                &["linux/amd64/v3", "linux/amd64"],
                "linux/amd64",
                Some("linux/amd64"),
            ),
            (
                &["linux/amd64", "linux/amd64/v2"],
                "linux/amd64/v3",
                Some("linux/amd64/v2"),
            ),
            (
                &["linux/amd64", "linux/amd64/v4"],
                "linux/amd64/v3",
                Some("linux/amd64"),
            ),
            (&["windows/amd64", "linux/s390x"], "linux/amd64", None),
        ] {
            let index = index(offered);
            let found = index
                .select(&platform(wanted))
                .and_then(|entry| entry.platform.clone());
            assert_eq!(found, chosen.map(platform), "{wanted} of {offered:?}");
        }
    }
}
