//! A container's cgroups, open, and the limits on them.

use std::path::Path;

use rustix::io::Errno;

use super::devices::Policy;
use super::dir::{self, Dir, write_all};
use super::write::{Absent, Write};
use super::{Error, Paths, Plan, device_program, is_unprivileged};
use crate::spec::resources::{Memory, Resources};

/// The container's cgroup in every hierarchy, one on v2.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) dirs: Vec<Dir>,
    pub(super) is_v2: bool,
}

impl Group {
    /// Opens the cgroups of a container that exists.
    pub(crate) fn open(paths: &Paths) -> Result<Self, Error> {
        let open = |(path, names): (&Path, Vec<&str>)| {
            Dir::open(path, &names).map_err(|source| Error::Open {
                path: path.to_owned(),
                source,
            })
        };
        let dirs = paths
            .directories()
            .into_iter()
            .map(open)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            dirs,
            is_v2: paths.is_v2(),
        })
    }

    /// The recorded paths without the hierarchies that were left out.
    pub(crate) fn paths(&self, recorded: &Paths) -> Paths {
        let mut paths = recorded.clone();
        paths.retain(|path| self.dirs.iter().any(|dir| dir.path() == path));
        paths
    }

    /// The cgroup2 directory, for `CLONE_INTO_CGROUP`.
    pub(crate) fn unified(&self) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.serves(""))
    }

    /// Writes the limits and the device rules.
    pub(crate) fn apply(&self, plan: &Plan) -> Result<(), Error> {
        if self.dirs.is_empty() && plan.has_limits() {
            let controller = plan.writes[0].controller.clone().into_owned();
            return Err(Error::NoPermission {
                source: Box::new(Error::NoCgroup { controller }),
            });
        }
        if let Some(memory) = &plan.check {
            self.check_usage(memory)?;
        }
        let mut again = Vec::new();
        for write in &plan.writes {
            if self.write(write, write.paired)? == Outcome::Later {
                again.push(write);
            }
        }
        again
            .into_iter()
            .try_for_each(|write| self.write(write, false).map(drop))?;
        match &plan.devices {
            Some(policy) => self.restrict(policy),
            None => Ok(()),
        }
    }

    /// Fills in, from what the kernel has, what a change leaves open but v2 needs
    /// to write the rest: the quota beside a period, and the memory limit under a
    /// limit of memory and swap together.
    pub(crate) fn complete(&self, resources: &mut Resources) -> Result<(), Error> {
        let Some(dir) = self.unified().filter(|_| self.is_v2) else {
            return Ok(());
        };
        let number = |file| {
            let text = dir.read(file)?;
            // `max` is no number: no limit.
            Ok(text
                .split_whitespace()
                .next()
                .and_then(|word| word.parse::<i64>().ok())
                .or(Some(-1)))
        };
        if let Some(cpu) = &mut resources.cpu
            && cpu.period.is_some()
            && cpu.quota.is_none()
        {
            cpu.quota = number("cpu.max")?;
        }
        if let Some(memory) = &mut resources.memory
            && memory.swap.is_some_and(|both| both > 0)
            && memory.limit.is_none()
        {
            memory.limit = number("memory.max")?;
        }
        Ok(())
    }

    /// Writes one limit. With `later`, EINVAL asks for another try.
    fn write(&self, write: &Write, later: bool) -> Result<Outcome, Error> {
        let no_cgroup = || Error::NoCgroup {
            controller: write.controller.clone().into_owned(),
        };
        let on_v1 = self.dirs.iter().find(|dir| dir.serves(&write.controller));
        let dir = on_v1.or_else(|| self.unified()).ok_or_else(no_cgroup)?;
        match (dir.try_write(&write.file, &write.value), &write.absent) {
            (Ok(()), _) => Ok(Outcome::Done),
            (Err(Errno::INVAL), _) if later => Ok(Outcome::Later),
            (Err(Errno::NOENT), Absent::Skip) => Ok(Outcome::Done),
            (Err(Errno::NOENT), Absent::Instead(other)) => self.write(other, later),
            (Err(source @ (Errno::NOENT | Errno::ACCESS)), Absent::Error) => {
                Err(self.missing(dir, write, source))
            }
            (Err(source @ Errno::BUSY), _) if write.file.starts_with("memory.") => {
                Err(in_use(dir, write, source))
            }
            (Err(source), _) => Err(dir.refused(&write.file, &write.value, source)),
        }
    }

    /// Tells a controller that is not there from a file that is not.
    fn missing(&self, dir: &Dir, write: &Write, source: Errno) -> Error {
        if !dir.serves("") {
            return dir.refused(&write.file, &write.value, source);
        }
        let controllers = dir.try_read("cgroup.controllers").unwrap_or_default();
        if write.controller == "cgroup"
            || controllers
                .split_whitespace()
                .any(|name| name == write.controller)
        {
            return dir.refused(&write.file, &write.value, source);
        }
        if !self.is_v2 {
            return Error::NoCgroup {
                controller: write.controller.clone().into_owned(),
            };
        }
        Error::NoController {
            controller: write.controller.clone().into_owned(),
            file: write.file.clone().into_owned(),
            path: dir.path().to_owned(),
            source,
        }
    }

    /// `checkBeforeUpdate`: v2 would kill to get below a new limit.
    pub(super) fn check_usage(&self, memory: &Memory) -> Result<(), Error> {
        let Some(dir) = self.unified() else {
            return Ok(());
        };
        let usage = |file| {
            dir.read(file)
                .map(|text| text.trim().parse::<i64>().unwrap_or(0))
        };
        let Some(limit) = memory.limit.filter(|&limit| limit > 0) else {
            return Ok(());
        };
        let used = usage("memory.current")?;
        if let Some(both) = memory.swap.filter(|&both| both > 0) {
            let used = used + usage("memory.swap.current").unwrap_or(0);
            if both <= used {
                return Err(Error::BelowUsage {
                    limit: both,
                    usage: used,
                    with_swap: true,
                });
            }
        }
        if limit <= used {
            return Err(Error::BelowUsage {
                limit,
                usage: used,
                with_swap: false,
            });
        }
        Ok(())
    }

    /// Restricts devices. The kernel does not let a user, nor anyone inside a
    /// user namespace: who may not make device nodes has none to restrict.
    fn restrict(&self, policy: &Policy) -> Result<(), Error> {
        let restricted = match self.dirs.iter().find(|dir| dir.serves("devices")) {
            Some(dir) => restrict_v1(dir, policy),
            None => match self.unified().filter(|_| self.is_v2) {
                Some(dir) => device_program::restrict(dir, policy),
                None => Ok(()),
            },
        };
        let refused = match &restricted {
            Err(Error::Write { source, .. }) => matches!(*source, Errno::PERM | Errno::ACCESS),
            Err(Error::Devices { source, .. }) => {
                source.kind() == std::io::ErrorKind::PermissionDenied
            }
            _ => false,
        };
        if refused && is_unprivileged()? {
            Ok(())
        } else {
            restricted
        }
    }
}

/// Whether a write is done or must be tried again.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Later,
}

/// v1 refuses a limit below the usage with EBUSY; the numbers say why.
fn in_use(dir: &Dir, write: &Write, source: Errno) -> Error {
    let number = |file| dir.try_read(file).unwrap_or_default().trim().to_owned();
    let (usage, peak) = ("memory.usage_in_bytes", "memory.max_usage_in_bytes");
    Error::MemoryInUse {
        limit: write.value.clone(),
        usage: number(usage),
        peak: number(peak),
        source,
    }
}

/// Brings the device list of a v1 cgroup to the policy.
fn restrict_v1(dir: &Dir, policy: &Policy) -> Result<(), Error> {
    let lines = Policy::from_list(&dir.read("devices.list")?)?.lines_to(policy);
    for allow in [false, true] {
        let file = if allow {
            "devices.allow"
        } else {
            "devices.deny"
        };
        let mut open = None;
        for line in lines.iter().filter(|line| line.allow == allow) {
            let refused = |source| dir.refused(file, &line.text, source);
            let fd = match &open {
                Some(fd) => fd,
                None => open.insert(dir.open_to_write(file).map_err(refused)?),
            };
            write_all(fd, &line.text).map_err(refused)?;
        }
    }
    Ok(())
}

/// Whether this process is in a user namespace other than the first
/// (`user_namespaces(7)`: the first maps every id to itself).
pub(super) fn in_user_namespace() -> Result<bool, Error> {
    let map = dir::read_path(Path::new("/proc/self/uid_map"))?;
    Ok(!map.split_whitespace().eq(["0", "0", "4294967295"]))
}

#[cfg(test)]
mod tests;
