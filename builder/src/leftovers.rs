//! What builds that were killed left behind: containers that still run, roots that still pin.
//!
//! A build's files lie in `tmp/<work>/`, whose `lock` it holds while it lives; the folder
//! `runtime` in it, its containers' states, tells it from other work in the store. Its roots are
//! called `build-<work>-<number>`. All three are put away here, at the start of the next build.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use teu_store::Store;

/// Starts the names of roots that builds hold.
pub(crate) const ROOT_PREFIX: &str = "build-";

/// The folder of container states within a build's own.
pub(crate) const STATES: &str = "runtime";

/// Ends containers of builds in the store at `store` that are dead. Of an ordinary user's this must be done from outside of
/// any namespace of ours: a user has power over its namespaces, but none of them over another.
pub fn end_abandoned(store: &Path, runtime: &Path) {
    for states in abandoned(&store.join("tmp")) {
        end_containers(&states, runtime);
    }
}

/// The folders of containers' states of builds that are dead.
fn abandoned(work: &Path) -> impl Iterator<Item = PathBuf> {
    let builds = folders(work).into_iter();
    let of_dead = |folder: PathBuf| {
        let states = folder.join(STATES);
        (states.is_dir() && is_dead(&folder)).then_some(states)
    };
    builds.filter_map(of_dead)
}

/// Removes files and releases roots of builds that are dead, whose containers have been ended. Best effort: what cannot
/// be put away now is in the next build's way as little as in this one's.
pub fn put_away(store: &Store) {
    let work = store.root_path().join("tmp");
    for states in abandoned(&work) {
        let _ = states.parent().map(std::fs::remove_dir_all);
    }
    // A build that was killed while it put its own away has no states any more.
    store.put_away_dead();
    for root in folders(&store.root_path().join("roots")) {
        let Some(name) = root.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let Some(owner) = name
            .strip_prefix(ROOT_PREFIX)
            .and_then(|rest| rest.rsplit_once('-'))
            .map(|(owner, _)| owner)
        else {
            continue;
        };
        if is_dead(&work.join(owner)) {
            let _ = store.release_root(name);
        }
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Whether nobody holds a build's lock any more; one without lock is gone or not yet there.
fn is_dead(folder: &Path) -> bool {
    match File::open(folder.join("lock")) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(_) => !folder.exists(),
    }
}

fn end_containers(states: &Path, runtime: &Path) {
    for state in folders(states) {
        let Some(id) = state.file_name() else {
            continue;
        };
        let mut command = Command::new(runtime);
        command
            .env_clear()
            .arg("--root")
            .arg(states)
            .args(["delete", "--force"])
            .arg(id);
        let _ = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
