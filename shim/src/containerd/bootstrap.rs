//! What containerd says and expects when it starts a shim, in three generations.
//!
//! | containerd | standard input | standard output |
//! |---|---|---|
//! | 1.6 | `Any` of options, or nothing | the address |
//! | 1.7 to 2.2 | the same; `MAX_SHIM_VERSION` is set | JSON |
//! | 2.3 and later | `BootstrapParams` | `BootstrapResult` |

use prost::Message as _;

use super::options;
use super::proto::Any;
use super::proto::bootstrap::{BootstrapParams, BootstrapResult};
use super::proto::options::{Generic, Options};

/// Most bytes read from standard input: containerd's own shims read as much.
pub const INPUT_BYTES_MAX: u64 = 10 << 20;
/// Set by containerd 1.7 and later.
pub const VERSION_VARIABLE: &str = "MAX_SHIM_VERSION";

/// How the answer is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The bare address; task service of version 2.
    Text,
    /// One object. containerd 1.7 knows version 2 only, so that is what all get.
    Json,
    /// `BootstrapResult`, version 3: the sandbox service is there too, and
    /// further containers of a pod come without a further `start`.
    Protobuf,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// How to answer.
    pub dialect: Dialect,
    /// The options of the runtime, where given.
    pub options: Option<Options>,
    /// Where the socket goes, if not to the usual place.
    pub socket_dir: Option<String>,
}

/// Understands `input`. An [`Any`] can be read as [`BootstrapParams`] too, its type
/// then being the container's id: so the ids must be those of the command line.
#[must_use]
pub fn understand(input: &[u8], id: &str, namespace: &str, has_version: bool) -> Bootstrap {
    if let Ok(params) = BootstrapParams::decode(input)
        && params.instance_id == id
        && params.namespace == namespace
    {
        return Bootstrap {
            dialect: Dialect::Protobuf,
            options: params
                .extensions
                .iter()
                .find_map(|extension| options(extension.value.as_ref()?)),
            socket_dir: Some(params.socket_dir).filter(|dir| !dir.is_empty()),
        };
    }
    Bootstrap {
        dialect: if has_version {
            Dialect::Json
        } else {
            Dialect::Text
        },
        options: Any::decode(input).ok().as_ref().and_then(options),
        socket_dir: None,
    }
}

/// The options in an [`Any`], if it holds such: the first call that needs them says what is
/// wrong with them.
fn options(any: &Any) -> Option<Options> {
    (any.is::<Options>() || any.is::<Generic>()).then(|| options::of(any).ok())?
}

/// What `start` writes to standard output.
#[must_use]
pub fn answer(dialect: Dialect, address: &str) -> Vec<u8> {
    match dialect {
        Dialect::Text => address.as_bytes().to_vec(),
        Dialect::Json => {
            serde_json::json!({ "version": 2, "address": address, "protocol": "ttrpc" })
                .to_string()
                .into_bytes()
        }
        Dialect::Protobuf => BootstrapResult {
            version: 3,
            address: address.to_owned(),
            protocol: "ttrpc".to_owned(),
        }
        .encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::proto::bootstrap::Extension;

    fn with_binary(name: &str) -> Any {
        Any::of(&Options {
            binary_name: name.into(),
            ..Options::default()
        })
    }

    #[test]
    fn the_three_generations_are_told_apart() {
        let any = with_binary("/x").encode_to_vec();
        let old = understand(&any, "c", "n", false);
        assert_eq!(old.dialect, Dialect::Text);
        assert_eq!(old.options.unwrap().binary_name, "/x");
        assert_eq!(understand(&any, "c", "n", true).dialect, Dialect::Json);
        assert_eq!(understand(b"", "c", "n", false).dialect, Dialect::Text);
        let params = BootstrapParams {
            instance_id: "c".into(),
            namespace: "n".into(),
            socket_dir: "/run/x".into(),
            extensions: vec![Extension {
                value: Some(with_binary("/y")),
            }],
            ..BootstrapParams::default()
        };
        let new = understand(&params.encode_to_vec(), "c", "n", true);
        assert_eq!(new.dialect, Dialect::Protobuf);
        assert_eq!(new.options.unwrap().binary_name, "/y");
        assert_eq!(new.socket_dir.as_deref(), Some("/run/x"));
    }

    #[test]
    fn an_any_is_never_taken_for_parameters() {
        // A type URL that is the id, with a value that is no namespace.
        let any = Any {
            type_url: "c".into(),
            value: b"\x32\x01r".to_vec(),
        };
        assert_eq!(
            understand(&any.encode_to_vec(), "c", "n", true).dialect,
            Dialect::Json
        );
        assert_eq!(
            understand(b"\xff\xff\xff", "c", "n", false).dialect,
            Dialect::Text
        );
    }

    #[test]
    fn answers_are_as_each_generation_reads_them() {
        assert_eq!(answer(Dialect::Text, "unix:///s"), b"unix:///s");
        let json: serde_json::Value =
            serde_json::from_slice(&answer(Dialect::Json, "unix:///s")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"version": 2, "address": "unix:///s", "protocol": "ttrpc"})
        );
        assert_eq!(
            answer(Dialect::Protobuf, "unix:///s"),
            b"\x08\x03\x12\x09unix:///s\x1a\x05ttrpc"
        );
    }
}
