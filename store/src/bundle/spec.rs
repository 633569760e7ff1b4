//! The rest of the `config.json` around the process. Pure.

use serde_json::{Map, Value, json};

use super::defaults::{self, Host};
use super::process::hostname;
use super::request::{Mount, Network, Request};
use super::{BundleError, seccomp};

/// The runtime-spec we write.
const OCI_VERSION: &str = "1.2.0";

/// Runtime-spec's configuration.
pub(super) fn config(
    request: &Request,
    process: Value,
    id: &str,
    host: &Host,
) -> Result<Value, BundleError> {
    let mounts = mounts(request, host)?;
    let mut config = json!({
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": { "path": "rootfs", "readonly": request.readonly },
        "hostname": hostname(request, id),
        "mounts": mounts,
        "linux": linux(request, host),
    });
    if !request.annotations.is_empty() {
        config["annotations"] = json!(request.annotations);
    }
    Ok(config)
}

/// The default mounts, those of the request over them. One for the same place replaces the default.
fn mounts(request: &Request, host: &Host) -> Result<Vec<Mount>, BundleError> {
    let mut mounts = defaults::mounts();
    if request.privileged {
        mounts
            .iter_mut()
            .for_each(|mount| mount.options.retain(|option| option != "ro"));
    }
    if request.network == Network::Host {
        mounts.extend(host.network_files.iter().map(|path| Mount {
            destination: path.clone(),
            kind: Some("bind".into()),
            source: Some(path.clone()),
            options: ["bind", "ro", "rprivate"].map(str::to_owned).to_vec(),
        }));
    }
    for mount in &request.mounts {
        if !mount.destination.starts_with('/') {
            return Err(BundleError::Relative {
                what: "mount destination",
                path: mount.destination.clone(),
            });
        }
        mounts.retain(|known| {
            known.destination.trim_end_matches('/') != mount.destination.trim_end_matches('/')
        });
        mounts.push(explicit(mount.clone()));
    }
    Ok(mounts)
}

/// Runtime-spec wants `bind` or `rbind` among the options of a bind mount; docker's default is the latter.
fn explicit(mut mount: Mount) -> Mount {
    let has = |mount: &Mount, names: &[&str]| {
        mount
            .options
            .iter()
            .any(|option| names.contains(&option.as_str()))
    };
    if mount.kind.as_deref() == Some("bind") {
        if !has(&mount, &["bind", "rbind"]) {
            mount.options.insert(0, "rbind".into());
        }
        if !has(
            &mount,
            &[
                "private",
                "rprivate",
                "shared",
                "rshared",
                "slave",
                "rslave",
                "unbindable",
                "runbindable",
            ],
        ) {
            mount.options.push("rprivate".into());
        }
    }
    mount
}

fn linux(request: &Request, host: &Host) -> Value {
    let masked: Vec<&str> = defaults::MASKED_PATHS
        .into_iter()
        .chain(host.thermal_paths.iter().map(String::as_str))
        .collect();
    let mut linux = json!({
        "namespaces": namespaces(request, host),
        "resources": resources(request),
    });
    if !request.privileged {
        linux["maskedPaths"] = json!(masked);
        linux["readonlyPaths"] = json!(defaults::READONLY_PATHS);
    }
    if !request.privileged
        && let Some(profile) = seccomp::profile(&defaults::CAPABILITIES)
    {
        linux["seccomp"] = profile;
    }
    if let Some(path) = &request.cgroups_path {
        linux["cgroupsPath"] = json!(path);
    }
    if request.network != Network::Host {
        // Docker's: whoever is not root may listen on low ports and ping, in the container's own network.
        linux["sysctl"] = json!({
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        });
    }
    linux
}

fn namespaces(request: &Request, host: &Host) -> Vec<Value> {
    let mut namespaces: Vec<Value> = ["mount", "uts", "ipc", "pid"]
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    if host.unified_cgroups {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    match &request.network {
        Network::Host => {}
        Network::None => namespaces.push(json!({ "type": "network" })),
        Network::Path(path) => namespaces.push(json!({ "type": "network", "path": path })),
    }
    namespaces
}

/// The request's limits behind the device rules that every container has.
fn resources(request: &Request) -> Value {
    let mut resources = match &request.resources {
        Some(Value::Object(resources)) => resources.clone(),
        _ => Map::new(),
    };
    let mut devices = vec![json!({ "allow": request.privileged, "access": "rwm" })];
    if request.privileged {
        resources.insert("devices".into(), devices.into());
        return resources.into();
    }
    devices.extend(
        defaults::DEVICES
            .iter()
            .map(|(kind, major, minor, access)| {
                let mut rule = json!({ "allow": true, "type": kind, "access": access });
                if let Some(major) = major {
                    rule["major"] = json!(major);
                }
                if let Some(minor) = minor {
                    rule["minor"] = json!(minor);
                }
                rule
            }),
    );
    if let Some(Value::Array(more)) = resources.remove("devices") {
        devices.extend(more);
    }
    resources.insert("devices".into(), devices.into());
    resources.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host {
        unified_cgroups: false,
        network_files: Vec::new(),
        thermal_paths: Vec::new(),
    };

    fn plan(request: &Request) -> Value {
        config(request, json!({}), "0123456789abcdef", &HOST).unwrap()
    }

    fn kinds(config: &Value) -> Vec<&str> {
        config["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|namespace| namespace["type"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn networks() {
        assert_eq!(
            kinds(&plan(&Request::default())),
            ["mount", "uts", "ipc", "pid", "network"]
        );
        let host = plan(&Request {
            network: Network::Host,
            ..Request::default()
        });
        assert_eq!(kinds(&host), ["mount", "uts", "ipc", "pid"]);
        assert!(host["linux"].get("sysctl").is_none());
        let path = plan(&Request {
            network: Network::Path("/n".into()),
            ..Request::default()
        });
        assert_eq!(path["linux"]["namespaces"][4]["path"], "/n");
    }

    #[test]
    fn a_mount_replaces_the_default_for_its_place() {
        let mount = Mount {
            destination: "/dev/shm/".into(),
            kind: Some("bind".into()),
            source: Some("/x".into()),
            options: vec!["ro".into()],
        };
        let config = plan(&Request {
            mounts: vec![mount],
            ..Request::default()
        });
        let mounts = config["mounts"].as_array().unwrap();
        assert_eq!(mounts.len(), 7);
        assert_eq!(
            mounts[6],
            json!({"destination": "/dev/shm/", "type": "bind", "source": "/x", "options": ["rbind", "ro", "rprivate"]})
        );
        let relative = Mount {
            destination: "x".into(),
            kind: None,
            source: None,
            options: vec![],
        };
        assert!(config_err(&Request {
            mounts: vec![relative],
            ..Request::default()
        }));
    }

    fn config_err(request: &Request) -> bool {
        config(request, json!({}), "id", &HOST).is_err()
    }

    #[test]
    fn the_privileged_are_neither_filtered_nor_blinded() {
        let config = plan(&Request {
            privileged: true,
            ..Request::default()
        });
        for absent in ["seccomp", "maskedPaths", "readonlyPaths"] {
            assert!(config["linux"].get(absent).is_none(), "{absent}");
        }
        let devices = &config["linux"]["resources"]["devices"];
        assert_eq!(*devices, json!([{"allow": true, "access": "rwm"}]));
        assert!(!config["mounts"].to_string().contains("\"ro\""));
        assert!(
            plan(&Request::default())["linux"]
                .get("maskedPaths")
                .is_some()
        );
    }

    #[test]
    fn limits_and_devices_are_joined() {
        let resources = json!({"pids": {"limit": 5}, "devices": [{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]});
        let config = plan(&Request {
            resources: Some(resources),
            ..Request::default()
        });
        let resources = &config["linux"]["resources"];
        assert_eq!(resources["pids"]["limit"], 5);
        assert_eq!(
            resources["devices"][0],
            json!({"allow": false, "access": "rwm"})
        );
        assert_eq!(
            resources["devices"].as_array().unwrap().last().unwrap()["minor"],
            229
        );
        assert_eq!(config["hostname"], "0123456789ab");
    }
}
