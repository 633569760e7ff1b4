//! What a step's key is made of, in words; the counterpart of `key.rs`, made only for steps that ran.

use super::{Executor, StepError};
use crate::cache::{Below, FileInput, Inputs};
use crate::copy::digest::{Digested, View, printed};
use crate::copy::select::{Group, Item, Origin as SelectOrigin};
use crate::plan::{Copy, CopySource, Directory, Mount, MountKind, Origin, Run, Step, Tree};
use crate::tree::{Kind, Root};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of a hash that are kept to tell two contents apart, in a record that decides nothing.
const HASH_BYTES: usize = 8;

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
    pub(super) fn run_inputs(&self, step: &Step, run: &Run) -> Result<Inputs, StepError> {
        let mut inputs = self.common_inputs(step);
        let mut value = |name: &str, value: String| inputs.values.insert(name.to_owned(), value);
        value("the command", run.args.join(" "));
        value("the working directory", run.cwd.clone());
        value("the user", run.user.clone());
        value("the security mode", format!("insecure: {}", run.insecure));
        value("the network", format!("{:?}", run.network).to_lowercase());
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
        for mount in &run.mounts {
            self.mount_inputs(mount, &mut inputs)?;
        }
        Ok(inputs)
    }

    fn mount_inputs(&self, mount: &Mount, inputs: &mut Inputs) -> Result<(), StepError> {
        let what = match &mount.kind {
            MountKind::Bind {
                origin: origin @ (Origin::Context | Origin::Named(_) | Origin::Remote),
                source,
                writable,
            } => {
                let (groups, digested) = self.context_content(*origin, Path::new(source))?;
                let view = View {
                    mode: None,
                    owners: false,
                };
                let origin = self.context_origin(*origin);
                self.add_files(inputs, &origin, &groups, &digested, &view)?;
                inputs.ignored = origin.rules.texts().map(str::to_owned).collect();
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
        inputs
            .values
            .insert(format!("the mount {}", mount.target), what);
        Ok(())
    }

    /// `COPY` and `ADD`.
    pub(super) fn copy_inputs(
        &self,
        step: &Step,
        copy: &Copy,
        origin: &SelectOrigin<'_>,
        groups: &[Group],
        digested: &Digested,
    ) -> Result<Inputs, StepError> {
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
        let view = copy_view(copy);
        self.add_files(&mut inputs, origin, groups, digested, &view)?;
        inputs.ignored = origin.rules.texts().map(str::to_owned).collect();
        Ok(inputs)
    }

    fn add_files(
        &self,
        inputs: &mut Inputs,
        origin: &SelectOrigin<'_>,
        groups: &[Group],
        digested: &Digested,
        view: &View<'_>,
    ) -> Result<(), StepError> {
        for (item, print) in printed(groups).zip(&digested.prints) {
            let mut file = file_input(item, view);
            if item.meta.kind == Kind::File {
                file.content = beginning(&print.content);
            }
            if print.xattrs.is_some() {
                file.xattrs = xattrs(origin.root, item)?;
            }
            inputs.files.insert(shown(item), file);
        }
        let others = groups
            .iter()
            .flat_map(Group::items)
            .filter(|item| !matches!(item.meta.kind, Kind::File | Kind::Directory));
        for item in others {
            let mut file = file_input(item, view);
            if item.meta.kind == Kind::Symlink {
                let target = origin.root.read_link(&item.source)?;
                file.kind = format!("link to {}", target.display());
            }
            inputs.files.insert(shown(item), file);
        }
        Ok(())
    }
}

/// What of the copied files counts: what the layer will show.
pub(super) fn copy_view(copy: &Copy) -> View<'_> {
    View {
        mode: copy.mode.as_ref(),
        owners: copy.origin.tree().is_some() && copy.owner.is_none(),
    }
}

fn shown(item: &Item) -> String {
    item.source
        .to_string_lossy()
        .trim_start_matches('/')
        .to_owned()
}

fn file_input(item: &Item, view: &View<'_>) -> FileInput {
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

fn xattrs(root: &Root, item: &Item) -> Result<BTreeMap<String, String>, StepError> {
    let pairs = root.xattrs(&item.source)?.into_iter().map(|(name, value)| {
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
