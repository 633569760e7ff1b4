//! Files behind URLs.
//!
//! ```text
//! cache/http/<sha256 of the URL>.json   what the server said about the file, and its digest
//! cache/http/<digest>                   its content
//! ```
//!
//! Both are replaced by rename and may vanish at any time. A file whose digest is given is
//! fetched once; of any other the server is asked whether it changed.

use super::HttpSource;
use crate::cancel::Cancel;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use teu_store::Digest;
use teu_store::registry::{Known, Web, WebFile};

/// Largest file that is fetched, in bytes: a server can send without end.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// Why a file is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The server, or the way to it.
    #[error(transparent)]
    Web(Box<teu_store::registry::Error>),
    /// It is not the file that it should be.
    #[error("{url}: its digest is {found}, not {wanted}")]
    Checksum {
        /// Where it came from.
        url: String,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// The content, on its way here.
    #[error("{action} {what}")]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On what.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The build ended meanwhile.
    #[error("canceled")]
    Cancelled,
}

/// What is remembered of a URL.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    etag: Option<String>,
    last_modified: Option<String>,
    digest: String,
}

/// A file that was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// The content, where the cache keeps it.
    pub path: PathBuf,
    /// `sha256:` and its digits.
    pub digest: String,
    /// When the server says that it was last changed.
    pub modified: Option<SystemTime>,
}

fn failed(
    action: &'static str,
    what: impl std::fmt::Display,
) -> impl FnOnce(io::Error) -> HttpError {
    let what = what.to_string();
    move |source| HttpError::File {
        action,
        what,
        source,
    }
}

/// Fetches a file, or takes what an earlier build fetched where that is still right. `fetched` hears now and then how
/// many bytes are here.
///
/// # Errors
/// It is not to be had, or not what it should be.
pub fn fetch(
    source: &HttpSource,
    cache: &Path,
    cancel: &Cancel,
    fetched: &dyn Fn(u64),
) -> Result<Fetched, HttpError> {
    let folder = cache.join("http");
    std::fs::create_dir_all(&folder).map_err(failed("create", folder.display()))?;
    let place = Place {
        record: folder.join(format!("{}.json", hex(&Sha256::digest(&source.url)))),
        folder,
    };
    let known = place.known(source.checksum.as_deref());
    if let (Some((fetched, _)), Some(_)) = (&known, &source.checksum) {
        return Ok(Fetched {
            path: fetched.path.clone(),
            digest: fetched.digest.clone(),
            modified: fetched.modified,
        });
    }
    let conditions = known
        .as_ref()
        .map(|(_, conditions)| conditions.clone())
        .unwrap_or_default();
    let answer = Web::new(teu_store::registry::TrustOptions::default())
        .get(&source.url, source.login.as_deref(), &conditions)
        .map_err(|error| HttpError::Web(Box::new(error)))?;
    match (answer, known) {
        (WebFile::Unchanged, Some((fetched, _))) => Ok(fetched),
        (WebFile::Unchanged, None) => Err(HttpError::File {
            action: "read",
            what: source.url.clone(),
            source: io::Error::other("the server sends nothing"),
        }),
        (WebFile::Content { mut body, known }, _) => {
            let mut body = Heard {
                inner: &mut body,
                bytes: 0,
                heard: fetched,
            };
            place.store(source, &mut body, &known, cancel)
        }
    }
}

/// Says how much was read.
struct Heard<'a> {
    inner: &'a mut dyn Read,
    bytes: u64,
    heard: &'a dyn Fn(u64),
}

impl Read for Heard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.bytes += length as u64;
        (self.heard)(self.bytes);
        Ok(length)
    }
}

struct Place {
    folder: PathBuf,
    record: PathBuf,
}

impl Place {
    /// What an earlier build fetched, if it is of the right digest and still there.
    fn known(&self, checksum: Option<&str>) -> Option<(Fetched, Known)> {
        let record: Record = serde_json::from_slice(&std::fs::read(&self.record).ok()?).ok()?;
        let digest: Digest = record.digest.parse().ok()?;
        if checksum.is_some_and(|checksum| checksum != record.digest) {
            return None;
        }
        let path = self.folder.join(digest.hex());
        path.is_file().then(|| {
            let known = Known {
                etag: record.etag,
                last_modified: record.last_modified,
            };
            let fetched = Fetched {
                path,
                digest: record.digest,
                modified: known.last_modified.as_deref().and_then(http_date),
            };
            (fetched, known)
        })
    }

    fn store(
        &self,
        source: &HttpSource,
        body: &mut dyn Read,
        known: &Known,
        cancel: &Cancel,
    ) -> Result<Fetched, HttpError> {
        let unfinished = self
            .record
            .with_extension(format!("{}.tmp", std::process::id()));
        let digest = copy(body, &unfinished, &source.url, cancel);
        let stored = digest.and_then(|digest| {
            if let Some(wanted) = source.checksum.as_ref().filter(|wanted| **wanted != digest) {
                return Err(HttpError::Checksum {
                    url: source.url.clone(),
                    wanted: wanted.clone(),
                    found: digest,
                });
            }
            let path = self.folder.join(digest.trim_start_matches("sha256:"));
            std::fs::rename(&unfinished, &path).map_err(failed("write", path.display()))?;
            Ok((path, digest))
        });
        if stored.is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
        let (path, digest) = stored?;
        let record = Record {
            etag: known.etag.clone(),
            last_modified: known.last_modified.clone(),
            digest: digest.clone(),
        };
        // Without the record the file is fetched again: only time is lost.
        if let Ok(text) = serde_json::to_vec(&record)
            && std::fs::write(&unfinished, text).is_ok()
            && std::fs::rename(&unfinished, &self.record).is_err()
        {
            let _ = std::fs::remove_file(&unfinished);
        }
        Ok(Fetched {
            path,
            digest,
            modified: known.last_modified.as_deref().and_then(http_date),
        })
    }
}

fn copy(body: &mut dyn Read, to: &Path, url: &str, cancel: &Cancel) -> Result<String, HttpError> {
    let mut file = File::create(to).map_err(failed("create", to.display()))?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut left = FILE_BYTES_MAX;
    loop {
        if cancel.is_stopped() {
            return Err(HttpError::Cancelled);
        }
        let length = match body.read(&mut buffer) {
            Ok(0) => return Ok(format!("sha256:{}", hex(&sum.finalize()))),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("read", url)(error)),
        };
        left = left.checked_sub(length as u64).ok_or_else(|| {
            let why = format!("it has more than {FILE_BYTES_MAX} bytes");
            failed("read", url)(io::Error::new(io::ErrorKind::FileTooLarge, why))
        })?;
        sum.update(&buffer[..length]);
        file.write_all(&buffer[..length])
            .map_err(failed("write", to.display()))?;
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, RFC 9110 section 5.6.7; the other forms are of the last century.
fn http_date(text: &str) -> Option<SystemTime> {
    let timestamp = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let seconds = u64::try_from(timestamp.as_second()).ok()?;
    Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_servers() {
        let seconds = |text: &str| {
            let time = http_date(text)?
                .duration_since(SystemTime::UNIX_EPOCH)
                .ok()?;
            Some(time.as_secs())
        };
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("yesterday"), None);
    }
}
