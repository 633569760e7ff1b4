//! A cache that is filled while the build runs.

use super::document::{CONFIG_TYPE, Records};
use super::{ExchangeError, Mode, Place, To, options};
use crate::cache::Key;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use teu_store::copy::{CopyOptions, Location, copy_document};
use teu_store::image::{Descriptor, Manifest, Platform, media_type};
use teu_store::progress::Progress;
use teu_store::registry::{Access, Client, Options, Source};
use teu_store::{DiffId, Digest, Format, Store, Transaction};

/// A step's result on its way out.
type Offered = (Vec<Key>, DiffId);

/// A cache being filled by a thread of its own.
#[derive(Debug)]
pub struct Export {
    mode: Mode,
    offered: Mutex<Option<Sender<Offered>>>,
    worker: Mutex<Option<JoinHandle<Result<(), ExchangeError>>>>,
}

impl Export {
    /// Begins to fill `to`. What fails is told by [`Export::finish`].
    pub fn begin(store: &Store, to: &To) -> Self {
        let (sender, receiver) = channel();
        let (store, own) = (store.clone(), to.clone());
        let worker = std::thread::spawn(move || fill(&store, &own, &receiver));
        Self {
            mode: to.mode,
            offered: Mutex::new(Some(sender)),
            worker: Mutex::new(Some(worker)),
        }
    }

    /// Hands over what a step made or found; `in_result` says whether its layer is the result's.
    pub fn offer(&self, keys: &[Key], layer: DiffId, in_result: bool) {
        if self.mode == Mode::Min && !in_result {
            return;
        }
        if let Some(sender) = &*self.offered.lock().unwrap_or_else(PoisonError::into_inner) {
            // One that failed has ended, and says so at the end.
            let _ = sender.send((keys.to_vec(), layer));
        }
    }

    /// Waits until all that was handed over is there, and names it.
    ///
    /// # Errors
    /// The first that went wrong; the cache is then as it was.
    pub fn finish(&self) -> Result<(), ExchangeError> {
        drop(
            self.offered
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let worker = self
            .worker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match worker.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

fn fill(store: &Store, to: &To, offered: &Receiver<Offered>) -> Result<(), ExchangeError> {
    let mut filling = Filling {
        work: store.begin()?,
        to,
        client: match &to.place {
            Place::Registry { name, insecure } => Some(Client::connect(
                name,
                Access::Push,
                &[],
                &options(*insecure),
            )?),
            Place::Local { .. } | Place::Inline => None,
        },
        keys: BTreeMap::new(),
        layers: Vec::new(),
    };
    for (keys, layer) in offered {
        filling.take(keys, layer)?;
    }
    filling.name()
}

struct Filling<'a> {
    work: Transaction,
    to: &'a To,
    client: Option<Client>,
    keys: BTreeMap<Key, DiffId>,
    layers: Vec<(DiffId, Descriptor)>,
}

impl Filling<'_> {
    fn take(&mut self, keys: Vec<Key>, layer: DiffId) -> Result<(), ExchangeError> {
        self.keys.extend(keys.into_iter().map(|key| (key, layer)));
        if self.layers.iter().any(|(known, _)| *known == layer) {
            return Ok(());
        }
        let blob = self.packed(layer)?;
        if let Some(client) = &self.client {
            let source = Blob(self.work.store(), &blob.digest);
            client.upload(&blob.digest, blob.size, &source, None)?;
        }
        self.layers.push((layer, blob));
        Ok(())
    }

    /// The layer's blob. What the registry has need not be packed again to be named.
    fn packed(&self, layer: DiffId) -> Result<Descriptor, ExchangeError> {
        let wanted = self.to.packing;
        if let Some(client) = &self.client {
            for form in self.work.store().packed_forms(&layer) {
                if form.format == wanted.format
                    && wanted.format != Format::Tar
                    && client.has_blob(&form.digest)?
                {
                    let kind = match form.format {
                        Format::Tar => media_type::OCI_LAYER,
                        Format::Gzip => media_type::OCI_LAYER_GZIP,
                        Format::Zstd => media_type::OCI_LAYER_ZSTD,
                    };
                    return Ok(Descriptor::new(kind, form.digest, form.size));
                }
            }
        }
        let stored = self
            .work
            .layer(&layer)?
            .ok_or(teu_store::Error::NoSuchLayer(layer))?;
        let progress = Progress::quiet();
        Ok(self
            .work
            .pack_layer(&stored.blob, &layer, wanted, &progress)?)
    }

    /// Writes the list and gives it its name.
    fn name(self) -> Result<(), ExchangeError> {
        let records = Records {
            keys: self.keys,
            layers: self.layers.iter().map(|(layer, _)| *layer).collect(),
        };
        let json = |error: serde_json::Error| ExchangeError::Document {
            what: "the new list".to_owned(),
            why: error.to_string(),
        };
        let config = serde_json::to_vec(&records).map_err(json)?;
        let config = self.work.put_bytes(CONFIG_TYPE, &config)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: config.clone(),
            layers: self.layers.into_iter().map(|(_, blob)| blob).collect(),
            annotations: BTreeMap::new(),
            other: serde_json::Map::new(),
        };
        let bytes = serde_json::to_vec(&manifest).map_err(json)?;
        match (&self.to.place, &self.client) {
            (Place::Registry { name, .. }, Some(client)) => {
                let source = Blob(self.work.store(), &config.digest);
                client.upload(&config.digest, config.size, &source, None)?;
                let tag = name.tag().unwrap_or("latest");
                client.put_manifest(tag, media_type::OCI_MANIFEST, &bytes)?;
            }
            (Place::Local { directory, tag }, _) => {
                let document = self.work.put_bytes(media_type::OCI_MANIFEST, &bytes)?;
                let to = Location::OciDir(directory.clone(), Some(tag.clone()));
                let (store, progress) = (self.work.store(), Progress::quiet());
                copy_document(store, &document, &to, &as_it_is(), &progress)?;
            }
            (Place::Registry { .. } | Place::Inline, _) => {}
        }
        Ok(())
    }
}

fn as_it_is() -> CopyOptions {
    CopyOptions {
        from: Options::default(),
        to: Options::default(),
        all: true,
        platform: Platform::host(),
        preserve_digests: true,
        docker_socket: std::path::PathBuf::new(),
    }
}

/// A blob of the store on its way out.
struct Blob<'a>(&'a Store, &'a Digest);

impl Source for Blob<'_> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let (mut file, _) = self.0.open_blob(self.1).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}
