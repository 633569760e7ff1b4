//! `import`: from a file, a directory or standard input into the store.

use super::detect::{self, Format, Packing};
use super::docker::{self, Archive};
use super::layout::{self, Layout};
use super::members::Members;
use super::place::Place;
use super::rootfs::{self, Change};
use crate::digest::Digest;
use crate::image::Platform;
use crate::progress::{Counted, Progress};
use crate::reference::Reference;
use crate::transfer::{Error, intake};
use crate::{Store, Transaction};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What is imported.
#[derive(Debug, Clone)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file or a directory.
    Path(PathBuf),
}

/// How it is imported.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// What it is; found out where it is not said.
    pub format: Option<Format>,
    /// Which image of an index, and what a root filesystem is for.
    pub platform: Platform,
    /// How a root filesystem runs.
    pub changes: Vec<Change>,
}

/// An image that was imported.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Its name in the store.
    pub name: Reference,
    /// What the name means: a manifest, or an index.
    pub digest: Digest,
}

/// An import on its way.
struct Import<'a> {
    work: Transaction,
    /// The file, for messages.
    what: String,
    name: Option<&'a Reference>,
    options: &'a ImportOptions,
    progress: &'a Progress,
}

/// Imports all images of `input` under their own names, or its only one under `name`.
///
/// Each name appears when its image is whole; killed in between, what is named is whole.
///
/// # Errors
/// Input that is none of the formats, or not what it says of itself.
pub fn import(
    store: &Store,
    input: &Input,
    name: Option<&Reference>,
    options: &ImportOptions,
    progress: &Progress,
) -> Result<Vec<Imported>, Error> {
    let what = match input {
        Input::Stdin => "standard input".to_owned(),
        Input::Path(path) => path.display().to_string(),
    };
    let import = Import {
        work: store.begin()?,
        what,
        name,
        options,
        progress,
    };
    match input {
        Input::Path(path) if path.is_dir() => import.directory(path),
        Input::Path(path) => {
            let file = File::open(path).map_err(|source| Error::File {
                action: "open",
                path: path.clone(),
                source,
            })?;
            import.file(file)
        }
        Input::Stdin => import.stream(io::stdin(), 0),
    }
}

impl Import<'_> {
    fn directory(&self, path: &Path) -> Result<Vec<Imported>, Error> {
        match self.options.format {
            None | Some(Format::OciDir) => {}
            Some(_) => return Err(self.wrong("it is a directory: only an OCI layout is imported from one (for a root filesystem: tar -C DIR -c . | teu-store import - NAME)")),
        }
        self.layout(&Place::directory(path)?)
    }

    /// A plain tar is read in place; of anything else a plain copy is made first
    /// where members have to be found.
    fn file(&self, file: File) -> Result<Vec<Imported>, Error> {
        let metadata = file.metadata().map_err(|error| self.unreadable(error))?;
        let again = file.try_clone().map_err(|error| self.unreadable(error))?;
        let (packing, peeked) = detect::unpack(again).map_err(|error| self.unreadable(error))?;
        self.check_packing(packing, &peeked.start)?;
        let format = self.format(&peeked.start)?;
        if packing == Packing::Plain && metadata.is_file() && format != Format::Rootfs {
            return self.archive(file, format);
        }
        let total = if packing == Packing::Plain {
            metadata.len()
        } else {
            0
        };
        self.unpacked(peeked.whole, format, total)
    }

    fn stream(&self, stream: impl Read + Send, total: u64) -> Result<Vec<Imported>, Error> {
        let (packing, peeked) = detect::unpack(stream).map_err(|error| self.unreadable(error))?;
        self.check_packing(packing, &peeked.start)?;
        let format = self.format(&peeked.start)?;
        self.unpacked(peeked.whole, format, total)
    }

    /// What is packed has something in it: an empty archive has its end mark at least.
    fn check_packing(&self, packing: Packing, start: &[u8]) -> Result<(), Error> {
        match packing != Packing::Plain && start.is_empty() {
            true => Err(self.wrong("it unpacks to nothing")),
            false => Ok(()),
        }
    }

    fn format(&self, start: &[u8]) -> Result<Format, Error> {
        match self.options.format {
            Some(Format::OciDir) => Err(self.wrong("it is not a directory")),
            Some(format) => Ok(format),
            None => Ok(detect::guess(start)),
        }
    }

    /// A plain tar that comes as a stream.
    fn unpacked(
        &self,
        mut tar: impl Read,
        format: Format,
        total: u64,
    ) -> Result<Vec<Imported>, Error> {
        if format == Format::Rootfs {
            return self.rootfs(tar, total);
        }
        let path = self.work.scratch().join("archive.tar");
        let mut copy = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|source| Error::File {
                action: "create",
                path: path.clone(),
                source,
            })?;
        let task = self.progress.task("unpack", total);
        io::copy(&mut Counted::new(&mut tar, &task), &mut copy)
            .map_err(|error| self.unreadable(error))?;
        task.finish("unpacked");
        self.archive(copy, format)
    }

    /// A plain tar that is a file. A guess by the first member is settled by what is there.
    fn archive(&self, file: File, format: Format) -> Result<Vec<Imported>, Error> {
        let members = Members::read(file, &self.what)?;
        // docker since version 25 writes both: the layout has the original manifests.
        let is_layout = members.has("index.json") && members.has(layout::MARKER);
        let as_layout = match self.options.format {
            Some(asked) => asked == Format::OciArchive,
            None => is_layout || !members.has(docker::LIST),
        };
        if as_layout && format != Format::Rootfs {
            return self.layout(&Place::Archive(members));
        }
        self.no_changes()?;
        let (archive, listed) = Archive::read(members, &self.what)?;
        let names: Vec<Vec<String>> = listed.iter().map(|image| image.names.clone()).collect();
        let names = self.names(&names)?;
        let mut imported = Vec::new();
        for (image, names) in listed.into_iter().zip(names) {
            let taken = intake::image(
                &self.work,
                &archive,
                &image.target,
                image.manifest,
                &self.options.platform,
                self.progress,
            )?;
            for name in names {
                taken.name(&self.work, &name)?;
                imported.push(Imported {
                    name,
                    digest: taken.target.digest,
                });
            }
        }
        Ok(imported)
    }

    fn layout(&self, place: &Place) -> Result<Vec<Imported>, Error> {
        self.no_changes()?;
        let listed = layout::images(place, &self.what)?;
        let names: Vec<Vec<String>> = listed
            .iter()
            .map(|image| image.name.iter().cloned().collect())
            .collect();
        let names = self.names(&names)?;
        let origin = Layout(place);
        let mut imported = Vec::new();
        for (image, names) in listed.into_iter().zip(names) {
            let bytes = intake::document(&self.work, &origin, &image.target)?;
            let taken = intake::image(
                &self.work,
                &origin,
                &image.target,
                bytes,
                &self.options.platform,
                self.progress,
            )?;
            for name in names {
                taken.name(&self.work, &name)?;
                imported.push(Imported {
                    name,
                    digest: taken.target.digest,
                });
            }
        }
        Ok(imported)
    }

    fn rootfs(&self, tar: impl Read, total: u64) -> Result<Vec<Imported>, Error> {
        let Some(name) = self.name else {
            let why = format!(
                "{} is a root filesystem, which has no name: give it one after the file",
                self.what
            );
            return Err(Error::NoName(why));
        };
        let (platform, changes) = (&self.options.platform, &self.options.changes);
        let digest = rootfs::import(
            &self.work,
            tar,
            total,
            name,
            platform,
            changes,
            self.progress,
        )?;
        Ok(vec![Imported {
            name: name.clone(),
            digest,
        }])
    }

    /// The names to give, for each image what the archive calls it.
    fn names(&self, own: &[Vec<String>]) -> Result<Vec<Vec<Reference>>, Error> {
        if own.is_empty() {
            return Err(self.wrong("it holds no image"));
        }
        if let Some(name) = self.name {
            return match own {
                [_] => Ok(vec![vec![name.clone()]]),
                _ => Err(Error::NoName(format!(
                    "{} holds {} images: they keep their own names, give none",
                    self.what,
                    own.len()
                ))),
            };
        }
        own.iter()
            .map(|names| {
                let names: Vec<Reference> =
                    names.iter().filter_map(|name| full_name(name)).collect();
                if names.is_empty() {
                    return Err(Error::NoName(format!(
                        "{} does not name its image in full: give a name after the file",
                        self.what
                    )));
                }
                Ok(names)
            })
            .collect()
    }

    fn no_changes(&self) -> Result<(), Error> {
        if self.options.changes.is_empty() {
            return Ok(());
        }
        Err(self.wrong("--change is for root filesystems; an image keeps its configuration"))
    }

    fn wrong(&self, why: &str) -> Error {
        Error::Archive {
            what: self.what.clone(),
            why: why.to_owned(),
        }
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::from(crate::Error::Read {
            what: self.what.clone(),
            source,
        })
    }
}

/// A name as an archive writes it. A word alone is only a tag (image-spec, annotations.md).
fn full_name(text: &str) -> Option<Reference> {
    let is_full = text.contains(['/', ':', '@']);
    text.parse().ok().filter(|_| is_full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_alone_is_a_tag_and_no_name() {
        assert_eq!(full_name("latest"), None);
        assert_eq!(full_name("1.2"), None);
        assert_eq!(
            full_name("busybox:1").unwrap().to_string(),
            "docker.io/library/busybox:1"
        );
        assert_eq!(
            full_name("localhost/x").unwrap().to_string(),
            "localhost/x:latest"
        );
        assert_eq!(full_name("<none>:<none>"), None);
    }
}
