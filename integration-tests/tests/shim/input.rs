//! What containers read, and their terminals.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use teu_integration_tests::Scene;
use teu_integration_tests::shim::messages::{CloseIoRequest, Empty, ResizeRequest};
use teu_integration_tests::shim::{Shim, Streams, drain, fifo, open_reader};

const AT_ONCE: u64 = 1 << 40;
const SECOND: Duration = Duration::from_secs(1);

fn close_input(shim: &mut Shim<'_>, exec: &str) {
    let request = CloseIoRequest {
        id: shim.id.clone(),
        exec_id: exec.into(),
        stdin: true,
    };
    shim.call::<Empty>("CloseIO", &request).unwrap();
}

fn streams(scene: &Scene) -> Streams {
    Streams {
        stdin: fifo(scene.path("in")).display().to_string(),
        stdout: fifo(scene.path("out")).display().to_string(),
        ..Streams::default()
    }
}

#[test]
fn input_reaches_the_container_and_ends_when_it_is_closed() {
    let scene = Scene::new("shim: input");
    let mut shim = Shim::start(&scene, "cat", &["cat"], |_| {});
    let streams = streams(&scene);
    let mut reader = open_reader(&scene.path("out"));
    shim.create(&streams).unwrap();
    shim.start_process("").unwrap();
    let write = |bytes: &[u8]| {
        let mut file = File::options().write(true).open(scene.path("in")).unwrap();
        file.write_all(bytes).unwrap();
    };
    // Two clients, one after the other: the end of a client is not the end of the input.
    write(b"one ");
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let copy = bytes.clone();
    let path = scene.path("in");
    let writer = std::thread::spawn(move || {
        let mut file = File::options().write(true).open(path).unwrap();
        file.write_all(&copy).unwrap();
    });
    let mut seen = Vec::new();
    while seen.len() < 4 + bytes.len() {
        seen.extend(drain(&mut reader, SECOND / 20, AT_ONCE));
    }
    writer.join().unwrap();
    close_input(&mut shim, "");
    assert_eq!(shim.wait(""), Ok(0));
    seen.extend(drain(&mut reader, 10 * SECOND, AT_ONCE));
    assert!(seen[..4] == *b"one " && seen[4..] == bytes);
    shim.leave();
}

#[test]
fn a_terminal_talks_is_resized_and_ends() {
    let scene = Scene::new("shim: terminal");
    let script = "stty -echo; echo ready; read line; echo \"got $line\"; stty size; exit 3";
    let mut shim = Shim::start(&scene, "tty", &["sh", "-c", script], |config| {
        config["process"]["terminal"] = true.into();
    });
    let mut streams = streams(&scene);
    streams.terminal = true;
    let mut reader = open_reader(&scene.path("out"));
    shim.create(&streams).unwrap();
    shim.start_process("").unwrap();
    let mut seen = String::new();
    while !seen.contains("ready\r\n") {
        seen += &String::from_utf8(drain(&mut reader, SECOND / 20, AT_ONCE)).unwrap();
    }
    let request = ResizeRequest {
        id: shim.id.clone(),
        exec_id: String::new(),
        width: 123,
        height: 45,
    };
    shim.call::<Empty>("ResizePty", &request).unwrap();
    let mut file = File::options().write(true).open(scene.path("in")).unwrap();
    file.write_all(b"hello\n").unwrap();
    assert_eq!(shim.wait(""), Ok(3));
    seen += &String::from_utf8(drain(&mut reader, 10 * SECOND, AT_ONCE)).unwrap();
    assert!(seen.ends_with("got hello\r\n45 123\r\n"), "{seen:?}");
    shim.leave();
}

#[test]
fn an_exec_has_a_terminal_or_input_of_its_own() {
    let scene = Scene::new("shim: exec input");
    let mut shim = super::sleeping(&scene, "exec");
    let mut streams = streams(&scene);
    let mut reader = open_reader(&scene.path("out"));
    shim.exec("in", &["wc", "-c"], &streams).unwrap();
    shim.start_process("in").unwrap();
    let mut file = File::options().write(true).open(scene.path("in")).unwrap();
    file.write_all(&vec![b'x'; 100_000]).unwrap();
    drop(file);
    close_input(&mut shim, "in");
    assert_eq!(shim.wait("in"), Ok(0));
    assert_eq!(drain(&mut reader, 10 * SECOND, AT_ONCE), b"100000\n");
    shim.delete("in").unwrap();
    streams.terminal = true;
    streams.stdin = String::new();
    let mut reader = open_reader(&scene.path("out"));
    shim.exec(
        "tty",
        &["sh", "-c", "test -t 1 && echo yes; exit 4"],
        &streams,
    )
    .unwrap();
    shim.start_process("tty").unwrap();
    assert_eq!(shim.wait("tty"), Ok(4));
    assert_eq!(drain(&mut reader, 10 * SECOND, AT_ONCE), b"yes\r\n");
    shim.delete("tty").unwrap();
    shim.leave();
}

/// Whose user may open what `/dev/stdout` leads to.
#[test]
fn pipes_belong_to_the_user_that_the_options_name() {
    let scene = Scene::new("shim: owner of pipes");
    let script = "echo opened >/dev/stdout; stat -Lc %u:%g /proc/self/fd/1 /proc/self/fd/2";
    let mut shim = Shim::start(&scene, "owner", &["sh", "-c", script], |config| {
        config["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1000});
    });
    (shim.options.io_uid, shim.options.io_gid) = (1000, 1000);
    let mut streams = Streams::to(fifo(scene.path("out")).display());
    streams.stderr = fifo(scene.path("err")).display().to_string();
    let mut reader = open_reader(&scene.path("out"));
    let mut errors = open_reader(&scene.path("err"));
    shim.create(&streams).unwrap();
    shim.start_process("").unwrap();
    let seen = drain(&mut reader, 10 * SECOND, AT_ONCE);
    let seen = String::from_utf8(seen).unwrap();
    assert_eq!(seen, "opened\n1000:1000\n1000:1000\n");
    assert_eq!(drain(&mut errors, 10 * SECOND, AT_ONCE), b"");
    assert_eq!(shim.wait(""), Ok(0));
    shim.leave();
}
