//! Files of a bundle that containerd and runc's shim know too.

use std::fs::{DirBuilder, File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::options::Named;
use super::proto::options::Options;
use crate::Error;
use crate::error::At as _;

/// Name of the file with all options, as JSON.
const OPTIONS: &str = "options.json";
/// Name of the file with the runtime's program.
const RUNTIME: &str = "runtime";
/// Largest of these files read, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// Writes `options.json` and `runtime`.
///
/// # Errors
/// What the kernel says.
pub fn write_options(bundle: &Path, options: &Options) -> Result<(), Error> {
    let named = Named::from(options.clone());
    let path = bundle.join(OPTIONS);
    let text = serde_json::to_vec(&named).map_err(|source| Error::Json {
        what: path.display().to_string(),
        source,
    })?;
    write_private(&path, &text)?;
    write_private(&bundle.join(RUNTIME), options.binary_name.as_bytes())
}

/// The options that [`write_options`], or runc's shim, wrote: by which either can clean up
/// after the other; the defaults where nothing was.
#[must_use]
pub fn read_options(bundle: &Path) -> Options {
    let named: Named = read_json(&bundle.join(OPTIONS), BYTES_MAX).unwrap_or_default();
    let mut options = Options::from(named);
    if let Ok(name) = read_text(&bundle.join(RUNTIME))
        && !name.is_empty()
    {
        options.binary_name = name;
    }
    options
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
