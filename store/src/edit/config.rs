//! The same layers under another configuration.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::archive::{Change, apply_changes};
use crate::digest::Digest;
use crate::error::Error;
use crate::image::{History, ImageConfig, Platform};
use crate::reference::Reference;
use crate::store::Store;

/// What is to be different; what it does not speak of stays.
#[derive(Debug, Clone, Default)]
pub struct ConfigEdit {
    /// What is taken away; comes before `changes`.
    pub unset: Vec<Unset>,
    /// How a container runs, in their order.
    pub changes: Vec<Change>,
    /// What the image is for.
    pub platform: Option<Platform>,
    /// When it was made; RFC 3339.
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// Annotations of the manifest; `None` takes one away.
    pub annotations: BTreeMap<String, Option<String>>,
    /// What the image's history says of this; empty: nothing.
    pub created_by: String,
}

/// A part of a configuration that is taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unset {
    /// The arguments.
    Cmd,
    /// The program.
    Entrypoint,
    /// A variable; all of them without a name.
    Env(Option<String>),
    /// A label; all of them without a name.
    Label(Option<String>),
    /// A port; all of them without a number.
    Port(Option<String>),
    /// A volume; all of them without a path.
    Volume(Option<String>),
    /// The working directory.
    Workdir,
    /// The user.
    User,
    /// The signal that stops it.
    StopSignal,
    /// The health check.
    Healthcheck,
    /// Who made it.
    Author,
    /// The history of how it came to be.
    History,
}

/// A text that names no part of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be taken away: want cmd, entrypoint, env[=NAME], label[=NAME], port[=PORT/PROTOCOL], volume[=PATH], workdir, user, stop-signal, healthcheck, author or history"
)]
pub struct BadUnset(String);

impl FromStr for Unset {
    type Err = BadUnset;

    fn from_str(text: &str) -> Result<Unset, BadUnset> {
        let (part, name) = match text.split_once('=') {
            Some((part, name)) if !name.is_empty() => (part, Some(name.to_owned())),
            Some(_) => return Err(BadUnset(text.to_owned())),
            None => (text, None),
        };
        Ok(match (part, name) {
            ("cmd", None) => Unset::Cmd,
            ("entrypoint", None) => Unset::Entrypoint,
            ("env", name) => Unset::Env(name),
            ("label", name) => Unset::Label(name),
            ("port", name) => Unset::Port(name.map(|port| match port.contains('/') {
                true => port,
                false => format!("{port}/tcp"),
            })),
            ("volume", name) => Unset::Volume(name),
            ("workdir", None) => Unset::Workdir,
            ("user", None) => Unset::User,
            ("stop-signal", None) => Unset::StopSignal,
            ("healthcheck", None) => Unset::Healthcheck,
            ("author", None) => Unset::Author,
            ("history", None) => Unset::History,
            _ => return Err(BadUnset(text.to_owned())),
        })
    }
}

impl Store {
    /// Makes `new` mean the image `name` (of an index, the one for this machine) with another configuration;
    /// its manifest's digest. Media types, layers and what we do not know stay as they are.
    pub fn edit_image(
        &self,
        name: &str,
        edit: &ConfigEdit,
        new: &Reference,
    ) -> Result<Digest, Error> {
        let work = self.begin()?;
        let (image, _) = work.hold(name)?;
        let mut config = image.config;
        edit.apply(&mut config);
        let mut manifest = image.manifest;
        manifest.config = {
            let media_type = manifest.config.media_type.clone();
            work.put_bytes(&media_type, &json("the image configuration", &config)?)?
        };
        for (key, value) in &edit.annotations {
            match value {
                Some(value) => manifest.annotations.insert(key.clone(), value.clone()),
                None => manifest.annotations.remove(key),
            };
        }
        let media_type = &image.manifest_descriptor.media_type;
        let manifest = work.put_bytes(media_type, &json("the manifest", &manifest)?)?;
        work.finish_image(&manifest, &[], None, Some(new))?;
        Ok(manifest.digest)
    }
}

pub(super) fn json(what: &str, value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|source| Error::Json {
        what: what.to_owned(),
        source,
    })
}

impl ConfigEdit {
    /// Does to `config` what the edit says. An image whose history is silent about its layers stays silent.
    fn apply(&self, config: &mut ImageConfig) {
        self.unset.iter().for_each(|part| part.apply(config));
        apply_changes(&mut config.config, &self.changes);
        if let Some(platform) = &self.platform {
            config.architecture.clone_from(&platform.architecture);
            config.os.clone_from(&platform.os);
            config.variant.clone_from(&platform.variant);
        }
        if self.created.is_some() {
            config.created.clone_from(&self.created);
        }
        if self.author.is_some() {
            config.author.clone_from(&self.author);
        }
        let is_told = !config.history.is_empty() || config.rootfs.diff_ids.is_empty();
        if is_told && !self.created_by.is_empty() {
            config.history.push(History {
                created: self.created.clone(),
                author: self.author.clone(),
                created_by: Some(self.created_by.clone()),
                empty_layer: true,
                ..History::default()
            });
        }
    }
}

impl Unset {
    fn apply(&self, image: &mut ImageConfig) {
        let config = &mut image.config;
        let keeps =
            |name: &Option<String>, own: &str| name.as_ref().is_some_and(|name| name != own);
        match self {
            Unset::Cmd => config.cmd = None,
            Unset::Entrypoint => config.entrypoint = None,
            Unset::Env(name) => config
                .env
                .retain(|pair| keeps(name, pair.split('=').next().unwrap_or_default())),
            Unset::Label(name) => config.labels.retain(|label, _| keeps(name, label)),
            Unset::Port(name) => config.exposed_ports.retain(|port, _| keeps(name, port)),
            Unset::Volume(name) => config.volumes.retain(|volume, _| keeps(name, volume)),
            Unset::Workdir => config.working_dir.clear(),
            Unset::User => config.user.clear(),
            Unset::StopSignal => config.stop_signal = None,
            Unset::Healthcheck => config.healthcheck = None,
            Unset::Author => image.author = None,
            Unset::History => image.history.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_go_and_come() {
        let mut config: ImageConfig = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","x":1,"rootfs":{"type":"layers","diff_ids":[]},
            "config":{"Env":["A=1","B=2"],"Cmd":["x"],"ExposedPorts":{"80/tcp":{},"81/udp":{}},"Labels":{"a":"1","b":"2"},"Own":2}}"#,
        )
        .unwrap();
        let edit = ConfigEdit {
            unset: ["env=A", "cmd", "port=80", "label"]
                .map(|text| text.parse().unwrap())
                .into(),
            changes: ["LABEL c=3", "ENV A=4", "ENTRYPOINT [\"e\"]"]
                .map(|text| text.parse().unwrap())
                .into(),
            platform: Some("linux/arm/v7".parse().unwrap()),
            created_by: "us".into(),
            ..ConfigEdit::default()
        };
        edit.apply(&mut config);
        assert_eq!(
            serde_json::to_value(&config).unwrap(),
            serde_json::json!({"architecture": "arm", "os": "linux", "variant": "v7", "x": 1,
                "rootfs": {"type": "layers", "diff_ids": []},
                "config": {"Env": ["B=2", "A=4"], "Entrypoint": ["e"], "ExposedPorts": {"81/udp": {}}, "Labels": {"c": "3"}, "Own": 2},
                "history": [{"created_by": "us", "empty_layer": true}]})
        );
        for bad in ["", "env=", "cmd=x", "x"] {
            assert!(bad.parse::<Unset>().is_err(), "{bad}");
        }
    }
}
