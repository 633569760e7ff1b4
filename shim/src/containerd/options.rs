//! The options of a container's runtime, in the forms that clients give them.
//!
//! Clients that know runc's shim send its own message. CRI and newer dockerds,
//! for a runtime of another name, send the table of their configuration as
//! TOML, with the same words: `SystemdCgroup = true`.

use std::path::Path;

use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::bundle;
use super::proto::Any;
use super::proto::options::{Generic, Options};
use crate::Error;

/// Words of the generic form about the rest of it.
const PASSED_OVER: [&str; 2] = ["TypeUrl", "ConfigPath"];

/// The options, as people write them.
const WORDS: [&str; 11] = [
    "BinaryName",
    "CriuImagePath",
    "CriuPath",
    "CriuWorkPath",
    "IoGid",
    "IoUid",
    "NoNewKeyring",
    "NoPivotRoot",
    "Root",
    "ShimCgroup",
    "SystemdCgroup",
];

/// The options by name: as runc's shim writes them, and as people do.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Named {
    #[serde(alias = "NoPivotRoot", skip_serializing_if = "is_default")]
    no_pivot_root: bool,
    #[serde(alias = "NoNewKeyring", skip_serializing_if = "is_default")]
    no_new_keyring: bool,
    #[serde(alias = "ShimCgroup", skip_serializing_if = "is_default")]
    shim_cgroup: String,
    #[serde(alias = "IoUid", skip_serializing_if = "is_default")]
    io_uid: u32,
    #[serde(alias = "IoGid", skip_serializing_if = "is_default")]
    io_gid: u32,
    #[serde(alias = "BinaryName", skip_serializing_if = "is_default")]
    binary_name: String,
    #[serde(alias = "Root", skip_serializing_if = "is_default")]
    root: String,
    #[serde(alias = "CriuPath", skip_serializing_if = "is_default")]
    criu_path: String,
    #[serde(alias = "SystemdCgroup", skip_serializing_if = "is_default")]
    systemd_cgroup: bool,
    #[serde(alias = "CriuImagePath", skip_serializing_if = "is_default")]
    criu_image_path: String,
    #[serde(alias = "CriuWorkPath", skip_serializing_if = "is_default")]
    criu_work_path: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The same words as another type has them.
macro_rules! convert {
    ($from:ident => $to:ident) => {
        impl From<$from> for $to {
            fn from(from: $from) -> Self {
                Self {
                    no_pivot_root: from.no_pivot_root,
                    no_new_keyring: from.no_new_keyring,
                    shim_cgroup: from.shim_cgroup,
                    io_uid: from.io_uid,
                    io_gid: from.io_gid,
                    binary_name: from.binary_name,
                    root: from.root,
                    criu_path: from.criu_path,
                    systemd_cgroup: from.systemd_cgroup,
                    criu_image_path: from.criu_image_path,
                    criu_work_path: from.criu_work_path,
                }
            }
        }
    };
}
convert!(Named => Options);
convert!(Options => Named);

/// The options in `any`; the defaults for an empty one.
///
/// # Errors
/// They are of a type that is not known, or say something that means nothing here.
pub fn of(any: &Any) -> Result<Options, Error> {
    let invalid = |err: &dyn std::error::Error| Error::Invalid(format!("options: {err}"));
    if any.value.is_empty() {
        return Ok(Options::default());
    }
    if any.is::<Options>() {
        return Options::decode(&any.value[..]).map_err(|err| invalid(&err));
    }
    if !any.is::<Generic>() {
        return Err(Error::Invalid(format!(
            "options of type {} are not known",
            any.type_url
        )));
    }
    let generic = Generic::decode(&any.value[..]).map_err(|err| invalid(&err))?;
    if generic.config_path.is_empty() {
        return from_toml(&String::from_utf8_lossy(&generic.config_body));
    }
    from_toml(&bundle::read_text(Path::new(&generic.config_path))?)
}

fn from_toml(text: &str) -> Result<Options, Error> {
    let invalid = |text: String| Error::Invalid(format!("options: {text}"));
    let mut table: toml::Table =
        toml::from_str(text).map_err(|err| invalid(err.message().to_owned()))?;
    table.retain(|word, _| !PASSED_OVER.contains(&word));
    if let Some(word) = table.keys().find(|word| !WORDS.contains(&word.as_ref())) {
        return Err(invalid(format!(
            "{word} is not one of {}",
            WORDS.join(", ")
        )));
    }
    let named = table.try_into::<Named>();
    let named = named.map_err(|err| invalid(err.message().to_owned()))?;
    Ok(named.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(body: &str) -> Result<Options, Error> {
        of(&Any::of(&Generic {
            config_body: body.into(),
            ..Generic::default()
        }))
    }

    #[test]
    fn a_table_means_what_the_message_means() {
        let options = generic(
            "BinaryName = \"/usr/bin/crun\"\nSystemdCgroup = true\nIoUid = 5\nTypeUrl = \"\"\n",
        )
        .unwrap();
        let expected = Options {
            binary_name: "/usr/bin/crun".into(),
            systemd_cgroup: true,
            io_uid: 5,
            ..Options::default()
        };
        assert_eq!(options, expected);
        assert_eq!(of(&Any::of(&expected)).unwrap(), expected);
        assert_eq!(of(&Any::default()).unwrap(), Options::default());
        assert_eq!(generic("").unwrap(), Options::default());
    }

    #[test]
    fn a_file_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Root = \"/r\"\n").unwrap();
        let any = Any::of(&Generic {
            config_path: file.path().display().to_string(),
            ..Generic::default()
        });
        assert_eq!(of(&any).unwrap().root, "/r");
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for body in [
            "Nosuch = true",
            "SystemdCgroup = \"yes\"",
            "SystemdCgroup",
            "[table]\nRoot = \"/\"",
        ] {
            assert!(generic(body).is_err(), "{body}");
        }
        let kata = Any {
            type_url: "kata.Options".into(),
            value: vec![8, 1],
        };
        assert!(of(&kata).is_err());
    }
}
