//! ADD of URLs and git repositories: fetched into the build's own folder, then copied as files are.

use super::copy::NO_RULES;
use super::{Executor, StepError};
use crate::cache::{Key, Outcome};
use crate::copy::CopyError;
use crate::copy::items::{Group, Single};
use crate::copy::select::{Origin as SelectOrigin, select};
use crate::pattern::ignore::Rules;
use crate::plan::{Copy, CopySource, Step};
use crate::remote::git::{Commit, SecretOf};
use crate::remote::{GitSource, HttpSource, git, http};
use crate::tree::Root;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use serde_json::{Value, json};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use teu_store::DiffId;

/// Permissions of downloaded files.
const FILE_MODE: u32 = 0o600;

/// A source whose content is known by a name, before it is here.
enum Resolved<'a> {
    Http(&'a HttpSource, http::Fetched),
    Git(&'a GitSource, Commit),
}

impl Executor<'_> {
    /// `ADD` of what has to be fetched.
    pub(super) fn add_remote(
        &self,
        index: usize,
        step: &Step,
        copy: &Copy,
        parent: &[DiffId],
    ) -> Result<(DiffId, bool), StepError> {
        let sources = self.resolve_all(index, copy)?;
        let definition = self.remote_key(copy, &sources, parent)?;
        if let Some(layer) = self.find(index, std::slice::from_ref(&definition))? {
            self.note(index, Outcome::Reused);
            return Ok((layer, true));
        }
        let folder = self.storage.scratch().join(format!("fetched-{index}"));
        let made = self.fetch_all(index, copy, &sources, &folder);
        let (root, groups) = made?;
        let origin = SelectOrigin {
            root: &root,
            rules: &NO_RULES,
            ignore_file: None,
            name: "what was fetched",
        };
        let copied = self.copy_groups(
            index,
            step,
            copy,
            &origin,
            &groups,
            parent,
            vec![definition],
        );
        // What stays is removed with the build's transaction.
        let _ = std::fs::remove_dir_all(&folder);
        copied
    }

    fn resolve_all<'c>(
        &self,
        index: usize,
        copy: &'c Copy,
    ) -> Result<Vec<Resolved<'c>>, StepError> {
        let mut resolved = Vec::new();
        for source in &copy.sources {
            match source {
                CopySource::Http(source) => {
                    let cache = self.storage.cache_folder();
                    let shown = |bytes| self.progress.bytes(index + 1, "fetched", bytes);
                    let file = http::fetch(source, &cache, self.cancel, &shown);
                    let file = file.map_err(CopyError::Http)?;
                    resolved.push(Resolved::Http(source, file));
                }
                CopySource::Git(source) => {
                    let commit = self
                        .settings
                        .git(self.cancel, index)
                        .resolve(source)
                        .map_err(CopyError::Git)?;
                    resolved.push(Resolved::Git(source, commit));
                }
                CopySource::Path { .. } | CopySource::Inline { .. } => {}
            }
        }
        Ok(resolved)
    }

    /// What identifies the fetched content without looking at it.
    fn remote_key(
        &self,
        copy: &Copy,
        sources: &[Resolved<'_>],
        parent: &[DiffId],
    ) -> Result<Key, StepError> {
        let material: Vec<Value> = sources
            .iter()
            .map(|source| match source {
                Resolved::Http(source, file) => {
                    let modified = file.modified.map(seconds);
                    json!(["http", source.name, file.digest, modified])
                }
                Resolved::Git(source, commit) => {
                    let kept = (source.keep_git_dir, &source.remote);
                    let kept = source.keep_git_dir.then_some(kept);
                    json!([
                        "git",
                        commit.name,
                        source.directory,
                        source.submodules,
                        source.times,
                        kept
                    ])
                }
            })
            .collect();
        self.copy_remote_key(copy, &material, parent)
    }

    fn fetch_all(
        &self,
        index: usize,
        copy: &Copy,
        sources: &[Resolved<'_>],
        folder: &Path,
    ) -> Result<(Root, Vec<Group>), StepError> {
        let exclude = Rules::from_patterns(copy.exclude.iter().map(String::as_str));
        let exclude = exclude.map_err(CopyError::from)?;
        make_folder(folder)?;
        let root = Root::open(folder)?;
        let mut groups = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            let name = PathBuf::from(number.to_string());
            make_folder(&folder.join(&name))?;
            match source {
                Resolved::Http(source, file) => {
                    let path = name.join("file");
                    place_file(file, &folder.join(&path))?;
                    let meta = root.meta(&path)?.ok_or_else(|| gone(&path))?;
                    if exclude.excludes(&source.name) {
                        continue;
                    }
                    let single = Single { source: path, meta };
                    groups.push(Group::File(source.name.clone().into(), single));
                }
                Resolved::Git(source, commit) => {
                    let checkout = folder.join(&name);
                    let git = self.settings.git(self.cancel, index);
                    git.checkout(source, commit, &checkout)
                        .map_err(CopyError::Git)?;
                    groups.extend(repository(&root, &name, &checkout, source, &exclude)?);
                }
            }
        }
        Ok((root, groups))
    }
}

/// The files of a repository's directory, which lies in the repository whatever links lead to it.
fn repository(
    root: &Root,
    name: &Path,
    checkout: &Path,
    source: &GitSource,
    exclude: &Rules,
) -> Result<Vec<Group>, CopyError> {
    let inner = Root::open(checkout)?.resolve(Path::new(&source.directory))?;
    let path = name.join(inner);
    let origin = SelectOrigin {
        root,
        rules: &NO_RULES,
        ignore_file: None,
        name: "the repository",
    };
    if !root.meta(&path)?.is_some_and(|meta| meta.is_directory()) {
        return Err(CopyError::Missing {
            path: source.directory.clone(),
            place: "the repository",
            hint: String::new(),
        });
    }
    let whole = CopySource::Path {
        path: format!("/{}", path.display()),
        keep: None,
    };
    select(&origin, &[whole], exclude)
}

/// Puts a downloaded file in its place, with the permissions and the time that it has in the image.
fn place_file(file: &http::Fetched, to: &Path) -> Result<(), CopyError> {
    let failed = |source| CopyError::Read {
        path: file.path.clone(),
        source,
    };
    std::fs::copy(&file.path, to).map_err(failed)?;
    std::fs::set_permissions(to, Permissions::from_mode(FILE_MODE)).map_err(failed)?;
    let time = Timespec {
        tv_sec: file.modified.map_or(0, seconds),
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| failed(errno.into()))
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or(0)
}

fn make_folder(path: &Path) -> Result<(), CopyError> {
    std::fs::create_dir_all(path).map_err(|source| CopyError::Read {
        path: path.to_owned(),
        source,
    })
}

fn gone(path: &Path) -> CopyError {
    CopyError::Read {
        path: path.to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    }
}

impl SecretOf for super::Settings {
    fn secret(&self, name: &str) -> Option<String> {
        let (_, source) = self.secrets.iter().rev().find(|(own, _)| own == name)?;
        let bytes = super::mounts::read_secret(source).ok()?;
        String::from_utf8(bytes).ok()
    }
}

impl From<git::GitError> for StepError {
    fn from(error: git::GitError) -> Self {
        Self::Copy(CopyError::Git(error))
    }
}
