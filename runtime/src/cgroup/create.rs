//! Making a container's cgroups.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;

use super::dir::{self, Dir};
use super::{Error, Group, Paths, Plan, freezer, procs, remove};

/// How often a directory is made anew when its parent vanishes meanwhile: the
/// end of another container may remove an empty parent.
const CREATE_TRIES_MAX: u32 = 8;
impl Group {
    /// Makes the cgroups. One that is there already must be empty and not frozen.
    ///
    /// With `tolerant` (not root, and no path asked for) a hierarchy without
    /// permission is left out, and always one beside those with the limits; [`Group::apply`] then refuses limits there. On
    /// an error the directories made by this call are removed again; after a
    /// kill they are found by the recorded paths.
    pub(crate) fn create(paths: &Paths, plan: &Plan, tolerant: bool) -> Result<Self, Error> {
        Self::made(paths, plan, tolerant, refuse_used)
    }

    /// Opens the cgroups that systemd has made around the container's init, and
    /// makes those of hierarchies that systemd does not keep.
    pub(super) fn take_over(paths: &Paths, plan: &Plan) -> Result<Self, Error> {
        Self::made(paths, plan, false, |_, _| Ok(()))
    }

    fn made(
        paths: &Paths,
        plan: &Plan,
        tolerant: bool,
        check: fn(&Path, &[&str]) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut group = Self {
            dirs: Vec::new(),
            is_v2: paths.is_v2(),
        };
        let mut fresh = Vec::new();
        let made = paths
            .directories()
            .into_iter()
            .try_for_each(|(path, names)| {
                match make(path, names.contains(&"cpuset")) {
                    Ok(true) => fresh.push(path.to_owned()),
                    Ok(false) => check(path, &names)?,
                    Err(Errno::ACCESS | Errno::PERM | Errno::ROFS)
                        if tolerant || (!group.is_v2 && limits_nothing(&names)) =>
                    {
                        return Ok(());
                    }
                    Err(source) => {
                        return Err(Error::Create {
                            path: path.to_owned(),
                            source,
                        });
                    }
                }
                let dir = Dir::open(path, &names).map_err(|source| Error::Open {
                    path: path.to_owned(),
                    source,
                })?;
                if names.contains(&"") {
                    enable_controllers(&dir, group.is_v2, &plan.unified_controllers)?;
                }
                group.dirs.push(dir);
                Ok(())
            });
        if let Err(error) = made {
            // The reason is worth more than what the cleaning may say.
            let _ = fresh.iter().try_for_each(|path| remove::tree(path));
            return Err(error);
        }
        Ok(group)
    }
}

/// Whether a hierarchy of a v1 or hybrid host has no controllers of its own:
/// systemd's, and cgroup2. A user whom root gave cgroups may have none there.
fn limits_nothing(names: &[&str]) -> bool {
    let nothing = |name: &&str| name.is_empty() || name.starts_with("name=");
    names.iter().all(nothing)
}

/// Makes the directory and, where they lack, its parents. Whether it is new.
fn make(path: &Path, is_cpuset: bool) -> Result<bool, Errno> {
    for _ in 0..CREATE_TRIES_MAX {
        match mkdirat(CWD, path, Mode::from(0o755)) {
            Ok(()) => {
                if is_cpuset {
                    inherit_cpuset(path)?;
                }
                return Ok(true);
            }
            Err(Errno::EXIST) => return Ok(false),
            Err(Errno::NOENT) => make(path.parent().ok_or(Errno::NOENT)?, is_cpuset)?,
            Err(other) => return Err(other),
        };
    }
    Err(Errno::NOENT)
}

/// A new v1 cpuset is empty and cannot hold a process before it has CPUs and
/// memory nodes; it gets its parent's, who has some by the same rule or is the root.
fn inherit_cpuset(path: &Path) -> Result<(), Errno> {
    let parent = Dir::open(path.parent().ok_or(Errno::NOENT)?, &[])?;
    let dir = Dir::open(path, &[])?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut list = parent.try_read(file)?;
        if list.trim().is_empty() {
            inherit_cpuset(parent.path())?;
            list = parent.try_read(file)?;
        }
        dir.try_write(file, list.trim())?;
    }
    Ok(())
}

/// A cgroup with processes would share its limits and its end with the container.
pub(super) fn refuse_used(path: &Path, names: &[&str]) -> Result<(), Error> {
    let count = procs::all_in(path)?.len();
    if count > 0 {
        return Err(Error::NotEmpty {
            path: path.to_owned(),
            count,
        });
    }
    let has_freezer = names.contains(&"freezer") || names.contains(&"");
    if has_freezer && freezer::is_frozen_at(path, names.contains(&""))? {
        return Err(Error::Frozen {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Makes controllers available in a cgroup2 by enabling them from the root down
/// (`cgroup.subtree_control`): all there are on a v2 host, on a hybrid host
/// those needed. What cannot be enabled shows when its limit is set.
fn enable_controllers(dir: &Dir, all: bool, needed: &[String]) -> Result<(), Error> {
    if !all && needed.is_empty() {
        return Ok(());
    }
    let Some(root) = mount_of(dir.path()) else {
        return Ok(());
    };
    let have = dir.read("cgroup.controllers")?;
    let have: Vec<&str> = have.split_whitespace().collect();
    let there = dir::read_path(&root.join("cgroup.controllers"))?;
    let wanted = there
        .split_whitespace()
        .filter(|name| all || needed.iter().any(|needed| needed == name));
    let missing: Vec<&str> = wanted.filter(|name| !have.contains(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut ancestors: Vec<&Path> = dir
        .path()
        .ancestors()
        .skip(1)
        .take_while(|path| path.starts_with(&root))
        .collect();
    ancestors.reverse();
    for ancestor in ancestors {
        let parent = Dir::open(ancestor, &[""]).map_err(|source| Error::Open {
            path: ancestor.to_owned(),
            source,
        })?;
        let line: String = missing.iter().flat_map(|name| ["+", name, " "]).collect();
        if parent
            .try_write("cgroup.subtree_control", line.trim_end())
            .is_err()
        {
            for name in &missing {
                // One that cannot be enabled must not keep the others away.
                let _ = parent.try_write("cgroup.subtree_control", &format!("+{name}"));
            }
        }
    }
    Ok(())
}

/// The cgroup2 mount above a path: the highest ancestor with its own controllers' list.
fn mount_of(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .skip(1)
        .take_while(|dir| dir.join("cgroup.controllers").exists())
        .last()
        .map(Path::to_owned)
}
