//! Where an export writes its files: a directory, or a tar.

use crate::tar::{Attributes, Writer};
use crate::transfer::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};

/// Size of the buffer before a tar, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// Takes the files of an archive, one after another.
pub(crate) trait Sink {
    /// A directory; its parents come before it.
    fn directory(&mut self, name: &str) -> Result<(), Error>;

    /// A file of `size` bytes. `content` is read to its end, and what fails
    /// there fails here: a reader that checks gets to say so.
    fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), Error>;

    /// A file whose content is at hand.
    fn small(&mut self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.file(name, content.len() as u64, &mut &content[..])
    }
}

/// A directory.
pub(crate) struct DirectorySink {
    path: PathBuf,
}

impl DirectorySink {
    /// Makes the directory; one that is there must be empty.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(in_file("create directory", path))?;
        let mut entries = fs::read_dir(path).map_err(in_file("list", path))?;
        if entries.next().is_some() {
            let source = io::Error::other("it is not empty: name a new or an empty one");
            return Err(Error::File {
                action: "export to",
                path: path.to_owned(),
                source,
            });
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Sink for DirectorySink {
    fn directory(&mut self, name: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(in_file("create directory", &path))
    }

    fn file(&mut self, name: &str, _size: u64, content: &mut dyn Read) -> Result<(), Error> {
        let path = self.path.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(in_file("create directory", folder))?;
        }
        let mut file = File::create_new(&path).map_err(in_file("create", &path))?;
        io::copy(content, &mut file).map_err(in_file("write", &path))?;
        Ok(())
    }
}

/// A tar, into a file that appears when it is whole, or to standard output.
pub(crate) struct TarSink {
    tar: Writer<BufWriter<Box<dyn Write + Send>>>,
    file: Option<Unfinished>,
}

/// A file beside the one that is meant, removed unless it is finished.
struct Unfinished {
    path: PathBuf,
    target: PathBuf,
    file: File,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is nothing of this name.
        let _ = fs::remove_file(&self.path);
    }
}

impl TarSink {
    pub(crate) fn create(path: Option<&Path>) -> Result<Self, Error> {
        let Some(target) = path else {
            if io::stdout().is_terminal() {
                let source = io::Error::other(
                    "a terminal is no place for an archive: name a file with --output",
                );
                return Err(Error::File {
                    action: "export to",
                    path: "standard output".into(),
                    source,
                });
            }
            return Ok(Self {
                tar: buffered(Box::new(io::stdout())),
                file: None,
            });
        };
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let path = target.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(in_file("create", &path))?;
        let same = file.try_clone().map_err(in_file("open", &path))?;
        let file = Unfinished {
            path,
            target: target.to_owned(),
            file,
        };
        Ok(Self {
            tar: buffered(Box::new(same)),
            file: Some(file),
        })
    }

    /// Into a file that somebody else has made.
    pub(crate) fn into_file(file: File) -> Self {
        Self {
            tar: buffered(Box::new(file)),
            file: None,
        }
    }

    /// Ends the archive and gives the file its name.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let path = self.file.as_ref().map_or_else(
            || PathBuf::from("standard output"),
            |file| file.target.clone(),
        );
        let mut out = self.tar.finish().map_err(in_file("write", &path))?;
        out.flush().map_err(in_file("write", &path))?;
        if let Some(file) = self.file {
            file.file.sync_all().map_err(in_file("sync", &path))?;
            fs::rename(&file.path, &file.target).map_err(in_file("rename to", &path))?;
        }
        Ok(())
    }
}

impl Sink for TarSink {
    fn directory(&mut self, name: &str) -> Result<(), Error> {
        self.tar
            .directory(name.as_bytes(), &attributes(0o755))
            .map_err(in_file("write", Path::new(name)))
    }

    fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        let failed = in_file("write", Path::new(name));
        self.tar
            .file(name.as_bytes(), &attributes(0o644), size, &mut *content)
            // The writer stops at the size: what comes after it is the reader's verdict.
            .and_then(|()| io::copy(content, &mut io::sink()))
            .map(|_| ())
            .map_err(failed)
    }
}

fn buffered(out: Box<dyn Write + Send>) -> Writer<BufWriter<Box<dyn Write + Send>>> {
    Writer::new(BufWriter::with_capacity(BUFFER_BYTES, out))
}

/// The same on every machine, and without a time.
fn attributes(mode: u16) -> Attributes {
    Attributes {
        mode,
        ..Attributes::default()
    }
}

fn in_file(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File {
        action,
        path: path.clone(),
        source,
    }
}
