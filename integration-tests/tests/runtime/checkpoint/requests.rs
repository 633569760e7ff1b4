//! What `checkpoint` asks of CRIU, and what it makes of the answers.

use super::{Fake, SLEEP, no_python, scene_with_fake};
use crate::Container;
use serde_json::json;
use teu_integration_tests::command::{TIME_LIMIT, run_limited};
use teu_integration_tests::{Scene, skip_unless};

#[test]
fn a_checkpoint_asks_for_what_its_flags_say() {
    scene_with_fake!(scene, fake, "checkpoint flags", {});
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    container.run_detached();
    let pid = container.state()["pid"].clone();
    let (images, work) = (scene.path("deep/images"), scene.path("work"));
    std::fs::create_dir_all(scene.path("deep/parent")).unwrap();
    let (images, work) = (images.to_str().unwrap(), work.to_str().unwrap());
    let flags = [
        "--image-path",
        images,
        "--work-path",
        work,
        "--parent-path",
        "../parent",
        "--leave-running",
        "--tcp-established",
        "--tcp-skip-in-flight",
        "--link-remap",
        "--ext-unix-sk",
        "--shell-job",
        "--lazy-pages",
        "--page-server",
        "10.1.2.3:27",
        "--file-locks",
        "--manage-cgroups-mode",
        "strict",
        "--empty-ns",
        "network",
        "--auto-dedup",
    ];
    fake.checkpoint(&container, &flags).succeeds();
    let options = fake.options();
    for flag in [
        "leave_running",
        "tcp_established",
        "tcp_skip_in_flight",
        "link_remap",
        "ext_unix_sk",
        "shell_job",
        "lazy_pages",
        "file_locks",
        "auto_dedup",
        "track_mem",
        "notify_scripts",
        "orphan_pts_master",
    ] {
        assert_eq!(options[flag], 1, "{flag}: {options}");
    }
    assert_eq!(options["pid"], pid);
    assert_eq!(options["parent_img"], "../parent");
    assert_eq!(options["ps"], json!({"address": "10.1.2.3", "port": 27}));
    assert_eq!(options["manage_cgroups_mode"], 5);
    assert_eq!(options["empty_ns"], 0x4000_0000);
    assert_eq!(
        (&options["log_file"], &options["log_level"]),
        (&json!("dump.log"), &json!(4))
    );
    assert_eq!(options["config_file"], "/etc/criu/runc.conf");
    assert!(options["work_dir_fd"].is_u64() && options["status_fd"].is_null());
    assert_eq!(container.status(), "running");
    let streams = std::fs::read_to_string(scene.path("deep/images/descriptors.json")).unwrap();
    assert_eq!(
        serde_json::from_str::<Vec<String>>(&streams).unwrap().len(),
        3
    );
}

#[test]
fn without_flags_little_is_asked_for_and_the_container_is_gone() {
    scene_with_fake!(scene, fake, "checkpoint plain", {});
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    container.run_detached();
    let cgroup = container.cgroup("freezer");
    fake.checkpoint(&container, &[]).succeeds();
    let options = fake.options();
    for flag in [
        "leave_running",
        "tcp_established",
        "shell_job",
        "lazy_pages",
        "file_locks",
    ] {
        assert_eq!(options[flag], 0, "{flag}: {options}");
    }
    assert!(options["track_mem"].is_null() && options["ps"].is_null());
    assert_eq!(options["manage_cgroups_mode"], 6);
    assert_eq!(options["freeze_cgroup"], cgroup.to_str().unwrap());
    // By default beside the caller.
    assert!(scene.path("checkpoint/descriptors.json").is_file());
    let acknowledged = fake
        .requests()
        .iter()
        .filter(|r| r["notify_success"] == 1)
        .count();
    assert_eq!(acknowledged, 3);
    let _ = container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
    assert!(!cgroup.exists(), "{cgroup:?}");
}

#[test]
fn a_pre_dump_leaves_the_container_and_says_nothing_of_mounts() {
    scene_with_fake!(scene, fake, "pre-dump", {});
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    container.run_detached();
    fake.checkpoint(&container, &["--pre-dump"]).succeeds();
    let request = &fake.requests()[0];
    assert_eq!(request["type"], 4);
    assert!(request["opts"]["ext_mnt"].is_null());
    assert_eq!(container.status(), "running");
    fake.behaves(&json!({"features": false}));
    let _ = fake
        .checkpoint(&container, &["--pre-dump"])
        .fails(1, &["criu is missing features: [MemTrack]"]);
    let _ = fake
        .checkpoint(&container, &["--lazy-pages"])
        .fails(1, &["criu is missing features: [LazyPages]"]);
}

#[test]
fn what_cannot_be_is_refused_before_criu_is_asked() {
    scene_with_fake!(scene, fake, "checkpoint refusals", {});
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    container.create();
    let _ = fake
        .checkpoint(&container, &[])
        .fails(1, &["Container cannot be checkpointed in created state"]);
    container.call(&["start"], &[]).succeeds();
    let parent = scene.path("p");
    for (flags, words) in [
        (
            &["--parent-path", parent.to_str().unwrap()][..],
            "--parent-path must be relative",
        ),
        (&["--parent-path", "./none"], "invalid --parent-path"),
        (&["--page-server", "host"], "--page-server ADDRESS:PORT"),
        (&["--page-server", "host:x"], "Invalid port number"),
        (
            &["--manage-cgroups-mode", "hard"],
            "invalid manage-cgroups-mode value",
        ),
        (&["--empty-ns", "pid"], "is not supported"),
        (
            &["--lazy-pages", "--status-fd", "77"],
            "invalid --status-fd argument 77",
        ),
        (
            &["--lazy-pages", "--status-fd", "0"],
            "invalid --status-fd argument 0: not writable",
        ),
    ] {
        let _ = fake.checkpoint(&container, flags).fails(1, &[words]);
    }
    assert!(fake.requests().is_empty());
    assert_eq!(container.status(), "running");
}

#[test]
fn readiness_is_said_once_on_the_status_descriptor() {
    scene_with_fake!(scene, fake, "status-fd", {"notify": ["status-ready", "status-ready"]});
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    container.run_detached();
    let checkpoint = || {
        let runtime = scene.command(
            "teu-runtime",
            ["checkpoint", "--lazy-pages", "--leave-running"],
        );
        let words: Vec<_> = std::iter::once(runtime.get_program())
            .chain(runtime.get_args())
            .map(|word| word.to_str().unwrap().to_owned())
            .collect();
        scene.shell(&format!(
            "PATH={}:$PATH; {} --status-fd 5 {} 5>status; od -An -tx1 status",
            fake.folder.display(),
            words.join(" "),
            container.id
        ))
    };
    assert_eq!(checkpoint().trim(), "00");
    assert!(fake.options()["status_fd"].is_null());
    // An older criu writes there itself.
    fake.behaves(&json!({"version": [3, 14, 0], "notify": []}));
    assert_eq!(checkpoint().trim(), "");
    assert_eq!(fake.options()["status_fd"], 5);
}

#[test]
fn a_criu_that_fails_is_quoted_and_the_container_runs_on() {
    scene_with_fake!(scene, fake, "criu fails", {"fails": "Error (x.c:1): deep reason"});
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    container.run_detached();
    let outcome = fake.checkpoint(&container, &["--work-path", "work"]).fails(
        1,
        &[
            "criu failed: type DUMP errno 22: Error (x.c:1): deep reason",
            "log file: ",
            "work/dump.log",
            "2:(0.2) Error (x.c:1): deep reason",
        ],
    );
    assert_eq!(outcome.stderr.matches("type DUMP").count(), 1, "{outcome}");
    assert_eq!(container.status(), "running");
    fake.behaves(&json!({"dies": "no such kernel"}));
    let _ = fake.checkpoint(&container, &[]).fails(
        1,
        &[
            "CRIU version check failed: unexpected EOF: criu exit status 1",
            "no such kernel",
        ],
    );
    fake.behaves(&json!({"version": [2, 12, 0]}));
    let _ = fake
        .checkpoint(&container, &[])
        .fails(1, &["CRIU version 21200 must be 30000 or higher"]);
    assert_eq!(container.status(), "running");
}

#[test]
fn a_missing_criu_is_named() {
    let scene = Scene::new("no criu");
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    container.run_detached();
    let call = |words: &[&str]| {
        let mut command = scene.command("teu-runtime", words);
        command.env("PATH", scene.path("nothing"));
        run_limited(command, b"", TIME_LIMIT)
    };
    let expected = "executable file not found in $PATH";
    let _ = call(&["checkpoint", &container.id]).fails(1, &[expected, "install it"]);
    let bundle = container.bundle.to_str().unwrap();
    let _ = call(&["restore", "-b", bundle, "other"]).fails(1, &[expected]);
    let _ = call(&["state", "other"]).fails(1, &["does not exist"]);
    let named = ["--criu", "/no/such/criu", "checkpoint", &container.id];
    let _ = call(&named).fails(1, &["/no/such/criu", expected]);
    assert_eq!(container.status(), "running");
}

#[test]
fn a_criu_may_be_named() {
    scene_with_fake!(scene, fake, "criu by name", {});
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    container.run_detached();
    let criu = fake.folder.join("criu").display().to_string();
    let words = ["--criu", &criu, "checkpoint", "--leave-running"];
    let words = [&words[..], &[&container.id]].concat();
    scene.run("teu-runtime", words).succeeds();
    assert_eq!(fake.options()["leave_running"], 1);
}
