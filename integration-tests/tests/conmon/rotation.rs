//! Logs that are rotated, by others and by the monitor itself.

use super::post::{Post, ours, output, same};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use teu_integration_tests::Scene;

/// Says so many numbered lines.
fn count(lines: u32) -> String {
    format!("seq -f 'line %.0f' 1 {lines}")
}

fn numbers(lines: u32) -> Vec<u8> {
    (1..=lines)
        .flat_map(|n| format!("line {n}\n").into_bytes())
        .collect()
}

/// `log.N` to `log.1`, then `log`.
fn kept(post: &Post) -> Vec<PathBuf> {
    let older = (1..).map(|n| post.path(&format!("log.{n}")));
    let mut files: Vec<PathBuf> = older.take_while(|path| path.exists()).collect();
    files.reverse();
    files.push(post.path("log"));
    files
}

#[test]
fn renamed_under_load_and_opened_anew_nothing_is_lost() {
    let scene = Scene::new("rotation by rename");
    let post = ours(&scene);
    post.program(
        "i=1; while [ ! -e $HOME_OF_TEST/enough ]; do \
         seq -f 'line %.0f' $i $((i+99)); i=$((i+100)); done",
    );
    post.start("-l @/log --no-sync-log").succeeds();
    post.wait_for("log", "line");
    for number in 0..20 {
        std::thread::sleep(Duration::from_millis(30));
        std::fs::rename(post.path("log"), post.path(&format!("old.{number}"))).unwrap();
        let mut ctl = std::fs::File::options()
            .write(true)
            .open(post.path("bundle/ctl"))
            .unwrap();
        ctl.write_all(b"2 0 0\n").unwrap();
        scene.wait_until("the log is there again", || post.path("log").exists());
    }
    post.write("enough", "");
    post.wait();
    let mut files: Vec<PathBuf> = (0..20).map(|n| post.path(&format!("old.{n}"))).collect();
    files.push(post.path("log"));
    let bytes = output(&files, "stdout");
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines > 2000, "{lines}");
    assert!(bytes == numbers(lines as u32));
}

#[test]
fn a_log_that_was_removed_is_there_again() {
    let scene = Scene::new("conmon reopens its log");
    let entries = same(&scene, |post| {
        post.program("echo one; while [ ! -e $HOME_OF_TEST/enough ]; do sleep 0.1; done; echo two");
        post.start("-l @/log").succeeds();
        post.wait_for("log", "one");
        std::fs::remove_file(post.path("log")).unwrap();
        let ctl = std::fs::File::options()
            .write(true)
            .open(post.path("bundle/ctl"));
        ctl.unwrap().write_all(b"2 1 1\n").unwrap();
        scene.wait_until("the log is there again", || post.path("log").exists());
        post.write("enough", "");
        post.wait();
        post.entries()
    });
    assert_eq!(entries, ["stdout F two"]);
}

#[test]
fn a_full_log_begins_anew() {
    let scene = Scene::new("conmon --log-size-max");
    let entries = same(&scene, |post| {
        // Slowly, for conmon counts by what it reads at once.
        post.run(
            "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done",
            "--log-size-max 110",
        );
        assert!(!post.path("log.1").exists());
        post.entries()
    });
    assert_eq!(entries, ["stdout F line 5"]);
}

#[test]
fn the_whole_life_may_have_a_limit() {
    let scene = Scene::new("conmon --log-global-size-max");
    let entries = same(&scene, |post| {
        let script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done";
        post.run(script, "--log-global-size-max 100");
        (post.entries(), post.read("persist/exit"))
    });
    assert_eq!(
        entries,
        (
            vec!["stdout F line 1".into(), "stdout F line 2".into()],
            "0".into()
        )
    );
}

#[test]
fn full_logs_are_kept_and_hold_everything() {
    let scene = Scene::new("conmon --log-rotate");
    let post = ours(&scene);
    post.run(
        &count(3000),
        "--log-rotate --log-max-files 1000 --log-size-max 4000",
    );
    let files = kept(&post);
    assert!(files.len() > 30, "{}", files.len());
    for file in &files {
        assert!(std::fs::metadata(file).unwrap().len() <= 4000);
    }
    assert!(output(&files, "stdout") == numbers(3000));
    scene.shell("rm ours/log*");
    post.run(
        &count(3000),
        "--log-rotate --log-max-files 2 --log-size-max 4000",
    );
    assert_eq!(kept(&post).len(), 3);
    assert!(numbers(3000).ends_with(&output(&kept(&post), "stdout")));
}
