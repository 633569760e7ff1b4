//! Which back-end serves layers here, and where a container's changes can go: found by trying the whole stack
//! (a view, an overlay on it, a file written) in the store's own folder. A store on overlayfs cannot hold an upper,
//! NFS neither; a user namespace cannot mount EROFS; kernels before 6.12 mount it only from block devices.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error};
use crate::mount::{self, Upper};
use crate::store::{self, Store};
use crate::tar::{Attributes, FileSource, Writer};
use crate::{erofs, tree};

/// How a layer becomes a directory tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// An EROFS index over the layer's tar, mounted; needs root and Linux 6.12.
    Erofs,
    /// The layer's files, created one by one.
    Directory,
}

/// Where the upper directory of an overlay over the store's layers can lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpperPlace {
    /// On the store's own file system.
    Directory,
    /// Only on a tmpfs.
    Tmpfs,
}

/// What was found, and for whom: another boot or user namespace asks again.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    here: String,
    backend: Backend,
    upper: UpperPlace,
}

impl Store {
    /// The back-end that serves layers here.
    pub fn backend(&self) -> Result<Backend, Error> {
        match self.forced_backend {
            Some(backend) => Ok(backend),
            None => Ok(self.found()?.backend),
        }
    }

    /// Where uppers over the store's layers can lie.
    pub fn upper_place(&self) -> Result<UpperPlace, Error> {
        Ok(self.found()?.upper)
    }

    fn found(&self) -> Result<Found, Error> {
        let here = here();
        let path = self.folder("probe.json");
        let known = fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice::<Found>(&text).ok());
        if let Some(found) = known.filter(|found| found.here == here) {
            return Ok(found);
        }
        let work = self.begin()?;
        let folder = work.scratch();
        let (backend, upper) = match try_erofs(folder) {
            Ok(upper) => (Backend::Erofs, upper),
            Err(_) => (Backend::Directory, try_directory(folder)?),
        };
        let found = Found {
            here,
            backend,
            upper,
        };
        let text = serde_json::to_vec(&found).map_err(|source| Error::Json {
            what: "the probe's result".into(),
            source,
        })?;
        store::replace_file(&self.folder("tmp"), &path, &text)?;
        Ok(found)
    }
}

/// What the answer depends on: the boot and the user namespace.
fn here() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/user")
        .map(|link| link.display().to_string())
        .unwrap_or_default();
    format!(
        "{} {namespace} {}",
        boot.trim(),
        rustix::process::geteuid().as_raw()
    )
}

/// Mounts an index over a small tar and an overlay on it.
fn try_erofs(folder: &Path) -> io::Result<UpperPlace> {
    let (tar_path, index_path) = (folder.join("probe.tar"), folder.join("probe.index"));
    let mut tar = Writer::new(
        fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&tar_path)?,
    );
    tar.file(
        b"probe",
        &Attributes {
            mode: 0o644,
            ..Attributes::default()
        },
        5,
        &b"probe"[..],
    )?;
    let mut tar = tar.finish()?;
    tar.flush()?;
    let (tree, _) = tree::scan(FileSource::new(&tar)?).map_err(io::Error::other)?;
    let mut index = fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&index_path)?;
    erofs::write(&tree, &[&tar], [0; 16], &mut index).map_err(io::Error::other)?;
    let view = mount::erofs(&index_path, &[&tar_path])?;
    let lower = folder.join("lower");
    fs::create_dir(&lower)?;
    mount::attach(view.as_fd(), fs::File::open(&lower)?.as_fd())?;
    let upper = try_upper(folder, &lower);
    mount::detach(&lower)?;
    upper
}

/// An overlay on a plain directory.
fn try_directory(folder: &Path) -> Result<UpperPlace, Error> {
    let lower = folder.join("directory");
    store::make_directory(&lower)?;
    fs::write(lower.join("probe"), "probe").context("write", &lower)?;
    // Where not even a tmpfs can hold an upper, mounting a container says so itself.
    Ok(try_upper(folder, &lower).unwrap_or(UpperPlace::Directory))
}

fn try_upper(folder: &Path, lower: &Path) -> io::Result<UpperPlace> {
    let (upper, work) = (folder.join("upper"), folder.join("upper-work"));
    for path in [&upper, &work] {
        fs::create_dir(path).or_else(|err| {
            if err.kind() == io::ErrorKind::AlreadyExists {
                Ok(())
            } else {
                Err(err)
            }
        })?;
    }
    let stack = || -> io::Result<()> {
        let root = mount::overlay(
            &[lower],
            Some(Upper {
                upper: &upper,
                work: &work,
            }),
        )?;
        let below = openat(
            &root,
            c"probe",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut content = String::new();
        io::Read::read_to_string(&mut fs::File::from(below), &mut content)?;
        // Writing copies the file up: the part that fails on file systems without xattrs.
        let file = openat(
            &root,
            c"probe",
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        fs::File::from(file).write_all(b"x")?;
        if content == "probe" {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    };
    match stack() {
        Ok(()) => Ok(UpperPlace::Directory),
        // The lower is what matters for the choice of the back-end: a read-only overlay shows whether it serves.
        Err(_) => mount::overlay(&[lower, lower], None).map(|_| UpperPlace::Tmpfs),
    }
}
