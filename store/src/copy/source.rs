//! Where a copy comes from: all places as one kind of [`Origin`].

use super::{CopyOptions, Location, daemon, scratch};
use crate::archive::detect::{self, Packing};
use crate::archive::docker::{self, Archive};
use crate::archive::layout::{self, Layout};
use crate::archive::members::Members;
use crate::archive::place::Place;
use crate::digest::{DiffId, Digest};
use crate::image::{
    DOCUMENT_BYTES_MAX, Descriptor, Document, ImageConfig, Manifest, Platform, media_type,
};
use crate::progress::Progress;
use crate::reference::{DEFAULT_TAG, Reference};
use crate::registry::{Access, Client};
use crate::transfer::Error;
use crate::transfer::intake::{self, Origin};
use crate::transfer::outgoing::{self, Packing as Leaving};
use crate::{Store, Transaction, images};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// An image somewhere, opened.
pub(super) struct Source {
    kind: Kind,
    target: Descriptor,
    bytes: Vec<u8>,
}

enum Kind {
    Registry(Box<Client>),
    Layout(Place),
    Docker(Archive),
    Store(Transaction),
}

impl Source {
    pub(super) fn open(
        store: &Store,
        from: &Location,
        options: &CopyOptions,
    ) -> Result<Self, Error> {
        match from {
            Location::Registry(name) => {
                let client = Client::connect(name, Access::Pull, &[], &options.from)?;
                let wanted = name.digest().map_or_else(
                    || name.tag().unwrap_or(DEFAULT_TAG).to_owned(),
                    |digest| digest.to_string(),
                );
                let fetched = client.manifest(&wanted)?;
                let size = fetched.bytes.len() as u64;
                let kind = fetched.media_type.as_deref();
                let document = images::parse_announced(&fetched.digest, kind, &fetched.bytes)?;
                Ok(Self {
                    target: Descriptor::new(document.media_type(), fetched.digest, size),
                    bytes: fetched.bytes,
                    kind: Kind::Registry(Box::new(client)),
                })
            }
            Location::OciDir(path, name) => {
                Self::layout(Place::directory(path)?, from, name.as_deref())
            }
            Location::OciArchive(path, name) => {
                let members = Members::read(plain_file(path)?, &path.display().to_string())?;
                Self::layout(Place::Archive(members), from, name.as_deref())
            }
            Location::DockerArchive(path, name) => {
                Self::docker(plain_file(path)?, from, name.as_deref())
            }
            Location::DockerDaemon(name) => {
                Self::docker(daemon::save(&options.docker_socket, name)?, from, None)
            }
            Location::Store(name) => Self::stored(store, name),
        }
    }

    /// The document that the image's name leads to, with its bytes.
    pub(super) fn target(&self) -> Result<(Descriptor, Vec<u8>), Error> {
        Ok((self.target.clone(), self.bytes.clone()))
    }

    /// The repository at registry `host` that this comes from: what it has need not be sent.
    pub(super) fn repository_at(&self, host: &str) -> Option<String> {
        match &self.kind {
            Kind::Registry(client) if client.host() == host => Some(client.repository().to_owned()),
            _ => None,
        }
    }

    /// Whether content is a file here: reading it again costs nothing.
    pub(super) fn store(&self) -> Option<&Transaction> {
        match &self.kind {
            Kind::Store(work) => Some(work),
            _ => None,
        }
    }

    /// A layer of the store packed as it leaves, if this is the store.
    pub(super) fn packed(
        &self,
        layer: &Descriptor,
        progress: &Progress,
    ) -> Option<Result<Descriptor, Error>> {
        let work = self.store()?;
        // A layer that is a tar is named by that tar.
        let diff_id = DiffId(layer.digest);
        Some(outgoing::layer(
            work,
            layer,
            &diff_id,
            Leaving::Gzip,
            &|_| Ok(false),
            progress,
        ))
    }

    fn layout(place: Place, from: &Location, name: Option<&str>) -> Result<Self, Error> {
        let what = from.to_string();
        let listed = layout::images(&place, &what)?;
        if let Some(digest) = name.and_then(|name| name.strip_prefix('@')) {
            return Self::in_layout(place, digest, &what);
        }
        let names: Vec<Vec<String>> = listed.iter().map(|one| one.names.clone()).collect();
        let at = choose(&names, name, &what)?;
        // How that layout lists it is not how another one does.
        let target = Descriptor {
            annotations: BTreeMap::new(),
            ..listed[at].target.clone()
        };
        let bytes = intake::checked(&Layout(&place), &target)?;
        Ok(Self {
            kind: Kind::Layout(place),
            target,
            bytes,
        })
    }

    /// The document of that digest, wherever the layout's index leads to it from.
    fn in_layout(place: Place, digest: &str, what: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::Archive {
            what: what.to_owned(),
            why,
        };
        let digest: Digest = digest
            .parse()
            .map_err(|_| wrong(format!("{digest:?} is no digest")))?;
        let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        if !place.has(&path) {
            return Err(wrong(format!("it holds no {digest}")));
        }
        let bytes = place.read(&path, DOCUMENT_BYTES_MAX)?;
        let size = bytes.len() as u64;
        let document = images::parse_announced(&digest, None, &bytes)?;
        let target = Descriptor::new(document.media_type(), digest, size);
        let bytes = intake::checked(&Layout(&place), &target)?;
        Ok(Self {
            kind: Kind::Layout(place),
            target,
            bytes,
        })
    }

    /// docker since version 25 writes both: the layout has the original manifests.
    fn docker(file: File, from: &Location, name: Option<&str>) -> Result<Self, Error> {
        let what = from.to_string();
        let members = Members::read(file, &what)?;
        if members.has("index.json") && members.has(layout::MARKER) {
            return Self::layout(Place::Archive(members), from, name);
        }
        let (archive, mut listed) = Archive::read(members, &what)?;
        let names: Vec<Vec<String>> = listed.iter().map(|one| one.names.clone()).collect();
        let chosen: docker::Listed = listed.swap_remove(choose(&names, name, &what)?);
        Ok(Self {
            kind: Kind::Docker(archive),
            target: chosen.target,
            bytes: chosen.manifest,
        })
    }

    fn stored(store: &Store, name: &str) -> Result<Self, Error> {
        let work = store.begin()?;
        let (_, target) = work.hold(name)?;
        Self::held(work, &target)
    }

    /// A manifest or an index of the store.
    pub(super) fn document(store: &Store, target: &Descriptor) -> Result<Self, Error> {
        let work = store.begin()?;
        work.want([&target.digest])?;
        Self::held(work, target)
    }

    /// A document that the transaction keeps.
    fn held(work: Transaction, target: &Descriptor) -> Result<Self, Error> {
        let bytes = work.store().read_blob(&target.digest, target.size)?;
        Ok(Self {
            kind: Kind::Store(work),
            target: target.clone(),
            bytes,
        })
    }
}

impl Origin for Source {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        self.open_at(blob, 0)
    }

    fn open_at(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + '_>, Error> {
        match &self.kind {
            Kind::Registry(client) => client.open_at(blob, offset),
            Kind::Layout(place) => intake::skip(layout::open(place, blob)?, blob, offset),
            Kind::Docker(archive) => archive.open_at(blob, offset),
            Kind::Store(work) => {
                work.want([&blob.digest])?;
                let (file, _) = work.store().open_blob(&blob.digest)?;
                intake::skip(Box::new(file), blob, offset)
            }
        }
    }

    fn document(&self, document: &Descriptor) -> Result<Vec<u8>, Error> {
        match &self.kind {
            Kind::Registry(client) => Origin::document(&**client, document),
            Kind::Layout(place) => Layout(place).document(document),
            Kind::Docker(archive) => archive.document(document),
            Kind::Store(work) => {
                work.want([&document.digest])?;
                Ok(work.store().read_blob(&document.digest, document.size)?)
            }
        }
    }

    fn is_remote(&self) -> bool {
        matches!(self.kind, Kind::Registry(_))
    }

    fn foreign(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        match &self.kind {
            Kind::Registry(client) => client.foreign(blob),
            _ => Err(Error::ForeignLayer(blob.digest)),
        }
    }
}

/// Which of several images `wanted` means: a name, or the tag of one. The only one needs no name.
fn choose(names: &[Vec<String>], wanted: Option<&str>, what: &str) -> Result<usize, Error> {
    let all: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
    let wrong = |why: String| Error::Archive {
        what: what.to_owned(),
        why,
    };
    let Some(wanted) = wanted else {
        return match names {
            [_] => Ok(0),
            [] => Err(wrong("it holds no image".into())),
            _ => Err(wrong(format!(
                "it holds {} images: name one of {}",
                names.len(),
                all.join(", ")
            ))),
        };
    };
    let full: Option<Reference> = wanted.parse().ok();
    let same = |name: &String| {
        let parsed: Option<Reference> = name.parse().ok();
        name == wanted || (wanted.contains(['/', ':']) && parsed.is_some() && parsed == full)
    };
    let tagged = |name: &String| {
        let parsed: Option<Reference> = name.parse().ok();
        name.contains(['/', ':']) && parsed.is_some_and(|parsed| parsed.tag() == Some(wanted))
    };
    let found = names
        .iter()
        .position(|names| names.iter().any(same))
        .or_else(|| names.iter().position(|names| names.iter().any(tagged)));
    // docker's archives name images in full.
    let implied = || match &full {
        Some(full) => names.iter().position(|names| {
            names
                .iter()
                .any(|name| name.parse::<Reference>().ok().as_ref() == Some(full))
        }),
        None => None,
    };
    found.or_else(implied).ok_or_else(|| {
        let offered = if all.is_empty() {
            "images without names".to_owned()
        } else {
            all.join(", ")
        };
        wrong(format!("it has no {wanted:?}, only {offered}"))
    })
}

/// An archive as a plain tar: unpacked into a file without a name where it is packed.
fn plain_file(path: &Path) -> Result<File, Error> {
    let failed = |action: &'static str| {
        let path = path.to_owned();
        move |source: io::Error| Error::File {
            action,
            path,
            source,
        }
    };
    let file = File::open(path).map_err(failed("open"))?;
    let again = file.try_clone().map_err(failed("open"))?;
    let metadata = file.metadata().map_err(failed("look at"))?;
    let (packing, mut peeked) = detect::unpack(again).map_err(failed("read"))?;
    if packing == Packing::Plain && metadata.is_file() {
        return Ok(file);
    }
    let mut plain = scratch::file()?;
    io::copy(&mut peeked.whole, &mut plain).map_err(failed("unpack"))?;
    Ok(plain)
}

/// Deepest nesting of indexes (security.md, S13).
const INDEX_DEPTH_MAX: usize = 8;

/// The manifest that a document leads to.
pub(super) struct Resolved {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
    pub(super) manifest: Manifest,
}

/// Follows indexes to the manifest for `platform`.
pub(super) fn resolve(
    source: &Source,
    target: &Descriptor,
    bytes: Vec<u8>,
    platform: &Platform,
) -> Result<Resolved, Error> {
    let (mut descriptor, mut bytes) = (target.clone(), bytes);
    for _ in 0..INDEX_DEPTH_MAX {
        match parse(&descriptor, &bytes)? {
            Document::Manifest(manifest) => {
                return Ok(Resolved {
                    descriptor,
                    bytes,
                    manifest: *manifest,
                });
            }
            Document::Index(index) => {
                descriptor = intake::select(&index, platform)?;
                bytes = intake::checked(source, &descriptor)?;
            }
        }
    }
    Err(Error::Nested(INDEX_DEPTH_MAX))
}

/// The configuration of an image, with its bytes.
pub(super) fn config(
    source: &Source,
    manifest: &Manifest,
) -> Result<(ImageConfig, Vec<u8>), Error> {
    if !matches!(
        manifest.config.media_type.as_str(),
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG
    ) {
        return Err(Error::NotAnImage(manifest.config.media_type.clone()));
    }
    let bytes = intake::checked(source, &manifest.config)?;
    let config = serde_json::from_slice(&bytes).map_err(|source| crate::Error::Json {
        what: format!("image configuration {}", manifest.config.digest),
        source,
    })?;
    Ok((config, bytes))
}

/// The documents of an image that a walk has to read: never more than one of each.
pub(super) fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Document, Error> {
    Ok(images::parse_document(descriptor, bytes)?)
}

/// A digest and the bytes that it is of.
pub(super) fn described(kind: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(kind, Digest::of(bytes), bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(names: &[&[&str]], wanted: Option<&str>) -> Option<usize> {
        let names: Vec<Vec<String>> = names
            .iter()
            .map(|names| names.iter().map(|name| (*name).to_owned()).collect())
            .collect();
        choose(&names, wanted, "test").ok()
    }

    #[test]
    fn images_are_chosen_by_name_tag_or_for_want_of_others() {
        let two: &[&[&str]] = &[&["1.0"], &["docker.io/library/a:2", "localhost/b:3"]];
        assert_eq!(choice(two, Some("1.0")), Some(0));
        assert_eq!(choice(two, Some("a:2")), Some(1));
        assert_eq!(choice(two, Some("3")), Some(1));
        assert_eq!(choice(two, None), None);
        assert_eq!(choice(two, Some("x")), None);
        assert_eq!(choice(&[&[]], None), Some(0));
        assert_eq!(choice(&[], None), None);
        let docker: &[&[&str]] = &[&["busybox:latest"]];
        assert_eq!(
            choice(docker, Some("docker.io/library/busybox:latest")),
            Some(0)
        );
        assert_eq!(choice(docker, Some("busybox")), Some(0));
    }
}
