//! Which log drivers there are, and whether what they wrote is on disk.

use super::post::{ours, same};
use serde_json::Value;
use teu_integration_tests::command::{TIME_LIMIT, run_limited};
use teu_integration_tests::{Scene, missing_command, skip_unless};

#[test]
fn a_json_file_has_an_object_a_line() {
    let scene = Scene::new("conmon's json-file");
    let post = ours(&scene);
    post.program("echo 'a \"b\"'; sleep 0.1; printf 'c\\001\\n' >&2; sleep 0.1; printf last");
    post.start("-l json-file:@/log.json -l k8s-file:@/log")
        .succeeds();
    post.wait();
    let text = post.read("log.json");
    let entries: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = entries.iter().map(|entry| {
        assert!(entry["time"].as_str().unwrap().contains('T'), "{entry}");
        (
            entry["stream"].as_str().unwrap(),
            entry["log"].as_str().unwrap(),
        )
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("stdout", "a \"b\"\n"),
            ("stderr", "c\u{1}\n"),
            ("stdout", "last")
        ]
    );
    assert_eq!(
        post.entries(),
        ["stdout F a \"b\"", "stderr F c\u{1}", "stdout P last"],
        "both are written"
    );
}

#[test]
fn who_logs_nowhere_leaves_no_file_and_is_heard_by_who_is_attached() {
    let scene = Scene::new("conmon's drivers without a file");
    for driver in ["none", "off", "null"] {
        let seen = same(&scene, |post| {
            let _ = std::fs::remove_file(post.path("start"));
            post.program("read x; echo heard; exit 2");
            post.start(&format!("-i -l {driver}")).succeeds();
            post.wait_for("sync", "data");
            let client = super::doors::Client::connect(&post.path("bundle/attach"));
            client.type_in("go\n");
            let heard = client.output();
            post.wait();
            let files = scene.shell(&format!("cd {} && ls | sort", post.home.display()));
            (heard, post.read("persist/exit"), files)
        });
        assert_eq!(seen.0, ("heard\n".into(), String::new()), "{driver}");
        assert!(seen.1 == "2" && !seen.2.contains("log"), "{seen:?}");
        scene.shell("rm -rf ours conmon");
    }
}

#[test]
fn a_log_is_on_disk_at_the_end_unless_that_is_not_asked_for() {
    let scene = Scene::new("conmon --no-sync-log");
    skip_unless!(scene, !missing_command("strace"), "no strace");
    let post = ours(&scene);
    post.program("echo hello");
    let synced = ["", "--no-sync-log"].map(|more| {
        let command = post.command(&format!("-b @/bundle -l @/log {more}"));
        let trace = post.path("trace").display().to_string();
        let own = [
            "-f",
            "-qq",
            "-o",
            &trace,
            "-e",
            "trace=fsync,fdatasync",
            "sh",
        ];
        let mut traced = scene.command("strace", own);
        traced.args(command.get_args()).current_dir(&post.home);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => traced.env(name, value),
                None => traced.env_remove(name),
            };
        }
        run_limited(traced, b"", TIME_LIMIT).succeeds();
        post.wait();
        post.read("trace").contains("sync(")
    });
    assert_eq!(synced, [true, false]);
}
