//! Leaving a container's terminal, and coming back.

use super::*;

/// Types, with pauses, into what script(1) makes a terminal for; what is shown in it.
fn typed(scene: &Scene, keys: &[&str], command: &str) -> String {
    let keys: Vec<String> = keys
        .iter()
        .map(|keys| format!("sleep 1; printf '{keys}'"))
        .collect();
    scene.shell(&format!(
        "({}; sleep 1) | script -qec \"{command}\" /dev/null; echo status $?",
        keys.join("; ")
    ))
}

#[test]
fn who_types_the_keys_leaves_it_running_and_can_come_back() {
    let scene = scene("detach keys");
    skip_unless!(
        scene,
        !missing_command("script"),
        "no script(1) to make a terminal with"
    );
    let (teu_line, cgroup) = (teu_line(&scene), scene.cgroup());
    let run = format!("{teu_line} run --cgroup-parent {cgroup} --network none -it");
    let script = "while read x; do echo got \\$x; done";
    // A key of the row alone is the container's.
    let shown = typed(
        &scene,
        &["one\\n", "\\020two\\n", "\\020", "\\021"],
        &format!("{run} --name d busybox sh -c '{script}'"),
    );
    assert!(
        shown.contains("got one") && shown.contains("two"),
        "{shown}"
    );
    assert!(shown.contains("status 0"), "{shown}");
    assert_eq!(state(&scene, "d"), "running");
    let keys = "--detach-keys ctrl-x,y";
    let shown = typed(
        &scene,
        &["\\020\\021three\\n", "\\030y"],
        &format!("{teu_line} attach {keys} d"),
    );
    assert!(
        shown.contains("three") && shown.contains("status 0"),
        "{shown}"
    );
    assert_eq!(state(&scene, "d"), "running");
    // Without any, all are the container's: its terminal ends its input.
    let shown = typed(
        &scene,
        &["\\020\\021\\n", "\\004"],
        &format!("{teu_line} attach --detach-keys '' d"),
    );
    assert!(shown.contains("status 0"), "{shown}");
    wait_for_state(&scene, "d", "exited");
    teu(&scene, &["rm", "d"]).succeeds();
    let wrong = ["run", "-it", "--detach-keys", "ctrl-?", "busybox", "true"];
    let _ = teu(&scene, &wrong).fails(125, &["ctrl-?"]);
}
