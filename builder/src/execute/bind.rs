//! Files and directories that a step binds: of the context, a stage, an image or a cache.
//!
//! What a symbolic link in a source leads to is decided here, once; what is bound is a descriptor.

use super::hidden::{self, Shown};
use super::mounts::{Folders, Mounts};
use super::run::{RunError, failed, make_folder};
use super::{Executor, StepError, rootfs};
use crate::context::Context;
use crate::plan::Origin;
use crate::tree::Root;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Mounts {
    /// Clones a file or directory of the context or a tree to `place`; what is to be seen, the top first.
    pub(super) fn bind(
        &mut self,
        executor: &Executor<'_>,
        origin: Origin,
        source: &str,
        place: &Path,
    ) -> Result<Vec<PathBuf>, StepError> {
        let path = Path::new(source);
        let Origin::Tree(tree) = origin else {
            return Ok(self.bind_context(executor.context(origin), path, place)?);
        };
        let view = executor.view(tree)?;
        if let Some(view) = &view {
            self.trees.push(view.clone());
        }
        let root = match view {
            Some(view) => view,
            None => Arc::new(executor.storage.empty()?),
        };
        let bound = self.clone_place(&root, path, place, "the stage or image")?;
        Ok(vec![bound])
    }

    /// Clones what the ignore file leaves of a file or directory of the context.
    fn bind_context(
        &mut self,
        context: &Context,
        path: &Path,
        place: &Path,
    ) -> Result<Vec<PathBuf>, RunError> {
        let bound = self.clone_place(&context.root, path, place, "the context")?;
        let whiteouts = place.with_extension("hidden");
        match hidden::shown(context, path, &whiteouts)? {
            Shown::All => Ok(vec![bound]),
            Shown::Rest => Ok(vec![whiteouts, bound]),
            Shown::Nothing => Err(no_source(path, "the context")),
        }
    }

    pub(super) fn clone_place(
        &mut self,
        root: &Root,
        path: &Path,
        place: &Path,
        name: &'static str,
    ) -> Result<PathBuf, RunError> {
        let resolved = root.resolve(path)?;
        let meta = root.meta(&resolved)?;
        let meta = meta.ok_or_else(|| no_source(path, name))?;
        let fd = root.open_place(&resolved)?;
        if meta.is_directory() {
            make_folder(place.to_owned())?;
        } else {
            File::create(place).map_err(failed("create", place))?;
        }
        self.held.push(rootfs::bind(fd, place)?);
        Ok(place.to_owned())
    }

    /// Makes one of `layers`, the top first. What a step writes over it is thrown away.
    pub(super) fn stack(
        &mut self,
        mut layers: Vec<PathBuf>,
        index: usize,
        writable: bool,
        folders: &Folders<'_>,
    ) -> Result<PathBuf, RunError> {
        if layers.len() == 1 && !(writable && layers[0].is_dir()) {
            let place = layers.remove(0);
            if !writable {
                return Ok(place);
            }
            // On disk: it may be larger than memory.
            let folder = make_folder(folders.disk.join(format!("mount-{index}")))?;
            return copy_of(&place, folder.join("copy"));
        }
        let target = make_folder(folders.memory.join(format!("{index}-merged")))?;
        let mounted = if writable {
            let folder = folders.disk.join(format!("mount-{index}"));
            let upper = make_folder(folder.join("upper"))?;
            let work = make_folder(folder.join("work"))?;
            // What is written to is what shows at the top.
            let top = Root::open(&layers[0])?;
            if let Some(meta) = top.meta(Path::new("/"))? {
                hidden::dress(&upper, &meta)?;
            }
            rootfs::overlay(&layers, &upper, &work, &target)?
        } else {
            rootfs::read_only_overlay(&layers, &target)?
        };
        self.held.push(mounted);
        Ok(target)
    }
}

/// A file like the one at `place`, for whoever writes to it.
fn copy_of(place: &Path, copy: PathBuf) -> Result<PathBuf, RunError> {
    let meta = std::fs::symlink_metadata(place).map_err(failed("look up", place))?;
    // A pipe has nothing to be copied, and whoever reads from it waits.
    if !meta.is_file() {
        let why = io::Error::other("only files and directories can be bound for writing");
        return Err(failed("copy", place)(why));
    }
    std::fs::copy(place, &copy).map_err(failed("copy", place))?;
    // An owner without an id here cannot be given, and is nobody's in either place.
    let _ = chown(&copy, Some(meta.uid()), Some(meta.gid()));
    // Giving it away took the bits that let others become its owner.
    std::fs::set_permissions(&copy, meta.permissions())
        .map_err(failed("set permissions of", &copy))?;
    Ok(copy)
}

fn no_source(path: &Path, place: &'static str) -> RunError {
    RunError::NoSource {
        path: path.display().to_string(),
        place,
    }
}
