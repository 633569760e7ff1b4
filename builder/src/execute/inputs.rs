//! What a step's key is made of, in words; the counterpart of `key.rs`, made only for steps that ran.

use super::{Executor, StepError};
use crate::cache::{Below, FileInput, FileInputs, Inputs};
use crate::copy::digest::{Digested, View};
use crate::copy::items::{All, Group, Item};
use crate::copy::select::Origin as SelectOrigin;
use crate::plan::{Copy, CopySource, Directory, Mount, MountKind, Origin, Run, Step, Tree};
use crate::tree::{Kind, Root, TreeError};
use sha2::{Digest as _, Sha256};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Bytes of a hash that are kept to tell two contents apart, in a record that decides nothing.
const HASH_BYTES: usize = 8;

/// A step's inputs; its files, of which there may be many, are told one by one.
pub(super) struct Described<'a> {
    pub(super) inputs: Inputs,
    pub(super) files: Vec<Box<dyn FileInputs + 'a>>,
}

impl From<Inputs> for Described<'_> {
    fn from(inputs: Inputs) -> Self {
        Self {
            inputs,
            files: Vec::new(),
        }
    }
}

/// The files of groups: borrowed ones of a copy, or the own ones of a mount.
struct FilesOf<'a, G, D> {
    root: &'a Root,
    groups: G,
    digested: D,
    view: View<'a>,
}

impl<'a, G: AsRef<[Group]>, D: Borrow<Digested<'a>>> FileInputs for FilesOf<'a, G, D> {
    fn each(&self, tell: &mut dyn FnMut(&str, &FileInput) -> io::Result<()>) -> io::Result<()> {
        let reading = self.digested.borrow().reading();
        All::of(self.groups.as_ref()).each(&mut |number, item| {
            let mut file = file_input(&item, &self.view);
            let print = reading.print(number);
            if item.meta.kind == Kind::File {
                file.content = beginning(&print.content);
            }
            if print.xattrs.is_some() {
                file.xattrs = xattrs(self.root, &item).map_err(io::Error::other)?;
            }
            if item.meta.kind == Kind::Symlink {
                let target = self.root.read_link(item.source);
                let target = target.map_err(io::Error::other)?;
                file.kind = format!("link to {}", target.display());
            }
            let path = item.source.to_string_lossy();
            tell(path.trim_start_matches('/'), &file)
        })
    }
}

impl Executor<'_> {
    /// What every step has.
    fn common_inputs(&self, step: &Step) -> Inputs {
        Inputs {
            dockerfile: self.settings.dockerfile.clone(),
            place: step.place.clone(),
            text: step.text.clone(),
            values: [(
                "SOURCE_DATE_EPOCH".to_owned(),
                self.epoch.0.seconds.to_string(),
            )]
            .into(),
            files: BTreeMap::new(),
            parent: self.below(step.parent),
            ignored: Vec::new(),
        }
    }

    /// The layers of a tree, each with what made it.
    fn below(&self, tree: Tree) -> Vec<Below> {
        let mut tree = tree;
        let mut steps = Vec::new();
        while let Tree::Step(index) = tree {
            steps.push(index);
            tree = self.plan.steps[index].parent;
        }
        let mut below = Vec::new();
        if let Tree::Image(index) = tree {
            let image = &self.plan.images[index];
            below.extend(image.layers.iter().map(|layer| Below {
                layer: *layer,
                maker: image.name.clone(),
                base: true,
            }));
        }
        for index in steps.into_iter().rev() {
            if let Some(layer) = self.layers(Tree::Step(index)).last() {
                let step = &self.plan.steps[index];
                below.push(Below {
                    layer: *layer,
                    maker: format!("[{}] {}", step.place, step.text),
                    base: false,
                });
            }
        }
        below
    }

    /// `WORKDIR`.
    pub(super) fn directory_inputs(&self, step: &Step, directory: &Directory) -> Inputs {
        let mut inputs = self.common_inputs(step);
        inputs
            .values
            .insert("the directory".to_owned(), directory.path.clone());
        inputs
            .values
            .insert("its owner".to_owned(), directory.owner.clone());
        inputs
    }

    /// `RUN`.
    pub(super) fn run_inputs(&self, step: &Step, run: &Run) -> Result<Described<'_>, StepError> {
        let mut inputs = self.common_inputs(step);
        let mut value = |name: &str, value: String| inputs.values.insert(name.to_owned(), value);
        value("the command", run.args.join(" "));
        value("the working directory", run.cwd.clone());
        value("the user", run.user.clone());
        value("the security mode", format!("insecure: {}", run.insecure));
        value("the network", format!("{:?}", run.network).to_lowercase());
        if let Some(name) = &run.hostname {
            value("the host name", name.clone());
        }
        if let Some((_, text)) = &run.script {
            value("the script", text.clone());
        }
        for variable in &run.env {
            let (name, text) = variable.split_once('=').unwrap_or((variable, ""));
            let kind = if run.arguments.iter().any(|argument| argument == name) {
                "ARG"
            } else {
                "ENV"
            };
            value(&format!("{kind} {name}"), text.to_owned());
        }
        let mut described = Described::from(inputs);
        for mount in &run.mounts {
            self.mount_inputs(mount, &mut described)?;
        }
        Ok(described)
    }

    fn mount_inputs<'a>(
        &'a self,
        mount: &Mount,
        described: &mut Described<'a>,
    ) -> Result<(), StepError> {
        let what = match &mount.kind {
            MountKind::Bind {
                origin: origin @ (Origin::Context | Origin::Named(_) | Origin::Remote),
                source,
                writable,
            } => {
                let (groups, digested) = self.context_content(*origin, Path::new(source))?;
                let origin = self.context_origin(*origin);
                described.inputs.ignored = origin.rules.texts().map(str::to_owned).collect();
                described.files.push(Box::new(FilesOf {
                    root: origin.root,
                    groups,
                    digested,
                    view: View {
                        mode: None,
                        owners: false,
                    },
                }));
                format!("{source} of the context, writable: {writable}")
            }
            MountKind::Bind {
                origin: Origin::Tree(tree),
                source,
                writable,
            } => {
                let layers: Vec<String> = self
                    .layers(*tree)
                    .iter()
                    .map(|layer| layer.0.short())
                    .collect();
                format!("{source} of {}, writable: {writable}", layers.join(" "))
            }
            MountKind::Cache { writable, .. } => format!("a cache, writable: {writable}"),
            MountKind::Tmpfs { size } => format!("a tmpfs, size: {size:?}"),
            MountKind::Secret {
                id,
                env,
                file,
                mode,
                uid,
                gid,
                ..
            } => {
                format!("the secret {id}, {env:?}, file: {file}, {mode:o} {uid}:{gid}")
            }
            MountKind::Ssh {
                id, mode, uid, gid, ..
            } => format!("the agent {id}, {mode:o} {uid}:{gid}"),
        };
        let values = &mut described.inputs.values;
        values.insert(format!("the mount {}", mount.target), what);
        Ok(())
    }

    /// `COPY` and `ADD`.
    pub(super) fn copy_inputs<'a>(
        &self,
        step: &Step,
        copy: &'a Copy,
        origin: &SelectOrigin<'a>,
        groups: &'a [Group],
        digested: &'a Digested<'a>,
    ) -> Described<'a> {
        let mut inputs = self.common_inputs(step);
        let mut value = |name: &str, value: String| inputs.values.insert(name.to_owned(), value);
        value("the destination", copy.destination.clone());
        value("--chown", copy.owner.clone().unwrap_or_default());
        value("--chmod", format!("{:?}", copy.mode));
        value("--link", copy.link.to_string());
        value("--unpack", copy.unpack.to_string());
        for source in &copy.sources {
            if let CopySource::Inline { name, content } = source {
                value(&format!("the heredoc {name}"), content.clone());
            }
        }
        inputs.ignored = origin.rules.texts().map(str::to_owned).collect();
        Described {
            inputs,
            files: vec![Box::new(FilesOf {
                root: origin.root,
                groups,
                digested,
                view: copy_view(copy),
            })],
        }
    }
}

/// What of the copied files counts: what the layer will show.
pub(super) fn copy_view(copy: &Copy) -> View<'_> {
    View {
        mode: copy.mode.as_ref(),
        owners: copy.origin.tree().is_some() && copy.owner.is_none(),
    }
}

fn file_input(item: &Item<'_>, view: &View<'_>) -> FileInput {
    let kind = match item.meta.kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "link",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
        Kind::Block(..) | Kind::Character(..) => "device",
    };
    FileInput {
        kind: kind.to_owned(),
        mode: view.mode(&item.meta),
        owner: view.owners.then_some((item.meta.uid, item.meta.gid)),
        ..FileInput::default()
    }
}

fn xattrs(root: &Root, item: &Item<'_>) -> Result<BTreeMap<String, String>, TreeError> {
    let pairs = root.xattrs(item.source)?.into_iter().map(|(name, value)| {
        (
            name.to_string_lossy().into_owned(),
            beginning(&Sha256::digest(&value)),
        )
    });
    Ok(pairs.collect())
}

fn beginning(hash: &[u8]) -> String {
    hash.iter()
        .take(HASH_BYTES)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
