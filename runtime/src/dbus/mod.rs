//! A small D-Bus client: enough to ask systemd for a unit, no more.
//!
//! [`value`] and [`message`] turn values into bytes and back, without any input
//! or output; [`address`] reads where a bus may listen; [`connection`] talks.
//! Blocking, with a limit on every wait; no thread, no library of the host.
//! (D-Bus specification 0.41, <https://dbus.freedesktop.org/doc/dbus-specification.html>.)

pub(crate) mod address;
pub(crate) mod connection;
pub(crate) mod message;
pub(crate) mod value;

use rustix::io::Errno;

pub(crate) use connection::{Call, Connection};
pub(crate) use message::Message;
pub(crate) use value::{Type, Value};

/// What went wrong between us and a bus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error("read bus address {address:?}: {why}")]
    Address { address: String, why: &'static str },
    #[error("connect to {place}")]
    Connect { place: String, source: Errno },
    #[error("talk to {place}")]
    Talk { place: String, source: Errno },
    #[error("{place} closed the connection")]
    Closed { place: String },
    #[error("{place} refuses to talk to us, it answered {answer:?}")]
    Refused { place: String, answer: String },
    #[error("{place} gave no answer to {what} in {seconds} seconds")]
    Timeout {
        place: String,
        what: String,
        seconds: u64,
    },
    #[error("{place} sent a message that is none: {why}")]
    Malformed { place: String, why: &'static str },
    /// The peer's own words.
    #[error("{text}")]
    Remote { name: String, text: String },
}

impl Error {
    /// Whether it is the peer's error of this name (`org.freedesktop.systemd1.UnitExists`).
    pub(crate) fn is_remote(&self, wanted: &str) -> bool {
        matches!(self, Self::Remote { name, .. } if name == wanted)
    }
}
