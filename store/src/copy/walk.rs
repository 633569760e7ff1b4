//! The walk over an image: blobs before the manifest that names them, manifests
//! before their index, the name last.

use super::destination::Destination;
use super::source::{self, Source, described};
use super::{CopyOptions, convert, scratch};
use crate::digest::{Digest, Hasher};
use crate::image::media_type::{self, Compression};
use crate::image::{Descriptor, Document, Index, Manifest};
use crate::pack;
use crate::progress::{Counted, Progress, Task};
use crate::registry;
use crate::transfer::intake::{self, Origin};
use crate::transfer::{Error, parallel};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};

/// Deepest nesting of indexes (security.md, S13).
const INDEX_DEPTH_MAX: usize = 8;

/// One copy on its way.
pub(super) struct Walk<'a> {
    source: &'a Source,
    destination: &'a dyn Destination,
    options: &'a CopyOptions,
    progress: &'a Progress,
    /// What was packed on the way, by its digest.
    packed: Mutex<HashMap<Digest, File>>,
    /// Whether documents are changed into OCI's.
    converts: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        source: &'a Source,
        destination: &'a dyn Destination,
        options: &'a CopyOptions,
        progress: &'a Progress,
    ) -> Self {
        Self {
            source,
            destination,
            options,
            progress,
            packed: Mutex::default(),
            converts: destination.wants_oci() && !options.preserve_digests,
        }
    }

    /// Copies the image that `target` leads to, and names it; what the name means.
    pub(super) fn top(&self, target: &Descriptor, bytes: &[u8]) -> Result<Descriptor, Error> {
        let (descriptor, bytes) = self.prepared(target, bytes, 0)?;
        self.destination.top(&descriptor, &bytes)?;
        Ok(descriptor)
    }

    /// Copies all that a document names; the document as it leaves.
    fn prepared(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
        depth: usize,
    ) -> Result<(Descriptor, Vec<u8>), Error> {
        if depth > INDEX_DEPTH_MAX {
            return Err(Error::Nested(INDEX_DEPTH_MAX));
        }
        match source::parse(descriptor, bytes)? {
            Document::Manifest(manifest) => self.manifest(descriptor, bytes, &manifest),
            Document::Index(index) if self.options.all => {
                self.index(descriptor, bytes, index, depth)
            }
            Document::Index(index) => {
                let entry = intake::select(&index, &self.options.platform)?;
                let bytes = intake::checked(self.source, &entry)?;
                self.prepared(&entry, &bytes, depth + 1)
            }
        }
    }

    fn index(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
        mut index: Index,
        depth: usize,
    ) -> Result<(Descriptor, Vec<u8>), Error> {
        let mut changed = false;
        for entry in &mut index.manifests {
            let bytes = intake::checked(self.source, entry)?;
            let (leaving, bytes) = self.prepared(entry, &bytes, depth + 1)?;
            self.destination.document(&leaving, &bytes)?;
            if leaving.digest != entry.digest {
                changed = true;
                entry.media_type.clone_from(&leaving.media_type);
                entry.digest = leaving.digest;
                entry.size = leaving.size;
            }
        }
        changed |= self.converts && convert::index(&mut index);
        if !changed {
            return Ok((descriptor.clone(), bytes.to_vec()));
        }
        let kind = index
            .media_type
            .get_or_insert_with(|| descriptor.media_type.clone())
            .clone();
        let bytes = to_json(&index)?;
        Ok((described(&kind, &bytes), bytes))
    }

    fn manifest(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
        manifest: &Manifest,
    ) -> Result<(Descriptor, Vec<u8>), Error> {
        let mut leaving = manifest.clone();
        if !self.options.preserve_digests {
            for layer in &mut leaving.layers {
                *layer = self.packed_layer(layer)?;
            }
        }
        let mut seen = BTreeSet::new();
        let blobs: Vec<&Descriptor> = leaving
            .layers
            .iter()
            .chain([&leaving.config])
            .filter(|blob| seen.insert(blob.digest))
            .collect();
        if self.destination.takes_several() {
            parallel::each(&blobs, |blob, stop| self.blob(blob, stop))?;
        } else {
            let stop = parallel::Stop::default();
            blobs.iter().try_for_each(|blob| self.blob(blob, &stop))?;
        }
        if self.converts {
            convert::manifest(&mut leaving);
        }
        if leaving == *manifest {
            return Ok((descriptor.clone(), bytes.to_vec()));
        }
        let kind = leaving
            .media_type
            .get_or_insert_with(|| descriptor.media_type.clone())
            .clone();
        let bytes = to_json(&leaving)?;
        Ok((described(&kind, &bytes), bytes))
    }

    /// A layer as it leaves: one that is a plain tar is packed, always into the same bytes.
    fn packed_layer(&self, layer: &Descriptor) -> Result<Descriptor, Error> {
        if media_type::layer_compression(&layer.media_type) != Some(Compression::None)
            || !media_type::is_distributable(&layer.media_type)
        {
            return Ok(layer.clone());
        }
        if let Some(packed) = self.source.packed(layer, self.progress) {
            return packed;
        }
        let task = self
            .progress
            .task(format!("pack  {}", layer.digest.short()), layer.size);
        let content = crate::Verified::new(self.source.open(layer)?, layer.digest, layer.size);
        let mut packed = Hashed {
            file: scratch::file()?,
            hasher: Hasher::new(crate::digest::Algorithm::Sha256),
            size: 0,
        };
        pack::gzip(Counted::new(content, &task), &mut packed).map_err(|source| {
            crate::Error::Read {
                what: format!("layer {}", layer.digest),
                source,
            }
        })?;
        task.finish("packed");
        let digest = packed.hasher.finish();
        let kind = match layer.media_type.as_str() {
            media_type::DOCKER_LAYER => media_type::DOCKER_LAYER_GZIP,
            _ => media_type::OCI_LAYER_GZIP,
        };
        self.packed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(digest, packed.file);
        Ok(Descriptor::new(kind, digest, packed.size))
    }

    fn blob(&self, blob: &Descriptor, stop: &parallel::Stop) -> Result<(), Error> {
        let name = format!("blob {}", blob.digest.short());
        if !media_type::is_distributable(&blob.media_type) && !blob.urls.is_empty() {
            self.progress
                .reused(&name, blob.size, "foreign, stays where it is");
            return Ok(());
        }
        let task = self.progress.task(name.clone(), blob.size);
        let content = Content {
            walk: self,
            blob,
            task: &task,
            stop,
        };
        let how = self.destination.blob(&content)?;
        if how == "copied" {
            task.finish(how);
        } else {
            drop(task);
            self.progress.reused(&name, blob.size, how);
        }
        Ok(())
    }

    fn open_at(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + '_>, Error> {
        let packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = packed.get(&blob.digest) else {
            drop(packed);
            return self.source.open_at(blob, offset);
        };
        let file = file.try_clone().map_err(|source| crate::Error::Read {
            what: format!("blob {}", blob.digest),
            source,
        })?;
        Ok(Box::new(Owned { file, offset }))
    }
}

/// A blob on its way, for the destination to read.
pub(super) struct Content<'a> {
    walk: &'a Walk<'a>,
    pub(super) blob: &'a Descriptor,
    task: &'a Task<'a>,
    stop: &'a parallel::Stop,
}

impl Content<'_> {
    /// The blob from `offset` on. Read from its beginning it is checked: a
    /// wrong one fails at its last byte, before anybody takes it for whole.
    pub(super) fn read(&self, offset: u64) -> Result<Box<dyn Read + Send + '_>, Error> {
        let inner = self.walk.open_at(self.blob, offset)?;
        self.task.reach(offset);
        let inner = Counted::new(self.stop.watch(inner), self.task);
        if offset > 0 {
            return Ok(Box::new(inner));
        }
        Ok(Box::new(Checked {
            inner,
            hasher: Some(Hasher::new(self.blob.digest.algorithm())),
            blob: self.blob,
            left: self.blob.size,
        }))
    }
}

impl registry::Source for Content<'_> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(self.read(offset).map_err(io::Error::other)?)
    }
}

/// Fails instead of yielding the last byte of a blob that is not what its digest
/// says: who reads exactly its length would never ask again.
struct Checked<'a, R> {
    inner: R,
    hasher: Option<Hasher>,
    blob: &'a Descriptor,
    left: u64,
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let corrupt = |why: &str| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("blob {} is corrupt: {why}", self.blob.digest),
            )
        };
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| corrupt("it is too long"))?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(corrupt("it is too short"));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        if self.left == 0
            && let Some(hasher) = self.hasher.take()
            && hasher.finish() != self.blob.digest
        {
            return Err(corrupt("its digest is another"));
        }
        Ok(count)
    }
}

/// A file that is read from a place of its own.
struct Owned {
    file: File,
    offset: u64,
}

impl Read for Owned {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut from = scratch::From {
            file: &self.file,
            offset: self.offset,
        };
        let count = from.read(buffer)?;
        self.offset = from.offset;
        Ok(count)
    }
}

/// A file whose digest and length are known when it is written.
struct Hashed {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|source| {
        crate::Error::Json {
            what: "a new document".into(),
            source,
        }
        .into()
    })
}
