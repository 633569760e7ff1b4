//! From the store to a registry.

use super::outgoing::{self, Packing};
use super::{Error, parallel};
use crate::digest::Digest;
use crate::image::{Descriptor, Document, Index};
use crate::progress::{Counted, Progress, Task};
use crate::reference::{DEFAULT_TAG, Reference};
use crate::registry::{Access, Client, Options, Source, Uploaded};
use crate::{Image, Store, Transaction};
use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};

/// Other repositories of the same registry that blobs are mounted from, at
/// most: each is named in the request for a token.
const MOUNT_REPOSITORIES_MAX: usize = 8;

/// How an image is pushed.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// About the registry.
    pub registry: Options,
    /// Layers that are plain tars are sent so, and no digest changes.
    pub preserve_digests: bool,
    /// Layers that are plain tars are packed as zstd, not as gzip.
    pub zstd: bool,
}

/// An image that was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// What the registry has under the name now.
    pub digest: Digest,
    /// The image's name here, if it was found by one.
    pub local: Option<Reference>,
}

/// Everything one push needs.
struct Push<'a> {
    work: &'a Transaction,
    client: Client,
    /// Which repository of the registry is known to have a blob.
    mounts: HashMap<Digest, String>,
    progress: &'a Progress,
}

/// Pushes the image that `name` means here to `destination`.
///
/// Blobs go first, then the manifest: the registry's name changes last and at
/// once. An index whose images are all here goes whole; of another, the image
/// for this machine goes alone.
///
/// # Errors
/// Whatever the registry or the store refuses.
pub fn push(
    store: &Store,
    name: &str,
    destination: &Reference,
    options: &PushOptions,
    progress: &Progress,
) -> Result<Pushed, Error> {
    let work = store.begin()?;
    let (image, target) = work.hold(name)?;
    let mounts = known_places(store, destination)?;
    let mut repositories: Vec<String> = mounts.values().cloned().collect();
    repositories.sort();
    repositories.dedup();
    let client = Client::connect(destination, Access::Push, &repositories, &options.registry)?;
    let packing = match (options.preserve_digests, options.zstd) {
        (true, _) => Packing::AsTheyAre,
        (false, true) => Packing::Zstd,
        (false, false) => Packing::Gzip,
    };
    let push = Push {
        work: &work,
        client,
        mounts,
        progress,
    };
    let wanted = destination
        .tag()
        .or(destination.digest().is_none().then_some(DEFAULT_TAG));
    let sent = match whole_index(store, &target)? {
        Some(index) => push.index(&target, &index, wanted)?,
        None => {
            if target.digest != image.manifest_digest() {
                progress
                    .note("only this machine's platform of the index is here: it is pushed alone");
            }
            push.image(&image, wanted, packing)?
        }
    };
    if let Some(local) = &image.reference {
        store.set_pushed(local, &sent)?;
    }
    Ok(Pushed {
        digest: sent.digest,
        local: image.reference,
    })
}

impl Push<'_> {
    /// All images of an index, then the index itself, byte-exact.
    fn index(
        &self,
        target: &Descriptor,
        index: &Index,
        tag: Option<&str>,
    ) -> Result<Descriptor, Error> {
        for entry in &index.manifests {
            let image = self.work.store().image_by_manifest(&entry.digest)?;
            // Another manifest would not be the one that the index names.
            self.image(&image, None, Packing::AsTheyAre)?;
        }
        let bytes = self.work.store().read_blob(&target.digest, target.size)?;
        let name = tag.map_or_else(|| target.digest.to_string(), str::to_owned);
        self.client
            .put_manifest(&name, &target.media_type, &bytes)?;
        Ok(target.clone())
    }

    /// One image, under `tag` or under its digest alone.
    fn image(
        &self,
        image: &Image,
        tag: Option<&str>,
        packing: Packing,
    ) -> Result<Descriptor, Error> {
        let layers: Vec<_> = image
            .manifest
            .layers
            .iter()
            .zip(&image.config.rootfs.diff_ids)
            .collect();
        let is_there = |digest: &Digest| Ok(self.client.has_blob(digest)?);
        let sent = parallel::each(&layers, |(layer, diff_id), stop| {
            let leaving =
                outgoing::layer(self.work, layer, diff_id, packing, &is_there, self.progress)?;
            self.blob(&leaving, &format!("layer {}", leaving.digest.short()), stop)?;
            Ok(leaving)
        })?;
        let (manifest, bytes) =
            outgoing::manifest(self.work, &image.manifest_descriptor, &image.manifest, sent)?;
        let config = &image.manifest.config;
        self.blob(
            config,
            &format!("image {}", config.digest.short()),
            &parallel::Stop::default(),
        )?;
        let name = tag.map_or_else(|| manifest.digest.to_string(), str::to_owned);
        self.client
            .put_manifest(&name, &manifest.media_type, &bytes)?;
        Ok(manifest)
    }

    fn blob(&self, blob: &Descriptor, name: &str, stop: &parallel::Stop) -> Result<(), Error> {
        let task = self.progress.task(name, blob.size);
        let source = BlobSource {
            store: self.work.store(),
            digest: blob.digest,
            task: &task,
            stop,
        };
        let mount_from = self.mounts.get(&blob.digest).map(String::as_str);
        let how = match self
            .client
            .upload(&blob.digest, blob.size, &source, mount_from)?
        {
            Uploaded::Sent => {
                task.finish("pushed");
                return Ok(());
            }
            Uploaded::Present => "already there",
            Uploaded::Mounted => "mounted from another repository there",
        };
        drop(task);
        self.progress.reused(name, blob.size, how);
        Ok(())
    }
}

/// A blob of the store on its way out.
struct BlobSource<'a> {
    store: &'a Store,
    digest: Digest,
    task: &'a Task<'a>,
    stop: &'a parallel::Stop,
}

impl Source for BlobSource<'_> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let (mut file, _) = self
            .store
            .open_blob(&self.digest)
            .map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(offset))?;
        self.task.reach(offset);
        Ok(Box::new(Counted::new(self.stop.watch(file), self.task)))
    }
}

/// The index that `target` is, if all its images are here.
fn whole_index(store: &Store, target: &Descriptor) -> Result<Option<Index>, Error> {
    let Document::Index(index) = store.read_document(target)? else {
        return Ok(None);
    };
    let is_here = |entry: &Descriptor| {
        store.image_by_manifest(&entry.digest).is_ok_and(|image| {
            image
                .manifest
                .layers
                .iter()
                .all(|layer| store.has_blob(&layer.digest))
        })
    };
    Ok(index.manifests.iter().all(is_here).then_some(index))
}

/// Where at the destination's registry blobs are that we have under other names of that registry.
fn known_places(store: &Store, destination: &Reference) -> Result<HashMap<Digest, String>, Error> {
    let mut places = HashMap::new();
    let mut repositories = Vec::new();
    for record in store.list_refs()? {
        let (name, repository) = (&record.name, record.name.repository().to_owned());
        let elsewhere =
            name.registry() == destination.registry() && repository != destination.repository();
        if !elsewhere
            || repositories.len() >= MOUNT_REPOSITORIES_MAX && !repositories.contains(&repository)
        {
            continue;
        }
        // What cannot be read only saves nothing.
        let Ok(image) = store.image(name) else {
            continue;
        };
        let pushed = record
            .pushed
            .and_then(|pushed| store.image_by_manifest(&pushed.digest).ok());
        for manifest in [Some(image), pushed]
            .into_iter()
            .flatten()
            .map(|image| image.manifest)
        {
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                places
                    .entry(blob.digest)
                    .or_insert_with(|| repository.clone());
            }
        }
        repositories.push(repository);
    }
    Ok(places)
}
