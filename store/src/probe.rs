//! Which back-end serves layers here.

use serde::{Deserialize, Serialize};

/// How a layer becomes a directory tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// An EROFS index over the layer's tar, mounted; needs root and Linux 6.12.
    Erofs,
    /// The layer's files, created one by one.
    Directory,
}
