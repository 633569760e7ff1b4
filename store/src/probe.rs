//! Which back-end serves layers here, and where a container's changes can go: found by trying both in the store's own
//! folder, a view and an overlay that is written to. A store on overlayfs cannot hold an upper,
//! NFS neither; a user namespace cannot mount EROFS; kernels before 6.12 mount it only from block devices.
//!
//! No mount made here is ever attached to a directory: all end with their descriptors, so a killed probe leaves none.
//! That is why the overlay lies on a plain directory: kernels before 6.15 stack it on attached mounts only.

use std::fs;
use std::io::{self, Read as _, Write as _};
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

/// What was found, and for whom: another boot or kind of user asks again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Found {
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

    fn found(&self) -> Result<&Found, Error> {
        if let Some(found) = self.probed.get() {
            return Ok(found);
        }
        let found = self.probe()?;
        Ok(self.probed.get_or_init(|| found))
    }

    /// What an earlier process found here, or what trying finds.
    fn probe(&self) -> Result<Found, Error> {
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
        let upper = try_overlay(folder)?;
        let backend = match (&upper, try_erofs(folder)) {
            // Views serve nothing where they cannot be stacked.
            (Some(_), Ok(())) => Backend::Erofs,
            _ => Backend::Directory,
        };
        // Where not even a tmpfs can hold an upper, mounting a container says so itself.
        let upper = upper.unwrap_or(UpperPlace::Directory);
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

/// What the answer depends on: the boot, and who asks. Each build of an ordinary user has a new user namespace, and all
/// of them with the same ids are alike.
fn here() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let ids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    let may_mount = rustix::thread::capabilities(None).is_ok_and(|sets| {
        let needed = rustix::thread::CapabilitySet::SYS_ADMIN;
        sets.effective.contains(needed)
    });
    format!(
        "{} {} {} {may_mount}",
        boot.trim(),
        ids.join(":"),
        rustix::process::geteuid().as_raw()
    )
}

/// Content of the probe's only file.
const PROBE: &[u8] = b"probe";

/// Mounts an index over a small tar, and reads the file in it.
fn try_erofs(folder: &Path) -> io::Result<()> {
    let (tar_path, index_path) = (folder.join("probe.tar"), folder.join("probe.index"));
    let new_file = |path| {
        let mut options = fs::File::options();
        options.read(true).write(true).create_new(true).open(path)
    };
    let mut tar = Writer::new(new_file(&tar_path)?);
    let attributes = Attributes {
        mode: 0o644,
        ..Attributes::default()
    };
    tar.file(b"probe", &attributes, PROBE.len() as u64, PROBE)?;
    let mut tar = tar.finish()?;
    tar.flush()?;
    let (tree, _) = tree::scan(FileSource::new(&tar)?).map_err(io::Error::other)?;
    let mut index = new_file(&index_path)?;
    erofs::write(&tree, &[&tar], [0; 16], &mut index).map_err(io::Error::other)?;
    read_probe(mount::erofs(&index_path, &[&tar_path])?)
}

/// Where the upper of an overlay can lie; `None` where there are no overlays.
fn try_overlay(folder: &Path) -> Result<Option<UpperPlace>, Error> {
    let path = |name| folder.join(name);
    let (lower, upper, work) = (path("lower"), path("upper"), path("upper-work"));
    for directory in [&lower, &upper, &work] {
        store::make_directory(directory)?;
    }
    fs::write(lower.join("probe"), PROBE).context("write", &lower)?;
    let layers = Upper {
        upper: &upper,
        work: &work,
    };
    if try_upper(&lower, layers).is_ok() {
        return Ok(Some(UpperPlace::Directory));
    }
    // A read-only overlay shows whether the store's file system can at least be the lower of one.
    let read_only = mount::overlay(&[&lower, &upper], None).and_then(read_probe);
    Ok(read_only.is_ok().then_some(UpperPlace::Tmpfs))
}

fn try_upper(lower: &Path, upper: Upper<'_>) -> io::Result<()> {
    let root = mount::overlay(&[lower], Some(upper))?;
    // Writing copies the file up: the part that fails on file systems without xattrs.
    let file = openat(
        &root,
        c"probe",
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    fs::File::from(file).write_all(PROBE)?;
    read_probe(root)
}

fn read_probe(root: impl AsFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut content = Vec::new();
    fs::File::from(openat(root, c"probe", flags, Mode::empty())?).read_to_end(&mut content)?;
    if content == PROBE {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}
