//! `teu inspect`

use serde_json::{Value, json};

use super::bundle::Store;
use super::pass::become_program;
use crate::container::status::{State, Status, observe};
use crate::container::{Folder, Place};
use crate::{Error, network};

/// `teu inspect`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Containers; or images, which teu-store then shows
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Prints a JSON array with an object for each container. Names none of which
/// is a container's are images'.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<u8, Error> {
    let found: Vec<_> = arguments
        .names
        .iter()
        .map(|name| Folder::resolve(place, name))
        .collect();
    if found
        .iter()
        .all(|folder| matches!(folder, Err(Error::NoSuchContainer(_))))
    {
        let store = Store::find(place)?;
        for name in &arguments.names {
            if !store.has(name)? {
                return Err(Error::NoSuchName(name.clone()));
            }
        }
        return become_program(place, "teu-store", "inspect", &arguments.names);
    }
    let documents = found
        .into_iter()
        .map(|folder| document(&folder?))
        .collect::<Result<Vec<_>, _>>()?;
    let text = serde_json::to_string_pretty(&documents).map_err(|source| Error::Json {
        what: "the document to print".into(),
        source,
    })?;
    super::show(&text)?;
    Ok(0)
}

fn document(folder: &Folder) -> Result<Value, Error> {
    let record = folder.record()?;
    let status = observe(folder)?;
    let state: Option<State> = folder.read_json("state.json")?;
    let notes = network::notes(folder)?;
    let running = matches!(
        status,
        Status::Running | Status::Created | Status::Unsupervised(_)
    );
    let exit = match &status {
        Status::Exited(exit) => json!(exit),
        _ => Value::Null,
    };
    let started = state.as_ref().and_then(|state| state.started.clone());
    Ok(json!({
        "id": record.id, "name": record.name, "created": record.created, "image": record.image,
        "bundle": record.bundle, "command": record.command, "terminal": record.terminal, "stdin": record.stdin,
        "remove": record.remove, "network": record.network, "hostname": record.hostname, "volumes": record.volumes,
        "stop_signal": record.stop_signal, "stop_timeout": record.stop_timeout, "cgroups_path": record.cgroups_path,
        "runtime": record.runtime,
        "state": {
            "status": status.word(),
            "pid": state.as_ref().filter(|_| running).and_then(|state| state.init).map(|init| init.pid),
            "supervisor_pid": state.filter(|state| running && state.shim.is_alive()).map(|state| state.shim.pid),
            "started": started,
            "exit": exit,
        },
        "address": notes.as_ref().and_then(|notes| notes.address()),
        "folder": folder.path, "log": folder.log(),
    }))
}
