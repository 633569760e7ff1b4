//! `start`, `delete`, `-info` and `-v`, byte by byte.

use super::{Start, finish, shut_down, socket, wait_until_gone};
use rustix::process::{Pid, Signal, kill_process};
use teu_integration_tests::Scene;

/// `Any { "containerd.runc.v1.Options", Options { binary_name: "r" } }`.
const OPTIONS: &[u8] = b"\x0a\x1acontainerd.runc.v1.Options\x12\x03\x32\x01r";

/// The shims of this scene that serve.
fn shims(scene: &Scene) -> Vec<i32> {
    let address = scene.path("containerd.sock").display().to_string();
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if line.contains("containerd-shim-teu-v2\0-namespace")
            && line.ends_with(&format!("{address}\0"))
            && !stat.contains(") Z ")
        {
            pids.push(entry.file_name().to_string_lossy().parse().unwrap());
        }
    }
    pids
}

/// The one shim of this scene, which may still be on its way when `start` has answered.
fn shim(scene: &Scene) -> i32 {
    scene.wait_until("there is a shim", || !shims(scene).is_empty());
    let pids = shims(scene);
    assert_eq!(pids.len(), 1, "{pids:?}");
    pids[0]
}

#[test]
fn containerd_1_6_gets_the_bare_address() {
    let scene = Scene::new("shim start 1.6");
    scene.bundle("one", &["true"], |_| {});
    for input in [OPTIONS, b""] {
        let out = String::from_utf8(Start::new("one", input).run(&scene)).unwrap();
        let name = out.strip_prefix("unix:///run/containerd/s/").unwrap();
        assert!(
            name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{out}"
        );
        assert_eq!(
            std::fs::read_to_string(scene.path("one/address")).unwrap(),
            out
        );
        shut_down(&scene, &out, "one");
    }
}

#[test]
fn containerd_1_7_to_2_2_get_an_object() {
    let scene = Scene::new("shim start 2.0");
    scene.bundle("one", &["true"], |_| {});
    let start = Start {
        environment: &[("MAX_SHIM_VERSION", "2")],
        ..Start::new("one", OPTIONS)
    };
    let out: serde_json::Value = serde_json::from_slice(&start.run(&scene)).unwrap();
    assert_eq!(
        (&out["version"], &out["protocol"]),
        (&2.into(), &"ttrpc".into())
    );
    shut_down(&scene, out["address"].as_str().unwrap(), "one");
}

#[test]
fn containerd_2_3_gets_a_message_and_names_the_folder() {
    let scene = Scene::new("shim start 2.3");
    scene.bundle("one", &["true"], |_| {});
    let dir = scene.path("sockets").display().to_string();
    let mut input = b"\x0a\x03one\x12\x05tests\x22\x052.3.4\x42\x23\x0a\x21".to_vec();
    input.extend(OPTIONS);
    input.extend([0x4a, u8::try_from(dir.len()).unwrap()]);
    input.extend(dir.as_bytes());
    let start = Start {
        environment: &[("MAX_SHIM_VERSION", "2")],
        ..Start::new("one", &input)
    };
    let out = start.run(&scene);
    let length = usize::from(out[3]);
    let address = String::from_utf8(out[4..4 + length].to_vec()).unwrap();
    let mut expected = b"\x08\x03\x12".to_vec();
    expected.push(out[3]);
    expected.extend(address.as_bytes());
    expected.extend(b"\x1a\x05ttrpc");
    assert_eq!(out, expected);
    assert_eq!(socket(&address).parent().unwrap(), scene.path("sockets"));
    assert_eq!(
        std::fs::read_link(scene.path("one/s")).unwrap(),
        scene.path("sockets")
    );
    shut_down(&scene, &address, "one");
}

#[test]
fn a_pod_has_one_shim_however_many_ask_at_once() {
    let scene = Scene::new("shim start pod");
    let annotate = |config: &mut serde_json::Value| {
        config["annotations"] = serde_json::json!({"io.kubernetes.cri.sandbox-id": "pod"});
    };
    let ids: Vec<String> = (0..8).map(|number| format!("c{number}")).collect();
    for id in &ids {
        scene.bundle(id, &["true"], annotate);
    }
    let children: Vec<_> = ids
        .iter()
        .map(|id| {
            let mut command = Start::new(id, b"").command(&scene, "start");
            command
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut addresses: Vec<String> = children
        .into_iter()
        .map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    addresses.dedup();
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    shim(&scene);
    shut_down(&scene, &addresses[0], "pod");
}

#[test]
fn the_socket_of_a_dead_shim_is_no_obstacle() {
    use std::os::unix::fs::PermissionsExt as _;
    let scene = Scene::new("shim start stale");
    scene.bundle("one", &["true"], |_| {});
    let start = || String::from_utf8(Start::new("one", b"").run(&scene)).unwrap();
    let address = start();
    let mode = std::fs::metadata(socket(&address))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let pid = shim(&scene);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    scene.wait_until("it is dead", || shims(&scene).is_empty());
    assert!(socket(&address).exists());
    assert_eq!(start(), address);
    shut_down(&scene, &address, "one");
}

#[test]
fn delete_does_not_invent_a_status() {
    let scene = Scene::new("shim delete");
    scene.bundle("one", &["true"], |_| {});
    let address = String::from_utf8(Start::new("one", b"").run(&scene)).unwrap();
    let pid = shim(&scene);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    scene.wait_until("it is dead", || shims(&scene).is_empty());
    let out = finish(Start::new("one", b"").command(&scene, "delete"), b"");
    // No pid; 255, which containerd itself gives for what nobody knows; and a time.
    assert_eq!(out[..3], *b"\x10\xff\x01");
    wait_until_gone(&scene, &socket(&address));
}

#[test]
fn it_says_what_it_is() {
    let scene = Scene::new("shim info");
    let out = scene.run("containerd-shim-teu-v2", ["-v"]).succeeds();
    assert!(
        out.contains("containerd-shim-teu-v2:") && out.contains("Version:"),
        "{out}"
    );
    let out = finish(scene.command("containerd-shim-teu-v2", ["-info"]), b"");
    assert!(
        out.starts_with(b"\x0a\x14io.containerd.teu.v2\x12"),
        "{}",
        String::from_utf8_lossy(&out)
    );
    let text = String::from_utf8_lossy(&out);
    assert!(
        text.contains("types.containerd.io/opencontainers/runtime-spec/1/features/Features"),
        "{text}"
    );
    assert!(text.contains("ociVersionMin"), "{text}");
    let out = finish(scene.command("containerd-shim-teu-v2", ["-info"]), OPTIONS);
    assert!(String::from_utf8_lossy(&out).contains("containerd.runc.v1.Options"));
}

#[test]
fn what_it_is_not_started_for_it_refuses() {
    let scene = Scene::new("shim flags");
    for words in [
        &["start"][..],
        &["-namespace", "n", "-id", "a/b", "start"],
        &["-nosuch"],
        &["-namespace", "n", "-id", "x", "stop"],
    ] {
        let _ = scene
            .run("containerd-shim-teu-v2", words)
            .fails(1, &["containerd-shim-teu-v2: "]);
    }
}
