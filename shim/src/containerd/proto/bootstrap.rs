//! How containerd starts a shim, and what it asks before
//! (`api/runtime/bootstrap/v1/bootstrap.proto`, `api/types/introspection.proto`).

use std::collections::BTreeMap;

use prost::{Message, Name};

use super::Any;

/// `containerd.runtime.bootstrap.v1.BootstrapParams`: standard input of `start`,
/// since containerd 2.3.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BootstrapParams {
    #[prost(string, tag = "1")]
    pub instance_id: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// 0 is info; more is more critical, less more verbose.
    #[prost(int32, tag = "3")]
    pub log_level: i32,
    #[prost(string, tag = "4")]
    pub containerd_version: String,
    #[prost(string, tag = "5")]
    pub containerd_ttrpc_address: String,
    #[prost(string, tag = "6")]
    pub containerd_grpc_address: String,
    #[prost(string, tag = "7")]
    pub containerd_binary: String,
    #[prost(message, repeated, tag = "8")]
    pub extensions: Vec<Extension>,
    #[prost(string, tag = "9")]
    pub socket_dir: String,
}

/// `containerd.runtime.bootstrap.v1.Extension`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Extension {
    #[prost(message, optional, tag = "1")]
    pub value: Option<Any>,
}

/// `containerd.runtime.bootstrap.v1.BootstrapResult`: standard output of `start`,
/// since containerd 2.3.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BootstrapResult {
    #[prost(int32, tag = "1")]
    pub version: i32,
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(string, tag = "3")]
    pub protocol: String,
}

/// `containerd.types.RuntimeInfo`: standard output of `-info`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RuntimeInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub version: Option<RuntimeVersion>,
    #[prost(message, optional, tag = "3")]
    pub options: Option<Any>,
    #[prost(message, optional, tag = "4")]
    pub features: Option<Any>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub annotations: BTreeMap<String, String>,
}

/// `containerd.types.RuntimeVersion`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RuntimeVersion {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub revision: String,
}

/// The name under which JSON of `runc features` travels in an [`Any`].
pub const FEATURES_TYPE_URL: &str =
    "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

impl Name for BootstrapParams {
    const NAME: &'static str = "BootstrapParams";
    const PACKAGE: &'static str = "containerd.runtime.bootstrap.v1";
}

#[cfg(test)]
mod tests {
    use super::super::options::Options;
    use super::*;

    #[test]
    fn what_containerd_2_3_writes_is_read() {
        let bytes = b"\x0a\x02c1\x12\x07default\x22\x062.3.4\x00\x2a\x05unix:\x32\x01/\x3a\x01x\
                      \x42\x23\x0a\x21\x0a\x1acontainerd.runc.v1.Options\x12\x03\x32\x01r\x4a\x04/run";
        let params = BootstrapParams::decode(&bytes[..]).unwrap();
        assert_eq!(params.instance_id, "c1");
        assert_eq!(params.namespace, "default");
        assert_eq!(params.containerd_grpc_address, "/");
        assert_eq!(params.socket_dir, "/run");
        let any = params.extensions[0].value.as_ref().unwrap();
        assert!(any.is::<Options>());
        assert_eq!(Options::decode(&any.value[..]).unwrap().binary_name, "r");
        assert_eq!(params.encode_to_vec(), bytes);
    }

    #[test]
    fn the_answer_is_these_bytes() {
        let result = BootstrapResult {
            version: 3,
            address: "unix:///s".into(),
            protocol: "ttrpc".into(),
        };
        assert_eq!(
            result.encode_to_vec(),
            b"\x08\x03\x12\x09unix:///s\x1a\x05ttrpc"
        );
    }
}
