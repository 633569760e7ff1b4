//! Into OCI layouts: a directory, which may hold images already, or a new tar.

use super::destination::Destination;
use super::walk::Content;
use crate::archive::layout::{IMAGE_NAME, MARKER, MARKER_TEXT, REF_NAME};
use crate::archive::place::Place;
use crate::archive::sink::{Sink, TarSink};
use crate::digest::Digest;
use crate::image::{DOCUMENT_BYTES_MAX, Descriptor, Index, media_type};
use crate::reference::Reference;
use crate::store::unique_name;
use crate::transfer::Error;
use rustix::fs::{FlockOperation, OFlags, flock};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A layout's list of images.
const INDEX: &str = "index.json";
/// How the names of files begin that have no name of their own yet.
const UNFINISHED: &str = ".unfinished";
/// Neither a link is followed nor a fifo waited for (open(2)).
const NO_LINK: i32 = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .bits()
    .cast_signed();

/// An OCI layout as a directory. Images that are there stay; the one of the same name is replaced.
pub(super) struct ToLayoutDirectory {
    path: PathBuf,
    name: Option<String>,
}

impl ToLayoutDirectory {
    /// Opens the layout at `path`, or makes one in a new or an empty directory.
    pub(super) fn open(path: &Path, name: Option<String>) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(in_file("create directory", path))?;
        let marker = path.join(MARKER);
        if !marker.exists() {
            let mut entries = fs::read_dir(path).map_err(in_file("list", path))?;
            let is_other = |entry: io::Result<fs::DirEntry>| {
                entry.is_ok_and(|entry| !is_unfinished(&entry.file_name()))
            };
            // Another copy may have made it a layout meanwhile.
            if entries.any(is_other) && !marker.exists() {
                let source = io::Error::other("it is no OCI layout, and it is not empty");
                return Err(in_file("copy to", path)(source));
            }
        }
        let layout = Self {
            path: path.to_owned(),
            name,
        };
        layout.remove_dead()?;
        if !marker.exists() {
            layout.replace(&marker, &mut MARKER_TEXT.as_bytes())?;
        }
        Ok(layout)
    }

    /// Removes what killed copies have left: files that nobody holds the lock of.
    fn remove_dead(&self) -> Result<(), Error> {
        let entries = fs::read_dir(&self.path).map_err(in_file("list", &self.path))?;
        for entry in entries
            .flatten()
            .filter(|entry| is_unfinished(&entry.file_name()))
        {
            let path = entry.path();
            let options = OpenOptions::new()
                .read(true)
                .custom_flags(NO_LINK)
                .open(&path);
            let is_dead = options.is_ok_and(|file| try_lock(&file).is_ok());
            if is_dead {
                fs::remove_file(&path).map_err(in_file("remove", &path))?;
            }
        }
        Ok(())
    }

    /// A new file, which is ours as long as it is open.
    fn unfinished(&self) -> Result<(PathBuf, File), Error> {
        loop {
            let path = self.path.join(unique_name(UNFINISHED)?);
            let file = File::create_new(&path).map_err(in_file("create", &path))?;
            let is_named = || file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
            // Another copy may have taken it for a dead one's before it was locked.
            if try_lock(&file).is_ok() && is_named() {
                return Ok((path, file));
            }
        }
    }

    fn put(&self, digest: &Digest, content: &mut dyn io::Read) -> Result<(), Error> {
        let folder = self.path.join("blobs").join(digest.algorithm().name());
        fs::create_dir_all(&folder).map_err(in_file("create directory", &folder))?;
        self.replace(&folder.join(digest.hex()), content)
    }

    /// A file that appears when it is whole.
    fn replace(&self, target: &Path, content: &mut dyn io::Read) -> Result<(), Error> {
        let (unfinished, mut file) = self.unfinished()?;
        let written = io::copy(content, &mut file).and_then(|_| file.sync_data());
        written
            .and_then(|()| fs::rename(&unfinished, target))
            .map_err(|source| {
                let _ = fs::remove_file(&unfinished);
                in_file("write", target)(source)
            })
    }

    fn has(&self, blob: &Descriptor) -> bool {
        let folder = self.path.join("blobs").join(blob.digest.algorithm().name());
        fs::symlink_metadata(folder.join(blob.digest.hex()))
            .is_ok_and(|found| found.is_file() && found.len() == blob.size)
    }
}

impl Destination for ToLayoutDirectory {
    fn takes_several(&self) -> bool {
        true
    }

    fn wants_oci(&self) -> bool {
        true
    }

    fn blob(&self, content: &Content<'_>) -> Result<&'static str, Error> {
        if self.has(content.blob) {
            return Ok("already there");
        }
        self.put(&content.blob.digest, &mut content.read(0)?)?;
        Ok("copied")
    }

    fn document(&self, descriptor: &Descriptor, mut bytes: &[u8]) -> Result<(), Error> {
        self.put(&descriptor.digest, &mut bytes)
    }

    fn top(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
        self.document(descriptor, bytes)?;
        // Two copies into one layout at a time: neither loses the other's image.
        let folder = File::open(&self.path).map_err(in_file("open", &self.path))?;
        flock(&folder, FlockOperation::LockExclusive)
            .map_err(|errno| in_file("lock", &self.path)(errno.into()))?;
        let place = Place::directory(&self.path)?;
        let mut index = if place.has(INDEX) {
            let text = place.read(INDEX, DOCUMENT_BYTES_MAX)?;
            serde_json::from_slice(&text).map_err(|source| crate::Error::Json {
                what: self.path.join(INDEX).display().to_string(),
                source,
            })?
        } else {
            empty_index()
        };
        let listed = listed(descriptor, self.name.as_deref());
        index.manifests.retain(|other| !is_same(other, &listed));
        index.manifests.push(listed);
        let text = to_json(&index)?;
        self.replace(&self.path.join(INDEX), &mut &text[..])
    }
}

/// A new tar of a layout.
pub(super) struct ToLayoutTar {
    tar: Mutex<TarSink>,
    written: Mutex<HashSet<Digest>>,
    name: Option<String>,
}

impl ToLayoutTar {
    /// Begins the archive; the file appears when it is whole.
    pub(super) fn create(path: &Path, name: Option<String>) -> Result<Self, Error> {
        let mut tar = TarSink::create(Some(path))?;
        tar.small(MARKER, MARKER_TEXT.as_bytes())?;
        for folder in ["blobs", "blobs/sha256"] {
            tar.directory(folder)?;
        }
        Ok(Self {
            tar: Mutex::new(tar),
            written: Mutex::default(),
            name,
        })
    }

    /// Ends the archive and gives the file its name.
    pub(super) fn finish(self) -> Result<(), Error> {
        self.tar
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .finish()
    }

    fn put(&self, blob: &Descriptor, content: &mut dyn io::Read) -> Result<(), Error> {
        let name = format!(
            "blobs/{}/{}",
            blob.digest.algorithm().name(),
            blob.digest.hex()
        );
        let mut tar = self.tar.lock().unwrap_or_else(PoisonError::into_inner);
        tar.file(&name, blob.size, content)
    }

    /// Whether it is not written yet; from now on it counts as written.
    fn is_new(&self, digest: &Digest) -> bool {
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(*digest)
    }
}

impl Destination for ToLayoutTar {
    fn takes_several(&self) -> bool {
        false
    }

    fn wants_oci(&self) -> bool {
        true
    }

    fn blob(&self, content: &Content<'_>) -> Result<&'static str, Error> {
        if !self.is_new(&content.blob.digest) {
            return Ok("already there");
        }
        self.put(content.blob, &mut content.read(0)?)?;
        Ok("copied")
    }

    fn document(&self, descriptor: &Descriptor, mut bytes: &[u8]) -> Result<(), Error> {
        if !self.is_new(&descriptor.digest) {
            return Ok(());
        }
        self.put(descriptor, &mut bytes)
    }

    fn top(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
        self.document(descriptor, bytes)?;
        let mut index = empty_index();
        index
            .manifests
            .push(listed(descriptor, self.name.as_deref()));
        let mut tar = self.tar.lock().unwrap_or_else(PoisonError::into_inner);
        tar.small(INDEX, &to_json(&index)?)
    }
}

fn is_unfinished(name: &OsStr) -> bool {
    let name = name.to_str().and_then(|name| name.strip_prefix(UNFINISHED));
    name.is_some_and(|rest| rest.starts_with('-'))
}

fn try_lock(file: &File) -> rustix::io::Result<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

fn empty_index() -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: Vec::new(),
        annotations: BTreeMap::new(),
        other: serde_json::Map::new(),
    }
}

/// How a layout lists an image: its tag, and its whole name where it has one.
fn listed(descriptor: &Descriptor, name: Option<&str>) -> Descriptor {
    let mut listed = Descriptor::new(
        descriptor.media_type.clone(),
        descriptor.digest,
        descriptor.size,
    );
    listed.annotations.clone_from(&descriptor.annotations);
    if let Some(name) = name {
        listed
            .annotations
            .insert(REF_NAME.to_owned(), name.to_owned());
        let full: Option<Reference> = name.parse().ok().filter(|_| name.contains(['/', ':']));
        if let Some(full) = full {
            listed
                .annotations
                .insert(IMAGE_NAME.to_owned(), full.to_string());
        }
    }
    listed
}

/// Whether a list has this image already: by its name, or, without one, by its digest.
fn is_same(other: &Descriptor, new: &Descriptor) -> bool {
    match new.annotations.get(REF_NAME) {
        Some(name) => other.annotations.get(REF_NAME) == Some(name),
        None => other.digest == new.digest && !other.annotations.contains_key(REF_NAME),
    }
}

fn to_json(index: &Index) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(index).map_err(|source| {
        crate::Error::Json {
            what: INDEX.into(),
            source,
        }
        .into()
    })
}

fn in_file(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File {
        action,
        path: path.clone(),
        source,
    }
}
