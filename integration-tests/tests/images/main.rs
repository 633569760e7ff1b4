//! What is done with the images of a store: looked at, changed, compared, cleaned up.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

mod care;
mod change;
mod compare;
mod look;
#[path = "../peers/mod.rs"]
mod peers;
mod repack;
mod rootless;
mod verify;

use serde_json::Value;
use teu_integration_tests::Scene;

/// What can differ between the back-ends is tried on each.
const BACKENDS: [&str; 2] = ["erofs", "directory"];

/// Runs `teu-store`, which must succeed; its output.
fn store<const N: usize>(scene: &Scene, arguments: [&str; N]) -> String {
    scene.run("teu-store", arguments).succeeds()
}

/// The same, as JSON.
fn json<const N: usize>(scene: &Scene, arguments: [&str; N]) -> Value {
    serde_json::from_str(&store(scene, arguments)).unwrap()
}

/// The same, a JSON document a line.
fn lines<const N: usize>(scene: &Scene, arguments: [&str; N]) -> Vec<Value> {
    let text = store(scene, arguments);
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
