//! `-info`: what the shim and its runtime can do.

use std::path::Path;
use std::process::{Command, Stdio};

use prost::Message as _;

use super::proto::Any;
use super::proto::bootstrap::{FEATURES_TYPE_URL, RuntimeInfo, RuntimeVersion};
use super::{default_runtime, options};

/// Largest features document passed on, in bytes.
const FEATURES_BYTES_MAX: usize = 1 << 20;

/// What goes to standard output; `input` may hold options. `program` is the name of this one.
#[must_use]
pub fn info(program: &Path, input: &[u8]) -> Vec<u8> {
    let any = Any::decode(input)
        .ok()
        .filter(|any| !any.type_url.is_empty());
    let runtime = match any.as_ref().map(options::of) {
        Some(Ok(options)) if !options.binary_name.is_empty() => options.binary_name.into(),
        _ => default_runtime(),
    };
    RuntimeInfo {
        name: name(program),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
        }),
        options: any,
        features: features(&runtime),
        annotations: [].into(),
    }
    .encode_to_vec()
}

/// `containerd-shim-NAME-vN` serves the runtime `io.containerd.NAME.vN`.
fn name(program: &Path) -> String {
    let file = program.file_name().unwrap_or_default().to_string_lossy();
    let kind = file
        .strip_prefix("containerd-shim-")
        .and_then(|kind| kind.rsplit_once('-'));
    let (name, version) = kind.unwrap_or(("teu", "v2"));
    format!("io.containerd.{name}.{version}")
}

/// What the runtime says of itself, if it does.
fn features(runtime: &Path) -> Option<Any> {
    let mut command = Command::new(runtime);
    command
        .arg("features")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = command.output().ok()?;
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(&output.stdout).is_ok();
    (output.status.success() && output.stdout.len() <= FEATURES_BYTES_MAX && is_json()).then(|| {
        Any {
            type_url: FEATURES_TYPE_URL.to_owned(),
            value: output.stdout.clone(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_runtime() {
        assert_eq!(
            name(Path::new("/usr/bin/containerd-shim-teu-v2")),
            "io.containerd.teu.v2"
        );
        assert_eq!(
            name(Path::new("containerd-shim-runc-v2")),
            "io.containerd.runc.v2"
        );
        assert_eq!(name(Path::new("renamed")), "io.containerd.teu.v2");
    }
}
