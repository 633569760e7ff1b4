//! Finding the other programs of the set.

use std::path::{Path, PathBuf};

use crate::Error;

/// The program `name`: in the directory of this executable, else in PATH.
///
/// # Errors
/// [`Error::Missing`], with what to do.
pub fn find(name: &str) -> Result<PathBuf, Error> {
    let beside = std::fs::read_link("/proc/self/exe")
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(
            std::env::split_paths(&path)
                .filter(|dir| dir.is_absolute())
                .map(|dir| dir.join(name)),
        )
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| Error::Missing {
            program: name.to_owned(),
            hint: "neither beside this program nor in PATH; install all programs of teu into one folder".to_owned(),
        })
}

/// Whether `path` is a file with an execute bit.
pub(crate) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
