//! What the options of a runtime change, in the forms that containerd hands them on.

use super::{Containerd, bundle, shim_of};
use crate::Shim;
use std::path::PathBuf;
use teu_integration_tests::{Scene, missing_command, skip_unless};

const IMAGE: &str = "docker.io/library/busybox:latest";

/// Makes a cgroup wherever one can stand that takes processes as it is born, which one of
/// cpuset does not.
const MAKE_CGROUP: &str = r#"for place in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ "$place" != /sys/fs/cgroup/cpuset ] || continue
    case $(stat -f -c %T "$place") in cgroup*fs) mkdir -p "$place"CGROUP ;; esac
    [ "$place" != /sys/fs/cgroup ] || [ ! -e "$place/cgroup.procs" ] || break
done"#;

/// A runtime that notes how it is called before it is ours; it says that it has
/// checkpointed, which only hosts with a CRIU that works can.
fn noting(scene: &Scene, containerd: &Containerd<'_>) -> PathBuf {
    let log = scene.path("calls");
    let script = format!(
        "#!/bin/sh\necho \"$*\" >>{}\ncase \" $* \" in *' checkpoint '*) exit 0 ;; esac\nexec {} \"$@\"\n",
        log.display(),
        containerd.runtime
    );
    let path = scene.write("noting", script);
    scene.shell("chmod 755 noting");
    path
}

/// The calls of one kind, each a line.
fn calls(scene: &Scene, verb: &str) -> Vec<String> {
    let text = std::fs::read_to_string(scene.path("calls")).unwrap();
    let verb = format!(" {verb} ");
    let lines = text.lines().filter(|line| line.contains(&verb));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_file_of_options_is_heeded() {
    let scene = Scene::new("shim options");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene, Shim::Ours);
    let (root, cgroup) = (scene.path("own root"), format!("{}/shim", scene.cgroup()));
    scene.shell(&MAKE_CGROUP.replace("CGROUP", &cgroup));
    let program = noting(&scene, &containerd);
    let options = format!(
        "BinaryName = {program:?}\nRoot = {root:?}\nShimCgroup = {cgroup:?}\nIoUid = 1234\nIoGid = 4321\n\
         NoPivotRoot = true\nNoNewKeyring = true\nCriuPath = \"/opt/own/criu\"\nCriuWorkPath = {:?}\n",
        scene.path("criu work"),
    );
    let options = scene.write("options.toml", options).display().to_string();
    let place = format!("{}/one", scene.cgroup());
    let words = [
        "run",
        "-d",
        "--runtime",
        "io.containerd.teu.v2",
        "--runtime-config-path",
        &options,
        "--cgroup",
        &place,
        IMAGE,
        "one",
        "sleep",
        "1000",
    ];
    containerd.call(&words).succeeds();
    let create = &calls(&scene, "create")[0];
    for part in [
        &format!("--root {}/{} ", root.display(), containerd.namespace()),
        " --criu /opt/own/criu ",
        " --no-pivot ",
        " --no-new-keyring ",
    ] {
        assert!(create.contains(part), "{part:?} in {create:?}");
    }
    let shim = shim_of(&scene, "one").unwrap();
    let place = std::fs::read_to_string(format!("/proc/{shim}/cgroup")).unwrap();
    assert!(place.contains(&cgroup), "{place}");
    // The streams belong to who is named.
    let owner = ["stat", "-L", "-c", "%u %g", "/proc/1/fd/1"];
    let said = containerd.exec("one", "e", &owner);
    assert_eq!(said.succeeds(), "1234 4321");
    // What is not of containers' making is still as it was asked for.
    let kept = scene.path("kept").display().to_string();
    let checkpoint = ["task", "checkpoint", "--image-path", &kept, "one"];
    containerd.call(&checkpoint).succeeds();
    let checkpoint = &calls(&scene, "checkpoint")[0];
    assert!(
        checkpoint.contains(" --criu /opt/own/criu "),
        "{checkpoint}"
    );
    containerd.remove("one");
}

/// ctr sends it with the task, in place of what it had sent before: also runc's shim then
/// knows no other option.
#[test]
fn a_task_may_do_without_pivot_root() {
    let scene = Scene::new("shim without pivot_root");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene, Shim::Ours);
    for (flags, pivots) in [(&["-d"][..], true), (&["-d", "--no-pivot"], false)] {
        containerd.run(flags, "one", &["sleep", "1000"]).succeeds();
        let options = bundle(&containerd, "one").join("options.json");
        let options = std::fs::read_to_string(options).unwrap();
        let options: serde_json::Value = serde_json::from_str(&options).unwrap();
        assert_eq!(options["no_pivot_root"] == true, !pivots, "{options}");
        containerd.remove("one");
    }
}
