//! `--systemd-cgroup` against a bus of the test's own: what systemd is asked
//! for, and what happens when it does not answer as it should.
//!
//! The bus makes no cgroups: version 1 hierarchies are the runtime's own to join.

use super::fake_systemd::{Bus, Manner};
use super::{Container, cgroup_v1};
use serde_json::json;
use std::path::PathBuf;
use teu_integration_tests::{Outcome, Scene, binary, needs_root, skip_unless};

/// A container that is to be given its cgroups by the bus.
struct Asking<'a> {
    container: Container<'a>,
    bus: Bus,
}

impl<'a> Asking<'a> {
    fn new(scene: &'a Scene, manner: Manner, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let name = scene.mark().replace('-', "_");
        let container = Container::new(scene, "c", &["/bin/sleep", "1000"], |config| {
            config["linux"]["cgroupsPath"] = json!(format!("{name}.slice:teu:c"));
            change(config);
        });
        let bus = Bus::start(scene, manner);
        Self { container, bus }
    }

    /// Calls the runtime, which finds the bus in its environment.
    fn call(&self, words: &str) -> Outcome {
        // Its streams are files: a created container keeps them.
        let scene = self.container.scene;
        let mut outcome = scene.run("sh", ["-c", &self.line(words)]);
        outcome.stdout = std::fs::read_to_string(scene.path("out")).unwrap();
        outcome.stderr = std::fs::read_to_string(scene.path("err")).unwrap();
        outcome
    }

    /// The command line of the runtime, with the bus in its environment.
    fn line(&self, words: &str) -> String {
        let scene = self.container.scene;
        format!(
            "DBUS_SYSTEM_BUS_ADDRESS={} exec {} --root {} {words} </dev/null >out 2>err",
            self.bus.address,
            binary("teu-runtime").display(),
            scene.path("state/runtime").display(),
        )
    }

    fn create(&self) -> Outcome {
        let bundle = self.container.bundle.display();
        self.call(&format!(
            "--systemd-cgroup create -b {bundle} {}",
            self.container.id
        ))
    }

    /// Where the container is in one hierarchy of version 1.
    fn cgroup(&self, controller: &str) -> PathBuf {
        let name = self
            .container
            .scene
            .cgroup()
            .trim_start_matches('/')
            .replace('-', "_");
        PathBuf::from(format!(
            "/sys/fs/cgroup/{controller}/{name}.slice/teu-c.scope"
        ))
    }

    /// Removes the slice, which systemd would.
    fn forget_slice(&self) {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        for hierarchy in hierarchies {
            let name = hierarchy.file_name();
            let scope = self.cgroup(name.to_str().unwrap());
            assert!(!scope.exists(), "{scope:?} is left");
            let _ = std::fs::remove_dir(scope.parent().unwrap());
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.call(&format!("delete --force {}", self.container.id));
        let _ = std::fs::remove_file(&self.bus.socket);
    }
}

#[test]
fn systemd_is_asked_for_a_scope_and_told_of_its_end() {
    let scene = Scene::new("bus");
    needs_root!(scene, "an ordinary user asks its own systemd");
    skip_unless!(
        scene,
        cgroup_v1(),
        "on cgroup v2 only systemd makes the scope's cgroup"
    );
    let asking = Asking::new(&scene, Manner::Kind, |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 33_554_432});
        config["linux"]["resources"]["pids"] = json!({"limit": 20});
        config["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "3"});
    });
    let id = &asking.container.id;
    asking.create().succeeds();
    let wanted = [
        "Hello",
        "Get",
        "AddMatch",
        "Subscribe",
        "StartTransientUnit",
    ];
    assert_eq!(asking.bus.methods(), wanted);
    let parts = [
        "teu-c.scope",
        "replace",
        "libcontainer container c",
        "Slice",
        "Delegate",
        "PIDs",
        "MemoryLimit",
        "TasksMax",
        "BlockIOAccounting",
        "TimeoutStopUSec",
        "DevicePolicy",
        "/dev/char/1:3",
    ];
    assert!(asking.bus.was_told("StartTransientUnit", &parts));
    let file =
        |controller, file| std::fs::read_to_string(asking.cgroup(controller).join(file)).unwrap();
    assert_eq!(file("pids", "pids.max"), "20\n");
    assert_eq!(file("memory", "memory.limit_in_bytes"), "33554432\n");
    assert!(file("devices", "devices.list").contains("c 1:3 rwm"));
    let pid = asking.container.state()["pid"].to_string();
    for controller in ["pids", "memory", "devices", "freezer", "cpu", "cpuset"] {
        assert_eq!(file(controller, "cgroup.procs").trim(), pid, "{controller}");
    }
    asking.call(&format!("start {id}")).succeeds();
    // Without the flag: the state remembers.
    asking
        .call(&format!("update --pids-limit 30 --cpu-quota 33330 {id}"))
        .succeeds();
    let parts = ["teu-c.scope", "TasksMax", "CPUQuotaPerSecUSec"];
    assert!(asking.bus.was_told("SetUnitProperties", &parts));
    assert_eq!(file("pids", "pids.max"), "30\n");
    assert_eq!(
        file("cpu", "cpu.cfs_quota_us"),
        "34000\n",
        "as systemd rounds it"
    );
    asking.call(&format!("pause {id}")).succeeds();
    assert_eq!(asking.container.status(), "paused");
    asking.call(&format!("resume {id}")).succeeds();
    asking.call(&format!("exec {id} true")).succeeds();
    asking.call(&format!("delete --force {id}")).succeeds();
    assert!(asking.bus.was_told("StopUnit", &["teu-c.scope", "replace"]));
    assert!(asking.bus.was_told("ResetFailedUnit", &["teu-c.scope"]));
    asking.forget_slice();
}

#[test]
fn a_unit_that_is_anothers_is_left_alone() {
    let scene = Scene::new("taken unit");
    needs_root!(scene, "an ordinary user asks its own systemd");
    let asking = Asking::new(&scene, Manner::Taken, |_| {});
    let said = ["unable to start unit", "teu-c.scope", "already loaded"];
    let _ = asking.create().fails(1, &said);
    assert!(asking.bus.was_told("ResetFailedUnit", &["teu-c.scope"]));
    assert!(
        !asking
            .bus
            .methods()
            .iter()
            .any(|method| method == "StopUnit")
    );
}

#[test]
fn a_bus_that_fails_leaves_no_container() {
    for (manner, said) in [
        (Manner::Failing, "got `failed`"),
        (Manner::Noise, "sent a message that is none"),
        (Manner::Short, "closed the connection"),
    ] {
        let scene = Scene::new("failing bus");
        needs_root!(scene, "an ordinary user asks its own systemd");
        let asking = Asking::new(&scene, manner, |_| {});
        let _ = asking.create().fails(1, &[said]);
        assert_eq!(asking.call("list -q").succeeds(), "");
        assert!(!asking.cgroup("pids").exists());
    }
}

#[test]
fn a_runtime_killed_while_systemd_is_busy_leaves_nothing() {
    let scene = Scene::new("silent bus");
    needs_root!(scene, "an ordinary user asks its own systemd");
    let asking = Asking::new(&scene, Manner::Silent, |_| {});
    let bundle = asking.container.bundle.display();
    let words = format!(
        "--systemd-cgroup create -b {bundle} {}",
        asking.container.id
    );
    let mut runtime = scene.command("sh", ["-c", &asking.line(&words)]);
    let mut runtime = runtime.spawn().unwrap();
    scene.wait_until("systemd is asked", || {
        let asked = asking.bus.methods();
        asked.iter().any(|method| method == "StartTransientUnit")
    });
    let children = format!("/proc/{0}/task/{0}/children", runtime.id());
    let init = std::fs::read_to_string(children).unwrap();
    assert!(!init.trim().is_empty(), "init waits to be let in");
    runtime.kill().unwrap();
    runtime.wait().unwrap();
    let init = format!("/proc/{}", init.trim());
    scene.wait_until("init ended", || !std::path::Path::new(&init).exists());
    asking
        .call(&format!("delete --force {}", asking.container.id))
        .succeeds();
    assert!(asking.bus.was_told("StopUnit", &["teu-c.scope"]));
    assert_eq!(asking.call("list -q").succeeds(), "");
}

#[test]
fn a_host_without_systemd_says_so() {
    let scene = Scene::new("no systemd");
    let booted = std::path::Path::new("/run/systemd/system").is_dir();
    skip_unless!(scene, !booted, "systemd runs here");
    let asking = Asking::new(&scene, Manner::Kind, |_| {});
    std::fs::remove_file(&asking.bus.socket).unwrap();
    let said = ["systemd not running on this host, cannot use systemd cgroups manager"];
    let _ = asking.create().fails(1, &said);
}

#[test]
fn what_could_harm_the_host_is_refused_before_anything_is_asked() {
    let scene = Scene::new("annotations");
    needs_root!(scene, "an ordinary user asks its own systemd");
    for (key, value, said) in [
        ("ExecStopPost", "'x'", "is refused"),
        ("OnFailure", "['poweroff.target']", "is refused"),
        ("PIDs", "[uint32 1]", "is refused"),
        ("TimeoutStopSec", "'x'", "parse error"),
        ("Tasks Max", "1", "name incorrect"),
        ("TasksMax", "99999999999999", "parse error"),
    ] {
        let bundle = scene.bundle("b", &["/bin/true"], |config| {
            config["linux"]["cgroupsPath"] = json!("system.slice:teu:c");
            config["annotations"] = json!({format!("org.systemd.property.{key}"): value});
        });
        let words = [
            "--systemd-cgroup",
            "create",
            "-b",
            bundle.to_str().unwrap(),
            "c",
        ];
        let _ = scene.run("teu-runtime", words).fails(1, &[key, said]);
    }
    for path in [
        "/a/b",
        "../../x",
        "a.slice:b",
        "a/b.slice:p:n",
        "x:p:n",
        "a.slice:p:../../n",
    ] {
        let bundle = scene.bundle("b", &["/bin/true"], |config| {
            config["linux"]["cgroupsPath"] = json!(path);
        });
        let words = [
            "--systemd-cgroup",
            "create",
            "-b",
            bundle.to_str().unwrap(),
            "c",
        ];
        let _ = scene.run("teu-runtime", words).fails(1, &[]);
    }
}
