//! The power goes while the store is written to: afterwards what was reported as done is there, nothing is there that
//! was not verified, the next command works, and nothing is left that `gc` does not remove.
//!
//! Two ways to look at it. `cut` writes a store on a real file system on a disk that records every write and every
//! flush (`disk.rs`), and goes on from what the disk may hold after a cut at some moments. `order` needs no luck: it
//! follows the system calls, and asks that whatever a name leads to was made durable before the name, names included.
//!
//! `TEU_POWER_POINTS=N` says at how many moments each back-end loses its power, 50 otherwise; `make soak` looks at
//! more.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

mod cut;
mod order;
#[path = "../peers/mod.rs"]
mod peers;

use teu_integration_tests::Scene;

/// Images to take in: `oci` of two layers, the second one over the first one's directory, and `other.tar`.
fn images(scene: &Scene) {
    scene.shell(
        "mkdir -p one/tmp two/tmp other && chmod 1777 one/tmp && head -c 300000 /dev/urandom > one/noise && ln one/noise one/hard && echo 2 > two/tmp/file && head -c 20000 /dev/urandom > other/file
        tar -C one -cf one.tar . && tar -C two -cf two.tar tmp/file && tar -C other -cf other.tar .
        umoci init --layout oci && umoci new --image oci:x && umoci raw add-layer --image oci:x one.tar && umoci raw add-layer --image oci:x two.tar",
    );
}

/// What is done to the store, in this order; `{remote}` is the name of an image at a registry.
const STEPS: [&[&str]; 11] = [
    &["images"],
    &["import", "-q", "oci", "first"],
    &["tag", "first", "second"],
    &["import", "-q", "other.tar", "other"],
    &["pull", "-q", "{remote}"],
    // A name that gets another meaning.
    &["import", "-q", "other.tar", "first"],
    &["config", "second", "changed", "-e", "A=1"],
    &["untag", "second"],
    &["gc"],
    &["rmi", "other"],
    &["import", "-q", "oci", "second"],
];

fn step(words: &[&str], remote: &str) -> Vec<String> {
    words
        .iter()
        .map(|word| word.replace("{remote}", remote))
        .collect()
}
