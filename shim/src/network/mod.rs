//! A container's own network: a namespace, joined to a bridge by CNI plugins.
//!
//! What is set up is written down before it is done, so that whoever finds a
//! container without a supervisor can take its network down: [`down`] needs
//! the folder only.

pub mod cni;
pub mod files;
pub mod netns;
pub mod ports;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::container::record::Port;
use crate::container::{Folder, Place, Record};
use crate::error::At as _;

/// File of a container's folder: that its network was begun, and what the plugins answered.
const NOTES: &str = "network.json";

/// What has to be taken down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// The ports that were asked for.
    ports: Vec<Port>,
    /// The plugins' last result; absent while they run.
    result: Option<serde_json::Value>,
}

impl Notes {
    /// The container's address, without prefix length.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        let address = self
            .result
            .as_ref()?
            .get("ips")?
            .get(0)?
            .get("address")?
            .as_str()?;
        address.split('/').next()
    }
}

/// The notes of a container that has a network of its own.
///
/// # Errors
/// I/O errors.
pub fn notes(folder: &Folder) -> Result<Option<Notes>, Error> {
    folder.read_json(NOTES)
}

/// Makes the container's namespace and joins it to the bridge. Returns the namespace.
///
/// # Errors
/// Missing plugins, and what they say. [`down`] is then to be called.
pub fn up(
    place: &Place,
    folder: &Folder,
    record: &Record,
    ports: &[Port],
) -> Result<OwnedFd, Error> {
    let plugins = cni::Plugins::find()?;
    let mut notes = Notes {
        ports: ports.to_vec(),
        result: None,
    };
    folder.write_json(NOTES, &notes)?;
    let namespace = netns::make(place, &folder.id)?;
    let result = plugins.add(place, &folder.id, ports)?;
    notes.result = Some(result);
    folder.write_json(NOTES, &notes)?;
    if let Some(address) = notes.address() {
        let hosts = folder.path.join("hosts");
        let line = format!("{address}\t{}\n", record.hostname);
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&hosts)
            .at("open", &hosts)?;
        file.write_all(line.as_bytes()).at("write", &hosts)?;
    }
    Ok(namespace)
}

/// Takes the container's network down: addresses, port rules, the namespace. Idempotent.
///
/// # Errors
/// What the plugins say; the notes stay then, so that it can be tried again.
pub fn down(place: &Place, folder: &Folder) -> Result<(), Error> {
    let Some(notes) = notes(folder)? else {
        return Ok(());
    };
    netns::remove_hollow(place, &folder.id)?;
    cni::Plugins::find()?.del(place, &folder.id, &notes.ports, notes.result.as_ref())?;
    netns::remove(place, &folder.id)?;
    let path = folder.path.join(NOTES);
    match std::fs::remove_file(&path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err).at("remove", &path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_that_of_the_first_interface() {
        let result =
            serde_json::json!({"ips": [{"address": "10.86.0.2/16"}, {"address": "fd00::2/64"}]});
        assert_eq!(
            Notes {
                ports: vec![],
                result: Some(result)
            }
            .address(),
            Some("10.86.0.2")
        );
        assert_eq!(Notes::default().address(), None);
    }
}
