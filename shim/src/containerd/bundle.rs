//! Files of a bundle that containerd and runc's shim know too.

use std::fs::{DirBuilder, File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::proto::options::Options;
use crate::Error;
use crate::error::At as _;

/// Name of the file with all options, as JSON.
const OPTIONS: &str = "options.json";
/// Name of the file with the runtime's program.
const RUNTIME: &str = "runtime";
/// Largest of these files read, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// The options as runc's shim writes them, by which either can clean up after the other.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    #[serde(skip_serializing_if = "is_default")]
    no_pivot_root: bool,
    #[serde(skip_serializing_if = "is_default")]
    no_new_keyring: bool,
    #[serde(skip_serializing_if = "is_default")]
    shim_cgroup: String,
    #[serde(skip_serializing_if = "is_default")]
    io_uid: u32,
    #[serde(skip_serializing_if = "is_default")]
    io_gid: u32,
    #[serde(skip_serializing_if = "is_default")]
    binary_name: String,
    #[serde(skip_serializing_if = "is_default")]
    root: String,
    #[serde(skip_serializing_if = "is_default")]
    criu_path: String,
    #[serde(skip_serializing_if = "is_default")]
    systemd_cgroup: bool,
    #[serde(skip_serializing_if = "is_default")]
    criu_image_path: String,
    #[serde(skip_serializing_if = "is_default")]
    criu_work_path: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Writes `options.json` and `runtime`.
///
/// # Errors
/// What the kernel says.
pub fn write_options(bundle: &Path, options: &Options) -> Result<(), Error> {
    let options = options.clone();
    let written = Written {
        no_pivot_root: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
        shim_cgroup: options.shim_cgroup,
        io_uid: options.io_uid,
        io_gid: options.io_gid,
        binary_name: options.binary_name,
        root: options.root,
        criu_path: options.criu_path,
        systemd_cgroup: options.systemd_cgroup,
        criu_image_path: options.criu_image_path,
        criu_work_path: options.criu_work_path,
    };
    let path = bundle.join(OPTIONS);
    let text = serde_json::to_vec(&written).map_err(|source| Error::Json {
        what: path.display().to_string(),
        source,
    })?;
    write_private(&path, &text)?;
    write_private(&bundle.join(RUNTIME), written.binary_name.as_bytes())
}

/// The options that [`write_options`], or runc's shim, wrote; the defaults where nothing was.
#[must_use]
pub fn read_options(bundle: &Path) -> Options {
    let written: Written = read_json(&bundle.join(OPTIONS), BYTES_MAX).unwrap_or_default();
    let binary_name = match read_text(&bundle.join(RUNTIME)) {
        Ok(name) if !name.is_empty() => name,
        _ => written.binary_name,
    };
    Options {
        binary_name,
        root: written.root,
        criu_path: written.criu_path,
        systemd_cgroup: written.systemd_cgroup,
        ..Options::default()
    }
}

/// The folder for the root file system, if it is not there. Others than root may pass through it.
///
/// # Errors
/// What the kernel says.
pub fn make_rootfs(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o711).create(path) {
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.at("make", path),
    }
}

/// A file that only its owner can read.
///
/// # Errors
/// What the kernel says.
pub fn write_private(path: &Path, text: &[u8]) -> Result<(), Error> {
    std::fs::write(path, text).at("write", path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).at("change", path)
}

/// A pid that the runtime wrote.
///
/// # Errors
/// There is none.
pub fn read_pid(path: &Path) -> Result<i32, Error> {
    let text = read_text(path)?;
    let pid = text.trim().parse().ok().filter(|pid: &i32| *pid > 0);
    pid.ok_or_else(|| Error::Invalid(format!("{path:?} holds no pid: {text:?}")))
}

/// A JSON document of at most `limit` bytes; `None` where there is none, or another.
#[must_use]
pub fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Option<T> {
    let file = File::open(path).ok()?;
    serde_json::from_reader(std::io::BufReader::new(file.take(limit))).ok()
}

/// A short text.
///
/// # Errors
/// What the kernel says.
pub fn read_text(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let file = File::open(path).at("open", path)?;
    file.take(BYTES_MAX)
        .read_to_string(&mut text)
        .at("read", path)?;
    Ok(text)
}

/// A file for the exec `id`: its kind follows its name.
#[must_use]
pub fn of_exec(bundle: &Path, id: &str, kind: &str) -> PathBuf {
    bundle.join(format!("{id}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_written_as_runcs_shim_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            binary_name: "/usr/bin/crun".into(),
            root: "/r".into(),
            systemd_cgroup: true,
            ..Options::default()
        };
        write_options(dir.path(), &options).unwrap();
        let text = std::fs::read_to_string(dir.path().join(OPTIONS)).unwrap();
        assert_eq!(
            text,
            r#"{"binary_name":"/usr/bin/crun","root":"/r","systemd_cgroup":true}"#
        );
        assert_eq!(read_options(dir.path()), options);
        assert_eq!(read_options(Path::new("/nosuch")), Options::default());
    }
}
