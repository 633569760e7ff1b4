//! Into what `docker load` reads: one image, its layers as plain tars.

use super::source::{self, Source};
use super::{CopyOptions, daemon, scratch};
use crate::archive::sink::{Sink, TarSink};
use crate::digest::{DiffId, Hasher};
use crate::image::media_type::{self, Compression};
use crate::image::{Descriptor, Manifest};
use crate::progress::{Counted, Progress};
use crate::reference::Reference;
use crate::transfer::Error;
use crate::transfer::intake::Origin;
use crate::{Verified, images};
use serde_json::json;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Largest window of a zstd frame (binary logarithm of bytes), as for all layers: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Size of the pieces in which a layer is unpacked, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// An image as it is about to leave.
pub(super) struct Image {
    pub(super) manifest: Descriptor,
    config: Descriptor,
    config_bytes: Vec<u8>,
    layers: Vec<(Descriptor, DiffId)>,
}

impl Image {
    /// Reads the documents of the image for the chosen platform.
    pub(super) fn read(
        source: &Source,
        target: &Descriptor,
        bytes: Vec<u8>,
        options: &CopyOptions,
    ) -> Result<Self, Error> {
        if options.all {
            return Err(Error::NoName(
                "docker's archives and its daemon take one platform of an image: leave --all out"
                    .into(),
            ));
        }
        let found = source::resolve(source, target, bytes, &options.platform)?;
        Self::of(source, found.descriptor, found.manifest)
    }

    fn of(source: &Source, here: Descriptor, manifest: Manifest) -> Result<Self, Error> {
        let (config, config_bytes) = source::config(source, &manifest)?;
        images::check_layers(&here, &manifest, &config)?;
        Ok(Self {
            manifest: here,
            config: manifest.config,
            config_bytes,
            layers: manifest
                .layers
                .into_iter()
                .zip(config.rootfs.diff_ids)
                .collect(),
        })
    }
}

/// Writes a docker archive to `path`; the file appears when it is whole.
pub(super) fn write_file(
    source: &Source,
    image: &Image,
    path: &Path,
    name: Option<&str>,
    progress: &Progress,
) -> Result<(), Error> {
    let mut tar = TarSink::create(Some(path))?;
    write(source, image, name, &mut tar, progress)?;
    tar.finish()
}

/// Gives the image to the docker daemon under `name`.
pub(super) fn load(
    source: &Source,
    image: &Image,
    name: &str,
    socket: &Path,
    progress: &Progress,
) -> Result<(), Error> {
    let file = scratch::file()?;
    let lost = |source| {
        Error::from(crate::Error::Read {
            what: "the archive for docker".into(),
            source,
        })
    };
    let mut tar = TarSink::into_file(file.try_clone().map_err(lost)?);
    write(source, image, Some(name), &mut tar, progress)?;
    tar.finish()?;
    let mut file = file;
    file.seek(SeekFrom::Start(0)).map_err(lost)?;
    daemon::load(socket, &file)
}

fn write(
    source: &Source,
    image: &Image,
    name: Option<&str>,
    tar: &mut TarSink,
    progress: &Progress,
) -> Result<(), Error> {
    let names: Vec<String> = match name {
        Some(name) => {
            let name: Reference = name.parse().map_err(crate::Error::from)?;
            vec![name.to_string()]
        }
        None => Vec::new(),
    };
    let config = format!("{}.json", image.config.digest.hex());
    tar.small(&config, &image.config_bytes)?;
    let mut written = HashSet::new();
    let mut layers = Vec::new();
    for (blob, diff_id) in &image.layers {
        let member = format!("{}.tar", diff_id.0.hex());
        if written.insert(*diff_id) {
            layer(source, blob, diff_id, &member, tar, progress)?;
        }
        layers.push(member);
    }
    let list = json!([{"Config": config, "RepoTags": names, "Layers": layers}]);
    tar.small("manifest.json", list.to_string().as_bytes())
}

/// One layer, unpacked; its length stands before it, so what is packed is unpacked into a file first.
fn layer(
    source: &Source,
    blob: &Descriptor,
    diff_id: &DiffId,
    member: &str,
    tar: &mut TarSink,
    progress: &Progress,
) -> Result<(), Error> {
    let compression = media_type::layer_compression(&blob.media_type)
        .ok_or_else(|| crate::Error::LayerType(blob.media_type.clone()))?;
    let task = progress.task(format!("layer {}", blob.digest.short()), blob.size);
    let plain: (Box<dyn Read>, u64) = match source.store() {
        Some(work) => {
            work.want([&diff_id.0])?;
            let (file, size) = work.store().layer_tar(diff_id)?;
            (Box::new(file), size)
        }
        None if compression == Compression::None => (source.open(blob)?, blob.size),
        None => {
            let content = Verified::new(source.open(blob)?, blob.digest, blob.size);
            let (file, size) = unpacked(Counted::new(content, &task), compression, diff_id)?;
            (Box::new(file), size)
        }
    };
    let (content, size) = plain;
    tar.file(member, size, &mut Verified::new(content, diff_id.0, size))?;
    task.finish("copied");
    Ok(())
}

/// Unpacks a layer into a file without a name; its length.
fn unpacked(
    blob: impl Read,
    compression: Compression,
    diff_id: &DiffId,
) -> Result<(File, u64), Error> {
    let failed = |source| {
        Error::from(crate::Error::Read {
            what: format!("layer {diff_id}"),
            source,
        })
    };
    let mut file = scratch::file()?;
    let mut blob = BufReader::with_capacity(PIECE_BYTES, blob);
    let size = {
        let mut content: Box<dyn Read + '_> = match compression {
            Compression::None => Box::new(&mut blob),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(&mut blob)),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(&mut blob).map_err(failed)?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG_MAX)
                    .map_err(failed)?;
                Box::new(decoder)
            }
        };
        copy_checked(&mut content, &mut file, diff_id).map_err(failed)?
    };
    // What follows the packed stream belongs to the blob's digest.
    io::copy(&mut blob, &mut io::sink()).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok((file, size))
}

fn copy_checked(from: &mut dyn Read, to: &mut File, diff_id: &DiffId) -> io::Result<u64> {
    let mut hasher = Hasher::new(diff_id.0.algorithm());
    let mut buffer = vec![0; PIECE_BYTES];
    let mut size = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
        size += count as u64;
    }
    let found = hasher.finish();
    if found == diff_id.0 {
        return Ok(size);
    }
    let why = format!("it is corrupt: it unpacks to {found}");
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}
