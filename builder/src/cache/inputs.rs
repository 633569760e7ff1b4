//! What a step's key was made of, in words: kept beside the record, so that a later build can
//! say what has changed.

use serde::ser::{Error as _, SerializeMap as _, SerializeStruct as _};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};
use teu_store::DiffId;

/// Longest inputs that are written and read, unpacked, in bytes: some million files.
const INPUTS_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Compression of the files on disk: the fastest, they are mostly hashes.
const LEVEL: i32 = 1;

/// Bytes that are compressed at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Everything that a step does and sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
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

/// Files that a step copies or mounts. There may be a million: they are told, not held.
pub trait FileInputs {
    /// Tells each file by its path, until one cannot be told.
    ///
    /// # Errors
    /// What `tell` fails with, or a file that cannot be read.
    fn each(&self, tell: &mut dyn FnMut(&str, &FileInput) -> io::Result<()>) -> io::Result<()>;
}

impl FileInputs for BTreeMap<String, FileInput> {
    fn each(&self, tell: &mut dyn FnMut(&str, &FileInput) -> io::Result<()>) -> io::Result<()> {
        self.iter().try_for_each(|(path, file)| tell(path, file))
    }
}

/// Inputs with more files than they hold.
struct Whole<'a> {
    inputs: &'a Inputs,
    files: Files<'a>,
}

struct Files<'a>(
    &'a BTreeMap<String, FileInput>,
    &'a [Box<dyn FileInputs + 'a>],
);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Inputs {
            dockerfile,
            place,
            text,
            values,
            files: _,
            parent,
            ignored,
        } = self.inputs;
        let mut fields = to.serialize_struct("Inputs", 7)?;
        fields.serialize_field("dockerfile", dockerfile)?;
        fields.serialize_field("place", place)?;
        fields.serialize_field("text", text)?;
        fields.serialize_field("values", values)?;
        fields.serialize_field("parent", parent)?;
        fields.serialize_field("ignored", ignored)?;
        fields.serialize_field("files", &self.files)?;
        fields.end()
    }
}

impl Serialize for Files<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        let mut tell = |path: &str, file: &FileInput| {
            let written = map.serialize_entry(path, file);
            written.map_err(|error| io::Error::other(error.to_string()))
        };
        let mut told = self.0.each(&mut tell);
        for files in self.1 {
            told = told.and_then(|()| files.each(&mut tell));
        }
        told.map_err(S::Error::custom)?;
        map.end()
    }
}

/// Fails when more is written than is read.
struct Limited<W> {
    out: W,
    left: u64,
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or(io::ErrorKind::FileTooLarge)?;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Inputs {
    /// Writes them, with these files too, as they are on disk.
    ///
    /// # Errors
    /// As `write(2)`; a file that cannot be read; more of them than are ever read.
    pub(super) fn write(
        &self,
        files: &[Box<dyn FileInputs + '_>],
        out: impl Write,
    ) -> io::Result<()> {
        let whole = Whole {
            inputs: self,
            files: Files(&self.files, files),
        };
        let limited = Limited {
            out: zstd::Encoder::new(out, LEVEL)?,
            left: INPUTS_BYTES_MAX,
        };
        // A call of the compressor for each word would take longer than compressing.
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, limited);
        serde_json::to_writer(&mut out, &whole)?;
        let limited = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        limited.out.finish().map(drop)
    }

    /// Reads what [`Inputs::write`] wrote; `None` for anything else.
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
        let mut bytes = Vec::new();
        inputs.write(&[], &mut bytes).unwrap();
        assert_eq!(Inputs::decode(&bytes[..]), Some(inputs.clone()));
        assert_eq!(Inputs::decode(&bytes[..bytes.len() / 2]), None);
        // Files that are told are read as those that were held.
        let files = std::mem::take(&mut inputs.files);
        let mut told = Vec::new();
        inputs.write(&[Box::new(files.clone())], &mut told).unwrap();
        inputs.files = files;
        assert_eq!(Inputs::decode(&told[..]), Some(inputs));
    }
}
