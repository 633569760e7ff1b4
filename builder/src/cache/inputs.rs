//! What a step's key was made of, in words: kept beside the record, so that a later build can
//! say what has changed.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use teu_store::DiffId;

/// Longest inputs that are written and read, unpacked, in bytes: some million files.
const INPUTS_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Compression of the files on disk: the fastest, they are mostly hashes.
const LEVEL: i32 = 1;

/// Everything that a step does and sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The Dockerfile's name as the user gave it.
    pub dockerfile: String,
    /// `build 2/5`.
    pub place: String,
    /// The instruction as it stands in the Dockerfile.
    pub text: String,
    /// What it does: named settings, among them each variable of its environment.
    pub values: BTreeMap<String, String>,
    /// The files that it copies, or that are mounted, by their paths.
    pub files: BTreeMap<String, FileInput>,
    /// The layers that it starts from, bottom first.
    pub parent: Vec<Below>,
    /// The rules that decided which files of the context it could see.
    pub ignored: Vec<String>,
}

/// What counts of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInput {
    /// What it is: `file`, `directory`, `link to x`.
    #[serde(rename = "k", default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Permission bits.
    #[serde(rename = "m")]
    pub mode: u32,
    /// Owner and group, where they are copied.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// The beginning of the content's sha256.
    #[serde(rename = "c", default, skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// Extended attributes and the beginnings of their values' sha256.
    #[serde(rename = "x", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
}

/// One layer below a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// The layer.
    pub layer: DiffId,
    /// The step that made it, or the image it is from.
    pub maker: String,
    /// Whether it is from an image.
    pub base: bool,
}

impl Inputs {
    /// As bytes on disk; `None` if they would be too many.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let text = serde_json::to_vec(self).ok()?;
        let fits = text.len() as u64 <= INPUTS_BYTES_MAX;
        fits.then(|| zstd::bulk::compress(&text, LEVEL).ok())
            .flatten()
    }

    /// Reads what [`Inputs::encode`] wrote; `None` for anything else.
    pub(super) fn decode(file: impl Read) -> Option<Self> {
        let mut text = Vec::new();
        zstd::Decoder::new(file)
            .ok()?
            .take(INPUTS_BYTES_MAX)
            .read_to_end(&mut text)
            .ok()?;
        serde_json::from_slice(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_come_back() {
        let mut inputs = Inputs {
            text: "COPY a /".to_owned(),
            ..Inputs::default()
        };
        inputs.files.insert(
            "a".to_owned(),
            FileInput {
                mode: 0o644,
                content: "00ff".to_owned(),
                ..FileInput::default()
            },
        );
        let bytes = inputs.encode().unwrap();
        assert_eq!(Inputs::decode(&bytes[..]), Some(inputs));
        assert_eq!(Inputs::decode(&bytes[..bytes.len() / 2]), None);
    }
}
