//! The process: what runs, as whom, where, with which environment (runtime-spec, config.md, "Process").

use serde_json::{Value, json};

use super::BundleError;
use super::defaults;
use super::request::Request;
use super::user::User;
use crate::image::ContainerConfig;

/// Runtime-spec's `process`.
pub(super) fn process(
    config: &ContainerConfig,
    request: &Request,
    user: &User,
    id: &str,
) -> Result<Value, BundleError> {
    let cwd = request.cwd.as_deref().unwrap_or(&config.working_dir);
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') {
        return Err(BundleError::Relative {
            what: "the working directory",
            path: cwd.to_owned(),
        });
    }
    let bounding = if request.privileged {
        defaults::all_capabilities()
    } else {
        defaults::CAPABILITIES.to_vec()
    };
    // Only root keeps the capabilities across execve(2) anyway; docker says so beforehand.
    let held: &[&str] = if user.uid == 0 { &bounding } else { &[] };
    let rlimits: Vec<Value> = request
        .rlimits
        .iter()
        .map(|(name, soft, hard)| {
            let kind = format!("RLIMIT_{}", name.to_uppercase());
            json!({ "type": kind, "soft": soft, "hard": hard })
        })
        .collect();
    Ok(json!({
        "terminal": request.terminal,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids },
        "args": command(config, request)?,
        "env": environment(config, request, user, id)?,
        "cwd": cwd,
        "capabilities": { "bounding": bounding, "effective": held, "permitted": held },
        "rlimits": rlimits,
        "noNewPrivileges": false,
    }))
}

/// Docker's rules for ENTRYPOINT and CMD.
pub(super) fn command(
    config: &ContainerConfig,
    request: &Request,
) -> Result<Vec<String>, BundleError> {
    let image_entrypoint = config.entrypoint.clone().unwrap_or_default();
    let image_command = config.cmd.clone().unwrap_or_default();
    let (mut command, rest) = match &request.entrypoint {
        Some(entrypoint) if entrypoint.iter().all(String::is_empty) => {
            (Vec::new(), request.args.clone())
        }
        Some(entrypoint) => (entrypoint.clone(), request.args.clone()),
        None if request.args.is_empty() => (image_entrypoint, image_command),
        None => (image_entrypoint, request.args.clone()),
    };
    command.extend(rest);
    if command.is_empty() {
        Err(BundleError::NoCommand)
    } else {
        Ok(command)
    }
}

/// The image's variables, the request's over them, and what every container has. Entries of the image that are no
/// variables are left out: a runtime could take them for the host's variable of that name (CVE-2026-57231).
fn environment(
    config: &ContainerConfig,
    request: &Request,
    user: &User,
    id: &str,
) -> Result<Vec<String>, BundleError> {
    let mut variables: Vec<(String, String)> = vec![
        ("PATH".into(), defaults::PATH.into()),
        ("HOSTNAME".into(), hostname(request, id)),
    ];
    if request.terminal {
        variables.push(("TERM".into(), "xterm".into()));
    }
    if let Some(home) = &user.home {
        variables.push(("HOME".into(), home.clone()));
    }
    for entry in &config.env {
        if let Some(variable) = split(entry) {
            set(&mut variables, variable);
        }
    }
    for entry in &request.env {
        set(
            &mut variables,
            split(entry).ok_or_else(|| BundleError::Environment(entry.clone()))?,
        );
    }
    Ok(variables
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect())
}

/// The host name: as asked, or the beginning of the id, as docker has it.
pub(super) fn hostname(request: &Request, id: &str) -> String {
    request
        .hostname
        .clone()
        .unwrap_or_else(|| id.chars().take(12).collect())
}

fn split(entry: &str) -> Option<(String, String)> {
    let (name, value) = entry.split_once('=')?;
    (!name.is_empty() && !entry.contains('\0')).then(|| (name.to_owned(), value.to_owned()))
}

/// A variable keeps its place when its value changes.
fn set(variables: &mut Vec<(String, String)>, (name, value): (String, String)) {
    match variables.iter_mut().find(|(known, _)| *known == name) {
        Some(variable) => variable.1 = value,
        None => variables.push((name, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// The request's entry point and arguments, and the command.
    type Row = (
        Option<&'static [&'static str]>,
        &'static [&'static str],
        &'static [&'static str],
    );

    #[test]
    fn entrypoint_and_command_as_docker_combines_them() {
        let config = ContainerConfig {
            entrypoint: Some(texts(&["e"])),
            cmd: Some(texts(&["c"])),
            ..Default::default()
        };
        let rows: [Row; 5] = [
            (None, &[], &["e", "c"]),
            (None, &["a"], &["e", "a"]),
            (Some(&["n"]), &[], &["n"]),
            (Some(&["n"]), &["a"], &["n", "a"]),
            (Some(&[""]), &["a"], &["a"]),
        ];
        for (entrypoint, args, wanted) in rows {
            let request = Request {
                entrypoint: entrypoint.map(texts),
                args: texts(args),
                ..Request::default()
            };
            assert_eq!(command(&config, &request).unwrap(), texts(wanted));
        }
        let none = Request {
            entrypoint: Some(texts(&[""])),
            ..Request::default()
        };
        assert!(matches!(
            command(&config, &none),
            Err(BundleError::NoCommand)
        ));
    }

    #[test]
    fn environments_are_merged_by_name() {
        let config = ContainerConfig {
            env: texts(&[
                "PATH=/bin",
                "A=1",
                "SECRET",
                "=x",
                "*",
                "SEC*",
                "",
                "=",
                "A\0B=1",
                "B=2",
            ]),
            ..Default::default()
        };
        let request = Request {
            env: texts(&["A=3", "C="]),
            hostname: Some("h".into()),
            ..Request::default()
        };
        let user = User {
            uid: 0,
            gid: 0,
            additional_gids: vec![],
            home: Some("/root".into()),
        };
        let env = environment(&config, &request, &user, "id").unwrap();
        assert_eq!(
            env,
            texts(&["PATH=/bin", "HOSTNAME=h", "HOME=/root", "A=3", "B=2", "C="])
        );
        let bad = Request {
            env: texts(&["SECRET"]),
            ..Request::default()
        };
        assert!(environment(&config, &bad, &user, "id").is_err());
    }
}
