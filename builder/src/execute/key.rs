//! What identifies a step's result: what it does, and the content it can see.
//!
//! Not in a key: positions in the Dockerfile, names of stages, times of files, the values of
//! proxies and secrets, the ids of cache mounts.

use super::{Executor, StepError};
use crate::cache::Key;
use crate::context::Fingerprint;
use crate::plan::{Copy, Directory, Mount, MountKind, Origin, Run};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use teu_store::DiffId;

#[derive(Serialize)]
struct Material<'a> {
    operation: Value,
    parent: &'a [DiffId],
    /// The latest time that the layer can carry.
    epoch: i64,
}

/// Which state of the context counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The one that all steps of a build share.
    First,
    /// The one that it is in now.
    Now,
}

impl Executor<'_> {
    fn key(&self, operation: Value, parent: &[DiffId]) -> Result<Key, StepError> {
        Ok(Key::of(&Material {
            operation,
            parent,
            epoch: self.epoch.0.seconds,
        })?)
    }

    /// `WORKDIR`.
    pub(super) fn directory_key(
        &self,
        directory: &Directory,
        parent: &[DiffId],
    ) -> Result<Key, StepError> {
        self.key(json!({ "directory": directory }), parent)
    }

    /// `RUN`: the parent by its layers, mounted files by their content.
    pub(super) fn run_key(
        &self,
        run: &Run,
        parent: &[DiffId],
        seen: Seen,
    ) -> Result<Key, StepError> {
        let mounts = run
            .mounts
            .iter()
            .map(|mount| self.mount_key(mount, seen))
            .collect::<Result<Vec<_>, _>>()?;
        let mut operation = json!({
            "run": run.args,
            "env": run.env,
            "cwd": run.cwd,
            "user": run.user,
            "network": run.network,
            "insecure": run.insecure,
            "script": run.script,
            "mounts": mounts,
        });
        if let Some(name) = &run.hostname {
            operation["hostname"] = json!(name);
        }
        self.key(operation, parent)
    }

    fn mount_key(&self, mount: &Mount, seen: Seen) -> Result<Value, StepError> {
        Ok(match &mount.kind {
            MountKind::Bind {
                origin: origin @ (Origin::Context | Origin::Named(_) | Origin::Remote),
                source,
                writable,
            } => {
                let path = Path::new(source);
                let content = match seen {
                    Seen::First => self.context_content(*origin, path)?.1,
                    Seen::Now => self.context_content_now(*origin, path)?,
                };
                json!(["context", mount.target, writable, hex(&content.sum)])
            }
            MountKind::Bind {
                origin: Origin::Tree(tree),
                source,
                writable,
            } => {
                json!(["tree", mount.target, writable, source, self.layers(*tree)])
            }
            MountKind::Cache { writable, .. } => json!(["cache", mount.target, writable]),
            MountKind::Tmpfs { size } => json!(["tmpfs", mount.target, size]),
            MountKind::Secret {
                id,
                env,
                file,
                mode,
                uid,
                gid,
                ..
            } => {
                json!(["secret", mount.target, id, env, file, mode, uid, gid])
            }
            MountKind::Ssh {
                id, mode, uid, gid, ..
            } => json!(["ssh", mount.target, id, mode, uid, gid]),
        })
    }

    /// `COPY --from`, before its files are looked at: their whole tree by its layers.
    pub(super) fn copy_definition_key(
        &self,
        copy: &Copy,
        source: &[DiffId],
        parent: &[DiffId],
    ) -> Result<Key, StepError> {
        self.key(json!({ "copy": placing(copy), "sources": copy.sources, "exclude": copy.exclude, "from": source }), parent)
    }

    /// `ADD` of what is fetched, by the names of the content.
    pub(super) fn copy_remote_key(
        &self,
        copy: &Copy,
        sources: &[Value],
        parent: &[DiffId],
    ) -> Result<Key, StepError> {
        self.key(
            json!({ "copy": placing(copy), "remote": sources, "exclude": copy.exclude }),
            parent,
        )
    }

    /// `COPY` and `ADD`, by the content that they select.
    pub(super) fn copy_content_key(
        &self,
        copy: &Copy,
        content: &Fingerprint,
        parent: &[DiffId],
    ) -> Result<Key, StepError> {
        self.key(
            json!({ "copy": placing(copy), "content": hex(content) }),
            parent,
        )
    }

    /// A layer by all that will be in it.
    pub(super) fn placed_key(&self, placed: &Fingerprint) -> Result<Key, StepError> {
        self.key(json!({ "placed": hex(placed) }), &[])
    }
}

/// How the files are placed; which they are is the content's part.
fn placing(copy: &Copy) -> Value {
    json!({
        "destination": copy.destination,
        "owner": copy.owner,
        "mode": copy.mode,
        "link": copy.link,
        "unpack": copy.unpack,
        "keep_owner": copy.origin.tree().is_some(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
