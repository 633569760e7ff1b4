//! `linux.intelRdt`: shares of the last-level cache and of memory bandwidth,
//! by the kernel's resctrl file system (Documentation/filesystems/resctrl.rst).
//!
//! ```text
//! /sys/fs/resctrl/               or wherever it is mounted
//! ├── info/{L3,MB,L3_MON}/       what the hardware can do; last_cmd_status
//! ├── schemata  tasks            of the default group
//! └── <closID or container id>/  a group; removed with the container if it made it
//!     ├── schemata  tasks
//!     ├── mon_data/<domain>/     counters
//!     └── mon_groups/<id>/       counters of this container alone (enableMonitoring)
//! ```

mod schema;
mod stats;

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Facts;
use crate::spec::IntelRdt;

pub(crate) use stats::Stats;

/// Where the kernel makes a place for the mount.
const USUAL_ROOT: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC` of `linux/magic.h`.
const RESCTRL_MAGIC: u64 = 0x0765_5821;
/// The most bytes read of one file, `/proc/self/mountinfo` of a busy host included.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// What went wrong with resctrl.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The configuration cannot be carried out. The first words are runc's.
    #[error("{0}")]
    Invalid(String),
    #[error("intelrdt: unable to {action} {path}{status}", path = path.display())]
    System {
        action: String,
        path: PathBuf,
        /// What the file system itself says about it, after a colon.
        status: String,
        source: Errno,
    },
}

impl Error {
    /// The error as values.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            step: "set up resctrl".into(),
            object: match self {
                Self::Invalid(_) => String::new(),
                Self::System { path, .. } => path.display().to_string(),
            },
            pointer: "/linux/intelRdt".into(),
            ..Facts::default()
        }
    }
}

/// The container's group, as recorded before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The directory.
    pub(crate) path: PathBuf,
    /// Whether it goes with the container: it was made for it alone.
    pub(crate) own: bool,
    /// The monitoring group below it, made for the container.
    pub(crate) monitor: Option<PathBuf>,
    /// Where the file system is mounted.
    root: PathBuf,
}

/// What will be done, decided before anything is touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Where.
    pub(crate) group: Group,
    /// Lines for `schemata`, in order; none leaves it alone.
    schemata: Vec<String>,
    /// A group of others that is only joined must be there.
    must_exist: bool,
    /// What a group of others, if it is there, must have already.
    expected: Vec<String>,
}

/// The mount point, if there is one: the usual place, else what the mount table says.
pub(crate) fn root() -> Option<PathBuf> {
    #[allow(
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "a magic number whose type differs between architectures"
    )]
    match rustix::fs::statfs(USUAL_ROOT) {
        Ok(stat) if stat.f_type as u64 == RESCTRL_MAGIC => return Some(USUAL_ROOT.into()),
        // The kernel makes the directory wherever it supports resctrl.
        Err(Errno::NOENT) => return None,
        _ => {}
    }
    let table =
        crate::file::read_limited(Path::new("/proc/self/mountinfo"), FILE_BYTES_MAX).ok()?;
    mounted(&String::from_utf8_lossy(&table))
}

/// The first resctrl of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
fn mounted(table: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        after.starts_with("resctrl ").then(|| point.into())
    })
}

impl Plan {
    /// The plan for container `id` with resctrl mounted at `root`, if it is.
    ///
    /// A group that the configuration names and that exists must have the
    /// `l3CacheSchema` and `memBwSchema` asked for, says the specification: others
    /// live by them. runc writes them over what is there, and means to compare.
    pub(crate) fn new(rdt: &IntelRdt, id: &str, root: Option<&Path>) -> Result<Self, Error> {
        check(rdt, root)?;
        let root = root.ok_or_else(absent)?;
        let path = match rdt.clos_id.as_str() {
            "" => root.join(id),
            "/" => root.to_owned(),
            name => root.join(name),
        };
        let mut expected: Vec<_> = [&rdt.l3_cache_schema, &rdt.mem_bw_schema]
            .into_iter()
            .filter(|line| !line.is_empty())
            .cloned()
            .collect();
        let schemata: Vec<_> = expected.iter().chain(&rdt.schemata).cloned().collect();
        if rdt.clos_id.is_empty() {
            expected.clear();
        }
        Ok(Self {
            must_exist: !rdt.clos_id.is_empty() && schemata.is_empty(),
            group: Group {
                own: rdt.clos_id.is_empty() && !path.exists(),
                monitor: rdt
                    .enable_monitoring
                    .then(|| path.join("mon_groups").join(id)),
                path,
                root: root.to_owned(),
            },
            schemata,
            expected,
        })
    }

    /// The plan of an `update` of a container that had no group: it gets one.
    pub(crate) fn update(
        id: &str,
        l3_cache: Option<&str>,
        mem_bw: Option<&str>,
        root: Option<&Path>,
    ) -> Result<Self, Error> {
        check_update(l3_cache, mem_bw, root)?;
        let rdt = IntelRdt {
            l3_cache_schema: l3_cache.unwrap_or_default().to_owned(),
            mem_bw_schema: mem_bw.unwrap_or_default().to_owned(),
            ..IntelRdt::default()
        };
        Self::new(&rdt, id, root)
    }

    /// Makes the groups. On an error nothing of them is left.
    pub(crate) fn make(&self) -> Result<(), Error> {
        let group = &self.group;
        if self.must_exist && !group.path.exists() {
            return Err(Error::Invalid(format!(
                "clos dir not accessible (must be pre-created when l3CacheSchema, memBwSchema and schemata are empty): {}",
                group.path.display()
            )));
        }
        if group.path.exists() {
            self.compare()?;
        }
        let mkdir = |path: &Path| match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(source) => Err(group.failed("create", path, source)),
        };
        mkdir(&group.path)?;
        match group.monitor.as_deref().map(mkdir) {
            Some(Err(error)) => {
                let _ = group.remove();
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Refuses a group of others whose shares are not those asked for.
    fn compare(&self) -> Result<(), Error> {
        if self.expected.is_empty() {
            return Ok(());
        }
        let group = &self.group;
        let have = text(&group.path.join("schemata"))
            .map_err(|source| group.failed("read the schemata of", &group.path, source))?;
        // Where bandwidths are in MB/s, or none are kept, nothing is rounded.
        let granularity = text(&group.root.join("info/MB/bandwidth_gran"));
        let granularity = granularity.map_or(1, |text| text.trim().parse().unwrap_or(1));
        let mut expected = self.expected.iter();
        match expected.find(|line| !schema::has(&have, line, granularity)) {
            None => Ok(()),
            Some(line) => Err(Error::Invalid(format!(
                "intelRdt: group {} exists with another configuration than {line:?}: it has {:?} (use another closID, or give no schema to join it as it is)",
                group.path.display(),
                have.split_whitespace().collect::<Vec<_>>().join(" "),
            ))),
        }
    }

    /// Writes the schemata, all lines in one write as the kernel takes them.
    pub(crate) fn configure(&self) -> Result<(), Error> {
        if self.schemata.is_empty() {
            return Ok(());
        }
        self.group.write_schemata(&self.schemata.join("\n"))
    }
}

/// What the configuration must not say, in runc's words.
fn check(rdt: &IntelRdt, root: Option<&Path>) -> Result<(), Error> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    let clos = rdt.clos_id.as_str();
    if clos == "." || clos == ".." || (clos != "/" && clos.contains('/')) {
        return invalid(&format!("invalid intelRdt.ClosID {clos:?}"));
    }
    if !rdt.l3_cache_schema.is_empty() && !has(root, "L3") {
        return invalid(
            "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled",
        );
    }
    if !rdt.mem_bw_schema.is_empty() && !has(root, "MB") {
        return invalid(
            "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled",
        );
    }
    if !rdt.mem_bw_schema.is_empty() && !rdt.mem_bw_schema.starts_with("MB:") {
        return invalid("intelRdt.memBwSchema must start with \"MB:\"");
    }
    let lines = [&rdt.l3_cache_schema, &rdt.mem_bw_schema];
    if lines
        .into_iter()
        .chain(&rdt.schemata)
        .any(|line| line.contains('\n'))
    {
        return invalid("intelRdt: a schema must not contain a newline");
    }
    Ok(())
}

fn absent() -> Error {
    Error::Invalid(
        "intelRdt is specified in config, but Intel RDT not available: no resctrl is mounted (mount -t resctrl resctrl /sys/fs/resctrl)".into(),
    )
}

/// Whether the hardware has this resource and the kernel uses it.
fn has(root: Option<&Path>, resource: &str) -> bool {
    root.is_some_and(|root| root.join("info").join(resource).exists())
}

/// Whether `update` can set these at all, in runc's words.
pub(crate) fn check_update(
    l3_cache: Option<&str>,
    mem_bw: Option<&str>,
    root: Option<&Path>,
) -> Result<(), Error> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    if l3_cache.is_some() && !has(root, "L3") {
        return invalid("Intel RDT/CAT: l3 cache schema is not enabled");
    }
    if mem_bw.is_some() && !has(root, "MB") {
        return invalid("Intel RDT/MBA: memory bandwidth schema is not enabled");
    }
    Ok(())
}

impl Group {
    /// Changes the schemata; a line that is not given stays.
    pub(crate) fn update(&self, l3_cache: Option<&str>, mem_bw: Option<&str>) -> Result<(), Error> {
        let lines: Vec<&str> = [l3_cache, mem_bw].into_iter().flatten().collect();
        self.write_schemata(&lines.join("\n"))
    }

    /// Puts a process, and what it will fork, into the group. A group that is
    /// gone meanwhile holds nobody.
    pub(crate) fn join(&self, pid: i32) -> Result<(), Error> {
        for directory in [Some(&self.path), self.monitor.as_ref()]
            .into_iter()
            .flatten()
        {
            match write(&directory.join("tasks"), &pid.to_string()) {
                Ok(()) => {}
                Err(Errno::NOENT) if !directory.exists() => {}
                Err(source) => {
                    let action = format!("add pid {pid} to");
                    return Err(self.failed(&action, directory, source));
                }
            }
        }
        Ok(())
    }

    /// Removes what was made for the container: the kernel moves whoever is
    /// left to the default group. What is gone already is no error.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let own = self.own.then_some(&self.path);
        for directory in self.monitor.iter().chain(own) {
            match rustix::fs::unlinkat(CWD, directory, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(source) => return Err(self.failed("remove", directory, source)),
            }
        }
        Ok(())
    }

    fn write_schemata(&self, lines: &str) -> Result<(), Error> {
        write(&self.path.join("schemata"), &format!("{lines}\n"))
            .map_err(|source| self.failed(&format!("write {lines:?} to"), &self.path, source))
    }

    fn failed(&self, action: &str, path: &Path, source: Errno) -> Error {
        let status = crate::file::read_limited(&self.root.join("info/last_cmd_status"), 4096)
            .map(|text| String::from_utf8_lossy(&text).trim().to_owned())
            .unwrap_or_default();
        Error::System {
            action: action.to_owned(),
            path: path.to_owned(),
            status: if status.is_empty() {
                status
            } else {
                format!(", last_cmd_status: {status}")
            },
            source,
        }
    }
}

fn text(path: &Path) -> Result<String, Errno> {
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let bytes = crate::file::read_open(std::fs::File::from(file), FILE_BYTES_MAX);
    let bytes = bytes.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write(path: &Path, text: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty())?;
    match rustix::io::retry_on_intr(|| rustix::io::write(&file, text.as_bytes()))? {
        n if n == text.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

#[cfg(test)]
mod tests;
