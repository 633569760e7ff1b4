//! Without privileges.

use super::{LIMITS, pack_rootfs, path_of};
use teu_integration_tests::{Outcome, Scene, missing_command, peers, skip_unless};

/// Who runs podman. Debian has this user; subordinate ids are lent to it for
/// the test, in a mount namespace of each command's own.
const USER: &str = "nobody";
/// Names the folder of podman's own helpers, where that is none of Debian's.
const HELPERS: &str = "CONTAINERS_HELPER_BINARY_DIR";
const LEND: &str = r#"mount --bind subids /etc/subuid; mount --bind subids /etc/subgid; exec "$@""#;

#[test]
fn an_ordinary_user_runs_containers() {
    let scene = Scene::new("rootless podman");
    skip_unless!(scene, !missing_command("podman"), "no podman");
    skip_unless!(scene, !missing_command("newuidmap"), "no newuidmap");
    scene.write("subids", format!("{USER}:200000:65536\n"));
    let (shim, runtime) = (path_of(&scene, "teu-shim"), path_of(&scene, "teu-runtime"));
    pack_rootfs(&scene);
    scene.write("containers.conf", LIMITS);
    scene.shell(&format!(
        "mkdir home xdg programs; chmod 755 . ; cp {} {} programs; chown {USER} home xdg; chmod 700 xdg",
        shim.display(),
        runtime.display()
    ));
    let at = |name: &str| scene.path(name).display().to_string();
    let helpers = std::env::var(HELPERS).unwrap_or_default();
    let podman = |words: &[&str]| -> Outcome {
        let own = format!(
            "-u {USER} -- env -i PATH={}/usr/bin:/usr/sbin:/bin:/sbin {HELPERS}={helpers} HOME={} XDG_RUNTIME_DIR={} \
             CONTAINERS_CONF={} podman --storage-driver vfs --cgroup-manager cgroupfs \
             --events-backend file --runtime {} --conmon {}",
            peers(),
            at("home"),
            at("xdg"),
            at("containers.conf"),
            at("programs/teu-runtime"),
            at("programs/teu-shim")
        );
        let lend = ["-m", "sh", "-euc", LEND, "sh", "runuser"].map(str::to_owned);
        let own = lend.into_iter().chain(own.split(' ').map(str::to_owned));
        let words = words.iter().map(|word| (*word).to_owned());
        scene.run("unshare", own.chain(words))
    };
    podman(&["import", "-q", &at("rootfs.tar"), "busybox"]).succeeds();
    let run = ["run", "--network", "none", "--rm", "busybox"];
    assert_eq!(
        podman(&[&run[..], &["echo", "hello"]].concat()).succeeds(),
        "hello"
    );
    let _ = podman(&[&run[..], &["sh", "-c", "exit 7"]].concat()).exits(7);
    let run = ["run", "--network", "none", "-d", "--name", "one", "busybox"];
    let script = "echo up; trap 'exit 6' TERM; while :; do sleep 0.1; done";
    podman(&[&run[..], &["sh", "-c", script]].concat()).succeeds();
    assert_eq!(podman(&["exec", "one", "id", "-u"]).succeeds(), "0");
    let exec = ["exec", "-u", "app", "one", "sh", "-c", "id -u; exit 9"];
    assert_eq!(podman(&exec).exits(9).stdout, "1000\n");
    scene.wait_until("it speaks", || podman(&["logs", "one"]).stdout == "up\n");
    podman(&["stop", "one"]).succeeds();
    let state = "{{.State.Status}} {{.State.ExitCode}}";
    let state = podman(&["inspect", "--format", state, "one"]);
    assert_eq!(state.succeeds(), "exited 6");
    podman(&["rm", "-f", "-t", "0", "one"]).succeeds();
    // Its storage belongs to subordinate ids.
    let _ = podman(&["system", "reset", "--force"]);
    // Podman's own pause process holds the user namespace.
    let pause = scene.shell("cat xdg/libpod/tmp/pause.pid 2>/dev/null || true");
    if !pause.is_empty() {
        scene.shell(&format!("kill {pause} || true"));
    }
}
