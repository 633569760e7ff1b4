//! Without privileges.

use super::{LIMITS, ROOTFS, path_of};
use teu_integration_tests::{Outcome, Scene, missing_command, skip_unless};

/// Who runs podman. Debian has this user; subordinate ids are lent to it for
/// the test, in a mount namespace of each command's own.
const USER: &str = "nobody";
const LEND: &str = r#"mount --bind subids /etc/subuid; mount --bind subids /etc/subgid; exec "$@""#;

#[test]
fn an_ordinary_user_runs_containers() {
    let scene = Scene::new("rootless podman");
    skip_unless!(scene, !missing_command("podman"), "no podman");
    skip_unless!(scene, !missing_command("newuidmap"), "no newuidmap");
    scene.write("subids", format!("{USER}:200000:65536\n"));
    let (shim, runtime) = (path_of(&scene, "teu-shim"), path_of(&scene, "teu-runtime"));
    scene.shell(ROOTFS);
    scene.write("containers.conf", LIMITS);
    scene.shell(&format!(
        "mkdir home xdg programs; chmod 755 . ; cp {} {} programs; chown {USER} home xdg; chmod 700 xdg",
        shim.display(),
        runtime.display()
    ));
    let at = |name: &str| scene.path(name).display().to_string();
    let podman = |words: &[&str]| -> Outcome {
        let own = format!(
            "-u {USER} -- env -i PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME={} XDG_RUNTIME_DIR={} \
             CONTAINERS_CONF={} podman --storage-driver vfs --cgroup-manager cgroupfs \
             --events-backend file --runtime {} --conmon {}",
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
    podman(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "one",
        "busybox",
        "sleep",
        "1000",
    ])
    .succeeds();
    assert_eq!(podman(&["exec", "one", "id", "-u"]).succeeds(), "0");
    podman(&["rm", "-f", "-t", "0", "one"]).succeeds();
    // Its storage belongs to subordinate ids.
    let _ = podman(&["system", "reset", "--force"]);
    // Podman's own pause process holds the user namespace.
    let pause = scene.shell("cat xdg/libpod/tmp/pause.pid 2>/dev/null || true");
    if !pause.is_empty() {
        scene.shell(&format!("kill {pause} || true"));
    }
}
