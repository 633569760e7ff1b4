//! The systemd driver: a container's cgroup as a unit of systemd's.
//!
//! systemd owns the tree of cgroups of its host. A runtime that must not reach
//! past it asks it for a scope, delegated: systemd makes the cgroup, moves the
//! container's init in, and leaves what is below to us.
//!
//! ```text
//!     runtime                          systemd                 init
//!     Version, ControlGroup      -->
//!     (the plan is whole; the state is recorded)
//!     clone3                     ------------------------->    waits for Go
//!     StartTransientUnit(init)   -->   makes the cgroup,
//!                                      moves init
//!                                <--   JobRemoved "done"
//!     the limits' files, v1's other hierarchies
//!     Go                         ------------------------->    goes on
//! ```
//!
//! Killed before `Go`, the runtime leaves an init that ends at end of file, and
//! with it a scope that systemd removes: one has no meaning without processes.

mod annotation;
mod devices;
mod gvariant;
mod manager;
mod name;
mod properties;
mod unified;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::dir::Dir;
use super::join::join_dir;
use super::{Group, Layout, Paths, Plan, create};
use crate::dbus::{self, Type, Value};
use crate::spec::resources::{Cpu, Memory, Resources};
use manager::Manager;
use name::Place;
use properties::{Host, Property, text, truth};

/// What went wrong between us and systemd.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// runc's words.
    #[error(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {0:?} instead"
    )]
    Path(String),
    /// runc's words.
    #[error("invalid slice name: {0}")]
    Slice(String),
    #[error("unit name {0:?} is refused: systemd takes 255 letters, digits and `:-_.\\@`")]
    Unit(String),
    #[error("annotation {key}: {why}")]
    Annotation { key: String, why: String },
    #[error("{0}")]
    Limit(String),
    /// runc's words.
    #[error("cannot use rootless systemd cgroups manager on cgroup v1")]
    RootlessV1,
    #[error(
        "find the user's systemd: neither DBUS_SESSION_BUS_ADDRESS nor a socket in XDG_RUNTIME_DIR is there (install dbus-user-session and log in anew, or loginctl enable-linger)"
    )]
    NoUserBus,
    /// The first words are runc's.
    #[error(
        "systemd not running on this host, cannot use systemd cgroups manager (leave out --systemd-cgroup to use the cgroup file system)"
    )]
    NotRunning { source: Box<dbus::Error> },
    #[error("connect to systemd ({advice})")]
    Connect {
        advice: &'static str,
        source: Box<dbus::Error>,
    },
    #[error("{action}")]
    Talk {
        action: &'static str,
        source: Box<dbus::Error>,
    },
    #[error("systemd's answer to {0} is not what its interface says")]
    Answer(&'static str),
    #[error("can't parse version of systemd: {0:?}")]
    Version(String),
    #[error("unable to start unit {unit:?}")]
    Start {
        unit: String,
        source: Box<dbus::Error>,
    },
    /// The unit is another's.
    #[error(
        "unable to start unit {unit:?} (another container's, or not a container's: choose another name)"
    )]
    Exists {
        unit: String,
        source: Box<dbus::Error>,
    },
    #[error("error creating systemd unit `{unit}`: got `{result}`")]
    Job { unit: String, result: String },
}

impl Error {
    /// What it is about, and the field of `config.json` that asked for it.
    pub(super) fn object(&self) -> (String, &'static str) {
        match self {
            Self::Path(name) | Self::Slice(name) | Self::Unit(name) => {
                (name.clone(), "/linux/cgroupsPath")
            }
            Self::Start { unit, .. } | Self::Exists { unit, .. } | Self::Job { unit, .. } => {
                (unit.clone(), "/linux/cgroupsPath")
            }
            Self::Annotation { key, .. } => (key.clone(), "/annotations"),
            Self::Limit(_) => (String::new(), "/linux/resources"),
            Self::RootlessV1
            | Self::NoUserBus
            | Self::NotRunning { .. }
            | Self::Connect { .. }
            | Self::Talk { .. }
            | Self::Answer(_)
            | Self::Version(_) => ("systemd".to_owned(), ""),
        }
    }

    fn of(action: &'static str) -> impl FnOnce(dbus::Error) -> Self {
        move |source| Self::Talk {
            action,
            source: Box::new(source),
        }
    }
}

/// A container's unit, as the state remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is one of the user's own systemd.
    pub(crate) user: bool,
}

/// What the configuration wants.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    /// `cgroupsPath`.
    pub(crate) path: &'a str,
    /// The container.
    pub(crate) id: &'a str,
    /// Whether the user's own systemd is meant.
    pub(crate) user: bool,
    /// Its annotations.
    pub(crate) annotations: &'a BTreeMap<String, String>,
}

/// A unit that is planned, whole, and not started.
#[derive(Debug)]
pub(crate) struct Start {
    manager: Manager,
    unit: Unit,
    properties: Vec<Property>,
    is_slice: bool,
}

impl Start {
    /// Plans the unit and finds its cgroups. Asks systemd, and changes nothing.
    /// The CPU quota of `resources` becomes what systemd can express.
    pub(crate) fn plan(
        wish: &Wish<'_>,
        resources: &mut Resources,
        layout: &Layout,
    ) -> Result<(Self, Paths), super::Error> {
        let is_v2 = *layout == Layout::V2;
        let (start, directory) =
            Self::ask(wish, resources, is_v2).map_err(super::Error::Systemd)?;
        let paths = layout.place(directory.to_str(), wish.id)?;
        refuse_used(&paths)?;
        Ok((start, paths))
    }

    /// The unit, and its cgroup below the mounts of cgroups.
    fn ask(
        wish: &Wish<'_>,
        resources: &mut Resources,
        is_v2: bool,
    ) -> Result<(Self, PathBuf), Error> {
        let place = Place::parse(wish.path, wish.id, wish.user)?;
        let annotated = annotation::properties(wish.annotations)?;
        if wish.user && !is_v2 {
            return Err(Error::RootlessV1);
        }
        let mut manager = Manager::connect(wish.user)?;
        let host = Host {
            version: manager.version()?,
            is_v2,
        };
        let mut directory = Path::new("/").to_owned();
        if wish.user {
            directory.push(manager.control_group()?);
        }
        let below = place.directory.strip_prefix("/");
        directory.push(below.unwrap_or(&place.directory));
        let mut properties = base(&place, is_v2);
        properties.extend(annotated);
        properties.extend(properties::all(resources, host)?);
        let start = Self {
            manager,
            is_slice: place.is_slice(),
            unit: Unit {
                name: place.unit,
                user: wish.user,
            },
            properties,
        };
        Ok((start, directory))
    }

    /// What the state is to remember.
    pub(crate) fn unit(&self) -> &Unit {
        &self.unit
    }

    /// Starts the unit around `init` and brings the cgroups to the plan.
    pub(crate) fn enter(
        mut self,
        init: Pid,
        paths: &Paths,
        plan: &Plan,
    ) -> Result<Group, super::Error> {
        let pid = init.as_raw_nonzero().get().unsigned_abs();
        // A slice holds no processes; systemd lets only scopes begin with some.
        if !self.is_slice {
            let pids = Value::Array(Type::Uint32, vec![Value::Uint32(pid)]);
            self.properties.push(("PIDs".into(), pids));
        }
        let started = self.manager.start(&self.unit.name, &self.properties);
        started.map_err(super::Error::Systemd)?;
        let group = Group::take_over(paths, plan)?;
        group.apply(plan)?;
        for dir in &group.dirs {
            let is_there = dir.serves("name=systemd") || paths.is_v2();
            if self.is_slice || !is_there {
                join_dir(dir, init)?;
            }
        }
        Ok(group)
    }
}

/// What every unit of a container's has, as runc gives it.
fn base(place: &Place, is_v2: bool) -> Vec<Property> {
    let mut out = vec![text(
        "Description",
        format!("libcontainer container {}", place.name),
    )];
    if place.is_slice() {
        let wants = Value::Array(Type::Text, vec![Value::text(&place.slice)]);
        out.push(("Wants".into(), wants));
    } else {
        out.push(text("Slice", &place.slice));
        out.push(truth("Delegate", true));
    }
    let io = if is_v2 {
        "IOAccounting"
    } else {
        "BlockIOAccounting"
    };
    let accounting = ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"];
    out.extend(accounting.map(|name| truth(name, true)));
    out.push(truth("DefaultDependencies", false));
    out
}

/// What systemd would find there: processes of others, whose unit would be taken
/// for ours, or a frozen cgroup, in which init would stand still.
fn refuse_used(paths: &Paths) -> Result<(), super::Error> {
    let there = paths
        .directories()
        .into_iter()
        .filter(|(path, _)| path.exists());
    for (path, names) in there {
        create::refuse_used(path, &names)?;
    }
    Ok(())
}

impl Unit {
    /// Stops the unit and waits for its end; one that is gone is no error.
    pub(crate) fn stop(&self) -> Result<(), super::Error> {
        let stopped = Manager::connect(self.user).and_then(|mut manager| manager.stop(&self.name));
        stopped.map_err(super::Error::Systemd)
    }

    /// Tells systemd of changed limits; the files are the caller's. The CPU
    /// quota of `resources` becomes what systemd can express.
    pub(crate) fn update(
        &self,
        resources: &mut Resources,
        group: &Group,
    ) -> Result<(), super::Error> {
        if let Some(cpu) = &mut resources.cpu {
            complete(cpu, group)?;
        }
        // systemd would let the kernel kill where the check refuses.
        let check = |memory: &&Memory| memory.check_before_update == Some(true);
        if let Some(memory) = resources
            .memory
            .as_ref()
            .filter(check)
            .filter(|_| group.is_v2)
        {
            group.check_usage(memory)?;
        }
        self.tell(resources, group.is_v2)
            .map_err(super::Error::Systemd)
    }

    fn tell(&self, resources: &mut Resources, is_v2: bool) -> Result<(), Error> {
        let mut manager = Manager::connect(self.user)?;
        let host = Host {
            version: manager.version()?,
            is_v2,
        };
        let properties = properties::limits(resources, host)?;
        if properties.is_empty() {
            return Ok(());
        }
        manager.set(&self.name, &properties)
    }
}

/// Gives a process to systemd to move, where `joined` says that the kernel did
/// not let us: a user may not move processes from session to session, the
/// system's systemd does it for the user's.
pub(crate) fn or_attach(
    joined: Result<(), super::Error>,
    unit: Option<&Unit>,
    group: &Group,
    place: &Dir,
    pid: Pid,
) -> Result<(), super::Error> {
    let denied = joined.as_ref().is_err_and(super::Error::is_denied);
    let Some(unit) = unit.filter(|_| denied) else {
        return joined;
    };
    let home = group.unified().map_or(Path::new("/"), Dir::path);
    let below = match place.path().strip_prefix(home).ok().and_then(Path::to_str) {
        Some("") | None => String::new(),
        Some(below) => format!("/{below}"),
    };
    let pid = pid.as_raw_nonzero().get().unsigned_abs();
    Manager::connect(unit.user)
        .and_then(|mut manager| manager.attach(&unit.name, &below, pid))
        .map_err(super::Error::Systemd)
}

/// systemd wants a quota with its period: what a change does not name is what
/// the kernel has.
fn complete(cpu: &mut Cpu, group: &Group) -> Result<(), super::Error> {
    if cpu.quota.is_some() == cpu.period.is_some() {
        return Ok(());
    }
    let (quota, period) = match group.unified().filter(|_| group.is_v2) {
        Some(dir) => {
            let text = dir.read("cpu.max")?;
            let mut words = text.split_whitespace();
            let quota = words
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(-1);
            (quota, words.next().and_then(|word| word.parse().ok()))
        }
        None => {
            let Some(dir) = group.dirs.iter().find(|dir| dir.serves("cpu")) else {
                return Ok(());
            };
            let quota = dir.read("cpu.cfs_quota_us")?.trim().parse().unwrap_or(-1);
            (quota, dir.read("cpu.cfs_period_us")?.trim().parse().ok())
        }
    };
    cpu.quota = cpu.quota.or(Some(quota));
    cpu.period = cpu.period.or(period);
    Ok(())
}
