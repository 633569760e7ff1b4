//! What `restore` asks of CRIU, and what it does at its news.

use super::{Fake, SLEEP, no_python, scene_with_fake};
use crate::Container;
use serde_json::json;
use teu_integration_tests::{Scene, needs_root, skip_unless};

#[test]
fn a_restore_asks_for_what_its_flags_say() {
    scene_with_fake!(scene, fake, "restore flags", {});
    needs_root!(scene, "only root may restore");
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    let images = fake.images(&json!(["", "", ""]));
    let line = "-d --work-path work --tcp-established --ext-unix-sk --shell-job --file-locks \
        --manage-cgroups-mode ignore --no-subreaper --no-pivot --empty-ns network --auto-dedup \
        --lazy-pages --lsm-profile apparmor:x --lsm-mount-context system_u:x --image-path";
    let flags: Vec<&str> = line.split_whitespace().chain([images.as_str()]).collect();
    fake.restore(&container, &flags).succeeds();
    let options = fake.options();
    for flag in [
        "tcp_established",
        "ext_unix_sk",
        "shell_job",
        "file_locks",
        "auto_dedup",
        "lazy_pages",
        "rst_sibling",
        "evasive_devices",
        "orphan_pts_master",
    ] {
        assert_eq!(options[flag], 1, "{flag}: {options}");
    }
    assert_eq!(options["manage_cgroups_mode"], 0);
    assert_eq!(options["empty_ns"], 0x4000_0000);
    for (name, value) in [
        ("log_file", "restore.log"),
        ("lsm_profile", "apparmor:x"),
        ("lsm_mount_context", "system_u:x"),
        ("config_file", "/etc/criu/runc.conf"),
    ] {
        assert_eq!(options[name], value);
    }
    let roots = options["cg_root"].as_array().unwrap();
    let own = format!("{}/c", scene.cgroup());
    assert!(
        roots.iter().any(|root| root["path"] == own.as_str()),
        "{options}"
    );
}

#[test]
fn what_is_restored_is_as_its_bundle_says() {
    scene_with_fake!(scene, fake, "restore bundle", {});
    needs_root!(scene, "only root may restore");
    let data = scene.path("data");
    std::fs::create_dir(&data).unwrap();
    let container = Container::script(&scene, "c", SLEEP, |config| {
        let mount = json!({"destination": "/data/new", "source": "../data/.", "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    let images = fake.images(&json!(["", "", ""]));
    let flags = ["-d", "--image-path", &images, "--pid-file", "pid"];
    fake.restore(&container, &flags).succeeds();
    let options = fake.options();
    let mounts = options["ext_mnt"].as_array().unwrap();
    for expected in [
        json!({"key": "/data/new", "val": data}),
        json!({"key": "/dev/null", "val": "/dev/null"}),
    ] {
        assert!(mounts.contains(&expected), "{options}");
    }
    let point = container.bundle.join("rootfs/data/new");
    assert!(point.is_dir(), "its mount point is made");
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(scene.path("").to_str().unwrap()), "{table}");

    let state = container.state();
    assert_eq!(state["status"], "running");
    assert_eq!(state["id"], container.id.as_str());
    let pid = std::fs::read_to_string(scene.path("pid")).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    let _ = fake
        .restore(&container, &["-d", "--image-path", &images])
        .fails(1, &["already exists"]);
    let _ = container.call(&["kill"], &["KILL"]).exits(0);
    scene.wait_until("it has ended", || container.status() == "stopped");
    let _ = container.call(&["delete"], &[]).exits(0);
}

#[test]
fn hooks_of_the_runtime_see_the_restored_process() {
    scene_with_fake!(scene, fake, "restore hooks", {});
    needs_root!(scene, "only root may restore");
    let record = scene.path("hooked");
    let container = Container::script(&scene, "c", SLEEP, |config| {
        let hook = |name: &str| {
            let script = format!("cat >> {0}; echo {name} >> {0}", record.display());
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
        };
        for kind in ["prestart", "createRuntime", "createContainer", "poststart"] {
            config["hooks"][kind] = hook(kind);
        }
    });
    let images = fake.images(&json!(["", "", ""]));
    fake.restore(&container, &["-d", "--image-path", &images])
        .succeeds();
    let hooked = std::fs::read_to_string(&record).unwrap();
    let pid = format!("\"pid\":{}", container.state()["pid"]);
    assert_eq!(hooked.matches(&pid).count(), 2, "{hooked}");
    let (first, second) = (hooked.find("prestart"), hooked.find("createRuntime"));
    assert!(first.is_some() && first < second, "{hooked}");
    assert!(
        !hooked.contains("createContainer") && !hooked.contains("poststart"),
        "{hooked}"
    );
}

#[test]
fn the_foreground_has_output_signals_and_status() {
    scene_with_fake!(scene, fake, "restore foreground", {"script": "echo back again; exit 7"});
    needs_root!(scene, "only root may restore");
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    let images = fake.images(&json!(["", "", ""]));
    let outcome = fake.restore(&container, &["--image-path", &images]);
    assert_eq!(
        (outcome.code(), outcome.stdout.trim()),
        (7, "back again"),
        "{outcome}"
    );
    let _ = container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
    fake.behaves(&json!({"script": "trap 'echo got it; exit 9' USR1; kill -USR1 $PPID; while :; do sleep 0.05; done"}));
    let outcome = fake.restore(&container, &["--image-path", &images]);
    assert_eq!(
        (outcome.code(), outcome.stdout.trim()),
        (9, "got it"),
        "{outcome}"
    );
}

#[test]
fn a_failed_restore_leaves_nothing() {
    scene_with_fake!(scene, fake, "restore fails", {"fails": "Error (x.c:1): torn image"});
    needs_root!(scene, "only root may restore");
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    let images = fake.images(&json!(["", "", ""]));
    let flags = ["-d", "--image-path", images.as_str()];
    let gone = |container: &Container<'_>| {
        let _ = container
            .call(&["state"], &[])
            .fails(1, &["does not exist"]);
        assert!(!container.cgroup("freezer").exists());
    };
    let _ = fake.restore(&container, &flags).fails(
        1,
        &[
            "criu failed: type RESTORE errno 22: Error (x.c:1): torn image",
            "images/restore.log",
        ],
    );
    gone(&container);
    fake.behaves(&json!({}));
    let failing = Container::script(&scene, "failing", SLEEP, |config| {
        config["hooks"]["createRuntime"] = json!([{"path": "/bin/false"}]);
    });
    let _ = fake
        .restore(&failing, &flags)
        .fails(1, &["error running createRuntime hook #0"]);
    gone(&failing);
    let _ = fake
        .restore(&container, &["-d", "--image-path", "/no/such/images"])
        .fails(1, &["/no/such/images"]);
    gone(&container);
    fake.behaves(&json!({"version": [3, 15, 0]}));
    let _ = fake
        .restore(
            &container,
            &["-d", "--image-path", &images, "--lsm-profile", "a:b"],
        )
        .fails(1, &["--lsm-profile requires at least CRIU 3.16"]);
    gone(&container);
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    scene_with_fake!(scene, fake, "restore terminal", {"terminal": true});
    needs_root!(scene, "only root may restore");
    let container = Container::script(&scene, "c", SLEEP, |config| {
        config["process"]["terminal"] = json!(true);
    });
    let images = fake.images(&json!(["/dev/pts/0", "/dev/pts/0", "/dev/pts/0"]));
    let _ = fake
        .restore(&container, &["-d", "--image-path", &images])
        .fails(1, &["console socket"]);
    let socket = scene.path("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let flags = [
        "-d",
        "--image-path",
        &images,
        "--console-socket",
        socket.to_str().unwrap(),
    ];
    fake.restore(&container, &flags).succeeds();
    let (mut peer, _) = listener.accept().unwrap();
    let mut name = String::new();
    std::io::Read::read_to_string(&mut peer, &mut name).unwrap();
    assert_eq!(name, "orphan-pts-master");
}
