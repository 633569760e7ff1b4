//! The session keyring of a container (`session-keyring(7)`): its processes
//! share one, and have none of who started them.

use std::ffi::{CStr, CString};

use super::label::Label;
use crate::init::{Failure, Step};
use crate::sys;

/// The name by which the processes of container `id` find it; runc's.
pub(crate) fn name(id: &str) -> Option<CString> {
    CString::new(format!("_ses.{id}")).ok()
}

/// What the first process does: a new one, which later ones may find.
pub(crate) fn make(name: &CStr, label: Option<&Label>) -> Result<(), Failure> {
    match join(name, label)? {
        Some(serial) => sys::let_keyring_be_found(serial).map_err(Step::Keyring.on("permissions")),
        None => Ok(()),
    }
}

/// What a later process does. Where it is not found, it is a new one.
///
/// A kernel without keyrings, or a filter around us that denies them, is no
/// reason not to start: then there is no serial number.
pub(crate) fn join(name: &CStr, label: Option<&Label>) -> Result<Option<i32>, Failure> {
    if let Some(label) = label {
        label.apply()?;
    }
    let joined = match sys::join_session_keyring(name) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(None),
        result => result
            .map(Some)
            .map_err(Step::Keyring.on(name.to_string_lossy())),
    };
    if let Some(label) = label {
        // execve(2) resets it too: a refusal does not matter.
        let _ = label.reset();
    }
    joined
}
