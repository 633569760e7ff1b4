//! What a build will do, as a value: a graph of steps, made without touching anything.
//!
//! ```text
//! stages.rs     statements -> stages, and the variables before the first FROM
//! build.rs      from the target backwards: only stages that are needed are planned
//! evaluate.rs   one stage: instructions change the configuration or become steps
//! metadata.rs   ENV, LABEL, CMD and their kin: changes of the image configuration
//! filesystem.rs RUN, COPY, ADD, WORKDIR: steps
//! mounts.rs     RUN --mount
//! remote.rs     ADD of URLs and git repositories
//! join.rs       the plans for several platforms -> one
//! read.rs       a plan from outside, checked
//! outline.rs    what a build can be given: arguments, secrets, agents
//! ```
//!
//! A step names the tree it starts from and the trees it reads. Steps stand in an order
//! in which each comes after those it needs, so the graph has no cycles by construction.

mod build;
mod dot;
mod evaluate;
mod filesystem;
mod join;
mod metadata;
mod mounts;
mod outline;
mod read;
mod remote;
mod stages;

pub use build::{Checked, check, plan, warnings_before};
pub use mounts::bytes;
pub use outline::{Known, Outline, description};
pub use read::{BadPlan, PLAN_BYTES_MAX, read};
pub use stages::{declared, is_asked};

use crate::dockerfile::Span;
use crate::lint::Warning;
use crate::modes::ModeChange;
use crate::pattern::ignore::Rules;
use crate::remote::{GitSource, HttpSource};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use teu_store::digest::DiffId;
use teu_store::image::{ImageConfig, Platform};

/// Marks the lines of an image's history that this builder wrote.
pub const HISTORY_COMMENT: &str = "teu.dockerfile.v0";

/// What the command line says about a build.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--build-arg` in order; the last of a name counts.
    pub build_args: Vec<(String, String)>,
    /// `--label`: what the image gets beside, or instead of, the Dockerfile's.
    pub labels: Vec<(String, String)>,
    /// `--target`; by default the last stage.
    pub target: Option<String>,
    /// What the image is for.
    pub platform: Platform,
    /// What steps run on: this machine.
    pub build_platform: Platform,
    /// `--build-context`: what a name means instead of the image or stage of that name.
    pub contexts: Vec<(String, NamedContext)>,
    /// `--allow`.
    pub allow: Vec<Entitlement>,
    /// `--network`: what RUN steps see that ask for none in particular.
    pub network: Network,
    /// What the ignore file of the context excludes, for the lint rule about it.
    pub ignore: Rules,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            build_args: Vec::new(),
            labels: Vec::new(),
            target: None,
            platform: Platform::host(),
            build_platform: Platform::host(),
            contexts: Vec::new(),
            allow: Vec::new(),
            network: Network::default(),
            ignore: Rules::default(),
        }
    }
}

/// What a name given with `--build-context` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// Files: the position among the build's named contexts.
    Files(usize),
    /// An image, by the name that the store or a registry has it under.
    Image(String),
}

/// What a RUN may only do when the command line allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entitlement {
    /// `RUN --network=host`.
    NetworkHost,
    /// `RUN --security=insecure`.
    SecurityInsecure,
}

/// Where base images come from; a map in tests, the store and registries otherwise.
pub trait Images {
    /// The image of a name, for a platform.
    ///
    /// # Errors
    /// Whatever keeps it from being here.
    fn image(
        &mut self,
        name: &str,
        platform: &Platform,
    ) -> Result<Image, Box<dyn std::error::Error + Send + Sync>>;
}

/// An image that a build starts from or copies from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// Its name as the Dockerfile has it.
    pub name: String,
    /// For what it was asked for.
    pub platform: Platform,
    /// Its layers, bottom first.
    pub layers: Vec<DiffId>,
    /// Its configuration.
    pub config: ImageConfig,
}

/// A file system at some point of the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tree {
    /// `FROM scratch`.
    Empty,
    /// The image of that position in [`Plan::images`].
    Image(usize),
    /// What the step of that position leaves.
    Step(usize),
}

/// Where copied or mounted files come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The build context.
    Context,
    /// A named context, by its position.
    Named(usize),
    /// A stage or an image.
    Tree(Tree),
    /// What the sources themselves say: URLs and git repositories.
    Remote,
}

/// A whole build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The images it needs.
    pub images: Vec<Image>,
    /// All steps; each needs only earlier ones.
    pub steps: Vec<Step>,
    /// What comes out, a platform each.
    pub results: Vec<Target>,
    /// What the user should hear: build arguments that nothing declares.
    pub warnings: Vec<String>,
    /// What is allowed and probably a mistake.
    #[serde(skip)]
    pub lint: Vec<Warning>,
    /// What the build can be given.
    #[serde(skip)]
    pub outline: Outline,
}

/// One image that comes out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// What it is for.
    pub platform: Platform,
    /// Its file system.
    pub tree: Tree,
    /// Its configuration; its layers are known only after the build.
    pub config: ImageConfig,
}

/// One change of a file system, which becomes one layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// The file system before it.
    pub parent: Tree,
    /// The change.
    pub operation: Operation,
    /// `build 2/5`: the stage and the step's place in it.
    pub place: String,
    /// The instruction as it stands in the Dockerfile, without passwords.
    pub text: String,
    /// Its bytes in the Dockerfile.
    #[serde(skip)]
    pub span: Span,
}

/// What a step does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Execute a program.
    Run(Box<Run>),
    /// Copy files.
    Copy(Box<Copy>),
    /// Make a directory with its parents, if it is not there.
    Directory(Directory),
}

/// `WORKDIR`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Directory {
    /// Absolute and clean.
    pub path: String,
    /// Who owns what is made, as `USER` said; empty is root.
    pub owner: String,
}

/// `RUN`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// Program and arguments.
    pub args: Vec<String>,
    /// The environment, `NAME=value`.
    pub env: Vec<String>,
    /// Which of the variables were declared by ARG.
    #[serde(skip)]
    pub arguments: Vec<String>,
    /// Proxies of the build, `NAME=value`: in the environment, not in the cache key.
    #[serde(skip)]
    pub proxies: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// As `USER` said; empty is root.
    pub user: String,
    /// What its machine is called, instead of the usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Which network it sees.
    pub network: Network,
    /// All capabilities, all devices, nothing filtered or hidden.
    pub insecure: bool,
    /// For what its programs are, where this machine's processor does not run them by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulated: Option<Platform>,
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
    /// A heredoc that is a script of its own: its name below `/dev/pipes`, and its text.
    pub script: Option<(String, String)>,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The host's.
    #[default]
    Host,
    /// A loopback device only.
    None,
}

/// `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it appears; absolute.
    pub target: String,
    /// What appears there.
    pub kind: MountKind,
}

/// The types of `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// Files of the context, a stage or an image; what is written there is thrown away.
    Bind {
        /// Where from.
        origin: Origin,
        /// The file or directory in it; absolute.
        source: String,
        /// Whether writing is possible.
        writable: bool,
    },
    /// A directory that stays between builds.
    Cache {
        /// Which one.
        id: String,
        /// How two steps at once share it.
        sharing: Sharing,
        /// The directory in the cache.
        source: String,
        /// Whether writing is possible.
        writable: bool,
        /// Permissions of a new one.
        mode: u32,
        /// Owner of a new one.
        uid: u32,
        /// Group of a new one.
        gid: u32,
        /// What a new one is filled with: the files at `source`.
        from: Option<Origin>,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Its limit in bytes.
        size: Option<u64>,
    },
    /// A secret of the command line; its value is in no key and no layer.
    Secret {
        /// Which one.
        id: String,
        /// Whether its lack is an error.
        required: bool,
        /// The variable that holds it.
        env: Option<String>,
        /// Whether it appears as a file, too.
        file: bool,
        /// The file's permissions.
        mode: u32,
        /// The file's owner.
        uid: u32,
        /// The file's group.
        gid: u32,
    },
    /// The socket of an agent that the command line names.
    Ssh {
        /// Which one.
        id: String,
        /// Whether its lack is an error.
        required: bool,
        /// The socket's permissions.
        mode: u32,
        /// The socket's owner.
        uid: u32,
        /// The socket's group.
        gid: u32,
    },
}

/// `--mount=type=cache,sharing=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// All use it at once.
    Shared,
    /// Who comes second gets another one.
    Private,
    /// Who comes second waits.
    Locked,
}

/// `COPY` or `ADD`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Copy {
    /// Where the paths lead.
    pub origin: Origin,
    /// What to copy, in order.
    pub sources: Vec<CopySource>,
    /// Where to: absolute; a `/` at the end makes it a directory in any case.
    pub destination: String,
    /// Owner and group as names or numbers, empty for 0:0.
    pub owner: Option<String>,
    /// Permissions.
    pub mode: Option<ModeChange>,
    /// The layer does not depend on what is below.
    pub link: bool,
    /// The sources keep their directories.
    pub parents: bool,
    /// Patterns that are left out.
    pub exclude: Vec<String>,
    /// Archives are unpacked.
    pub unpack: bool,
}

/// One source of a [`struct@Copy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopySource {
    /// A path or pattern, absolute in its origin, and with `--parents` the part to keep.
    Path {
        /// Where to start.
        path: String,
        /// With `--parents`: a pattern below `path`, whose directories are kept.
        keep: Option<String>,
    },
    /// A file written in the Dockerfile.
    Inline {
        /// Its name.
        name: String,
        /// Its text.
        content: String,
    },
    /// A file to download.
    Http(HttpSource),
    /// A git repository to clone.
    Git(GitSource),
}

impl Plan {
    /// The images that a tree comes from, and those that its steps read, by their positions.
    pub fn images_of(&self, tree: Tree) -> BTreeSet<usize> {
        let (mut images, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![tree];
        while let Some(tree) = open.pop() {
            match tree {
                Tree::Empty => {}
                Tree::Image(place) => drop(images.insert(place)),
                Tree::Step(place) if seen.insert(place) => {
                    let step = &self.steps[place];
                    open.push(step.parent);
                    open.extend(step.inputs());
                }
                Tree::Step(_) => {}
            }
        }
        images
    }
}

impl Step {
    /// The trees it reads besides its parent.
    pub fn inputs(&self) -> Vec<Tree> {
        match &self.operation {
            Operation::Run(run) => run
                .mounts
                .iter()
                .filter_map(|mount| mount.kind.tree())
                .collect(),
            Operation::Copy(copy) => copy.origin.tree().into_iter().collect(),
            Operation::Directory(_) => Vec::new(),
        }
    }

    /// The name of the stage that it is a step of.
    pub fn stage(&self) -> &str {
        let (stage, _) = self.place.rsplit_once(' ').unwrap_or((&self.place, ""));
        stage.rsplit(' ').next().unwrap_or_default()
    }

    /// The steps that must be done before it.
    pub fn needs(&self) -> Vec<usize> {
        let trees = self.inputs().into_iter().chain([self.parent]);
        let mut needs: Vec<usize> = trees
            .filter_map(|tree| {
                if let Tree::Step(step) = tree {
                    Some(step)
                } else {
                    None
                }
            })
            .collect();
        needs.sort_unstable();
        needs.dedup();
        needs
    }
}

impl Origin {
    /// The tree it is, if it is not the context.
    pub fn tree(self) -> Option<Tree> {
        match self {
            Self::Context | Self::Named(_) | Self::Remote => None,
            Self::Tree(tree) => Some(tree),
        }
    }

    /// Whether its files are read in place, from a directory of the host.
    pub fn is_context(self) -> bool {
        matches!(self, Self::Context | Self::Named(_))
    }
}

impl MountKind {
    fn tree(&self) -> Option<Tree> {
        match self {
            Self::Bind { origin, .. } => origin.tree(),
            Self::Cache { from, .. } => from.and_then(Origin::tree),
            Self::Tmpfs { .. } | Self::Secret { .. } | Self::Ssh { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
