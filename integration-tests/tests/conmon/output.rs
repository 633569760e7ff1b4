//! No byte of output is lost, and none is held for long.

use super::doors::Client;
use super::post::{Post, ours, output};
use std::path::Path;
use std::time::{Duration, Instant};
use teu_integration_tests::Scene;

/// Memory of a process that is of no file, in KiB. The program's own pages are
/// shared with whoever runs it too, and dirty for a while after it was built.
fn own_kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.unwrap()
}

/// Bytes of every value, without a pattern that repeats with any block.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(next).collect()
}

/// Has the container write `bytes`, and gives what the log holds.
fn logged(post: &Post, bytes: &[u8], more: &str) -> Vec<u8> {
    post.write("bytes", bytes);
    post.run("cat $HOME_OF_TEST/bytes", more);
    output(&[post.path("log")], "stdout")
}

#[test]
fn a_long_line_and_any_bytes_are_kept_exactly() {
    let scene = Scene::new("conmon's output, byte for byte");
    let post = ours(&scene);
    let mut line = vec![b'x'; 8 << 20];
    line.extend_from_slice(b"end\nlast without newline");
    assert!(logged(&post, &line, "") == line, "an 8 MiB line");
    std::fs::remove_file(post.path("log")).unwrap();
    let bytes = noise(3 << 20);
    assert!(logged(&post, &bytes, "--no-sync-log") == bytes, "all bytes");
}

#[test]
fn passthrough_touches_nothing() {
    let scene = Scene::new("conmon's passthrough");
    let post = ours(&scene);
    let bytes = noise(1 << 20);
    post.write("bytes", &bytes);
    post.program("cat $HOME_OF_TEST/bytes; echo bad >&2");
    let line = r#"exec "$0" "$@" >"$HOME_OF_TEST/out" 2>"$HOME_OF_TEST/err" </dev/null"#;
    let command = post.command("-b @/bundle -l passthrough");
    let mut wrapped = scene.command("sh", ["-c", line]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped
        .current_dir(&post.home)
        .env("HOME_OF_TEST", &post.home);
    let limit = teu_integration_tests::command::TIME_LIMIT;
    teu_integration_tests::command::run_limited(wrapped, b"", limit).succeeds();
    post.wait();
    assert!(std::fs::read(post.path("out")).unwrap() == bytes);
    assert_eq!(post.read("err"), "bad\n");
    assert!(!post.path("bundle/attach").exists() && !post.path("bundle/ctl").exists());
}

/// Says numbered lines as fast as it can, 100 KB each time, until told to stop.
const FLOOD: &str = "i=0; while [ ! -e $HOME_OF_TEST/enough ]; do \
    seq -f 'line %.0f of a container that says very much, and does not wait for anybody to read' \
    $i $((i+999)); i=$((i+1000)); done; echo last $i";

/// The numbers of the lines, which are all there and in order.
fn check_lines(bytes: &[u8]) -> usize {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let mut count = 0;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("line ") {
            let number = rest.split(' ').next().unwrap();
            assert_eq!(number.parse::<usize>().unwrap(), count);
            count += 1;
        }
    }
    assert!(
        text.ends_with(&format!("last {count}\n")),
        "the end is there"
    );
    count
}

#[test]
fn a_flood_costs_no_memory_and_loses_nothing() {
    let scene = Scene::new("conmon under a flood");
    let post = ours(&scene);
    post.program(FLOOD);
    post.start("-l k8s-file:@/log --no-sync-log").succeeds();
    post.wait_for("log", "line 1 ");
    let before = own_kib(post.pid());
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs(3));
    let bytes = std::fs::metadata(post.path("log")).unwrap().len();
    let after = own_kib(post.pid());
    post.write("enough", "");
    post.wait();
    check_lines(&output(&[post.path("log")], "stdout"));
    let rate = bytes / begin.elapsed().as_millis().max(1) as u64;
    eprintln!("logged {rate} KB/s, own memory {before} -> {after} KiB");
    assert!(after < before + 100, "{before} -> {after} KiB");
}

#[test]
fn who_is_attached_and_does_not_read_costs_no_memory() {
    let scene = Scene::new("conmon and a client that does not read");
    let post = ours(&scene);
    post.program(FLOOD);
    post.start("-l k8s-file:@/log --no-sync-log").succeeds();
    post.wait_for("log", "line 1 ");
    let slow = Client::connect(&post.path("bundle/attach"));
    std::thread::sleep(Duration::from_millis(500));
    let before = own_kib(post.pid());
    std::thread::sleep(Duration::from_secs(2));
    let after = own_kib(post.pid());
    assert!(after < before + 100, "{before} -> {after} KiB");
    post.write("enough", "");
    // It reads at last: from where it attached all is there, to the end.
    let (out, _) = slow.output();
    post.wait();
    let all = output(&[post.path("log")], "stdout");
    check_lines(&all);
    let all = String::from_utf8(all).unwrap();
    assert!(out.len() > 100_000 && all.ends_with(&out));
}

#[test]
fn who_was_attached_and_died_holds_nobody_back() {
    let scene = Scene::new("conmon and a client that dies");
    let post = ours(&scene);
    post.program(FLOOD);
    post.start("-l k8s-file:@/log --no-sync-log").succeeds();
    post.wait_for("log", "line 1 ");
    let dead = Client::connect(&post.path("bundle/attach"));
    std::thread::sleep(Duration::from_millis(500));
    drop(dead);
    post.wait_for("log", "line 9999 ");
    post.write("enough", "");
    post.wait();
    check_lines(&output(&[post.path("log")], "stdout"));
}

#[test]
fn a_full_disk_holds_the_container_back_until_there_is_room() {
    let scene = Scene::new("conmon and a full disk");
    let post = ours(&scene);
    let disk = post.path("disk");
    std::fs::create_dir(&disk).unwrap();
    scene.shell(&format!(
        "mount -t tmpfs -o size=1m tmpfs {}",
        disk.display()
    ));
    post.program("seq 1 100000; echo last");
    post.start("-l k8s-file:@/disk/log").succeeds();
    let full = || std::fs::metadata(disk.join("log")).unwrap().len() >= (1 << 20) - 4096;
    scene.wait_until("the disk is full", full);
    std::thread::sleep(Duration::from_millis(300));
    assert!(post.is_there());
    scene.shell(&format!("mount -o remount,size=64m {}", disk.display()));
    post.wait();
    let text = String::from_utf8(output(&[disk.join("log")], "stdout")).unwrap();
    scene.shell(&format!("umount {}", disk.display()));
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(text == expected + "last\n", "{} bytes", text.len());
}

#[test]
fn who_goes_on_with_the_streams_of_an_ended_process_is_not_waited_for() {
    let scene = Scene::new("conmon and an orphan");
    let post = ours(&scene);
    post.write("spec", "sleep 20 & echo said; exit 3");
    let begin = Instant::now();
    post.start("-e --exec-process-spec @/spec -l @/log")
        .succeeds();
    post.wait_for("sync", "{\"data\": 3}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(post.entries(), ["stdout F said"]);
    scene.shell("pkill -g $(cat ours/pid) || true");
    post.wait();
    assert!(!Path::new(&post.path("bundle/attach")).exists());
}

#[test]
fn who_never_reads_keeps_nobody_waiting_for_the_end() {
    let scene = Scene::new("conmon and a client that never reads");
    let post = ours(&scene);
    post.program("read line; seq 1 40000; exit 8");
    post.start("-i -l k8s-file:@/log").succeeds();
    post.wait_for("sync", "data");
    let quick = Client::connect(&post.path("bundle/attach"));
    let silent = Client::connect(&post.path("bundle/attach"));
    quick.type_in("go\n");
    let begin = Instant::now();
    // The container waits for the slowest while it lives: let that one read a while.
    let mut seen = 0;
    while seen < 100_000 {
        seen += silent.packet().unwrap().1.len();
    }
    let (out, _) = quick.output();
    assert!(out.ends_with("\n40000\n"));
    post.wait_for("persist/exit", "8");
    assert!(begin.elapsed() < Duration::from_secs(8));
    post.wait();
    assert!(begin.elapsed() < Duration::from_secs(18));
    drop(silent);
}
