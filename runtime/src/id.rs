//! The name of a container.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Longest id, in bytes: it is a directory name, and cgroup and keyring names
/// put some letters before it.
const BYTES_MAX: usize = 200;

/// A name that is safe as one path component: letters, digits and `_+-.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerId(String);

impl ContainerId {
    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if text.is_empty() {
            return Err(Error::Usage("container id cannot be empty".into()));
        }
        if text == "." || text == ".." || text.len() > BYTES_MAX || !text.chars().all(allowed) {
            let reason = format!(
                "invalid container ID format: {text:?} (up to {BYTES_MAX} of A-Z a-z 0-9 _ + - .)"
            );
            return Err(Error::Usage(reason));
        }
        Ok(ContainerId(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_safe_name() {
        for good in ["a", "web-1", "A_b.c+d", "..."] {
            assert!(good.parse::<ContainerId>().is_ok(), "{good}");
        }
        let long = "x".repeat(201);
        for bad in [
            "", ".", "..", "a/b", "a b", "a\n", "é", "%2e/", "a\0b", &long,
        ] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad:?}");
        }
    }
}
