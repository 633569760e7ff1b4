//! Everything that a build reads, opened: the context, named contexts, the Dockerfile.

use crate::build::{BuildError, Request};
use crate::cancel::Cancel;
use crate::context::{self, Context, ContextError, Date, Opener, Place};
use crate::dockerfile::DOCKERFILE_BYTES_MAX;
use crate::epoch::{self, Epoch};
use crate::images;
use crate::leftovers;
use crate::plan::{self, NamedContext, PLAN_BYTES_MAX, Plan};
use crate::storage::Storage;
use crate::tree::{Root, TreeError};
use std::io::Read;
use std::path::{Path, PathBuf};
use teu_store::{Digest, Store};

/// What a Dockerfile is called in its context, the first that is there.
const DOCKERFILE_NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// Tells git at work for contexts from git at work for a step: more than any build has steps.
const GIT_OF_CONTEXTS: usize = usize::MAX;

/// Where a Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfilePlace {
    /// In the context, under its usual name.
    Default,
    /// At this path: on this host, or in a context that is not.
    Path(PathBuf),
    /// On standard input.
    Stdin,
    /// There is none, but a plan at this path of the host; none is standard input.
    Plan(Option<PathBuf>),
}

impl DockerfilePlace {
    /// Whether it is no Dockerfile.
    pub fn is_plan(&self) -> bool {
        matches!(self, Self::Plan(_))
    }

    /// Whether it is read from standard input.
    fn is_stdin(&self) -> bool {
        matches!(self, Self::Stdin | Self::Plan(None))
    }

    /// Most bytes of it.
    fn bytes_max(&self) -> u64 {
        match self {
            Self::Plan(_) => PLAN_BYTES_MAX,
            Self::Default | Self::Path(_) | Self::Stdin => DOCKERFILE_BYTES_MAX,
        }
    }

    /// The name for messages and records.
    pub fn shown(&self, context: &Place) -> String {
        match (self, context) {
            (Self::Stdin | Self::Plan(None), _) => "-".to_owned(),
            (Self::Path(path) | Self::Plan(Some(path)), _) => path.display().to_string(),
            (Self::Default, Place::Directory(context)) => {
                default_file(context).display().to_string()
            }
            (Self::Default, _) => DOCKERFILE_NAMES[0].to_owned(),
        }
    }
}

/// What a name of `--build-context` was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedPlace {
    /// Files.
    Files(Place),
    /// `docker-image://NAME`.
    Image(String),
    /// `oci-layout://PATH[:TAG][@DIGEST]`, without the beginning.
    Layout(String),
}

/// A build that has everything it reads.
#[derive(Debug)]
pub struct Prepared {
    /// The Dockerfile.
    pub source: Source,
    /// The plan that is executed instead of a Dockerfile's.
    pub(crate) given: Option<Plan>,
    pub(crate) context: Context,
    pub(crate) named: Vec<Context>,
    pub(crate) options: plan::Options,
    /// The latest time in the image.
    pub(crate) epoch: Epoch,
    #[expect(dead_code, reason = "dropped, it takes its names back")]
    imported: Imported,
    // Last: what is above reads from it.
    pub(crate) storage: Storage,
}

impl Prepared {
    /// Where the context is, as the cache remembers it.
    pub fn context_path(&self) -> &Path {
        &self.context.path
    }
}

/// What names of the command line mean.
type Names = Vec<(String, NamedContext)>;

/// Images that are in the store only for this build.
#[derive(Debug)]
struct Imported {
    store: Store,
    names: Vec<String>,
}

impl Drop for Imported {
    fn drop(&mut self) {
        for name in &self.names {
            // What stays is a name that nobody uses.
            let _ = self.store.untag(name, true);
        }
    }
}

/// The text of a Dockerfile and its name for messages.
#[derive(Debug)]
pub struct Source {
    /// As the user gave it.
    pub name: String,
    /// The text.
    pub text: String,
}

impl Request {
    /// Opens the context and everything else that is read, and reads the Dockerfile.
    ///
    /// # Errors
    /// Something of it is not there, or not what it should be.
    pub fn open(&self, cancel: &Cancel) -> Result<Prepared, BuildError> {
        leftovers::put_away(&self.store);
        let storage = Storage::begin(&self.store)?;
        for (number, agent) in self.settings.agents.iter().enumerate() {
            agent.start(&storage.scratch().join(format!("agent-{number}")))?;
        }
        let (files, mut source, date) = self.open_context(&storage, cancel)?;
        let cache = storage.cache_folder();
        let context = match (files, &self.context) {
            (None, Place::Directory(path)) => {
                Context::open(path, self.dockerfile_path().as_deref(), &cache)?
            }
            (files, place) => {
                let root = match files {
                    Some(root) => root,
                    None => storage.empty()?,
                };
                Context::of_files(root, &place.shown(), Some(&source.name))?
            }
        };
        let (named, contexts) = self.open_named(&storage, cancel)?;
        let mut options = plan::Options {
            contexts,
            ignore: context.rules.clone(),
            ..self.options.clone()
        };
        let epoch = self.settle_epoch(&mut options, &source, || date.seconds(&context.root))?;
        let mut given = None;
        if self.dockerfile.is_plan() {
            let name = source.name.clone();
            let read = plan::read(&source.text, &options, named.len());
            let (plan, text) = read.map_err(|why| BuildError::Plan { name, source: why })?;
            (given, source.text) = (Some(plan), text);
        }
        Ok(Prepared {
            context,
            named,
            source,
            given,
            options,
            epoch,
            imported: self.layouts()?,
            storage,
        })
    }

    /// The latest time in the image: of the command line, else of an ARG before the first FROM. The time of a context
    /// becomes a number here, which steps see that declare the variable; a directory has none.
    fn settle_epoch(
        &self,
        options: &mut plan::Options,
        source: &Source,
        date: impl FnOnce() -> Result<Option<i64>, TreeError>,
    ) -> Result<Epoch, BuildError> {
        let given = options.build_args.iter();
        let given = given.rev().find(|(name, _)| name == epoch::VARIABLE);
        let mut value = given.map(|(_, value)| value.clone());
        if value.is_none() && !self.dockerfile.is_plan() && source.text.contains(epoch::VARIABLE) {
            // What is wrong with the file is told with what the rules say about it, by who plans.
            let file = self.parse(source).ok();
            value = file.and_then(|file| plan::declared(&file, options, epoch::VARIABLE));
        }
        if value.as_deref() == Some(epoch::OF_CONTEXT) {
            let seconds = date().map_err(ContextError::from)?;
            let seconds = seconds
                .map(|seconds| seconds.to_string())
                .unwrap_or_default();
            options
                .build_args
                .retain(|(name, _)| name != epoch::VARIABLE);
            options
                .build_args
                .push((epoch::VARIABLE.to_owned(), seconds.clone()));
            value = Some(seconds);
        }
        let epoch = Epoch::parse(value.as_deref())?;
        Ok(self.epoch.unwrap_or(epoch))
    }

    /// The context's files, unless they are read in place, the Dockerfile, and when the context is from.
    fn open_context(
        &self,
        storage: &Storage,
        cancel: &Cancel,
    ) -> Result<(Option<Root>, Source, Date), BuildError> {
        if let Place::Directory(_) = &self.context {
            return Ok((None, self.local_source()?, Date::None));
        }
        let stdin = self.context == Place::Stdin && self.dockerfile.is_stdin();
        if stdin {
            return Err(BuildError::StdinTwice);
        }
        let mut place = self.context.clone();
        if let Place::Git(source) = &mut place {
            source.keep_git_dir |= plan::is_asked(&self.options, "BUILDKIT_CONTEXT_KEEP_GIT_DIR");
        }
        let opened = self.opener(storage, cancel).open(&place, 0);
        match opened? {
            context::Opened::Files(root, date) => {
                let source = match &self.dockerfile {
                    DockerfilePlace::Stdin | DockerfilePlace::Plan(_) => self.local_source()?,
                    DockerfilePlace::Default => source_in(&root, default_name_in(&root)?)?,
                    DockerfilePlace::Path(path) => source_in(&root, &path.to_string_lossy())?,
                };
                Ok((Some(root), source, date))
            }
            context::Opened::Dockerfile(text) => {
                let source = match &self.dockerfile {
                    DockerfilePlace::Default => Source {
                        name: self.context.shown(),
                        text,
                    },
                    DockerfilePlace::Stdin
                    | DockerfilePlace::Path(_)
                    | DockerfilePlace::Plan(_) => self.local_source()?,
                };
                Ok((Some(storage.empty()?), source, Date::None))
            }
        }
    }

    fn opener<'a>(&'a self, storage: &'a Storage, cancel: &'a Cancel) -> Opener<'a> {
        Opener {
            storage,
            git: self.settings.git(cancel, GIT_OF_CONTEXTS),
            cancel,
        }
    }

    /// Named contexts that are files, and what all names mean.
    fn open_named(
        &self,
        storage: &Storage,
        cancel: &Cancel,
    ) -> Result<(Vec<Context>, Names), BuildError> {
        let opener = self.opener(storage, cancel);
        let (mut files, mut names) = (Vec::new(), Vec::new());
        for (name, place) in &self.contexts {
            let meaning = match place {
                NamedPlace::Image(image) => NamedContext::Image(image.clone()),
                NamedPlace::Layout(layout) => NamedContext::Image(layout_name(layout)),
                NamedPlace::Files(place) => {
                    let opened = match place {
                        Place::Directory(path) => {
                            Context::open(path, None, &storage.cache_folder())?
                        }
                        place => match opener.open(place, files.len() + 1)? {
                            context::Opened::Files(root, _) => {
                                Context::of_files(root, &place.shown(), None)?
                            }
                            context::Opened::Dockerfile(_) => {
                                return Err(ContextError::Neither(place.shown()).into());
                            }
                        },
                    };
                    files.push(opened);
                    NamedContext::Files(files.len() - 1)
                }
            };
            names.push((name.clone(), meaning));
        }
        Ok((files, names))
    }

    /// Copies the images of OCI layouts into the store, for as long as the build lasts.
    fn layouts(&self) -> Result<Imported, BuildError> {
        let mut imported = Imported {
            store: self.store.clone(),
            names: Vec::new(),
        };
        for (_, place) in &self.contexts {
            if let NamedPlace::Layout(layout) = place {
                let name = layout_name(layout);
                images::copy_layout(&self.puller, &self.store, layout, &name).map_err(
                    |source| BuildError::Layout {
                        layout: layout.clone(),
                        source,
                    },
                )?;
                imported.names.push(name);
            }
        }
        Ok(imported)
    }

    /// The Dockerfile's path on this host; `None` for standard input.
    fn dockerfile_path(&self) -> Option<PathBuf> {
        match (&self.dockerfile, &self.context) {
            (DockerfilePlace::Stdin | DockerfilePlace::Plan(None), _) => None,
            (DockerfilePlace::Path(path) | DockerfilePlace::Plan(Some(path)), _) => {
                Some(path.clone())
            }
            (DockerfilePlace::Default, Place::Directory(context)) => Some(default_file(context)),
            (DockerfilePlace::Default, _) => None,
        }
    }

    /// Reads a Dockerfile of this host.
    fn local_source(&self) -> Result<Source, BuildError> {
        let path = self.dockerfile_path();
        let name = path
            .as_ref()
            .map_or_else(|| "-".to_owned(), |path| path.display().to_string());
        let fail = |source| BuildError::Read {
            name: name.clone(),
            source,
        };
        match &path {
            Some(path) => {
                let file = std::fs::File::open(path).map_err(fail)?;
                read_source(&name, file, self.dockerfile.bytes_max())
            }
            None => read_source(&name, std::io::stdin().lock(), self.dockerfile.bytes_max()),
        }
    }
}

/// Where the images of OCI layouts are named while a build uses them: no registry can be called so.
const LAYOUTS: &str = "context.teu.invalid/";

/// The name under which an OCI layout's image is in the store while a build uses it.
pub(crate) fn layout_name(layout: &str) -> String {
    let digest = Digest::of(layout.as_bytes());
    format!("{LAYOUTS}{}:{}", digest.hex(), std::process::id())
}

/// Whether a name is one of [`layout_name`]'s.
pub(crate) fn is_of_layout(name: &str) -> bool {
    name.starts_with(LAYOUTS)
}

/// `Dockerfile`, else what else it may be called, where that is there.
fn default_file(context: &Path) -> PathBuf {
    let found = DOCKERFILE_NAMES.iter().map(|name| context.join(name));
    let first = found.clone().find(|path| path.exists());
    first.unwrap_or_else(|| context.join(DOCKERFILE_NAMES[0]))
}

fn default_name_in(root: &Root) -> Result<&'static str, BuildError> {
    for name in DOCKERFILE_NAMES {
        if root
            .meta(Path::new(name))
            .map_err(ContextError::from)?
            .is_some()
        {
            return Ok(name);
        }
    }
    Ok(DOCKERFILE_NAMES[0])
}

/// Reads a Dockerfile of a tree, whatever links lead to it.
fn source_in(root: &Root, name: &str) -> Result<Source, BuildError> {
    let file = root
        .open_file(Path::new(name))
        .map_err(|error| BuildError::Read {
            name: name.to_owned(),
            source: error.source.into(),
        })?;
    read_source(name, file, DOCKERFILE_BYTES_MAX)
}

fn read_source(name: &str, file: impl Read, bytes_max: u64) -> Result<Source, BuildError> {
    let mut text = String::new();
    file.take(bytes_max + 1)
        .read_to_string(&mut text)
        .map_err(|source| BuildError::Read {
            name: name.to_owned(),
            source,
        })?;
    if text.len() as u64 > bytes_max {
        return Err(BuildError::TooLong {
            name: name.to_owned(),
            bytes_max,
        });
    }
    Ok(Source {
        name: name.to_owned(),
        text,
    })
}
