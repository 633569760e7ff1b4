//! References: `refs/<escaped name>`, one small JSON file each, replaced by rename.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Context, Error};
use crate::image::{Descriptor, Named};
use crate::lock::{Lock, Mode};
use crate::processors::on_all_processors;
use crate::reference::Reference;
use crate::store::{self, Store};
use crate::summary::Summary;

/// Longest escaped name used as a file name as it is, in bytes; NAME_MAX is 255.
const FILE_NAME_BYTES_MAX: usize = 240;
/// Largest file below `refs/`, in bytes; ours have a few hundred.
const RECORD_BYTES_MAX: u64 = 64 * 1024;
/// What ours hardly ever exceed, in bytes.
const RECORD_BYTES_USUAL: usize = 1024;

/// What a reference says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefRecord {
    /// The name, canonical.
    pub name: Reference,
    /// The manifest or index it names; that and all below it is in the store.
    pub target: Descriptor,
    /// The manifest that registries and archives got for it, where that is another: layers that are kept
    /// as tars leave packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<Descriptor>,
    /// What listings show of the image; see [`Summary`]. Records of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// When the name was last given here, RFC 3339; for people, so it is no part of the image. The file says the time when it was
    /// written; when the name was given to the same image again, that is the file's time of modification.
    pub updated: String,
}

/// Of a record, what tells a listing of it: much cheaper to read than the record.
#[derive(Debug, Deserialize)]
pub(crate) struct RefGlance {
    pub(crate) name: Reference,
    pub(crate) target: Named,
    #[serde(default)]
    pub(crate) pushed: Option<Named>,
    #[serde(default)]
    pub(crate) summary: Option<Summary>,
    pub(crate) updated: String,
}

/// Of a record, what tells gc.
#[derive(Debug, Deserialize)]
pub(crate) struct RefTargets {
    pub(crate) name: Reference,
    pub(crate) target: Named,
    #[serde(default)]
    pub(crate) pushed: Option<Named>,
}

/// A record, or what somebody needs of it.
pub(crate) trait Record: DeserializeOwned {
    /// Where it says when the name was last given.
    fn updated(&mut self) -> Option<&mut String>;
}

impl Record for RefRecord {
    fn updated(&mut self) -> Option<&mut String> {
        Some(&mut self.updated)
    }
}

impl Record for RefGlance {
    fn updated(&mut self) -> Option<&mut String> {
        Some(&mut self.updated)
    }
}

impl Record for RefTargets {
    fn updated(&mut self) -> Option<&mut String> {
        None
    }
}

impl Store {
    /// Makes `name` mean `target`, durably and in one step. Everything `target` names must be durable by now,
    /// and kept by a living [`crate::Transaction`].
    pub fn set_ref(&self, name: &Reference, target: &Descriptor) -> Result<(), Error> {
        let record = RefRecord {
            name: name.clone(),
            target: target.clone(),
            pushed: None,
            summary: self.summary_of(target),
            updated: Timestamp::now().to_string(),
        };
        // Whoever reads a record to write it again must not undo this.
        let _renaming = Lock::acquire(&self.lock_path("refs"), Mode::Exclusive)?;
        // One that cannot be read is replaced.
        let now = self.get_ref(name).ok().flatten();
        if now.is_some_and(|now| now.target == record.target && now.summary == record.summary) {
            return self.give_again(name);
        }
        self.write_ref(&record)
    }

    /// Notes that a name was given to the image that it has. That costs no writing to the disk: what the name means, and all that
    /// belongs to it, was durable before it was written, and a power cut may take the time.
    fn give_again(&self, name: &Reference) -> Result<(), Error> {
        let path = self.ref_path(name);
        fs::File::open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .context("set the time of", &path)?;
        // Who wrote it may have been killed before it came to this.
        store::sync_parent(&path)
    }

    /// Makes `name` mean `target` if it means `before` now; whether it did. Otherwise as [`Store::set_ref`].
    pub(crate) fn replace_ref(
        &self,
        name: &Reference,
        before: &Descriptor,
        target: &Descriptor,
    ) -> Result<bool, Error> {
        let _renaming = Lock::acquire(&self.lock_path("refs"), Mode::Exclusive)?;
        let now = self.get_ref(name)?;
        if now.is_none_or(|record| record.target != *before) {
            return Ok(false);
        }
        let record = RefRecord {
            name: name.clone(),
            target: target.clone(),
            pushed: None,
            summary: self.summary_of(target),
            updated: Timestamp::now().to_string(),
        };
        self.write_ref(&record)?;
        Ok(true)
    }

    /// Remembers with `name` that it left as `sent`. Nothing happens when the name is gone meanwhile.
    pub fn set_pushed(&self, name: &Reference, sent: &Descriptor) -> Result<(), Error> {
        let _renaming = Lock::acquire(&self.lock_path("refs"), Mode::Exclusive)?;
        let Some(mut record) = self.get_ref(name)? else {
            return Ok(());
        };
        let pushed = Some(sent.clone()).filter(|sent| sent.digest != record.target.digest);
        if record.pushed == pushed {
            return Ok(());
        }
        record.pushed = pushed;
        self.write_ref(&record)
    }

    fn write_ref(&self, record: &RefRecord) -> Result<(), Error> {
        self.sync_names()?;
        let mut text = serde_json::to_vec(record).map_err(|source| Error::Json {
            what: record.name.to_string(),
            source,
        })?;
        text.push(b'\n');
        store::replace_file(&self.folder("tmp"), &self.ref_path(&record.name), &text)
    }

    /// What `name` means; `None` where nobody has given it.
    pub fn get_ref(&self, name: &Reference) -> Result<Option<RefRecord>, Error> {
        read_record(&self.ref_path(name))
    }

    /// Takes `name` away; whether it was there. Its content stays until `gc`.
    pub fn remove_ref(&self, name: &Reference) -> Result<bool, Error> {
        let path = self.ref_path(name);
        match fs::remove_file(&path) {
            Ok(()) => store::sync_parent(&path).map(|()| true),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(err).context("remove", path),
        }
    }

    /// All references, sorted by name.
    pub fn list_refs(&self) -> Result<Vec<RefRecord>, Error> {
        let paths = self.ref_paths()?;
        let parts = on_all_processors(&paths, |part| {
            let records = part.iter().map(|path| read_record::<RefRecord>(path));
            records
                .filter_map(Result::transpose)
                .collect::<Result<Vec<_>, Error>>()
        })?;
        let mut records: Vec<RefRecord> = parts.into_iter().flatten().collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// The records' files. One that is replaced meanwhile is among them: whoever replaces one waits.
    pub(crate) fn ref_paths(&self) -> Result<Vec<PathBuf>, Error> {
        let folder = self.folder("refs");
        let entries = fs::read_dir(&folder).context("list", &folder)?;
        entries
            .map(|entry| Ok(entry.context("list", &folder)?.path()))
            .collect()
    }

    pub(crate) fn ref_path(&self, name: &Reference) -> PathBuf {
        self.folder("refs").join(file_name(&name.to_string()))
    }
}

/// One record; `None` where there is none.
pub(crate) fn read_record<T: Record>(path: &Path) -> Result<Option<T>, Error> {
    let file = match fs::File::open(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.context("open", path)?,
    };
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let mut text = Vec::with_capacity(RECORD_BYTES_USUAL);
    let read = file.take(RECORD_BYTES_MAX + 1).read_to_end(&mut text);
    read.context("read", path)?;
    if text.len() as u64 > RECORD_BYTES_MAX {
        return Err(Error::TooLarge {
            what: path.display().to_string(),
            size: text.len() as u64,
            max: RECORD_BYTES_MAX,
        });
    }
    let parsed: Result<T, _> = serde_json::from_slice(&text);
    let mut record = parsed.map_err(|source| Error::Json {
        what: path.display().to_string(),
        source,
    })?;
    if let (Some(updated), Ok(modified)) = (record.updated(), modified) {
        put_off(updated, modified);
    }
    Ok(Some(record))
}

/// Makes `time`, RFC 3339, the later one of two.
fn put_off(time: &mut String, other: SystemTime) {
    let written = time.parse::<Timestamp>().ok();
    if let Ok(other) = Timestamp::try_from(other)
        && written.is_some_and(|written| written < other)
    {
        *time = other.to_string();
    }
}

/// The file name for a reference or an id: `/` becomes `%2F`, a dot at the start `%2E`;
/// a name too long for a file is cut and made unique by its hash.
pub(crate) fn file_name(name: &str) -> String {
    let mut escaped = name
        .replace('%', "%25")
        .replace('/', "%2F")
        .replace('\0', "%00");
    if escaped.is_empty() || escaped.starts_with('.') {
        escaped = escaped.replacen('.', "%2E", 1) + if escaped.is_empty() { "%" } else { "" };
    }
    if escaped.len() <= FILE_NAME_BYTES_MAX {
        return escaped;
    }
    let cut = escaped.floor_char_boundary(FILE_NAME_BYTES_MAX - 65);
    format!("{}~{}", &escaped[..cut], Digest::of(name.as_bytes()).hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stay_in_their_folder() {
        assert_eq!(file_name(".."), "%2E.");
        assert_eq!(file_name(""), "%");
        assert_eq!(file_name("a/b%2F"), "a%2Fb%252F");
        assert!(file_name(&"ä".repeat(200)).len() <= 255);
    }

    // A pull of what is here waits for no disk.
    #[test]
    fn what_a_name_means_already_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let target = Descriptor::new("m", Digest::of(b"x"), 1);
        let name: Reference = "a".parse().unwrap();
        let given = || {
            store.set_ref(&name, &target).unwrap();
            let file = fs::metadata(store.ref_path(&name)).unwrap();
            let record = store.get_ref(&name).unwrap().unwrap();
            (file.ino(), record.updated.parse::<Timestamp>().unwrap())
        };
        let (file, first) = given();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (same, second) = given();
        assert_eq!(file, same);
        assert!(first < second);
        let other = Descriptor::new("m", Digest::of(b"y"), 1);
        store.set_ref(&name, &other).unwrap();
        assert_eq!(store.get_ref(&name).unwrap().unwrap().target, other);
        // What is damaged is written anew.
        fs::write(store.ref_path(&name), "{").unwrap();
        store.set_ref(&name, &target).unwrap();
        assert_eq!(store.get_ref(&name).unwrap().unwrap().target, target);
    }

    #[test]
    fn set_get_list_remove() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let target = Descriptor::new("m", Digest::of(b"x"), 1);
        let long = format!("host:5000/{}:{}", ["a"; 120].join("/"), "t".repeat(128));
        let names: Vec<Reference> = ["b/c:1", "alpine", &long]
            .iter()
            .map(|name| name.parse().unwrap())
            .collect();
        for name in &names {
            store.set_ref(name, &target).unwrap();
            assert_eq!(store.get_ref(name).unwrap().unwrap().target, target);
        }
        assert_eq!(store.list_refs().unwrap().len(), 3);
        assert!(store.remove_ref(&names[0]).unwrap());
        assert!(!store.remove_ref(&names[0]).unwrap());
        assert_eq!(store.get_ref(&names[0]).unwrap(), None);
    }
}
