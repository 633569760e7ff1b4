//! Signatures as cosign makes them with a key: beside an image `sha256:<hex>`, under the tag
//! `sha256-<hex>.sig` or among its referrers, a manifest whose layers are small JSON texts that
//! name the image's digest; the signature over each stands in its annotation.
//!
//! The public key is the user's; hash and curve are those of the TLS library.

use super::client::Client;
use super::error::Error;
use super::listing::referrers_tag;
use crate::digest::Digest;
use crate::image::{Descriptor, Document, Manifest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::SignatureVerificationAlgorithm;
use std::io::Read as _;

/// The media type of what is signed.
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// What cosign calls its signatures among referrers.
const ARTIFACT_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// Where the signature stands, in base64.
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// Largest text that is signed, in bytes; cosign's have some hundred.
const PAYLOAD_BYTES_MAX: u64 = 64 * 1024;

/// Most signatures of one image that are looked at.
const SIGNATURES_MAX: usize = 100;

/// Largest key file, in bytes.
const KEY_BYTES_MAX: usize = 64 * 1024;

/// A public key: `-----BEGIN PUBLIC KEY-----` (RFC 7468, section 13), ECDSA, RSA or Ed25519.
pub struct PublicKey {
    /// The algorithm's identifier, as it stands in the key.
    algorithm: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PublicKey")
    }
}

impl PublicKey {
    /// Parses the key's text; none when it is not such a key, or of a kind that is not known.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > KEY_BYTES_MAX {
            return None;
        }
        let body = text.split_once("-----BEGIN PUBLIC KEY-----")?.1;
        let body = body.split_once("-----END PUBLIC KEY-----")?.0;
        let compact: String = body.chars().filter(|c| !c.is_whitespace()).collect();
        let der = BASE64.decode(compact).ok()?;
        // SubjectPublicKeyInfo (RFC 5280, section 4.1): a sequence of the algorithm and the key's bits.
        let (outer, rest) = element(0x30, &der)?;
        let (algorithm, after) = element(0x30, outer)?;
        let (bits, end) = element(0x03, after)?;
        let (unused, key) = bits.split_first()?;
        let key = Self {
            algorithm: algorithm.to_vec(),
            key: key.to_vec(),
        };
        let whole = rest.is_empty() && end.is_empty() && *unused == 0;
        (whole && key.algorithms().next().is_some()).then_some(key)
    }

    fn algorithms(&self) -> impl Iterator<Item = &'static dyn SignatureVerificationAlgorithm> {
        let known = rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .all;
        known
            .iter()
            .copied()
            .filter(|one| one.public_key_alg_id().as_ref() == self.algorithm)
    }

    /// Whether `signature` (as cosign writes it: DER for ECDSA) over `message` is of this key.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.algorithms()
            .any(|one| one.verify_signature(&self.key, message, signature).is_ok())
    }
}

/// The content of a DER element with this tag at the beginning of `bytes`, and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => {
            let length = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
            (usize::from(length), rest.get(2..)?)
        }
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length))?
}

/// What was found out about an image's signatures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// For each good signature the name that was signed (`critical.identity.docker-reference`).
    pub good: Vec<String>,
    /// Why each other signature is not good.
    pub bad: Vec<String>,
}

impl Client {
    /// Looks for signatures over the manifest of `digest` and checks each with `key`.
    ///
    /// # Errors
    /// As for every request. No signature at all is no error here.
    pub fn signatures(&self, digest: &Digest, key: &PublicKey) -> Result<Verdict, Error> {
        let mut verdict = Verdict::default();
        for manifest in self.signature_manifests(digest)? {
            for layer in manifest.layers.iter().take(SIGNATURES_MAX) {
                if layer.media_type != PAYLOAD_TYPE {
                    continue;
                }
                match self.signature(layer, digest, key)? {
                    Ok(name) => verdict.good.push(name),
                    Err(why) => verdict.bad.push(format!("{}: {why}", layer.digest)),
                }
            }
        }
        Ok(verdict)
    }

    fn signature_manifests(&self, digest: &Digest) -> Result<Vec<Manifest>, Error> {
        let mut wanted = vec![format!("{}.sig", referrers_tag(digest))];
        let referrers = self.referrers(digest, Some(ARTIFACT_TYPE))?;
        wanted.extend(
            referrers
                .iter()
                .take(SIGNATURES_MAX)
                .map(|entry| entry.digest.to_string()),
        );
        let mut manifests = Vec::new();
        for name in wanted {
            let fetched = match self.manifest(&name) {
                Err(Error::NotFound { .. }) => continue,
                other => other?,
            };
            let document = Document::parse(&fetched.bytes, fetched.media_type.as_deref());
            if let Ok(Document::Manifest(manifest)) = document {
                manifests.push(*manifest);
            }
        }
        Ok(manifests)
    }

    /// One signature: the name that it signs, or what is wrong about it.
    fn signature(
        &self,
        layer: &Descriptor,
        digest: &Digest,
        key: &PublicKey,
    ) -> Result<Result<String, &'static str>, Error> {
        let Some(signature) = layer
            .annotations
            .get(ANNOTATION)
            .and_then(|text| BASE64.decode(text.trim()).ok())
        else {
            return Ok(Err("it has no signature in base64"));
        };
        if layer.size > PAYLOAD_BYTES_MAX {
            return Ok(Err("what it signs is too long"));
        }
        let mut payload = Vec::new();
        let content = self.blob(&layer.digest, layer.size)?;
        let read =
            crate::Verified::new(content, layer.digest, layer.size).read_to_end(&mut payload);
        if read.is_err() {
            return Ok(Err("what it signs is not what its digest says"));
        }
        Ok(judge(&payload, &signature, digest, key))
    }
}

/// Whether the payload is signed by the key, and speaks of this image.
fn judge(
    payload: &[u8],
    signature: &[u8],
    digest: &Digest,
    key: &PublicKey,
) -> Result<String, &'static str> {
    if !key.verifies(payload, signature) {
        return Err("it is not of this key");
    }
    let json: serde_json::Value =
        serde_json::from_slice(payload).map_err(|_| "what it signs is not JSON")?;
    let critical = &json["critical"];
    let named = critical["image"]["docker-manifest-digest"].as_str();
    if named != Some(&*digest.to_string()) {
        return Err("it signs another image");
    }
    let name = critical["identity"]["docker-reference"].as_str();
    Ok(name.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made once with `openssl ecparam -name prime256v1 -genkey`, `openssl ec -pubout`,
    // and `openssl dgst -sha256 -sign` over the payload below.
    const KEY: &str = include_str!("testdata/cosign.pub");
    const PAYLOAD: &[u8] = include_bytes!("testdata/payload.json");
    const SIGNATURE: &str = include_str!("testdata/payload.sig");

    #[test]
    fn a_signature_is_good_for_its_key_its_text_and_its_image() {
        let key = PublicKey::parse(KEY).unwrap();
        let signature = BASE64.decode(SIGNATURE.trim()).unwrap();
        let image = Digest::of(b"image");
        assert_eq!(
            judge(PAYLOAD, &signature, &image, &key),
            Ok("r.test/a".into())
        );
        let other = Digest::of(b"other");
        assert_eq!(
            judge(PAYLOAD, &signature, &other, &key),
            Err("it signs another image")
        );
        let mut changed = PAYLOAD.to_vec();
        changed[3] ^= 1;
        assert!(judge(&changed, &signature, &image, &key).is_err());
        for at in 0..signature.len() {
            let mut bad = signature.clone();
            bad[at] ^= 1;
            assert!(judge(PAYLOAD, &bad, &image, &key).is_err(), "byte {at}");
        }
        assert!(judge(PAYLOAD, &[], &image, &key).is_err());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
            "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----",
            "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----",
            &KEY.replace("PUBLIC", "CERTIFICATE"),
            &KEY.replace("MFkw", "MFgw"),
        ] {
            assert!(PublicKey::parse(text).is_none(), "{text}");
        }
    }
}
