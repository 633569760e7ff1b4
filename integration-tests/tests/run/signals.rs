//! What the caller does with signals is not the container's affair.

use super::{scene, teu};

/// With SIGCHLD ignored the end of a child is not told, unless it is asked for.
#[test]
fn a_caller_that_hears_nothing_gets_the_exit_status() {
    let scene = scene("deaf caller");
    let words = ["run", "--rm", "--network", "none", "busybox", "sh", "-c"];
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; exit 7";
    let outcome = scene.run_deaf("teu", words.iter().chain(&[script]));
    let none = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000";
    assert_eq!(outcome.exits(7).stdout.trim_end(), none);
}

#[test]
fn what_such_a_caller_left_running_can_be_stopped() {
    let scene = scene("deaf caller detached");
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let words = ["run", "-d", "--name", "c", "--network", "none", "busybox"];
    let words = [words.as_slice(), &["sh", "-c", script]].concat();
    scene.run_deaf("teu", words).succeeds();
    scene.wait_until("it traps", || {
        teu(&scene, &["logs", "c"]).stdout.contains("ready")
    });
    teu(&scene, &["stop", "c"]).succeeds();
    assert_eq!(teu(&scene, &["wait", "c"]).succeeds().trim(), "5");
    teu(&scene, &["rm", "c"]).succeeds();
}
