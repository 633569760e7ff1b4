//! Artifacts beside an image: manifests whose `subject` is that image
//! (image-spec, manifest.md; distribution-spec, "Pushing Manifests with Subject").

use super::client::Client;
use super::error::Error;
use super::listing::referrers_tag;
use super::upload::Source;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::image::{Descriptor, Index, media_type};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The configuration of what has none (image-spec, manifest.md, "Guidance for an Empty Descriptor").
const EMPTY: (&str, &[u8]) = ("application/vnd.oci.empty.v1+json", b"{}");

/// The annotation with a file's name.
const TITLE: &str = "org.opencontainers.image.title";

/// Size of the pieces in which a file is hashed, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// How often the list under a tag is written again that somebody else changed meanwhile.
const LIST_ATTEMPTS_MAX: usize = 4;

/// What is attached.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// What it is: a media type.
    pub kind: String,
    /// Its files, each with its media type.
    pub files: Vec<(PathBuf, String)>,
    /// Free text for people and tools.
    pub annotations: BTreeMap<String, String>,
}

struct FileSource<'p>(&'p Path);

impl Source for FileSource<'_> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let mut file = File::open(self.0)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}

struct BytesSource(&'static [u8]);

impl Source for BytesSource {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(Box::new(self.0.get(start..).unwrap_or_default()))
    }
}

impl Client {
    /// Attaches `artifact` to the manifest that `subject` describes; the digest of the artifact's manifest.
    ///
    /// Files first, then the manifest. A registry that keeps no lists of referrers gets
    /// one under a tag, which is read again afterwards and mended if somebody else wrote it meanwhile.
    ///
    /// # Errors
    /// As for every request; files that cannot be read.
    pub fn attach(&self, subject: &Descriptor, artifact: &Artifact) -> Result<Digest, Error> {
        let mut layers = Vec::new();
        for (path, kind) in &artifact.files {
            let unreadable = |source| Error::Local {
                what: path.display().to_string(),
                source,
            };
            let (digest, size) = hash(path).map_err(unreadable)?;
            self.upload(&digest, size, &FileSource(path), None)?;
            let mut layer = Descriptor::new(kind.clone(), digest, size);
            if let Some(name) = path.file_name() {
                let name = name.to_string_lossy().into_owned();
                layer.annotations.insert(TITLE.to_owned(), name);
            }
            layers.push(layer);
        }
        let config = Descriptor::new(EMPTY.0, Digest::of(EMPTY.1), EMPTY.1.len() as u64);
        self.upload(&config.digest, config.size, &BytesSource(EMPTY.1), None)?;
        if layers.is_empty() {
            layers.push(config.clone());
        }
        let subject_only =
            Descriptor::new(subject.media_type.clone(), subject.digest, subject.size);
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": artifact.kind,
            "config": config, "layers": layers, "subject": subject_only,
        });
        if !artifact.annotations.is_empty() {
            manifest["annotations"] = json!(artifact.annotations);
        }
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let listed =
            self.put_manifest_with_subject(&digest.to_string(), media_type::OCI_MANIFEST, &bytes)?;
        if !listed {
            let mut entry = Descriptor::new(media_type::OCI_MANIFEST, digest, bytes.len() as u64);
            entry.annotations.clone_from(&artifact.annotations);
            entry
                .other
                .insert("artifactType".into(), Value::String(artifact.kind.clone()));
            self.list_by_tag(&subject.digest, &entry)?;
        }
        Ok(digest)
    }

    /// Adds `entry` to the list that stands under a tag.
    fn list_by_tag(&self, subject: &Digest, entry: &Descriptor) -> Result<(), Error> {
        let tag = referrers_tag(subject);
        for _ in 0..LIST_ATTEMPTS_MAX {
            let mut index = match self.referrers_by_tag(subject)? {
                Some((index, _)) => index,
                None => Index {
                    schema_version: 2,
                    media_type: Some(media_type::OCI_INDEX.to_owned()),
                    manifests: Vec::new(),
                    annotations: BTreeMap::new(),
                    other: Map::new(),
                },
            };
            if index.manifests.iter().any(|one| one.digest == entry.digest) {
                return Ok(());
            }
            index.manifests.push(entry.clone());
            let bytes = serde_json::to_vec(&index).map_err(|error| Error::Local {
                what: "a list of referrers".into(),
                source: error.into(),
            })?;
            self.put_manifest(&tag, media_type::OCI_INDEX, &bytes)?;
        }
        Ok(())
    }
}

fn hash(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; PIECE_BYTES];
    let mut size = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if count == 0 {
            return Ok((hasher.finish(), size));
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
}
