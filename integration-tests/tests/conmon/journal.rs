//! Output in the journal, at a journald of the test's own.

use super::post::{ID, Post, ours, same};
use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use teu_integration_tests::Scene;
use teu_integration_tests::command::{TIME_LIMIT, run_limited};

type Entry = BTreeMap<String, Vec<u8>>;

/// Runs `script` with the journal of the test in the place of the host's; gives its entries.
fn entries(post: &Post, script: &str, more: &str) -> Vec<Entry> {
    let folder = post.path("journal");
    std::fs::create_dir_all(&folder).unwrap();
    let journal = UnixDatagram::bind(folder.join("socket")).unwrap();
    journal
        .set_read_timeout(Some(std::time::Duration::from_millis(100)))
        .unwrap();
    post.program(script);
    let command = post.command(&format!("-b @/bundle -l journald {more}"));
    // In a mount namespace of its own: nothing is changed on the host.
    let place = r#"mount -t tmpfs tmpfs /run; mkdir -p /run/systemd
        ln -s "$HOME_OF_TEST/journal" /run/systemd/journal; exec "$0" "$@""#;
    let mut wrapped = post.scene.command("unshare", ["-m", "sh", "-euc", place]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped
        .current_dir(&post.home)
        .env("HOME_OF_TEST", &post.home);
    wrapped
        .env("_OCI_SYNCPIPE", "3")
        .env("_OCI_ATTACHPIPE", "5");
    let monitor = std::thread::spawn(move || run_limited(wrapped, b"", TIME_LIMIT));
    let mut found = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match journal.recv(&mut buffer) {
            Ok(n) => found.push(decode(&buffer[..n])),
            Err(_) if post.read("monitor").is_empty() || post.is_there() => {}
            Err(_) => break,
        }
    }
    monitor.join().unwrap().succeeds();
    found
}

fn decode(mut bytes: &[u8]) -> Entry {
    let mut fields = Entry::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let line = &bytes[..end];
        bytes = &bytes[end + 1..];
        let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
        if let Some(equal) = line.iter().position(|byte| *byte == b'=') {
            fields.insert(text(&line[..equal]), line[equal + 1..].to_vec());
        } else {
            let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            fields.insert(text(line), bytes[8..8 + len].to_vec());
            bytes = &bytes[9 + len..];
        }
    }
    // Where in its own source conmon logs is no concern of ours.
    fields.retain(|name, _| !name.starts_with("CODE_"));
    fields
}

#[test]
fn entries_have_conmons_fields() {
    let scene = Scene::new("conmon's journal");
    let script = "echo out; sleep 0.1; echo err >&2; sleep 0.1; echo; sleep 0.1";
    let seen = same(&scene, |post| entries(post, script, "--log-tag tag"));
    let field = |entry: &Entry, name: &str| {
        entry
            .get(name)
            .map(|value| String::from_utf8(value.clone()).unwrap())
    };
    let messages: Vec<_> = seen
        .iter()
        .filter_map(|entry| field(entry, "MESSAGE"))
        .collect();
    assert_eq!(messages, ["out\n", "err\n", "\n"]);
    for (name, value) in [
        ("CONTAINER_ID_FULL", ID),
        ("CONTAINER_ID", &ID[..12]),
        ("CONTAINER_NAME", "name"),
        ("CONTAINER_TAG", "tag"),
        ("SYSLOG_IDENTIFIER", "tag"),
        ("PRIORITY", "3"),
    ] {
        assert_eq!(field(&seen[1], name).as_deref(), Some(value), "{name}");
    }
    // A busy machine's conmon loses what has no end.
    let own = Scene::new("an unfinished line in the journal");
    let last = entries(&ours(&own), "printf last; sleep 0.1", "");
    assert_eq!(field(&last[0], "MESSAGE").as_deref(), Some("last"));
    assert_eq!(
        field(&last[0], "CONTAINER_PARTIAL_MESSAGE").as_deref(),
        Some("true")
    );
}

#[test]
fn labels_are_fields_and_pieces_need_not_be_marked() {
    let scene = Scene::new("labels in the journal");
    let post = ours(&scene);
    let more = "--log-label A_1=one --log-label B=two --no-container-partial-message";
    let seen = entries(&post, "printf last; sleep 0.1", more);
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (&seen[0]["A_1"][..], &seen[0]["B"][..]),
        (&b"one"[..], &b"two"[..])
    );
    assert!(!seen[0].contains_key("CONTAINER_PARTIAL_MESSAGE"));
}

#[test]
fn a_flood_of_any_bytes_comes_whole_and_goes_to_a_file_too() {
    let scene = Scene::new("a flood into the journal");
    let post = ours(&scene);
    let mut bytes: Vec<u8> = (0..=255u8).cycle().take(2 << 20).collect();
    bytes.extend(std::iter::repeat_n(b'x', 8 << 20));
    post.write("bytes", &bytes);
    let seen = entries(
        &post,
        "cat $HOME_OF_TEST/bytes",
        "-l k8s-file:@/log --no-sync-log",
    );
    let message = |entry: &Entry| entry["MESSAGE"].clone();
    let got: Vec<u8> = seen.iter().flat_map(message).collect();
    assert!(got == bytes, "{} of {} bytes", got.len(), bytes.len());
    assert!(super::post::output(&[post.path("log")], "stdout") == bytes);
}

#[test]
fn without_a_journal_the_container_goes_on() {
    let scene = Scene::new("no journal");
    same(&scene, |post| {
        post.program("seq 1 10000; sleep 0.1; exit 6");
        post.start("-l journald").succeeds();
        post.wait();
        post.read("persist/exit")
    });
}
