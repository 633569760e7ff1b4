//! A container's folder: made whole, found by name or id, removed whole.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::id::{ID_DIGITS, is_hex};
use super::{ContainerId, Lock, Name, Place, Record, exit};
use crate::Error;
use crate::error::At as _;

/// A container's folder. Reading needs no lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Whose it is.
    pub id: ContainerId,
    /// Where it is.
    pub path: PathBuf,
}

impl Folder {
    /// Makes the folder of `record` and reserves its name.
    ///
    /// When this returns, the intent is on disk and visible, and the caller
    /// holds the container. Killed before: at most a folder in `tmp`, which
    /// [`sweep`] removes.
    ///
    /// # Errors
    /// [`Error::NameTaken`]; I/O errors. Nothing is left then.
    pub fn create(place: &Place, record: &Record) -> Result<(Self, Lock), Error> {
        for dir in [place.containers(), place.names(), place.tmp()] {
            make_dir(&dir)?;
        }
        let tmp = place.tmp();
        let guard = File::open(&tmp).at("open", &tmp)?;
        flock(&guard, FlockOperation::LockShared).at("lock", &tmp)?;
        let making = Self {
            id: record.id.clone(),
            path: tmp.join(record.id.as_str()),
        };
        make_dir(&making.path)?;
        let lock_path = making.lock();
        let lock =
            Lock::take(&lock_path)?.ok_or_else(|| Error::Invalid("a new lock is held".into()))?;
        making.write_record(record)?;
        exit::reserve(&making.exit_space())?;
        let folder = Self {
            id: record.id.clone(),
            path: place.containers().join(record.id.as_str()),
        };
        fs::rename(&making.path, &folder.path).at("rename", &making.path)?;
        drop(guard);
        if let Err(err) = reserve_name(place, &record.name, &record.id) {
            folder.remove(place, &record.name)?;
            return Err(err);
        }
        Ok((folder, lock))
    }

    /// The folder of `id`, if there is one.
    #[must_use]
    pub fn open(place: &Place, id: &ContainerId) -> Option<Self> {
        let path = place.containers().join(id.as_str());
        path.is_dir().then(|| Self {
            id: id.clone(),
            path,
        })
    }

    /// The container that a person means: by name, by id, or by the start of an id.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], [`Error::Ambiguous`].
    pub fn resolve(place: &Place, text: &str) -> Result<Self, Error> {
        let dir = place.containers();
        match fs::read_dir(&dir) {
            // What may not be seen is not missing.
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                return Err(err).at("list", &dir);
            }
            _ => {}
        }
        let missing = || Error::NoSuchContainer(text.to_owned());
        if let Ok(name) = text.parse::<Name>()
            && let Some(folder) = name_owner(place, &name).and_then(|id| Self::open(place, &id))
        {
            return Ok(folder);
        }
        if let Ok(id) = text.parse::<ContainerId>() {
            return Self::open(place, &id).ok_or_else(missing);
        }
        if text.is_empty() || text.len() > ID_DIGITS || !is_hex(text) {
            return Err(missing());
        }
        let mut found = Self::list(place)?
            .into_iter()
            .filter(|folder| folder.id.as_str().starts_with(text));
        match (found.next(), found.next()) {
            (Some(folder), None) => Ok(folder),
            (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    /// All containers, in no order.
    ///
    /// # Errors
    /// I/O errors other than that there is no folder yet.
    pub fn list(place: &Place) -> Result<Vec<Self>, Error> {
        let dir = place.containers();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => return Err(err).at("list", &dir),
        };
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry.at("list", &dir)?;
            if let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            {
                folders.push(Self {
                    id,
                    path: entry.path(),
                });
            }
        }
        Ok(folders)
    }

    /// Takes the folder and its name away. The caller holds the container and
    /// has ended all that runs in it.
    ///
    /// Idempotent: killed in between, [`sweep`] does the rest.
    ///
    /// # Errors
    /// I/O errors.
    pub fn remove(&self, place: &Place, name: &Name) -> Result<(), Error> {
        release_name(place, name, &self.id)?;
        let tmp = place.tmp();
        make_dir(&tmp)?;
        let dying = tmp.join(self.id.as_str());
        match fs::rename(&self.path, &dying) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                return Err(err).at("rename", &self.path);
            }
            _ => {}
        }
        remove_tree(&dying)
    }

    /// The record.
    ///
    /// # Errors
    /// I/O errors; a record that is not one.
    pub fn record(&self) -> Result<Record, Error> {
        self.read_json("record.json")?
            .ok_or_else(|| Error::NoSuchContainer(self.id.short().to_owned()))
    }

    /// Replaces the record whole.
    ///
    /// # Errors
    /// I/O errors; the old record is then still there.
    pub fn write_record(&self, record: &Record) -> Result<(), Error> {
        self.write_json("record.json", record)
    }

    /// Reads a JSON file of this folder; `None` where there is none.
    ///
    /// # Errors
    /// I/O errors; a document that does not fit `T`.
    pub fn read_json<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Error> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| Error::Json {
                    what: path.display().to_string(),
                    source,
                }),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err).at("read", &path),
        }
    }

    /// Replaces a JSON file of this folder whole.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let text = serde_json::to_vec(value).map_err(|source| Error::Json {
            what: name.to_owned(),
            source,
        })?;
        let (path, new) = (self.path.join(name), self.path.join(format!(".{name}.new")));
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .at("create", &new)?;
        file.write_all(&text).at("write", &new)?;
        fs::rename(&new, &path).at("rename", &new)
    }

    /// The lock file.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// The exit record.
    #[must_use]
    pub fn exit(&self) -> PathBuf {
        self.path.join("exit")
    }

    /// The room reserved for it.
    #[must_use]
    pub fn exit_space(&self) -> PathBuf {
        self.path.join("exit.space")
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }
}

/// Removes what killed programs left in `tmp`. Does nothing while a folder is being made.
///
/// # Errors
/// I/O errors.
pub fn sweep(place: &Place) -> Result<(), Error> {
    let tmp = place.tmp();
    let Ok(guard) = File::open(&tmp) else {
        return Ok(());
    };
    if flock(&guard, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    for entry in fs::read_dir(&tmp).at("list", &tmp)? {
        remove_tree(&entry.at("list", &tmp)?.path())?;
    }
    Ok(())
}

/// Removes a tree of ours. That it is gone, or going by another hand, is success.
fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err).at("remove", path),
        _ => Ok(()),
    }
}

/// Makes a folder that only its owner may enter; that it exists is success.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .at("create folder", path)
}

/// Who has `name`.
fn name_owner(place: &Place, name: &Name) -> Option<ContainerId> {
    fs::read_link(place.names().join(name.as_str()))
        .ok()?
        .to_str()?
        .parse()
        .ok()
}

/// Reserves `name` for `id`, whose folder exists: so a link to nothing is a leftover.
fn reserve_name(place: &Place, name: &Name, id: &ContainerId) -> Result<(), Error> {
    let link = place.names().join(name.as_str());
    for _ in 0..2 {
        match symlink(id.as_str(), &link) {
            Ok(()) => return Ok(()),
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(err).at("create", &link),
        }
        match name_owner(place, name) {
            Some(owner) if Folder::open(place, &owner).is_some() => {
                return Err(Error::NameTaken {
                    name: name.to_string(),
                    id: owner.short().to_owned(),
                });
            }
            Some(owner) => release_name(place, name, &owner)?,
            None => {}
        }
    }
    Err(Error::Invalid(format!(
        "{link:?} cannot be reserved; remove it if it is not a link of ours"
    )))
}

/// Gives `name` back if `id` has it.
fn release_name(place: &Place, name: &Name, id: &ContainerId) -> Result<(), Error> {
    if name_owner(place, name).as_ref() != Some(id) {
        return Ok(());
    }
    let link = place.names().join(name.as_str());
    match fs::remove_file(&link) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err).at("remove", &link),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::record::{self, LogFull, Network, Stdin};
    use super::*;

    pub(crate) fn place(dir: &Path) -> Place {
        Place {
            data: dir.join("data"),
            state: dir.join("state"),
        }
    }

    pub(crate) fn record(id: &str, name: &str) -> Record {
        Record {
            version: record::VERSION,
            id: id.parse().unwrap(),
            name: name.parse().unwrap(),
            created: crate::clock::now(),
            image: "busybox".into(),
            bundle: None,
            command: vec!["sh".into()],
            terminal: false,
            stdin: Stdin::Closed,
            remove: false,
            log_full: LogFull::Block,
            log_size: None,
            log_files: 0,
            network: Network::None,
            hostname: "h".into(),
            volumes: Vec::new(),
            stop_signal: None,
            stop_timeout: 10,
            cgroups_path: "/teu/x".into(),
            runtime: "/bin/false".into(),
        }
    }

    fn id(start: &str) -> String {
        format!("{start:0<64}")
    }

    #[test]
    fn found_by_name_id_and_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let (one, _held) = Folder::create(&place, &record(&id("ab1"), "one")).unwrap();
        let (two, _held) = Folder::create(&place, &record(&id("ab2"), "two")).unwrap();
        assert_eq!(Folder::resolve(&place, "one").unwrap(), one);
        assert_eq!(Folder::resolve(&place, two.id.as_str()).unwrap(), two);
        assert_eq!(Folder::resolve(&place, "ab2").unwrap(), two);
        assert!(matches!(
            Folder::resolve(&place, "ab"),
            Err(Error::Ambiguous(_))
        ));
        for missing in ["", "f", "three", "../names"] {
            assert!(
                matches!(
                    Folder::resolve(&place, missing),
                    Err(Error::NoSuchContainer(_))
                ),
                "{missing}"
            );
        }
        assert_eq!(one.record().unwrap().name.as_str(), "one");
    }

    #[test]
    fn a_name_is_reserved_once_and_freed_with_its_container() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let (one, held) = Folder::create(&place, &record(&id("1"), "web")).unwrap();
        let taken = Folder::create(&place, &record(&id("2"), "web"));
        assert!(matches!(taken, Err(Error::NameTaken { .. })));
        assert_eq!(Folder::list(&place).unwrap(), vec![one.clone()]);
        one.remove(&place, &"web".parse().unwrap()).unwrap();
        drop(held);
        assert!(Folder::create(&place, &record(&id("2"), "web")).is_ok());
        assert_eq!(fs::read_dir(place.tmp()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_whose_container_vanished_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        fs::create_dir_all(place.names()).unwrap();
        symlink(id("9"), place.names().join("web")).unwrap();
        assert!(Folder::create(&place, &record(&id("2"), "web")).is_ok());
    }

    #[test]
    fn leftovers_are_swept_but_not_under_a_maker() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let left = place.tmp().join(id("7"));
        fs::create_dir_all(&left).unwrap();
        let making = File::open(place.tmp()).unwrap();
        flock(&making, FlockOperation::LockShared).unwrap();
        sweep(&place).unwrap();
        assert!(left.exists());
        drop(making);
        sweep(&place).unwrap();
        assert!(!left.exists());
    }
}
