//! kill -9 of teu-runtime at any moment of `create` and `run`: afterwards
//! `delete --force` succeeds, and nothing is left.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::process::Stdio;
use std::time::Duration;

use teu_integration_tests::Scene;

/// How often each verb is killed. The moments are spread evenly over the time
/// that an undisturbed one takes, and a little beyond.
const ROUNDS: u32 = 30;

/// Later than the end of an undisturbed `create`, on a busy machine too.
const LATEST: Duration = Duration::from_millis(30);

#[test]
fn a_killed_create_leaves_nothing() {
    killed_everywhere("create", &[]);
}

#[test]
fn a_killed_run_leaves_nothing() {
    killed_everywhere("run", &["--detach"]);
}

fn killed_everywhere(verb: &str, flags: &[&str]) {
    let scene = Scene::new(&format!("kill -9 of {verb}"));
    let bundle = scene.bundle("k", &["/bin/sleep", "1000"], |_| ());
    let bundle = bundle.to_str().unwrap();
    let id = format!("{}-k", scene.cgroup().trim_start_matches('/'));
    let mut hit = 0;
    for round in 0..ROUNDS {
        let words = [&[verb, "-b", bundle], flags, &[&id]].concat();
        let mut command = scene.command("teu-runtime", words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut runtime = command.spawn().unwrap();
        std::thread::sleep(LATEST * round / ROUNDS);
        runtime.kill().unwrap();
        hit += u32::from(!runtime.wait().unwrap().success());
        scene
            .run("teu-runtime", ["delete", "--force", &id])
            .succeeds();
        let listed = scene.run("teu-runtime", ["list", "--quiet"]).succeeds();
        assert_eq!(listed, "", "round {round}");
    }
    eprintln!("{verb}: {hit} of {ROUNDS} were killed before their end");
    assert!(hit > 0, "no {verb} was slow enough to be killed");
    // The scene itself looks for processes, mounts and cgroups left behind.
}
