//! Checks all that is in the store against its names: blobs and tars against their digests, indexes against their
//! records, directories and corrections against the tars they were made of, images for being whole.
//! Nothing else that the store does re-reads what it once checked.

mod layers;
mod repair;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;

use crate::digest::{Algorithm, ChainId, DiffId, Digest, Hasher};
use crate::error::{Context, Error};
use crate::images::Image;
use crate::reference::Reference;
use crate::store::Store;

pub use repair::{Fetch, Repaired};

/// What is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// A blob.
    Blob(Digest),
    /// A layer's tar.
    Tar(DiffId),
    /// A layer's EROFS index.
    Index(DiffId),
    /// A layer's directory.
    Directory(DiffId),
    /// What lies over an image's stack of layers.
    Corrections(Vec<DiffId>),
    /// An image, of which something is missing or wrong.
    Image(Reference),
}

impl Damage {
    /// `blob`, `tar`, `index`, `directory`, `corrections`, `image`.
    pub fn kind(&self) -> &'static str {
        match self {
            Damage::Blob(_) => "blob",
            Damage::Tar(_) => "tar",
            Damage::Index(_) => "index",
            Damage::Directory(_) => "directory",
            Damage::Corrections(_) => "corrections",
            Damage::Image(_) => "image",
        }
    }

    /// Its digest or name.
    pub fn name(&self) -> String {
        match self {
            Damage::Blob(digest) => digest.to_string(),
            Damage::Tar(layer) | Damage::Index(layer) | Damage::Directory(layer) => {
                layer.to_string()
            }
            Damage::Corrections(layers) => {
                ChainId::of(layers).map_or_else(String::new, |chain| chain.to_string())
            }
            Damage::Image(name) => name.familiar(),
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Of what kind: see [`Damage::kind`].
    pub kind: &'static str,
    /// Its digest or name.
    pub name: String,
    /// What is wrong.
    pub why: String,
    /// The same, for [`Store::repair`].
    #[serde(skip)]
    pub damage: Damage,
}

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many files were read.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl Store {
    /// Checks everything. What is removed meanwhile is passed over. The time goes into hashing.
    pub fn verify(&self) -> Result<Checked, Error> {
        let mut found = Checked::default();
        self.each("blobs", |digest, path| {
            found.check_digest(Damage::Blob(digest), digest, path)
        })?;
        self.each("tars", |digest, path| {
            found.check_digest(Damage::Tar(DiffId(digest)), digest, path)
        })?;
        self.each("layers", |digest, _| {
            let layer = DiffId(digest);
            let mut of_layer = Checked::default();
            self.check_layer(&layer, &mut of_layer)?;
            found.files += of_layer.files;
            found.bytes += of_layer.bytes;
            // A record is the first that gc removes of a layer.
            if self.record_path(&layer).exists() {
                found.add(of_layer.problems);
            }
            Ok(())
        })?;
        for record in self.list_refs()? {
            let mut of_name = Checked::default();
            let images = self.images_of(&record.target);
            let whole = images.and_then(|images| {
                images.iter().try_for_each(|image| {
                    self.check_image(image)?;
                    self.check_corrections(&image.config.rootfs.diff_ids, &mut of_name)
                })
            });
            if let Err(err) = whole {
                let why = crate::error::chain(&err);
                of_name.problem(Damage::Image(record.name.clone()), &why);
            }
            // What is wrong with an image that was taken away meanwhile is gc.
            if !of_name.problems.is_empty() && self.still_means(&record)? {
                found.add(of_name.problems);
            }
        }
        Ok(found)
    }

    fn each(
        &self,
        folder: &str,
        mut check: impl FnMut(Digest, &Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for algorithm in Algorithm::ALL {
            let path = self.folder(folder).join(algorithm.name());
            for entry in fs::read_dir(&path).context("list", &path)? {
                let entry = entry.context("list", &path)?;
                let name = entry.file_name();
                let digest = name
                    .to_str()
                    .and_then(|hex| format!("{}:{hex}", algorithm.name()).parse().ok());
                if let Some(digest) = digest {
                    check(digest, &entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// All blobs and layers of an image are here.
    fn check_image(&self, image: &Image) -> Result<(), Error> {
        for layer in &image.config.rootfs.diff_ids {
            if self.record(layer)?.is_none() {
                return Err(Error::NoSuchLayer(*layer));
            }
        }
        match image
            .manifest
            .layers
            .iter()
            .find(|layer| !self.has_blob(&layer.digest))
        {
            Some(layer) => Err(Error::NoSuchBlob(layer.digest)),
            None => Ok(()),
        }
    }
}

impl Checked {
    fn problem(&mut self, damage: Damage, why: &str) {
        let problem = Problem {
            kind: damage.kind(),
            name: damage.name(),
            why: why.to_owned(),
            damage,
        };
        self.add([problem]);
    }

    /// Images share layers; what is wrong with one is said once.
    fn add(&mut self, problems: impl IntoIterator<Item = Problem>) {
        for problem in problems {
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }

    fn check_digest(&mut self, damage: Damage, digest: Digest, path: &Path) -> Result<(), Error> {
        let mut file = match File::open(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.context("open", path)?,
        };
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; 256 * 1024];
        self.files += 1;
        let why = loop {
            match file.read(&mut buffer) {
                Ok(0) => break None,
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    self.bytes += n as u64;
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => break Some(format!("read: {err}")),
            }
        };
        let why = why.or_else(|| {
            let here = hasher.finish();
            (here != digest).then(|| format!("its content has digest {here}"))
        });
        if let Some(why) = why {
            self.problem(damage, &why);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let work = store.begin().unwrap();
        let blob = work.put_bytes("text/plain", b"hello").unwrap();
        assert_eq!(
            store.verify().unwrap(),
            Checked {
                files: 1,
                bytes: 5,
                problems: vec![]
            }
        );
        fs::write(store.blob_path(&blob.digest), "hallo").unwrap();
        let problems = store.verify().unwrap().problems;
        assert_eq!(problems[0].damage, Damage::Blob(blob.digest));
        assert_eq!(
            (problems[0].kind, problems[0].name.as_str()),
            ("blob", blob.digest.to_string().as_str())
        );
        // Putting it again heals it.
        work.put_bytes("text/plain", b"hello").unwrap();
        assert!(store.verify().unwrap().problems.is_empty());
    }
}
