//! COPY, ADD and WORKDIR: layers written without a snapshot.

use super::inputs::copy_view;
use super::{Executor, StepError};
use crate::cache::Key;
use crate::context::{Context, Fingerprint, HashIndex};
use crate::copy::digest::{Digested, View, digest, placed};
use crate::copy::items::{Group, Single};
use crate::copy::place::{Placed, Placing};
use crate::copy::select::{Origin as SelectOrigin, select};
use crate::copy::{CopyError, archive, layer};
use crate::pattern::ignore::Rules;
use crate::plan::{Copy, CopySource, Directory, Origin, Step, Tree};
use crate::progress::Counted;
use crate::tree::Root;
use crate::tree::owner;
use std::path::Path;
use std::sync::Arc;
use teu_store::DiffId;

/// Rules that exclude nothing: a stage has no ignore file.
pub(super) static NO_RULES: std::sync::LazyLock<Rules> = std::sync::LazyLock::new(Rules::default);

impl Executor<'_> {
    /// `COPY` or `ADD`.
    pub(super) fn copy(
        &self,
        index: usize,
        step: &Step,
        copy: &Copy,
    ) -> Result<(DiffId, bool), StepError> {
        // A linked layer is the same above anything, unless names must be looked up in what is below.
        let names = copy
            .owner
            .as_ref()
            .is_some_and(|owner| owner.contains(|c: char| !c.is_ascii_digit() && c != ':'));
        let parent = if copy.link && !names {
            &[]
        } else {
            self.layers(step.parent)
        };
        let tree = match copy.origin {
            Origin::Tree(tree) => tree,
            Origin::Remote => return self.add_remote(index, step, copy, parent),
            Origin::Context | Origin::Named(_) => {
                let origin = self.context_origin(copy.origin);
                return self.copy_from(index, step, copy, &origin, parent, Vec::new());
            }
        };
        let definition = self.copy_definition_key(copy, self.layers(tree), parent)?;
        if let Some(layer) = self.reused(index, std::slice::from_ref(&definition))? {
            return Ok((layer, true));
        }
        let view = self.view(tree)?;
        let empty;
        let root = match &view {
            Some(view) => view.as_ref(),
            None => {
                empty = self.storage.empty()?;
                &empty
            }
        };
        let origin = SelectOrigin {
            root,
            rules: &NO_RULES,
            ignore_file: None,
            name: "the stage or image",
        };
        self.copy_from(index, step, copy, &origin, parent, vec![definition])
    }

    /// Copies from an opened origin, known under further `keys` too.
    fn copy_from(
        &self,
        index: usize,
        step: &Step,
        copy: &Copy,
        origin: &SelectOrigin<'_>,
        parent: &[DiffId],
        keys: Vec<Key>,
    ) -> Result<(DiffId, bool), StepError> {
        let groups = self.select(origin, copy)?;
        self.copy_groups(index, step, copy, origin, &groups, parent, keys)
    }

    /// Copies what was selected.
    #[allow(
        clippy::too_many_arguments,
        reason = "a step, what it copies, and how it is known"
    )]
    pub(super) fn copy_groups(
        &self,
        index: usize,
        step: &Step,
        copy: &Copy,
        origin: &SelectOrigin<'_>,
        groups: &[Group],
        parent: &[DiffId],
        mut keys: Vec<Key>,
    ) -> Result<(DiffId, bool), StepError> {
        let own = HashIndex::forgetful();
        let hashes = match copy.origin.is_context() {
            true => &self.context(copy.origin).hashes,
            false => &own,
        };
        let content = digest(origin, groups, &copy_view(copy), hashes)?;
        keys.push(self.copy_content_key(copy, &content.sum, parent)?);
        let inputs = || Ok(self.copy_inputs(step, copy, origin, groups, &content));
        self.cached(index, &keys, inputs, || {
            self.copy_layer(index, origin, copy, groups, &content)
        })
    }

    /// The context that files come from: the build's own, unless another is named.
    pub(super) fn context(&self, origin: Origin) -> &Context {
        match origin {
            Origin::Named(place) => self.named.get(place).unwrap_or(self.context),
            Origin::Context | Origin::Tree(_) | Origin::Remote => self.context,
        }
    }

    pub(super) fn context_origin(&self, origin: Origin) -> SelectOrigin<'_> {
        let context = self.context(origin);
        SelectOrigin {
            root: &context.root,
            rules: &context.rules,
            ignore_file: context.ignore_file.as_deref(),
            name: match origin {
                Origin::Named(_) => "the named context",
                Origin::Context | Origin::Tree(_) | Origin::Remote => "the context",
            },
        }
    }

    /// The file system of a tree; `None` for an empty one.
    pub(super) fn view(&self, tree: Tree) -> Result<Option<Arc<Root>>, StepError> {
        match self.layers(tree) {
            [] => Ok(None),
            layers => Ok(Some(self.storage.view(layers)?)),
        }
    }

    fn select(&self, origin: &SelectOrigin<'_>, copy: &Copy) -> Result<Vec<Group>, CopyError> {
        let exclude = Rules::from_patterns(copy.exclude.iter().map(String::as_str))?;
        select(origin, &copy.sources, &exclude)
    }

    /// What a file or directory of the context holds, for a RUN that mounts it.
    pub(super) fn context_content(
        &self,
        context: Origin,
        path: &Path,
    ) -> Result<(Vec<Group>, Digested<'_>), CopyError> {
        self.content_in(&self.context_origin(context), context, path)
    }

    /// The same, of the context as it is now.
    pub(super) fn context_content_now(
        &self,
        context: Origin,
        path: &Path,
    ) -> Result<Digested<'_>, CopyError> {
        let root = self.context(context).root.again()?;
        let origin = SelectOrigin {
            root: &root,
            ..self.context_origin(context)
        };
        Ok(self.content_in(&origin, context, path)?.1)
    }

    fn content_in(
        &self,
        origin: &SelectOrigin<'_>,
        context: Origin,
        path: &Path,
    ) -> Result<(Vec<Group>, Digested<'_>), CopyError> {
        let source = CopySource::Path {
            path: path.to_string_lossy().into_owned(),
            keep: None,
        };
        let groups = select(origin, &[source], &NO_RULES)?;
        let view = View {
            mode: None,
            owners: false,
        };
        let hashes = &self.context(context).hashes;
        let digested = digest(origin, &groups, &view, hashes)?;
        Ok((groups, digested))
    }

    fn copy_layer(
        &self,
        index: usize,
        origin: &SelectOrigin<'_>,
        copy: &Copy,
        groups: &[Group],
        content: &Digested<'_>,
    ) -> Result<(DiffId, bool), StepError> {
        let below = self.view(self.plan.steps[index].parent)?;
        let owner = copy
            .owner
            .as_ref()
            .map(|text| owner::resolve(text, below.as_deref()))
            .transpose()
            .map_err(CopyError::Owner)?;
        let below = below.as_deref().filter(|_| !copy.link);
        let keep_owner = copy.origin.tree().is_some();
        let mut placing = Placing::new(
            below,
            owner,
            keep_owner,
            copy.mode.as_ref(),
            self.epoch.now(),
        );
        let is_archive = |file: &Single| Ok(copy.unpack && archive::is_archive(origin.root, file)?);
        placing.place(groups, &copy.destination, &is_archive)?;
        let entries = placing.finish()?;
        let key = placed(&entries, Some(&content.reading()), Some(origin.root), below)?;
        self.write(index, &entries, &key, Some(origin.root), below)
    }

    /// `WORKDIR`: a layer with the directories that are missing.
    pub(super) fn make_directory(
        &self,
        index: usize,
        directory: &Directory,
        parent: Tree,
    ) -> Result<(DiffId, bool), StepError> {
        let below = self.view(parent)?;
        let owner = owner::resolve(&directory.owner, below.as_deref()).map_err(CopyError::Owner)?;
        let mut placing =
            Placing::new(below.as_deref(), Some(owner), false, None, self.epoch.now());
        placing.make_directories(Path::new(&directory.path))?;
        let entries = placing.finish()?;
        let key = placed(&entries, None, None, below.as_deref())?;
        self.write(index, &entries, &key, None, below.as_deref())
    }

    /// The layer of these entries, whose digest is `key`. The same entries make the same layer,
    /// above whatever tree.
    fn write(
        &self,
        index: usize,
        entries: &Placed<'_>,
        key: &Fingerprint,
        origin: Option<&Root>,
        below: Option<&Root>,
    ) -> Result<(DiffId, bool), StepError> {
        let key = self.placed_key(key)?;
        let latest = self.epoch.0;
        self.known_or(index, &key, || {
            self.storage.write_layer(|out| {
                let out = Counted::new(out, self.progress, index + 1);
                let sources = layer::Sources { origin, below };
                if let Some(changed) = layer::write(out, entries, sources, latest)? {
                    self.doubt(index, &format!("/{}", changed.display()));
                }
                Ok(())
            })
        })
    }
}
