//! Moving processes into a container's cgroups.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Pid;

use super::dir::{self, Dir};
use super::{Error, Group};

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

impl Group {
    /// Moves process `pid` into every hierarchy, the memory accounting of what
    /// it does from here on with it.
    pub(crate) fn join(&self, pid: Pid) -> Result<(), Error> {
        self.dirs.iter().try_for_each(|dir| join_dir(dir, pid))
    }

    /// Moves process `pid`, a further process of a container whose first one is
    /// `init`, into the cgroups or into the given ones below them.
    ///
    /// Init may have made children of its cgroup2 and moved there, after which
    /// the cgroup itself holds no processes (EBUSY): then its own is joined.
    pub(crate) fn join_exec(
        &self,
        pid: Pid,
        init: Option<Pid>,
        below: &[SubCgroup],
    ) -> Result<(), Error> {
        for sub in below {
            if let Some(unknown) = sub
                .controllers
                .iter()
                .find(|name| !self.dirs.iter().any(|dir| dir.serves(name)))
            {
                return Err(Error::Invalid(format!(
                    "unknown controller {unknown} in SUBSYSTEM list"
                )));
            }
        }
        for dir in &self.dirs {
            let sub = below.iter().find(|sub| {
                sub.controllers.is_empty()
                    || sub
                        .controllers
                        .iter()
                        .any(|controller| dir.serves(controller))
            });
            match sub {
                Some(sub) => {
                    let path = dir.path().join(&sub.path);
                    let inner = Dir::open(&path, &[""]).map_err(|source| Error::Join {
                        pid: pid.as_raw_nonzero().get(),
                        path,
                        source,
                    })?;
                    join_dir(&inner, pid)?;
                }
                None => match (join_dir(dir, pid), init) {
                    (
                        Err(Error::Join {
                            source: Errno::BUSY,
                            ..
                        }),
                        Some(init),
                    ) if self.is_v2 => {
                        join_dir(&unified_of(init)?, pid)?;
                    }
                    (joined, _) => joined?,
                },
            }
        }
        Ok(())
    }
}

impl SubCgroup {
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
                    return Err(invalid(value, "`..` could leave the container's cgroup"));
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

fn join_dir(dir: &Dir, pid: Pid) -> Result<(), Error> {
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
