//! Executing CNI plugins (CNI specification 0.4.0): `bridge` with `host-local`
//! addresses, `portmap` for ports, `loopback`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::netns;
use crate::Error;
use crate::container::record::Port;
use crate::container::{ContainerId, Place};
use crate::error::At as _;
use crate::siblings::is_executable;

/// Where distributions (Debian) and the plugins' own releases put them.
const FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// All that is executed, directly or by another of them.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];
/// Version of the specification that is spoken.
const VERSION: &str = "0.4.0";
/// Name of the network, in addresses' leases and firewall comments.
const NETWORK: &str = "teu";
/// The bridge of the host.
const BRIDGE: &str = "teu0";
/// Private addresses (RFC 1918) that neither docker nor podman takes by default.
const SUBNET: &str = "10.86.0.0/16";
/// The container's interface.
const INTERFACE: &str = "eth0";
/// Where plugins look for iptables.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One call of a plugin: plain values, so that it can be tested without any.
#[derive(Debug, Clone, PartialEq)]
struct Call {
    plugin: &'static str,
    interface: &'static str,
    config: Value,
}

/// The order in which plugins add; they delete in the opposite one.
fn calls(place: &Place, ports: &[Port]) -> Vec<Call> {
    let mut calls = vec![
        Call {
            plugin: "loopback",
            interface: "lo",
            config: json!({"type": "loopback"}),
        },
        Call {
            plugin: "bridge",
            interface: INTERFACE,
            config: json!({
                "type": "bridge", "bridge": BRIDGE, "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {"type": "host-local", "dataDir": place.cni(), "ranges": [[{"subnet": SUBNET}]]},
            }),
        },
    ];
    if !ports.is_empty() {
        let config = json!({
            "type": "portmap", "capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": ports},
        });
        calls.push(Call {
            plugin: "portmap",
            interface: INTERFACE,
            config,
        });
    }
    for call in &mut calls {
        call.config["cniVersion"] = VERSION.into();
        call.config["name"] = NETWORK.into();
    }
    calls
}

/// The folder of the plugins.
#[derive(Debug)]
pub struct Plugins(PathBuf);

impl Plugins {
    /// Finds the plugins.
    ///
    /// # Errors
    /// [`Error::Missing`], with what to install.
    pub fn find() -> Result<Self, Error> {
        let folders = FOLDERS.map(PathBuf::from);
        match folders
            .iter()
            .find(|folder| first_missing(folder).is_none())
        {
            Some(folder) => Ok(Self(folder.clone())),
            // Of an incomplete folder, what lacks there; else the plugin that everything begins with.
            None => Err(missing(
                folders
                    .iter()
                    .filter_map(|folder| first_missing(folder))
                    .find(|plugin| *plugin != PLUGINS[0])
                    .unwrap_or(PLUGINS[0]),
            )),
        }
    }

    /// ADD: joins the container to the network, returns the last result.
    ///
    /// # Errors
    /// What a plugin says. [`Plugins::del`] is then to be called.
    pub fn add(&self, place: &Place, id: &ContainerId, ports: &[Port]) -> Result<Value, Error> {
        let mut result = Value::Null;
        for mut call in calls(place, ports) {
            if call.interface == INTERFACE && !result.is_null() {
                call.config["prevResult"] = result.clone();
            }
            let answer = self.execute("ADD", place, id, &call)?;
            if call.interface == INTERFACE {
                result = answer;
            }
        }
        Ok(result)
    }

    /// DEL: the opposite, also of half an ADD. Idempotent, by the specification.
    ///
    /// # Errors
    /// The first plugin's words that could not; the others were called nevertheless.
    pub fn del(
        &self,
        place: &Place,
        id: &ContainerId,
        ports: &[Port],
        result: Option<&Value>,
    ) -> Result<(), Error> {
        let mut first_error = Ok(());
        for mut call in calls(place, ports).into_iter().rev() {
            if let Some(result) = result
                && call.interface == INTERFACE
            {
                call.config["prevResult"] = result.clone();
            }
            let deleted = self.execute("DEL", place, id, &call).map(|_| ());
            first_error = first_error.and(deleted);
        }
        first_error
    }

    fn execute(
        &self,
        verb: &str,
        place: &Place,
        id: &ContainerId,
        call: &Call,
    ) -> Result<Value, Error> {
        let program = self.0.join(call.plugin);
        let mut command = Command::new(&program);
        crate::sys::before_exec(&mut command, crate::sys::unblock_signals);
        let mut child = command
            .env_clear()
            .env("PATH", PATH)
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", id.as_str())
            .env("CNI_NETNS", netns::path(place, id))
            .env("CNI_IFNAME", call.interface)
            .env("CNI_PATH", &self.0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .at("execute", &program)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that does not read says why it failed; that is the better message.
            let _: std::io::Result<()> = stdin.write_all(call.config.to_string().as_bytes());
        }
        let output = child.wait_with_output().at("wait for", &program)?;
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() {
            return Ok(answer);
        }
        let reason = answer
            .get("msg")
            .and_then(Value::as_str)
            .map_or_else(|| output.status.to_string(), str::to_owned);
        Err(Error::Child {
            program: call.plugin.to_owned(),
            message: format!("CNI plugin {} could not {verb}: {reason}", call.plugin),
        })
    }
}

fn first_missing(folder: &Path) -> Option<&'static str> {
    let lacks = |plugin: &&str| !is_executable(&folder.join(plugin));
    PLUGINS.into_iter().find(lacks)
}

fn missing(plugin: &str) -> Error {
    Error::Missing {
        program: format!("the CNI plugin {plugin:?}"),
        hint: format!(
            "looked in {}; install Debian's package containernetworking-plugins, or use --network host or --network none",
            FOLDERS.join(" and ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_that_is_needed_must_be_there() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        for plugin in PLUGINS {
            assert_eq!(first_missing(dir.path()), Some(plugin));
            let path = dir.path().join(plugin);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        assert_eq!(first_missing(dir.path()), None);
    }

    fn place() -> Place {
        Place {
            data: "/d".into(),
            state: "/s".into(),
        }
    }

    #[test]
    fn ports_add_portmap_at_the_end() {
        let port = Port {
            host_port: 8080,
            container_port: 80,
            protocol: "tcp".into(),
            host_ip: Some("127.0.0.1".into()),
        };
        let with = calls(&place(), &[port]);
        let names: Vec<_> = with.iter().map(|call| call.plugin).collect();
        assert_eq!(names, ["loopback", "bridge", "portmap"]);
        assert_eq!(
            with[2].config["runtimeConfig"]["portMappings"],
            json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"}])
        );
        assert_eq!(calls(&place(), &[]).len(), 2);
        assert!(
            with.iter()
                .all(|call| call.config["name"] == NETWORK && call.config["cniVersion"] == VERSION)
        );
    }
}
