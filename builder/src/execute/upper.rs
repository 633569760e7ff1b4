//! An overlay's upper directory to a layer.

use super::StepError;
use super::run::RunError;
use crate::copy::CopyError;
use crate::copy::layer::clamp;
use crate::tree::{Meta, Root, Time};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use teu_store::layer::{UpperOptions, from_upper};
use teu_store::tar::{Attributes, Writer};

/// Writes what a step left in its upper directory. No time is later than `latest`.
/// The root directory itself is written if it is not as it was `before`.
///
/// # Errors
/// The directory cannot be read, or the stream.
pub(super) fn write(
    mut out: impl Write,
    upper: &Root,
    below: Option<&Root>,
    before: Option<&Meta>,
    latest: Time,
) -> Result<(), StepError> {
    let owner_and_mode = |meta: &Meta| (meta.mode, meta.uid, meta.gid);
    if let Some(root) = upper.meta(Path::new(""))?
        && before.map(owner_and_mode) != Some(owner_and_mode(&root))
    {
        let (mode, mtime) = (
            u16::try_from(root.mode).unwrap_or(0),
            clamp(root.mtime, latest),
        );
        let attributes = Attributes {
            mode,
            uid: root.uid,
            gid: root.gid,
            mtime,
            ..Attributes::default()
        };
        Writer::new(&mut out)
            .directory(b"", &attributes)
            .map_err(CopyError::Write)?;
    }
    let options = UpperOptions {
        clamp_mtime: Some(clamp(latest, latest)),
        skip: None,
        lower: below.map(|below| below.as_fd()),
    };
    from_upper(upper.as_fd(), out, &options).map_err(|error| RunError::Upper(Box::new(error)))?;
    Ok(())
}
