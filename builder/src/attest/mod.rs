//! What is said about a result beside it: how it was built, and what is in it. Only when asked for.
//!
//! Each statement is an in-toto statement in a manifest of its own, which the index lists after
//! the image that it is about, as BuildKit does ("attestation manifests").

mod provenance;
mod sbom;

pub use provenance::{Detail, Material, Recipe, provenance};
pub use sbom::{Inventory, Package, inventory, sbom};

use crate::storage::{Storage, StorageError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::str::FromStr;
use teu_store::image::{Descriptor, Manifest, Platform, media_type};
use teu_store::{Digest, Reference};

/// The type of a statement as a layer; in-toto, attestation spec, "media types".
pub const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";

/// The annotation that tells statements apart without reading them; BuildKit's, and other signers'.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// The type of the document inside; in-toto statement, version 0.1, which BuildKit's readers know.
const STATEMENT: &str = "https://in-toto.io/Statement/v0.1";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// How it was built, in this detail.
    pub provenance: Option<Detail>,
    /// What packages it has.
    pub sbom: bool,
    /// Which of them are artifacts of their own beside the image, and leave it as it is without them.
    pub referrers: Referrers,
}

/// Statements that a registry keeps as artifacts whose subject is the image (image-spec, manifest.md, "subject").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Referrers {
    /// The one about how it was built.
    pub provenance: bool,
    /// The one about its packages.
    pub sbom: bool,
}

/// A flag that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the attestation {text:?}: {why}")]
pub struct BadAttestation {
    text: String,
    why: &'static str,
}

impl FromStr for Wanted {
    type Err = BadAttestation;

    /// `type=sbom`, `type=provenance,mode=max`, each with `as=referrer`, or with `disabled=true` to take it back.
    fn from_str(text: &str) -> Result<Self, BadAttestation> {
        let bad = |why| BadAttestation {
            text: text.to_owned(),
            why,
        };
        let (mut kind, mut detail, mut disabled) = (None, Detail::Min, false);
        let mut referrer = false;
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("type", value)) => kind = Some(value),
                Some(("mode", "min")) => detail = Detail::Min,
                Some(("mode", "max")) => detail = Detail::Max,
                Some(("disabled", "true")) => disabled = true,
                Some(("disabled", "false")) => disabled = false,
                Some(("as", "manifest")) => referrer = false,
                Some(("as", "referrer")) => referrer = true,
                // Only this version is written.
                Some(("version", "v1")) => {}
                _ => return Err(bad("it has an unknown option")),
            }
        }
        let mut wanted = Self::default();
        match kind {
            Some("sbom") => (wanted.sbom, wanted.referrers.sbom) = (!disabled, referrer),
            Some("provenance") => {
                wanted.provenance = (!disabled).then_some(detail);
                wanted.referrers.provenance = referrer;
            }
            _ => return Err(bad("type= is neither sbom nor provenance")),
        }
        Ok(wanted)
    }
}

/// A statement's type, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicate {
    /// Its type, a URI.
    pub kind: &'static str,
    /// Its content.
    pub content: Value,
    /// Whether it is an artifact of its own beside the image, instead of a manifest in its index.
    pub referrer: bool,
}

/// One statement on its own, for a registry that lists it as referring to the image.
#[derive(Debug, Clone, PartialEq)]
pub struct Referring {
    /// Its predicate's type.
    pub kind: &'static str,
    /// The statement as JSON.
    pub text: String,
}

/// The statements about one image that do not go into its index.
pub fn referring(
    about: &Descriptor,
    names: &[Reference],
    predicates: &[Predicate],
) -> Vec<Referring> {
    let apart = predicates.iter().filter(|predicate| predicate.referrer);
    let one = |predicate: &Predicate| Referring {
        kind: predicate.kind,
        text: statement(about, names, predicate).to_string(),
    };
    apart.map(one).collect()
}

/// in-toto's statement around a predicate.
fn statement(about: &Descriptor, names: &[Reference], predicate: &Predicate) -> Value {
    json!({
        "_type": STATEMENT,
        "predicateType": predicate.kind,
        "subject": subjects(about, names),
        "predicate": predicate.content,
    })
}

/// Puts the statements about one image into the store; the descriptor for the index, if there are any.
///
/// # Errors
/// The store.
pub fn manifest(
    storage: &Storage,
    about: &Descriptor,
    names: &[Reference],
    predicates: &[Predicate],
) -> Result<Option<Descriptor>, StorageError> {
    let mut layers = Vec::new();
    for predicate in predicates.iter().filter(|predicate| !predicate.referrer) {
        let statement = statement(about, names, predicate);
        let mut layer = storage.put_document(STATEMENT_TYPE, statement.to_string().as_bytes())?;
        let kind = (PREDICATE_TYPE, predicate.kind);
        layer.annotations = [(kind.0.to_owned(), kind.1.to_owned())].into();
        layers.push(layer);
    }
    if layers.is_empty() {
        return Ok(None);
    }
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let config = json!({
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": digests },
    });
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        config: storage.put_document(media_type::OCI_CONFIG, config.to_string().as_bytes())?,
        layers,
        annotations: BTreeMap::new(),
        other: serde_json::Map::new(),
    };
    let bytes = json!(manifest).to_string();
    let mut descriptor = storage.put_document(media_type::OCI_MANIFEST, bytes.as_bytes())?;
    let annotations = [
        (
            "vnd.docker.reference.type",
            "attestation-manifest".to_owned(),
        ),
        ("vnd.docker.reference.digest", about.digest.to_string()),
    ];
    descriptor.annotations = annotations
        .map(|(name, value)| (name.to_owned(), value))
        .into();
    descriptor.platform = Some(Platform {
        architecture: "unknown".to_owned(),
        os: "unknown".to_owned(),
        variant: None,
        os_version: None,
        os_features: Vec::new(),
    });
    Ok(Some(descriptor))
}

/// The image under each of its names; package-url, "docker".
fn subjects(about: &Descriptor, names: &[Reference]) -> Vec<Value> {
    let digest = json!({ about.digest.algorithm().name(): about.digest.hex() });
    let platform = about
        .platform
        .as_ref()
        .map(|platform| format!("?platform={}", escaped(&platform.to_string())))
        .unwrap_or_default();
    if names.is_empty() {
        return vec![json!({ "name": "_", "digest": digest })];
    }
    let subject = |name: &Reference| {
        let tag = name.tag().unwrap_or("latest");
        let uri = format!("pkg:docker/{}@{tag}{platform}", name.familiar_name());
        json!({ "name": uri, "digest": digest })
    };
    names.iter().map(subject).collect()
}

/// Text in a URI: what is not unreserved (RFC 3986, 2.3) as its bytes.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_as_buildx_has_them() {
        let read = |text: &str| text.parse::<Wanted>();
        assert!(read("type=sbom").unwrap().sbom);
        assert_eq!(
            read("type=provenance,mode=max").unwrap().provenance,
            Some(Detail::Max)
        );
        assert_eq!(
            read("type=provenance,disabled=true").unwrap(),
            Wanted::default()
        );
        let apart = read("type=sbom,as=referrer").unwrap();
        assert!(apart.sbom && apart.referrers.sbom && !apart.referrers.provenance);
        for bad in [
            "",
            "type=what",
            "type=sbom,generator=x",
            "type=sbom,as=x",
            "mode=max",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(escaped("linux/amd64+x"), "linux%2Famd64%2Bx");
    }
}
