//! RUN: a container of the runtime on an overlay, whose upper directory becomes the layer.
//!
//! ```text
//! tmp/<work>/runtime/          the runtime's states, found again after a crash
//! tmp/<work>/run-<n>/
//! ├── upper/  work/            what the step changes; on the tmpfs where the store's file system cannot hold them
//! └── memory/                  a tmpfs of our mount namespace: nothing in it outlives the build
//!     ├── bundle/              config.json, rootfs/
//!     └── mounts/<n>           what --mount shows, secrets among them
//! ```

use super::config::Purpose;
use super::container::{Runtime, ending};
use super::key::Seen;
use super::mounts::Mounts;
use super::rootfs::{self, MountError, Mounted, Stubs};
use super::trust::Trusted;
use super::{Executor, StepError, config, trust, upper};
use crate::cache::Key;
use crate::emulation::emulator;
use crate::leftovers::STATES;
use crate::plan::{Mount, MountKind, Run, Step};
use crate::progress::{Counted, Shown, Tail};
use crate::storage::StorageError;
use crate::tree::{Root, TreeError};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use teu_store::image::Platform;
use teu_store::{DiffId, UpperPlace};

/// Held by whoever has the terminal: one shell at a time.
static ATTENDED: Mutex<()> = Mutex::new(());

/// Why a RUN step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The command said so.
    #[error("{ending}")]
    Status {
        /// In words.
        ending: String,
        /// Its last lines.
        output: Vec<String>,
    },
    /// The runtime cannot be executed.
    #[error("execute the runtime {program:?}")]
    Runtime {
        /// Its program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A folder or file of the step.
    #[error("{action} {path:?}")]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// What the command left.
    #[error("read what the command changed")]
    Upper(#[source] Box<teu_store::layer::UpperError>),
    /// The bundle.
    #[error("make the container's configuration")]
    Config(#[source] Box<teu_store::Error>),
    /// Programs that nothing here can run.
    #[error(
        "this machine cannot run programs for {0}: binfmt_misc has no emulator for them that containers can use (flag F); install one, such as Debian's qemu-user-static with binfmt-support, or build the stage for $BUILDPLATFORM"
    )]
    NoEmulator(String),
    /// A step whose layer would hold certificates of the command line.
    #[error(
        "the step leaves the certificates of --ca-bundle in {0:?}, and the image would take them along: write a new file and rename it, as update-ca-certificates does, or copy the base's own by COPY --from"
    )]
    WroteBundle(PathBuf),
    /// A secret that the command line does not give.
    #[error("the secret {0:?} is required: give it with --secret id={0},src=FILE")]
    NoSecret(String),
    /// An agent that the command line does not give.
    #[error("the ssh agent {0:?} is required: give it with --ssh {0}=SOCKET or --ssh {0}=KEYFILE")]
    NoAgent(String),
    /// A `--mount` of something that is not there.
    #[error("--mount {path:?}: no such file or directory in {place}")]
    NoSource {
        /// The source.
        path: String,
        /// The context, or another stage.
        place: &'static str,
    },
}

/// Adds to an error of the system what was attempted on what.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

pub(super) fn make_folder(path: PathBuf) -> Result<PathBuf, RunError> {
    std::fs::create_dir_all(&path).map_err(failed("create", &path))?;
    Ok(path)
}

/// The folders of a running step. Dropped, the mounts go first and then the files.
struct Place {
    /// Keeps the overlay mounted.
    rootfs: Option<Mounted>,
    /// Keeps the tmpfs mounted.
    memory: Option<Mounted>,
    folder: PathBuf,
    bundle: PathBuf,
    upper: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.rootfs = None;
        self.memory = None;
        // What stays is removed with the build's transaction, or by gc.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Executor<'_> {
    /// Runs the step's command; its layer.
    pub(super) fn run(
        &self,
        index: usize,
        step: &Step,
        run: &Run,
        key: &Key,
        shown: &Shown<'_>,
    ) -> Result<DiffId, StepError> {
        if let Some(platform) = &run.emulated {
            self.emulate(platform)?;
        }
        let parent = self.layers(step.parent);
        let below = self.view(step.parent)?;
        let mut place = self.place(index, parent, below.as_deref())?;
        let memory = place
            .memory
            .as_ref()
            .map(|memory| memory.path().join("mounts"))
            .unwrap_or_default();
        let mounts = Mounts::prepare(self, run, &make_folder(memory)?, &place.folder)?;
        let id = format!("teu-build-{}-{index}", std::process::id());
        let merged = Root::open(&place.bundle.join("rootfs"))?;
        let purpose = Purpose::Step;
        let destinations = config::write(self, run, &mounts, &id, &merged, &place.bundle, purpose)?;
        let stubs = Stubs::expect(below.as_deref(), &destinations)?;
        let upper = Root::open(&place.upper)?.as_layers_say();
        let before = upper.meta(Path::new(""))?;
        if let Err(error) = self.execute(index, &place.bundle, id, shown) {
            if self.settings.on_failure_shell
                && matches!(error, StepError::Run(RunError::Status { .. }))
            {
                self.shell(index, run, &mounts, &merged, &place.bundle)?;
            }
            return Err(error);
        }
        self.look_again(index, step, run, key);
        drop((mounts, merged));
        place.rootfs = None;
        stubs.remove(&upper)?;
        if let Some(bundle) = &self.settings.ca_bundle {
            trust::check(bundle, &upper)?;
        }
        let below = below.as_deref();
        self.storage.write_layer(|out| {
            let out = Counted::new(out, self.progress, index + 1);
            upper::write(out, &upper, below, before.as_ref(), self.epoch.0)
        })
    }

    /// Looks whether the context is still what the step's key says: the step saw the user's own files.
    fn look_again(&self, index: usize, step: &Step, run: &Run, key: &Key) {
        let is_context = |mount: &Mount| matches!(&mount.kind, MountKind::Bind { origin, .. } if origin.is_context());
        if !run.mounts.iter().any(is_context) {
            return;
        }
        let now = self.run_key(run, self.layers(step.parent), Seen::Now);
        if !now.is_ok_and(|now| now == *key) {
            self.doubt(index, "the context");
        }
    }

    /// Makes sure that programs for another processor can run, and says that they run slowly.
    fn emulate(&self, platform: &Platform) -> Result<(), RunError> {
        let Some(emulator) = emulator(platform) else {
            return Err(RunError::NoEmulator(platform.to_string()));
        };
        let mut told = self.emulated.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.contains(platform) {
            told.push(platform.clone());
            self.progress.note(&format!(
                "warning: RUN steps for {platform} are emulated by {emulator}, and slow"
            ));
        }
        Ok(())
    }

    fn execute(
        &self,
        index: usize,
        bundle: &Path,
        id: String,
        shown: &Shown<'_>,
    ) -> Result<(), StepError> {
        let state = self.storage.scratch().join(STATES);
        let runtime = Runtime {
            program: self.settings.runtime.clone(),
            state,
            id,
        };
        let mut tail = Tail::default();
        let status = runtime.run(bundle, index, self.cancel, |bytes| {
            tail.push(bytes, |line| shown.line(line))
        });
        let output = tail.finish(|line| shown.line(line));
        if self.cancel.is_stopped() {
            runtime.delete();
            return Err(StepError::Cancelled);
        }
        let status = status.map_err(|source| RunError::Runtime {
            program: runtime.program.clone(),
            source,
        })?;
        if status.success() {
            return Ok(());
        }
        runtime.delete();
        let ending = runtime.complaint(bundle).unwrap_or_else(|| ending(status));
        Err(RunError::Status { ending, output }.into())
    }

    /// Runs a shell in what a failed step left, with its mounts and its environment. All other
    /// steps are ended before, so that nobody else writes to the terminal.
    fn shell(
        &self,
        index: usize,
        run: &Run,
        mounts: &Mounts,
        rootfs: &Root,
        bundle: &Path,
    ) -> Result<(), StepError> {
        let _one = ATTENDED.lock().unwrap_or_else(PoisonError::into_inner);
        self.cancel.stop();
        let place = &self.plan.steps[index].place;
        self.progress.note(&format!(
            "[{place}] failed; here is a shell in what it left, whose end is that of the build"
        ));
        self.progress.stand_aside();
        let runtime = Runtime {
            program: self.settings.runtime.clone(),
            state: self.storage.scratch().join(STATES),
            id: format!("teu-build-{}-{index}-shell", std::process::id()),
        };
        let purpose = Purpose::Shell {
            terminal: io::stdin().is_terminal(),
        };
        config::write(self, run, mounts, &runtime.id, rootfs, bundle, purpose)?;
        let ended = runtime.attend(bundle);
        runtime.delete();
        ended.map(drop).map_err(|source| {
            RunError::Runtime {
                program: runtime.program.clone(),
                source,
            }
            .into()
        })
    }

    /// Makes the folders and mounts the root file system.
    fn place(
        &self,
        index: usize,
        parent: &[DiffId],
        below: Option<&Root>,
    ) -> Result<Place, StepError> {
        let folder = make_folder(self.storage.scratch().join(format!("run-{index}")))?;
        let mut lowers = self.storage.lowers(parent)?;
        let memory = rootfs::tmpfs(&make_folder(folder.join("memory"))?).map_err(RunError::from)?;
        let changes = match lowers.upper {
            UpperPlace::Directory => folder.clone(),
            UpperPlace::Tmpfs => memory.path().to_owned(),
        };
        let (upper, work) = (
            make_folder(changes.join("upper"))?,
            make_folder(changes.join("work"))?,
        );
        let bundle = make_folder(memory.path().join("bundle"))?;
        let target = make_folder(bundle.join("rootfs"))?;
        copy_attributes(lowers.paths.first(), &upper)?;
        let trusted = match (&self.settings.ca_bundle, below) {
            (Some(bundle), Some(below)) => {
                Trusted::cover(bundle, below, make_folder(memory.path().join("trusted"))?)?
            }
            _ => None,
        };
        if let Some(trusted) = &trusted {
            lowers.paths.insert(0, trusted.lower.clone());
        }
        let mut place = Place {
            rootfs: None,
            memory: Some(memory),
            folder,
            bundle,
            upper,
        };
        place.rootfs = Some(
            rootfs::overlay(&lowers.paths, &place.upper, &work, &target).map_err(RunError::from)?,
        );
        Ok(place)
    }
}

/// The upper directory is what the step sees as `/`: it takes owner and permissions of the top layer's.
fn copy_attributes(top: Option<&PathBuf>, upper: &Path) -> Result<(), RunError> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let Some(top) = top else { return Ok(()) };
    let meta = std::fs::metadata(top).map_err(failed("look up", top))?;
    let mode = std::fs::Permissions::from_mode(meta.mode() & 0o7777);
    std::fs::set_permissions(upper, mode).map_err(failed("set permissions of", upper))?;
    chown(upper, Some(meta.uid()), Some(meta.gid())).map_err(failed("set the owner of", upper))
}

impl From<StorageError> for RunError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Store(error) => Self::Config(error),
            StorageError::Folder { path, source } => Self::File {
                action: "create",
                path,
                source,
            },
        }
    }
}
