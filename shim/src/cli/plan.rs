//! From flags to plain values: the container's record, and the request from
//! which the store makes config.json. Touches nothing.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::flags::{self, Source};
use super::request::request;
use super::run::CreateArguments;
use crate::container::record::{self, LogFull, Network, Record, Stdin, Volume};
use crate::container::{ContainerId, Name, Place};
use crate::network::files;
use crate::{Error, clock};

/// Seconds between the stop signal and SIGKILL, as docker's.
const STOP_TIMEOUT_SECONDS: u64 = 10;
/// Longest hostname. `sethostname(2)`.
const HOSTNAME_BYTES_MAX: usize = 64;

/// What the caller of `teu` brings along.
pub(super) struct Caller<'a> {
    pub(super) cwd: &'a Path,
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
    /// The host's name.
    pub(super) hostname: String,
    /// The environment files' texts.
    pub(super) env_files: Vec<String>,
    /// The runtime that is used where no flag names one.
    pub(super) runtime: PathBuf,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) record: Record,
    /// Bind mounts, as the store's request holds them.
    pub(super) mounts: Vec<Value>,
    /// The rest of the request.
    request: Value,
    /// Folders of the host that are mounted, to be made where they lack.
    pub(super) host_folders: Vec<PathBuf>,
}

impl Plan {
    /// The request for `teu-store bundle create`. Mounts are ordered so that none hides another.
    pub(super) fn request(&self) -> Value {
        let mut mounts = self.mounts.clone();
        mounts.sort_by_key(|mount| {
            mount["destination"]
                .as_str()
                .unwrap_or_default()
                .matches('/')
                .count()
        });
        let mut request = self.request.clone();
        request["mounts"] = mounts.into();
        request
    }

    /// Adds a volume of the container's own for each path that the image wants
    /// one at, and that no flag covers. Whether there was any.
    pub(super) fn add_image_volumes(
        &mut self,
        place: &Place,
        paths: &[String],
    ) -> Result<bool, Error> {
        let mut added = false;
        for path in paths {
            let target = flags::container_path(path)?;
            if self
                .mounts
                .iter()
                .all(|mount| mount["destination"] != target.as_str())
            {
                self.add_volume(
                    place,
                    anonymous_name()?,
                    target,
                    true,
                    true,
                    &["rprivate".to_owned()],
                );
                added = true;
            }
        }
        Ok(added)
    }

    fn add_volume(
        &mut self,
        place: &Place,
        name: Name,
        target: String,
        anonymous: bool,
        copy: bool,
        options: &[String],
    ) {
        self.mounts
            .push(bind(&place.volumes().join(name.as_str()), &target, options));
        self.record.volumes.push(Volume {
            name,
            target,
            anonymous,
            copy,
        });
    }
}

/// Plans a container.
pub(super) fn plan(
    place: &Place,
    id: ContainerId,
    name: Name,
    arguments: &CreateArguments,
    caller: &Caller<'_>,
) -> Result<Plan, Error> {
    let network = network(arguments)?;
    let hostname = hostname(arguments, &id, &network, caller)?;
    let cgroups_path = cgroups_path(arguments.cgroup_parent.as_deref(), &id)?;
    let mut command: Vec<String> = arguments
        .entrypoint
        .iter()
        .filter(|text| !text.is_empty())
        .cloned()
        .collect();
    command.extend_from_slice(&arguments.command);
    if let Some(signal) = &arguments.stop_signal {
        flags::signal(signal)?;
    }
    let request = request(
        place,
        &id,
        arguments,
        caller,
        &network,
        &hostname,
        &cgroups_path,
    )?;
    let log_size = arguments
        .log_size
        .as_deref()
        .map(flags::bytes)
        .transpose()?;
    let log_size = log_size.and_then(|bytes| u64::try_from(bytes).ok());
    let record = Record {
        version: record::VERSION,
        id,
        name,
        created: clock::now(),
        image: arguments.image.clone(),
        bundle: None,
        command,
        terminal: arguments.tty,
        stdin: if arguments.interactive {
            Stdin::Open
        } else {
            Stdin::Closed
        },
        remove: arguments.rm,
        log_full: if arguments.log_full == "drop" {
            LogFull::Drop
        } else {
            LogFull::Block
        },
        log_size,
        log_files: arguments.log_files,
        network,
        hostname,
        volumes: Vec::new(),
        stop_signal: arguments.stop_signal.clone(),
        stop_timeout: arguments.stop_timeout.unwrap_or(STOP_TIMEOUT_SECONDS),
        cgroups_path,
        runtime: arguments
            .runtime
            .clone()
            .unwrap_or_else(|| caller.runtime.clone()),
    };
    let mut plan = Plan {
        record,
        mounts: Vec::new(),
        request,
        host_folders: Vec::new(),
    };
    add_mounts(&mut plan, place, arguments, caller)?;
    Ok(plan)
}

fn add_mounts(
    plan: &mut Plan,
    place: &Place,
    arguments: &CreateArguments,
    caller: &Caller<'_>,
) -> Result<(), Error> {
    if plan.record.network != Network::Host {
        let folder = place.containers().join(plan.record.id.as_str());
        for (file, target) in files::MOUNTS {
            plan.mounts
                .push(bind(&folder.join(file), target, &["rprivate".to_owned()]));
        }
    }
    for text in &arguments.volume {
        let flag = flags::volume(text, caller.cwd)?;
        // What the user wants at a place replaces ours there.
        plan.mounts
            .retain(|mount| mount["destination"] != flag.target.as_str());
        match flag.source {
            Source::Host(path) => {
                plan.mounts.push(bind(&path, &flag.target, &flag.options));
                plan.host_folders.push(path);
            }
            Source::Named(name) => {
                plan.add_volume(place, name, flag.target, false, flag.copy, &flag.options)
            }
            Source::Anonymous => {
                plan.add_volume(
                    place,
                    anonymous_name()?,
                    flag.target,
                    true,
                    flag.copy,
                    &flag.options,
                );
            }
        }
    }
    for text in &arguments.tmpfs {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let options: Vec<&str> = ["nosuid", "nodev", "noexec"]
            .into_iter()
            .chain(options.split(',').filter(|text| !text.is_empty()))
            .collect();
        let target = flags::container_path(target)?;
        plan.mounts.push(
            json!({"type": "tmpfs", "source": "tmpfs", "destination": target, "options": options}),
        );
    }
    Ok(())
}

fn bind(source: &Path, target: &str, options: &[String]) -> Value {
    let options: Vec<&str> = std::iter::once("rbind")
        .chain(options.iter().map(String::as_str))
        .collect();
    json!({"type": "bind", "source": source, "destination": target, "options": options})
}

/// A name that no person would choose, and no two containers share.
fn anonymous_name() -> Result<Name, Error> {
    ContainerId::random()?.as_str().parse()
}

fn network(arguments: &CreateArguments) -> Result<Network, Error> {
    let ports = arguments
        .publish
        .iter()
        .map(|text| flags::port(text))
        .collect::<Result<Vec<_>, _>>()?;
    match arguments.network.as_str() {
        "bridge" => Ok(Network::Bridge { ports }),
        other if !ports.is_empty() => Err(Error::Invalid(format!(
            "--publish needs --network bridge; with --network {other} there is nothing to map"
        ))),
        "host" => Ok(Network::Host),
        _ => Ok(Network::None),
    }
}

fn hostname(
    arguments: &CreateArguments,
    id: &ContainerId,
    network: &Network,
    caller: &Caller<'_>,
) -> Result<String, Error> {
    let host = || (*network == Network::Host).then(|| caller.hostname.clone());
    let hostname = arguments
        .hostname
        .clone()
        .or_else(host)
        .unwrap_or_else(|| id.short().to_owned());
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if hostname.is_empty() || hostname.len() > HOSTNAME_BYTES_MAX || !hostname.bytes().all(good) {
        return Err(Error::Invalid(format!(
            "{hostname:?} is not a hostname: letters, digits, `-` and `.`, at most {HOSTNAME_BYTES_MAX}"
        )));
    }
    Ok(hostname)
}

/// Without a parent of the user's choice the cgroup stands at the top: a parent
/// of ours would be left behind by the last container, or be removed under the next.
fn cgroups_path(parent: Option<&str>, id: &ContainerId) -> Result<String, Error> {
    let Some(parent) = parent else {
        return Ok(format!("/teu-{id}"));
    };
    match flags::container_path(parent) {
        Ok(parent) => Ok(format!("{parent}/{id}")),
        Err(_) => Err(Error::Invalid(format!(
            "--cgroup-parent {parent:?}: give an absolute path other than /"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: CreateArguments,
    }

    fn planned(words: &[&str]) -> Result<Plan, Error> {
        let place = Place {
            data: "/d".into(),
            state: "/s".into(),
        };
        let line = Line::parse_from(["run"].iter().chain(words));
        let lookup = |name: &str| (name == "SET").then(|| "1".to_owned());
        let caller = Caller {
            cwd: Path::new("/cwd"),
            lookup: &lookup,
            hostname: "host".into(),
            env_files: vec!["F=f\n".into()],
            runtime: "/rt".into(),
        };
        plan(
            &place,
            "a".repeat(64).parse().unwrap(),
            "n".parse().unwrap(),
            &line.create,
            &caller,
        )
    }

    #[test]
    fn an_image_alone_asks_for_its_own_command_on_a_bridge() {
        let plan = planned(&["busybox"]).unwrap();
        let request = plan.request();
        assert_eq!(
            request["network"],
            json!({"path": format!("/s/netns/{}", "a".repeat(64))})
        );
        assert_eq!(request["hostname"], "aaaaaaaaaaaa");
        assert_eq!(request["cgroups_path"], format!("/teu-{}", "a".repeat(64)));
        assert_eq!(request.get("args"), None);
        assert_eq!(request.get("resources"), None);
        assert_eq!(request["mounts"].as_array().unwrap().len(), 3);
        assert_eq!(plan.record.stdin, Stdin::Closed);
        assert_eq!(plan.record.runtime, Path::new("/rt"));
    }

    #[test]
    fn every_flag_arrives() {
        let plan = planned(&[
            "-i",
            "-t",
            "--rm",
            "-e",
            "A=1",
            "-e",
            "SET",
            "-e",
            "UNSET",
            "-w",
            "/w",
            "-u",
            "u:g",
            "--entrypoint",
            "",
            "--hostname",
            "h",
            "--read-only",
            "--network",
            "host",
            "--memory",
            "8m",
            "--cpus",
            "2",
            "--pids-limit",
            "5",
            "--cgroup-parent",
            "/p/q",
            "--stop-signal",
            "INT",
            "--stop-timeout",
            "3",
            "--tmpfs",
            "/t:size=1m",
            "image",
            "cmd",
            "arg",
        ])
        .unwrap();
        assert_eq!(
            plan.request(),
            json!({
                "args": ["cmd", "arg"], "entrypoint": [""], "env": ["HOSTNAME=h", "F=f", "A=1", "SET=1"], "cwd": "/w",
                "user": "u:g", "hostname": "h", "terminal": true, "readonly": true, "network": "host",
                "cgroups_path": format!("/p/q/{}", "a".repeat(64)),
                "resources": {"memory": {"limit": 8_388_608}, "cpu": {"quota": 200_000, "period": 100_000}, "pids": {"limit": 5}},
                "mounts": [{"type": "tmpfs", "source": "tmpfs", "destination": "/t", "options": ["nosuid", "nodev", "noexec", "size=1m"]}],
            })
        );
        assert!(plan.record.remove && plan.record.terminal);
        assert_eq!(
            (plan.record.stop_timeout, plan.record.stop_signal.as_deref()),
            (3, Some("INT"))
        );
        assert_eq!(plan.record.command, ["cmd", "arg"]);
    }

    #[test]
    fn mounts_go_from_the_root_downwards_and_users_replace_ours() {
        let plan = planned(&[
            "-v",
            "/x:/a/b/c",
            "-v",
            "v:/a",
            "-v",
            "/h:/etc/hosts",
            "image",
        ])
        .unwrap();
        let request = plan.request();
        let places: Vec<&str> = request["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect();
        assert_eq!(
            places,
            [
                "/a",
                "/etc/hostname",
                "/etc/resolv.conf",
                "/etc/hosts",
                "/a/b/c"
            ]
        );
        assert_eq!(plan.record.volumes.len(), 1);
        assert_eq!(plan.host_folders, [Path::new("/x"), Path::new("/h")]);
    }

    #[test]
    fn image_volumes_are_the_containers_own_unless_covered() {
        let place = Place {
            data: "/d".into(),
            state: "/s".into(),
        };
        let mut plan = planned(&["-v", "mine:/data", "image"]).unwrap();
        assert!(!plan.add_image_volumes(&place, &["/data/".into()]).unwrap());
        assert!(
            plan.add_image_volumes(&place, &["/var/cache".into()])
                .unwrap()
        );
        let last = plan.record.volumes.last().unwrap();
        assert!(last.anonymous && last.target == "/var/cache");
        assert!(plan.add_image_volumes(&place, &["/".into()]).is_err());
    }

    #[test]
    fn nonsense_is_refused_before_anything_happens() {
        for words in [
            &["-p", "80:80", "--network", "none", "image"][..],
            &["-w", "relative", "image"],
            &["--cgroup-parent", "x", "image"],
            &["--hostname", "a b", "image"],
            &["--stop-signal", "NO", "image"],
            &["--memory", "much", "image"],
            &["-v", "/a:b", "image"],
        ] {
            assert!(
                matches!(planned(words), Err(Error::Invalid(_))),
                "{words:?}"
            );
        }
    }
}
