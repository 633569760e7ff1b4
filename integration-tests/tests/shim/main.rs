//! `containerd-shim-teu-v2` by itself, called as containerd calls it: what its
//! containers write and read, what they use, and what many processes leave.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use teu_integration_tests::Scene;
use teu_integration_tests::shim::{Shim, Streams};

mod execs;
mod figures;
mod input;
mod loggers;
mod output;
mod rootfs;

/// A container that sleeps, started, without streams.
fn sleeping<'a>(scene: &'a Scene, id: &str) -> Shim<'a> {
    let mut shim = Shim::start(scene, id, &["sleep", "1000"], |_| {});
    shim.create(&Streams::default()).unwrap();
    shim.start_process("").unwrap();
    shim
}

/// Everything that the shim says of its container, in containerd's order.
fn all_topics(exec: bool) -> Vec<&'static str> {
    let mut topics = vec!["/tasks/create", "/tasks/start"];
    if exec {
        topics.extend(["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"]);
    }
    topics.extend(["/tasks/exit", "/tasks/delete"]);
    topics
}

/// `text` in a URI's query.
fn quote(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
