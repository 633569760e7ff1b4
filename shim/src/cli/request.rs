//! The request from which the store makes config.json. Pure.

use serde_json::{Value, json};

use super::flags::{self, CPU_PERIOD};
use super::plan::Caller;
use super::run::CreateArguments;
use crate::Error;
use crate::container::record::Network;
use crate::container::{ContainerId, Place};
use crate::network::netns;

/// Everything but the mounts.
pub(super) fn request(
    place: &Place,
    id: &ContainerId,
    arguments: &CreateArguments,
    caller: &Caller<'_>,
    network: &Network,
    hostname: &str,
    cgroups_path: &str,
) -> Result<Value, Error> {
    let mut env = vec![format!("HOSTNAME={hostname}")];
    for text in &caller.env_files {
        env.extend(flags::variables_of_file(text, caller.lookup)?);
    }
    for text in &arguments.env {
        env.extend(flags::variable(text, caller.lookup)?);
    }
    let network = match network {
        Network::Host => json!("host"),
        Network::None => json!("none"),
        Network::Bridge { .. } => json!({"path": netns::path(place, id)}),
    };
    let mut request = json!({
        "env": env, "hostname": hostname, "terminal": arguments.tty, "readonly": arguments.read_only,
        "network": network, "cgroups_path": cgroups_path,
    });
    if !arguments.command.is_empty() {
        request["args"] = json!(arguments.command);
    }
    if let Some(entrypoint) = &arguments.entrypoint {
        request["entrypoint"] = json!([entrypoint]);
    }
    if let Some(cwd) = &arguments.workdir {
        if !cwd.starts_with('/') {
            return Err(Error::Invalid(format!(
                "--workdir {cwd:?}: give an absolute path in the container"
            )));
        }
        request["cwd"] = json!(cwd);
    }
    if let Some(user) = &arguments.user {
        request["user"] = json!(user);
    }
    let resources = resources(arguments)?;
    if resources != json!({}) {
        request["resources"] = resources;
    }
    Ok(request)
}

/// OCI `LinuxResources` of the limits that are set.
fn resources(arguments: &CreateArguments) -> Result<Value, Error> {
    let mut resources = json!({});
    if let Some(text) = &arguments.memory {
        resources["memory"] = json!({"limit": flags::bytes(text)?});
    }
    if let Some(text) = &arguments.cpus {
        resources["cpu"] = json!({"quota": flags::cpu_quota(text)?, "period": CPU_PERIOD});
    }
    if let Some(limit) = arguments.pids_limit {
        resources["pids"] = json!({"limit": limit});
    }
    Ok(resources)
}
