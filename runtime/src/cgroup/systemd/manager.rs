//! systemd on its bus (`org.freedesktop.systemd1(5)`).

use std::path::PathBuf;

use rustix::fs::{Access, access};

use super::Error;
use super::properties::Property;
use crate::dbus::address::Place;
use crate::dbus::{self, Call, Connection, Message, Type, Value};

const SERVICE: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// Where the system's bus listens unless `DBUS_SYSTEM_BUS_ADDRESS` says otherwise.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// systemd's own socket, for root: one hop less, and no bus that must run.
const SYSTEM_PRIVATE: &str = "/run/systemd/private";

/// There where systemd is process 1 (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

/// A connection to systemd: the system's, or the user's own.
#[derive(Debug)]
pub(super) struct Manager {
    connection: Connection,
    /// Whether a bus lies between, so that names and matches are needed.
    on_bus: bool,
    /// Whether it tells us of jobs already.
    subscribed: bool,
}

impl Manager {
    /// Connects, to the systemd of this user where `user` is set.
    pub(super) fn connect(user: bool) -> Result<Self, Error> {
        let mut first = None;
        for (place, on_bus) in places(user)? {
            match Connection::open(&place) {
                Ok(connection) => {
                    let mut manager = Self {
                        connection,
                        on_bus,
                        subscribed: !on_bus,
                    };
                    if on_bus {
                        manager
                            .connection
                            .hello()
                            .map_err(Error::of("join the bus of systemd"))?;
                    }
                    return Ok(manager);
                }
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        let source = Box::new(first.ok_or(Error::NoUserBus)?);
        if !user && access(BOOTED, Access::EXISTS).is_err() {
            return Err(Error::NotRunning { source });
        }
        let advice = match user {
            true => "log in anew, or let the user's systemd linger: loginctl enable-linger",
            false => "see whether it answers: systemctl status",
        };
        Err(Error::Connect { advice, source })
    }

    /// Its version, as 252.
    pub(super) fn version(&mut self) -> Result<u32, Error> {
        let text = self.property("Version")?;
        version(&text).ok_or(Error::Version(text))
    }

    /// The cgroup that its units are below.
    pub(super) fn control_group(&mut self) -> Result<PathBuf, Error> {
        self.property("ControlGroup").map(PathBuf::from)
    }

    /// Starts a unit that vanishes with its processes; returns when it has
    /// started. One of that name that has failed is forgotten first.
    pub(super) fn start(&mut self, unit: &str, properties: &[Property]) -> Result<(), Error> {
        self.subscribe()?;
        let mut tries = 0;
        let job = loop {
            tries += 1;
            let body = vec![
                Value::text(unit),
                Value::text("replace"),
                pairs(properties),
                // Further units, of which there are none.
                Value::Array(
                    Type::Struct(vec![Type::Text, pairs(&[]).kind()]),
                    Vec::new(),
                ),
            ];
            match self.call("StartTransientUnit", body) {
                Ok(answer) => break answer,
                Err(error) if error.is_remote(EXISTS) && tries == 1 => self.reset_failed(unit),
                Err(source) if source.is_remote(EXISTS) => {
                    return Err(Error::Exists {
                        unit: unit.to_owned(),
                        source: Box::new(source),
                    });
                }
                Err(source) => {
                    return Err(Error::Start {
                        unit: unit.to_owned(),
                        source: Box::new(source),
                    });
                }
            }
        };
        match self.result_of(job, unit)?.as_str() {
            "done" => Ok(()),
            result => {
                self.reset_failed(unit);
                Err(Error::Job {
                    unit: unit.to_owned(),
                    result: result.to_owned(),
                })
            }
        }
    }

    /// Stops a unit, and waits until it is gone. One that is gone already is no error.
    pub(super) fn stop(&mut self, unit: &str) -> Result<(), Error> {
        self.subscribe()?;
        let body = vec![Value::text(unit), Value::text("replace")];
        let stopped = match self.call("StopUnit", body) {
            Ok(job) => self.result_of(job, unit).map(drop),
            Err(error) if error.is_remote("org.freedesktop.systemd1.NoSuchUnit") => Ok(()),
            Err(source) => Err(Error::of("stop the unit")(source)),
        };
        self.reset_failed(unit);
        stopped
    }

    /// Changes properties of a unit, until the host is next booted.
    pub(super) fn set(&mut self, unit: &str, properties: &[Property]) -> Result<(), Error> {
        let body = vec![Value::text(unit), Value::Bool(true), pairs(properties)];
        self.call("SetUnitProperties", body)
            .map(drop)
            .map_err(Error::of("unable to set unit properties"))
    }

    /// Moves a process into a unit, or into a cgroup below the unit's own. The
    /// system's systemd does it for a user's, over what no user may cross.
    pub(super) fn attach(&mut self, unit: &str, below: &str, pid: u32) -> Result<(), Error> {
        let pids = Value::Array(Type::Uint32, vec![Value::Uint32(pid)]);
        let body = vec![Value::text(unit), Value::text(below), pids];
        self.call("AttachProcessesToUnit", body)
            .map(drop)
            .map_err(Error::of("move a process into the unit"))
    }

    /// A unit that has failed stays known until this. None such is no error.
    fn reset_failed(&mut self, unit: &str) {
        let _ = self.call("ResetFailedUnit", vec![Value::text(unit)]);
    }

    fn property(&mut self, name: &str) -> Result<String, Error> {
        let call = Call {
            destination: if self.on_bus { SERVICE } else { "" },
            path: OBJECT,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
        };
        let body = vec![Value::text(MANAGER), Value::text(name)];
        let answer = self
            .connection
            .call(&call, body)
            .map_err(Error::of("ask systemd for its version and place"))?;
        match answer.into_iter().next() {
            Some(Value::Variant(value)) => match *value {
                Value::Text(text) => Ok(text),
                _ => Err(Error::Answer("Get")),
            },
            _ => Err(Error::Answer("Get")),
        }
    }

    fn call(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>, dbus::Error> {
        let call = Call {
            destination: if self.on_bus { SERVICE } else { "" },
            path: OBJECT,
            interface: MANAGER,
            member,
        };
        self.connection.call(&call, body)
    }

    /// Asks for news of jobs. A connection without bus has them anyway.
    fn subscribe(&mut self) -> Result<(), Error> {
        if self.subscribed {
            return Ok(());
        }
        let bus = "org.freedesktop.DBus";
        let call = Call {
            destination: bus,
            path: "/org/freedesktop/DBus",
            interface: bus,
            member: "AddMatch",
        };
        let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved'");
        let subscribe = Error::of("ask systemd for news of its jobs");
        self.connection
            .call(&call, vec![Value::text(rule)])
            .and_then(|_| self.call("Subscribe", Vec::new()))
            .map_err(subscribe)?;
        self.subscribed = true;
        Ok(())
    }

    /// Waits for the end of a job: `done`, `failed`, `canceled`, `timeout`, ...
    fn result_of(&mut self, answer: Vec<Value>, unit: &str) -> Result<String, Error> {
        let Some(Value::Path(job)) = answer.into_iter().next() else {
            return Err(Error::Answer("the start of a job"));
        };
        let is_it = |message: &Message| {
            message.member == "JobRemoved"
                && matches!(message.body.get(1), Some(Value::Path(path)) if *path == job)
        };
        let what = format!("the job of {unit}");
        let removed = self
            .connection
            .signal(&what, is_it)
            .map_err(Error::of("wait for systemd"))?;
        match removed.body.into_iter().nth(3) {
            Some(Value::Text(result)) => Ok(result),
            _ => Err(Error::Answer("JobRemoved")),
        }
    }
}

/// The error of a name that is taken.
const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

fn pairs(properties: &[Property]) -> Value {
    let pair = |(name, value): &Property| {
        Value::Struct(vec![
            Value::text(&**name),
            Value::Variant(Box::new(value.clone())),
        ])
    };
    let kind = Type::Struct(vec![Type::Text, Type::Variant]);
    Value::Array(kind, properties.iter().map(pair).collect())
}

/// Where to look for systemd, and whether a bus is there. What the environment
/// names is the caller's wish, and nothing else is tried then.
fn places(user: bool) -> Result<Vec<(Place, bool)>, Error> {
    let variable = if user {
        "DBUS_SESSION_BUS_ADDRESS"
    } else {
        "DBUS_SYSTEM_BUS_ADDRESS"
    };
    if let Some(address) = std::env::var(variable)
        .ok()
        .filter(|address| !address.is_empty())
    {
        let places = Place::parse_all(&address).map_err(Error::of(variable))?;
        return Ok(places.into_iter().map(|place| (place, true)).collect());
    }
    let file = |path: PathBuf, on_bus| (Place::File(path), on_bus);
    if !user {
        return Ok(vec![
            file(SYSTEM_PRIVATE.into(), false),
            file(SYSTEM_BUS.into(), true),
        ]);
    }
    let uid = rustix::process::getuid().as_raw();
    let directory = std::env::var_os("XDG_RUNTIME_DIR")
        .filter(|directory| !directory.is_empty())
        .map_or_else(|| format!("/run/user/{uid}").into(), PathBuf::from);
    let known = [("systemd/private", false), ("bus", true)];
    let there = known
        .into_iter()
        .map(|(name, on_bus)| (directory.join(name), on_bus))
        .filter(|(path, _)| access(path, Access::EXISTS).is_ok());
    Ok(there.map(|(path, on_bus)| file(path, on_bus)).collect())
}

/// Reads `252`, `v245.4-1.fc32` or `252.22-1~deb12u1`.
fn version(text: &str) -> Option<u32> {
    let text = text.trim_start_matches(['"', 'v']);
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_first_number() {
        for (text, wanted) in [
            ("252", Some(252)),
            ("v245.4-1.fc32", Some(245)),
            ("\"245-1.fc32\"", Some(245)),
            ("252.22-1~deb12u1", Some(252)),
            ("", None),
            ("x1", None),
            ("99999999999", None),
        ] {
            assert_eq!(version(text), wanted, "{text:?}");
        }
    }
}
