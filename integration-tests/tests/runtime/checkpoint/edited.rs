//! R44 with CRIU itself: images whose credentials were edited, and a bundle that
//! gives less than it gave when they were made.

use super::real::{COUNT, checkpoint, counted, detached, gone, obstacle, running, scene_with_criu};
use crate::Container;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use teu_integration_tests::{Scene, skip_unless};

/// `CAP_SYS_ADMIN`, of the first 32.
const SYS_ADMIN: u64 = 1 << 21;

/// `IMG_COMMON_MAGIC`, the kind's own magic and the length stand before a message.
const HEADER_BYTES: usize = 12;

/// The fields of CRIU's `core_entry.thread_core.creds`, and the sets in that.
const CREDENTIALS: [u64; 2] = [5, 10];
const SETS: [(u64, &str); 4] = [
    (9, "inheritable"),
    (10, "permitted"),
    (11, "effective"),
    (12, "bounding"),
];

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The message with `more` added to the first number of each of these fields, in
/// the message that `path` leads to.
fn raised(mut message: &[u8], path: &[u64], fields: &[u64], more: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut left = fields.to_vec();
    while !message.is_empty() {
        let key = varint(&mut message);
        put(&mut out, key);
        match key & 7 {
            0 => {
                let mut value = varint(&mut message);
                if path.is_empty()
                    && let Some(index) = left.iter().position(|field| *field == key >> 3)
                {
                    left.remove(index);
                    value |= more;
                }
                put(&mut out, value);
            }
            2 => {
                let length = varint(&mut message) as usize;
                let (inner, rest) = message.split_at(length);
                message = rest;
                let inner = match path.split_first() {
                    Some((first, path)) if *first == key >> 3 => raised(inner, path, fields, more),
                    _ => inner.to_vec(),
                };
                put(&mut out, inner.len() as u64);
                out.extend(inner);
            }
            fixed => {
                let (value, rest) = message.split_at(if fixed == 1 { 8 } else { 4 });
                out.extend(value);
                message = rest;
            }
        }
    }
    assert!(!path.is_empty() || left.is_empty(), "{left:?} are missing");
    out
}

/// The images of all threads.
fn cores(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let is_core = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("core-")
    };
    let mut all: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    all.retain(is_core);
    all.sort();
    all
}

fn edit(core: &Path, fields: &[u64]) {
    let image = std::fs::read(core).unwrap();
    let message = raised(&image[HEADER_BYTES..], &CREDENTIALS, fields, SYS_ADMIN);
    let mut out = image[..HEADER_BYTES - 4].to_vec();
    out.extend((message.len() as u32).to_le_bytes());
    out.extend(&message);
    assert_ne!(out, image, "nothing was changed");
    std::fs::write(core, out).unwrap();
}

fn refused(container: &Container<'_>, words: &[&str]) {
    let bundle = container.bundle.to_str().unwrap();
    let words_of_call = ["restore", "-d", "-b", bundle, "--image-path", "images"];
    let _ = container.call(&words_of_call, &[]).fails(1, words);
    gone(container);
    assert!(!container.cgroup("pids").exists());
}

#[test]
fn r44_edited_credentials_are_refused() {
    scene_with_criu!(scene, "criu edited credentials");
    let container = running(&scene, COUNT, |_| ());
    let reached = counted(&container, 1);
    checkpoint(&container, &["--image-path", "images"]);
    let images = scene.path("images");
    let kept = scene.path("kept");
    scene.shell(&format!("cp -a {} {}", images.display(), kept.display()));
    let fresh = || {
        let (images, kept) = (images.display(), kept.display());
        scene.shell(&format!("rm -r {images}; cp -a {kept} {images}"));
    };
    let first = |fields: &[u64]| edit(&cores(&images)[0], fields);
    for (field, set) in &SETS[1..] {
        // The kernel has nothing effective that is not permitted.
        let fields: &[u64] = if *set == "effective" {
            &[10, 11]
        } else {
            &[*field]
        };
        first(fields);
        let set = if *set == "effective" {
            "permitted"
        } else {
            set
        };
        let set = format!("in its {set} set");
        refused(
            &container,
            &["CAP_SYS_ADMIN", &set, "was restored from the images"],
        );
        fresh();
    }
    first(&SETS.map(|(field, _)| field));
    refused(&container, &["CAP_SYS_ADMIN in its bounding set"]);
    fresh();
    // Also one that is not the first.
    let all = cores(&images);
    if let Some(last) = all.get(1) {
        edit(last, &[12]);
        refused(&container, &["CAP_SYS_ADMIN in its bounding set"]);
        fresh();
    }
    detached(&container, "restore --detach --image-path images");
    counted(&container, reached);
}

#[test]
fn r44_the_bundle_of_the_restore_is_the_measure() {
    scene_with_criu!(scene, "criu less capabilities");
    let container = running(&scene, COUNT, |config| {
        let rule = json!({"names": ["swapon"], "action": "SCMP_ACT_ERRNO"});
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        config["process"]["noNewPrivileges"] = json!(false);
    });
    let reached = counted(&container, 1);
    checkpoint(&container, &["--image-path", "images"]);
    let file = container.bundle.join("config.json");
    let before = std::fs::read(&file).unwrap();
    let mut config: Value = serde_json::from_slice(&before).unwrap();
    let less = json!(["CAP_KILL"]);
    config["process"]["capabilities"] =
        json!({"bounding": less, "permitted": less, "effective": less});
    std::fs::write(&file, config.to_string()).unwrap();
    refused(
        &container,
        &["CAP_NET_BIND_SERVICE CAP_AUDIT_WRITE in its bounding set"],
    );
    std::fs::write(&file, before).unwrap();
    // As it was it goes on, with its filter.
    detached(&container, "restore --detach --image-path images");
    counted(&container, reached);
    let status = format!("/proc/{}/status", container.state()["pid"]);
    let status = std::fs::read_to_string(status).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
}
