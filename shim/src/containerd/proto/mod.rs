//! containerd's messages, as its `.proto` files number their fields.
//!
//! Version 2 and version 3 of the task service have the same messages and differ
//! in the package's name only, so there is one set of them here. A field that a
//! later containerd adds is skipped when read: the types need not be complete,
//! only right in what they name.
#![allow(
    missing_docs,
    reason = "the fields are containerd's, and explained in its api/*.proto"
)]

pub mod bootstrap;
pub mod events;
pub mod options;
pub mod sandbox;
pub mod task;
pub mod ttrpc;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::{Message, Name};

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Any {
    /// `message` under the name by which containerd finds its type: without the
    /// prefix `type.googleapis.com/`, which containerd 1.6 does not know.
    #[must_use]
    pub fn of<M: Name>(message: &M) -> Self {
        Self {
            type_url: M::full_name(),
            value: message.encode_to_vec(),
        }
    }

    /// Whether it holds an `M`, by its name.
    #[must_use]
    pub fn is<M: Name>(&self) -> bool {
        self.type_url.rsplit('/').next() == Some(M::full_name().as_str())
    }
}

/// `google.protobuf.Empty`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// `google.protobuf.Timestamp`, UTC.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        }
    }
}

/// `containerd.types.Mount`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mount {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(string, tag = "2")]
    pub source: String,
    #[prost(string, tag = "3")]
    pub target: String,
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

/// `containerd.types.Envelope`: an event on its way.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Envelope {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub topic: String,
    #[prost(message, optional, tag = "4")]
    pub event: Option<Any>,
}

/// `containerd.services.events.ttrpc.v1.ForwardRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ForwardRequest {
    #[prost(message, optional, tag = "1")]
    pub envelope: Option<Envelope>,
}

/// `containerd.types.Platform`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Platform {
    #[prost(string, tag = "1")]
    pub os: String,
    #[prost(string, tag = "2")]
    pub architecture: String,
    #[prost(string, tag = "3")]
    pub variant: String,
}

/// `containerd.types.Metric`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Metric {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(message, optional, tag = "3")]
    pub data: Option<Any>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_any_is_known_by_its_name_with_and_without_a_prefix() {
        let any = Any::of(&options::Options {
            binary_name: "/usr/bin/crun".into(),
            ..Default::default()
        });
        assert_eq!(any.type_url, "containerd.runc.v1.Options");
        assert!(any.is::<options::Options>());
        let prefixed = Any {
            type_url: format!("type.googleapis.com/{}", any.type_url),
            ..any
        };
        assert!(prefixed.is::<options::Options>());
        assert!(!prefixed.is::<events::TaskExit>());
    }

    #[test]
    fn an_event_is_these_bytes() {
        let envelope = Envelope {
            timestamp: Some(Timestamp {
                seconds: 1,
                nanos: 2,
            }),
            namespace: "ns".into(),
            topic: "/tasks/exit".into(),
            event: Some(Any::of(&events::TaskExit {
                container_id: "c".into(),
                id: "e".into(),
                pid: 300,
                exit_status: 137,
                exited_at: None,
            })),
        };
        let event = b"\x0a\x01c\x12\x01e\x18\xac\x02\x20\x89\x01";
        let mut expected = b"\x0a\x04\x08\x01\x10\x02\x12\x02ns\x1a\x0b/tasks/exit\x22\x2a\
                             \x0a\x1acontainerd.events.TaskExit\x12\x0c"
            .to_vec();
        expected.extend(&event[..]);
        assert_eq!(envelope.encode_to_vec(), expected);
        assert_eq!(Envelope::decode(&expected[..]).unwrap(), envelope);
    }
}
