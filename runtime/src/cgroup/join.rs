//! Moving processes into a container's cgroups.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::Pid;

use super::dir::{self, Dir, write_all};
use super::{Error, Group, Plan, procs};

/// How often a process that is not yet fully made (`TASK_NEW`, EINVAL) is asked to join.
const JOIN_TRIES_MAX: u32 = 5;
/// The pause between, in milliseconds.
const JOIN_PAUSE_MS: u64 = 5;

/// `exec --cgroup`: a cgroup below the container's own, in all hierarchies or some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubCgroup {
    controllers: Vec<String>,
    path: PathBuf,
}

/// The v1 files through which a process that has one thread moves itself.
///
/// Moving another process makes the kernel wait until no thread on the host is
/// being made or ended, some milliseconds; a process that writes 0 to `tasks`
/// for itself need not wait for anyone (kernel/cgroup/cgroup.c,
/// cgroup_procs_write_start; Linux 5.5). The kernel asks who opened the file,
/// so it is opened by the runtime and written by the child.
#[derive(Debug, Default)]
pub(crate) struct Doors(Vec<(OwnedFd, PathBuf)>);

impl Doors {
    /// Moves the calling process. On an error, says where.
    pub(crate) fn enter(self) -> Result<(), (Errno, PathBuf)> {
        self.0
            .into_iter()
            .try_for_each(|(file, path)| write_all(&file, "0").map_err(|errno| (errno, path)))
    }

    /// What must stay open until then.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.0.iter().map(|(file, _)| file.as_raw_fd())
    }
}

impl Group {
    /// The way into the v1 hierarchies, or into the given cgroups below them.
    pub(crate) fn doors(&self, below: &[SubCgroup]) -> Result<Doors, Error> {
        for sub in below {
            let unknown = |name: &&String| !self.dirs.iter().any(|dir| dir.serves(name));
            if let Some(name) = sub.controllers.iter().find(unknown) {
                return Err(Error::Invalid(format!(
                    "unknown controller {name} in SUBSYSTEM list"
                )));
            }
        }
        let door = |dir: &Dir| {
            let (file, path) = match below.iter().find(|sub| sub.concerns(dir)) {
                Some(sub) => (sub.path.join("tasks"), dir.path().join(&sub.path)),
                None => ("tasks".into(), dir.path().to_owned()),
            };
            match openat(dir, &file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(file) => Ok((file, path)),
                Err(source) => Err(Error::Enter { path, source }),
            }
        };
        let v1 = self.dirs.iter().filter(|dir| !dir.serves(""));
        v1.map(door).collect::<Result<_, _>>().map(Doors)
    }

    /// The cgroup2 for a new process (`CLONE_INTO_CGROUP`), if the host has one:
    /// the container's own or the given one below it.
    pub(crate) fn birthplace(&self, below: &[SubCgroup]) -> Result<Option<Dir>, Error> {
        let Some(dir) = self.unified() else {
            return Ok(None);
        };
        let sub = below.iter().find(|sub| sub.concerns(dir));
        let path = sub.map_or(dir.path().to_owned(), |sub| dir.path().join(&sub.path));
        match Dir::open(&path, &[""]) {
            Ok(dir) => Ok(Some(dir)),
            Err(source) => Err(Error::Enter { path, source }),
        }
    }

    /// Moves process `pid`, another program, into all cgroups.
    pub(crate) fn adopt(&self, pid: Pid, plan: &Plan) -> Result<(), Error> {
        self.dirs.iter().try_for_each(|dir| {
            let joined = join_dir(dir, pid);
            joined.or_else(
                |error| match error.is_denied() && self.may_lack(dir, plan) {
                    true => Ok(()),
                    false => Err(error),
                },
            )
        })
    }

    /// Moves a new init into the cgroup2 that it could not be born in, where
    /// the kernel lets it or a limit of `plan` is kept there.
    pub(super) fn settle(&self, birthplace: &Dir, init: Pid, plan: &Plan) -> Result<(), Error> {
        match self.join(birthplace, init, None) {
            Err(error) if error.is_denied() && self.may_lack(birthplace, plan) => Ok(()),
            joined => joined,
        }
    }

    /// Whether a container can do without its cgroup in this hierarchy: cgroup2
    /// beside version 1, without a limit. Who owns a group there may make others
    /// in it, but move a process into them only from where it may write too.
    fn may_lack(&self, dir: &Dir, plan: &Plan) -> bool {
        !self.is_v2 && dir.serves("") && plan.unified_controllers.is_empty()
    }

    /// Whether a process that was denied this cgroup can do as init does, who is
    /// not in there either.
    pub(crate) fn is_vacant(&self, birthplace: &Dir) -> bool {
        let processes = || procs::all_in(birthplace.path());
        !self.is_v2 && birthplace.serves("") && processes().is_ok_and(|all| all.is_empty())
    }

    /// Moves process `pid`, which could not be born there, into a cgroup2.
    ///
    /// The container may have made children of its cgroup2 and moved its
    /// processes there, after which the cgroup itself holds none (EBUSY): then
    /// that of its `init` is joined.
    pub(crate) fn join(&self, birthplace: &Dir, pid: Pid, init: Option<Pid>) -> Result<(), Error> {
        match (join_dir(birthplace, pid), init) {
            (
                Err(Error::Join {
                    source: Errno::BUSY,
                    ..
                }),
                Some(init),
            ) if self.is_v2 => join_dir(&unified_of(init)?, pid),
            (joined, _) => joined,
        }
    }
}

impl SubCgroup {
    /// The same cgroup in every hierarchy.
    #[cfg(test)]
    pub(super) fn whole(path: &str) -> Self {
        Self {
            controllers: Vec::new(),
            path: path.into(),
        }
    }

    /// Whether it names a cgroup in this hierarchy.
    fn concerns(&self, dir: &Dir) -> bool {
        self.controllers.is_empty() || self.controllers.iter().any(|name| dir.serves(name))
    }

    /// Parses the values of `exec --cgroup`: `[CONTROLLER[,CONTROLLER]:]PATH`,
    /// on cgroup2 the path alone, as runc has it.
    pub(crate) fn parse(values: &[String], is_v2: bool) -> Result<Vec<Self>, Error> {
        let invalid = |value: &str, why: &str| {
            Error::Invalid(format!("invalid --cgroup argument {value:?}: {why}"))
        };
        values
            .iter()
            .map(|value| {
                let (controllers, path) = value.split_once(':').unwrap_or(("", value));
                if is_v2 && !controllers.is_empty() {
                    return Err(invalid(
                        value,
                        "cgroup v2 has one hierarchy, name the path alone",
                    ));
                }
                if values.len() > 1 && controllers.is_empty() {
                    return Err(invalid(
                        value,
                        "it names every hierarchy, so it must be the only one",
                    ));
                }
                let path = path.trim_start_matches('/');
                if Path::new(path)
                    .components()
                    .any(|part| part == Component::ParentDir)
                {
                    return Err(Error::Invalid(format!(
                        "bad sub cgroup path: {path} is not a sub cgroup path"
                    )));
                }
                let controllers = controllers
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect();
                Ok(Self {
                    controllers,
                    path: path.into(),
                })
            })
            .collect()
    }
}

/// The cgroup2 that process `init` is in.
fn unified_of(init: Pid) -> Result<Dir, Error> {
    let text = dir::read_path(Path::new(&format!(
        "/proc/{}/cgroup",
        init.as_raw_nonzero()
    )))?;
    let inner = text
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    let path = Path::new("/sys/fs/cgroup").join(inner);
    Dir::open(&path, &[""]).map_err(|source| Error::Open { path, source })
}

/// Moves a process into one cgroup.
pub(super) fn join_dir(dir: &Dir, pid: Pid) -> Result<(), Error> {
    let number = pid.as_raw_nonzero().get();
    let mut tries = 0;
    loop {
        tries += 1;
        match dir.try_write("cgroup.procs", &number.to_string()) {
            Ok(()) => return Ok(()),
            Err(Errno::INVAL) if tries < JOIN_TRIES_MAX => {
                std::thread::sleep(Duration::from_millis(JOIN_PAUSE_MS));
            }
            Err(source) => {
                return Err(Error::Join {
                    pid: number,
                    path: dir.path().to_owned(),
                    source,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_cgroups_are_checked_words() {
        let parse = |values: &[&str], is_v2| {
            SubCgroup::parse(
                &values.iter().map(|&v| v.to_owned()).collect::<Vec<_>>(),
                is_v2,
            )
        };
        let two = parse(&["cpu,cpuacct:/a", "memory:b"], false).unwrap();
        assert_eq!(two[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(
            (two[0].path.as_path(), two[1].path.as_path()),
            (Path::new("a"), Path::new("b"))
        );
        for (bad, is_v2) in [
            (&["../x"][..], true),
            (&["cpu:/x"], true),
            (&["/a", "/b"], false),
            (&["cpu:a/../.."], false),
        ] {
            assert!(parse(bad, is_v2).is_err(), "{bad:?}");
        }
    }
}
