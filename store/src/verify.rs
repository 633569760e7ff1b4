//! Checks all that is in the store against its names: blobs and tars against their digests, indexes against their
//! records, images for being whole. Nothing else that the store does re-reads what it once checked.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::digest::{Algorithm, DiffId, Digest, Hasher};
use crate::error::{Context, Error};
use crate::layers::Index;
use crate::store::Store;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Of what kind: `blob`, `tar`, `index`, `layer`, `image`.
    pub kind: &'static str,
    /// Its digest or name.
    pub name: String,
    /// What is wrong, and what to do.
    pub why: String,
}

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many files were read.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

const AGAIN: &str = "pull, import or build the image again to replace it";

impl Store {
    /// Checks everything. What is removed meanwhile is passed over. The time goes into hashing.
    pub fn verify(&self) -> Result<Verified, Error> {
        let mut found = Verified::default();
        for (kind, folder) in [("blob", "blobs"), ("tar", "tars")] {
            self.each(folder, |digest, path| {
                found.check_digest(kind, digest, path)
            })?;
        }
        self.each("layers", |digest, _| {
            self.check_layer(&DiffId(digest), &mut found)
        })?;
        for record in self.list_refs()? {
            let whole = self
                .image(&record.name)
                .and_then(|image| self.check_image(&image));
            if let Err(err) = whole {
                let why = format!("{}; {AGAIN}", crate::error::chain(&err));
                found.problems.push(Problem {
                    kind: "image",
                    name: record.name.familiar(),
                    why,
                });
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

    /// The files that a layer's record speaks of.
    fn check_layer(&self, layer: &DiffId, found: &mut Verified) -> Result<(), Error> {
        let Some(record) = self.record(layer)? else {
            return Ok(());
        };
        let mut problem = |kind, why: &str| {
            found.problems.push(Problem {
                kind,
                name: layer.to_string(),
                why: format!("{why}; {AGAIN}"),
            });
        };
        if !fs::metadata(self.tar_path(layer)).is_ok_and(|tar| tar.len() == record.tar_size) {
            problem("layer", "its tar is missing or of another size");
        }
        if record.directory && !self.dir_path(layer).is_dir() {
            problem("layer", "its directory is missing");
        }
        if let Some(index) = record.erofs {
            match File::open(self.index_path(layer)).and_then(|file| Index::of(&file)) {
                Ok(here) if here == index => {}
                Ok(_) => problem("index", "its content is not what was written"),
                Err(err) => problem("index", &err.to_string()),
            }
            found.files += 1;
            found.bytes += index.size;
        }
        Ok(())
    }

    /// All blobs and layers of an image are here.
    fn check_image(&self, image: &crate::images::Image) -> Result<(), Error> {
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

impl Verified {
    fn check_digest(
        &mut self,
        kind: &'static str,
        digest: Digest,
        path: &Path,
    ) -> Result<(), Error> {
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
            (here != digest).then(|| format!("its content has digest {here}; {AGAIN}"))
        });
        self.problems.extend(why.map(|why| Problem {
            kind,
            name: digest.to_string(),
            why,
        }));
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
            Verified {
                files: 1,
                bytes: 5,
                problems: vec![]
            }
        );
        fs::write(store.blob_path(&blob.digest), "hallo").unwrap();
        let problems = store.verify().unwrap().problems;
        assert_eq!(
            (problems[0].kind, problems[0].name.as_str()),
            ("blob", blob.digest.to_string().as_str())
        );
        // Putting it again heals it.
        work.put_bytes("text/plain", b"hello").unwrap();
        assert!(store.verify().unwrap().problems.is_empty());
    }
}
