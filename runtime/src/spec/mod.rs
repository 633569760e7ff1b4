//! `config.json` as the runtime specification 1.3 defines it.
//!
//! The types hold what the file says and nothing else; what it means is
//! decided by the modules that plan from it. A field that this runtime does
//! not know is ignored, as the specification demands ("Extensibility").

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

mod linux;
mod mount;
mod process;
pub(crate) mod resources;
pub(crate) mod seccomp;

pub(crate) use linux::{
    Device, IdMapping, IntelRdt, Linux, MemoryPolicy, Namespace, NamespaceType, NetDevice,
    Personality, TimeOffset,
};
pub(crate) use mount::Mount;
pub(crate) use process::{
    Capabilities, ConsoleSize, ExecCpuAffinity, IoPriority, NO_ID, Process, Rlimit, Scheduler,
};

use crate::error::Error;

/// Largest `config.json` that is read, in bytes. Real ones are below 100 KiB;
/// the limit keeps a hostile bundle from filling memory.
const CONFIG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The newest version of the specification whose fields are understood.
pub(crate) const OCI_VERSION: &str = "1.3.0";

/// A whole `config.json` (config.md).
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    /// Version of the specification that the bundle complies with.
    pub oci_version: String,
    /// The first process. Absent only where nothing will be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Host name inside a new UTS namespace.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub hostname: String,
    /// NIS domain name inside a new UTS namespace.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub domainname: String,
    /// Mounts beyond the root, in order.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mounts: Vec<Mount>,
    /// Programs to run at points of the container's life.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Hooks::is_empty"
    )]
    pub hooks: Hooks,
    /// Data for others; never steers this runtime.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// All that exists only on Linux.
    #[serde(default, deserialize_with = "nullable")]
    pub linux: Linux,
}

/// `root` (config.md, "Root").
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct Root {
    /// Directory, absolute or relative to the bundle.
    pub path: PathBuf,
    /// Whether the container may not write to it.
    #[serde(default, deserialize_with = "nullable")]
    pub readonly: bool,
}

/// `hooks` (config.md, "POSIX-platform Hooks"): six points in time.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hooks {
    /// Deprecated; run before `create_runtime`, in the runtime's namespaces.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub prestart: Vec<Hook>,
    /// After the namespaces exist, before the root is switched; runtime's namespaces.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub create_runtime: Vec<Hook>,
    /// The same moment, in the container's namespaces.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub create_container: Vec<Hook>,
    /// After `start`, before the program; in the container.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub start_container: Vec<Hook>,
    /// After the program has started; runtime's namespaces.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub poststart: Vec<Hook>,
    /// After the container is deleted; runtime's namespaces.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub poststop: Vec<Hook>,
}

impl Hooks {
    fn is_empty(&self) -> bool {
        self.each().iter().all(|(_, hooks)| hooks.is_empty())
    }

    /// The six kinds with their names in the file.
    pub(crate) fn each(&self) -> [(&'static str, &[Hook]); 6] {
        [
            ("prestart", &self.prestart),
            ("createRuntime", &self.create_runtime),
            ("createContainer", &self.create_container),
            ("startContainer", &self.start_container),
            ("poststart", &self.poststart),
            ("poststop", &self.poststop),
        ]
    }
}

/// One program of `hooks`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct Hook {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// Its whole argv, the name included; empty means the path alone.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub args: Vec<String>,
    /// Its whole environment.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// Seconds after which it is killed and counted as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// Reads JSON's `null` as "not given", as every Go program writes and reads it.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Spec {
    /// Reads and checks `config.json` of the bundle at `bundle`, an absolute path.
    pub(crate) fn load(bundle: &Path) -> Result<Spec, Error> {
        let path = bundle.join("config.json");
        let text = crate::file::read_limited(&path, CONFIG_BYTES_MAX)?;
        Spec::checked(&text, &path)
    }

    /// Reads and checks the text of the `config.json` at `path`.
    pub(crate) fn checked(text: &[u8], path: &Path) -> Result<Spec, Error> {
        let path = path.to_owned();
        let mut spec = Spec::parse(text).map_err(|source| Error::Json { path, source })?;
        spec.linux
            .resources
            .iter_mut()
            .for_each(resources::Resources::settle);
        spec.check()?;
        Ok(spec)
    }

    /// Parses the text of a `config.json`.
    pub(crate) fn parse(text: &[u8]) -> Result<Spec, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Checks what no type can express and every command relies on.
    fn check(&self) -> Result<(), Error> {
        check_version(&self.oci_version)?;
        let root = self
            .root
            .as_ref()
            .ok_or_else(|| invalid("root", "is missing"))?;
        if root.path.as_os_str().is_empty() {
            return Err(invalid("root.path", "is empty"));
        }
        if let Some(process) = &self.process {
            process.check("process")?;
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            if mount.destination.as_os_str().is_empty() {
                return Err(invalid(&format!("mounts[{index}].destination"), "is empty"));
            }
        }
        for (kind, hooks) in self.hooks.each() {
            for (index, hook) in hooks.iter().enumerate() {
                if !hook.path.is_absolute() {
                    let field = format!("hooks.{kind}[{index}].path");
                    return Err(invalid(
                        &field,
                        &format!("{:?} is not an absolute path", hook.path),
                    ));
                }
                if hook.timeout.is_some_and(|seconds| seconds <= 0) {
                    let field = format!("hooks.{kind}[{index}].timeout");
                    return Err(invalid(&field, "must be greater than zero"));
                }
            }
        }
        self.linux.check()
    }

    /// The first process, which `create` and `run` cannot do without.
    pub(crate) fn process(&self) -> Result<&Process, Error> {
        self.process
            .as_ref()
            .ok_or_else(|| invalid("process", "is missing"))
    }
}

/// Any 1.x is accepted: the specification promises compatibility within a
/// major version.
fn check_version(version: &str) -> Result<(), Error> {
    let mut parts = version.splitn(3, '.');
    let numeric = |part: Option<&str>| part.is_some_and(|p| p.parse::<u32>().is_ok());
    let well_formed = parts.next() == Some("1") && numeric(parts.next()) && parts.next().is_some();
    if well_formed {
        return Ok(());
    }
    Err(invalid(
        "ociVersion",
        &format!("{version:?} is not supported, only 1.x.y is"),
    ))
}

/// An error about the value of one field of `config.json`.
pub(crate) fn invalid(field: &str, reason: &str) -> Error {
    Error::Field {
        field: field.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_version_one_is_accepted() {
        for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.99.0", "1.1.0+dev"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
        for version in ["", "1", "1.0", "2.0.0", "0.9.0", "1.x.0", "v1.0.0"] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }

    #[test]
    fn null_means_not_given() {
        let text = br#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"mounts":null,
            "process":{"args":["a"],"cwd":"/","user":{"uid":0,"gid":0,"additionalGids":null},"env":null},
            "hooks":null,"linux":null}"#;
        let spec = Spec::parse(text).unwrap();
        assert!(spec.mounts.is_empty());
        spec.check().unwrap();
    }

    #[test]
    fn an_error_names_the_place() {
        let err = Spec::parse(br#"{"ociVersion":"1.0.2","root":{"path":7}}"#).unwrap_err();
        assert!(err.to_string().contains("line 1 column"), "{err}");
    }

    #[test]
    fn an_empty_wish_is_none() {
        let text = br#"{"ociVersion":"1.3.0","root":{"path":"r"},
            "linux":{"netDevices":{},"intelRdt":null}}"#;
        Spec::parse(text).unwrap().check().unwrap();
    }

    #[test]
    fn hooks_need_absolute_paths() {
        let text =
            br#"{"ociVersion":"1.0.2","root":{"path":"r"},"hooks":{"poststop":[{"path":"x"}]}}"#;
        let err = Spec::parse(text).unwrap().check().unwrap_err();
        assert!(err.to_string().contains("hooks.poststop[0].path"), "{err}");
    }
}
