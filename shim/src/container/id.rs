//! Ids and names: parsed once, then safe as file names.

use std::fmt;
use std::str::FromStr;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::At as _;

/// Length of an id, in hex digits.
pub const ID_DIGITS: usize = 64;
/// Digits shown to people, as docker shows.
pub const SHORT_DIGITS: usize = 12;
/// Longest name. A name is a file name and often a hostname's source; Linux allows 255 bytes for the former.
const NAME_BYTES_MAX: usize = 128;

/// A container's id: 64 lowercase hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// A new random id.
    ///
    /// # Errors
    /// Where the kernel gives no random bytes.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0u8; ID_DIGITS / 2];
        getrandom(&mut bytes, GetRandomFlags::empty()).call("getrandom")?;
        Ok(Self(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    /// All digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..SHORT_DIGITS]
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
        if text.len() == ID_DIGITS && is_hex(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::Invalid(format!(
                "{text:?} is not a container id: 64 hex digits"
            )))
        }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// Whether `text` has lowercase hex digits only.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A name of a container or volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 128 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that a person can say, drawn at random; may be taken.
    ///
    /// # Errors
    /// Where the kernel gives no random bytes.
    pub fn generate() -> Result<Self, Error> {
        let mut random = [0u8; 2];
        getrandom(&mut random, GetRandomFlags::empty()).call("getrandom")?;
        let adjective = ADJECTIVES[usize::from(random[0]) % ADJECTIVES.len()];
        let noun = NOUNS[usize::from(random[1]) % NOUNS.len()];
        Ok(Self(format!("{adjective}_{noun}")))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let starts = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if starts && rest && text.len() <= NAME_BYTES_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::Invalid(format!(
                "{text:?} is not a name: letters, digits, `_`, `.` and `-`, beginning with a letter or digit, at most {NAME_BYTES_MAX}"
            )))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

const ADJECTIVES: [&str; 48] = [
    "able", "amber", "bold", "brisk", "calm", "candid", "clever", "coral", "crisp", "deft",
    "eager", "early", "even", "fair", "fast", "fond", "frank", "gentle", "glad", "golden", "grand",
    "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry",
    "mild", "neat", "noble", "patient", "plain", "proud", "quick", "quiet", "ready", "rosy",
    "sharp", "silent", "steady", "sunny", "swift", "tidy", "warm",
];

/// Ships, and what is found around them.
const NOUNS: [&str; 48] = [
    "anchor", "barge", "beacon", "berth", "bollard", "bosun", "bow", "brig", "buoy", "cable",
    "capstan", "clipper", "cog", "compass", "coracle", "crane", "cutter", "dinghy", "dock",
    "ferry", "fjord", "frigate", "galley", "gull", "harbor", "hatch", "helm", "hull", "jetty",
    "keel", "ketch", "lagoon", "lighter", "lugger", "mast", "mole", "pelican", "pier", "pilot",
    "porter", "quay", "rudder", "schooner", "sextant", "sloop", "tern", "tide", "tug",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_hex_digits_and_differ() {
        let (one, two) = (
            ContainerId::random().unwrap(),
            ContainerId::random().unwrap(),
        );
        assert_ne!(one, two);
        assert_eq!(one.as_str().parse::<ContainerId>().unwrap(), one);
        assert!("../../etc".parse::<ContainerId>().is_err());
        assert!("A".repeat(64).parse::<ContainerId>().is_err());
    }

    #[test]
    fn names_cannot_leave_their_folder() {
        for good in ["web", "a", "0x.y-z_"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-v", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert!(Name::generate().unwrap().as_str().parse::<Name>().is_ok());
    }
}
