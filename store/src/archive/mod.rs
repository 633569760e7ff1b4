//! Images in files: OCI layouts (a directory, or a tar of one), docker's own
//! archives, and plain root filesystems.
//!
//! What is imported is untrusted: a layout's directory may hold links to
//! anywhere, an archive any member names. So files are opened below their
//! directory's descriptor and only if they are regular, members are only ever
//! read at their place in the archive, and what they hold goes through the
//! store's one way in ([`crate::transfer`]).

pub(crate) mod detect;
pub(crate) mod docker;
mod export;
mod import;
pub(crate) mod layout;
pub(crate) mod members;
pub(crate) mod place;
mod rootfs;
pub(crate) mod sink;

pub use detect::Format as ImportFormat;
pub use export::{ExportFormat, ExportOptions, export};
pub use import::{ImportOptions, Imported, Input, import};
pub(crate) use rootfs::apply as apply_changes;
pub use rootfs::{BadChange, Change};
