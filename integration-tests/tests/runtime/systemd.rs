//! `--systemd-cgroup` with the systemd of this host, and of a user of it.

use super::Container;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use teu_integration_tests::{Outcome, Scene, binary, is_root, needs_root, skip_unless};

/// The user of whose systemd the last tests ask: one that lingers.
const USER: &str = "user";

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Asks the systemd that makes the units: of an ordinary user its own.
fn systemctl(scene: &Scene, words: &[&str]) -> Outcome {
    let whose: &[&str] = if is_root() { &[] } else { &["--user"] };
    scene.run("systemctl", whose.iter().chain(words))
}

/// Below which that systemd has all its cgroups.
fn hierarchy() -> PathBuf {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let user = own.trim().strip_prefix("0::/").and_then(|path| {
        let (before, _) = path.split_once(".service/")?;
        Some(format!("{before}.service"))
    });
    let below = user.filter(|_| !is_root()).unwrap_or_default();
    Path::new("/sys/fs/cgroup").join(below)
}

/// A container whose cgroups are a unit of systemd's.
struct Unit<'a> {
    container: Container<'a>,
    slice: String,
}

impl<'a> Unit<'a> {
    fn new(scene: &'a Scene, id: &str, change: impl FnOnce(&mut Value)) -> Self {
        let slice = format!("{}.slice", scene.mark().replace('-', "_"));
        let container = Container::new(scene, id, &["/bin/sleep", "1000"], |config| {
            config["linux"]["cgroupsPath"] = json!(format!("{slice}:{}:{id}", scene.mark()));
            change(config);
        });
        Self { container, slice }
    }

    /// The name of the unit.
    fn name(&self) -> String {
        let id = self.container.bundle.file_name().unwrap().to_str().unwrap();
        format!("{}-{id}.scope", self.container.scene.mark())
    }

    fn cgroup(&self) -> PathBuf {
        hierarchy().join(&self.slice).join(self.name())
    }

    fn value(&self, file: &str) -> String {
        let text = std::fs::read_to_string(self.cgroup().join(file));
        text.unwrap_or_else(|error| panic!("read {file}: {error}"))
            .trim()
            .to_owned()
    }

    /// `teu-runtime --systemd-cgroup VERB -b BUNDLE ID`
    fn make(&self, verb: &str) -> Outcome {
        let line = self
            .container
            .line(verb)
            .replacen(" --root ", " --systemd-cgroup --root ", 1);
        let line = format!("{line} </dev/null >/dev/null 2>err");
        let mut outcome = self.container.scene.run("sh", ["-c", &line]);
        outcome.stderr = std::fs::read_to_string(self.container.scene.path("err")).unwrap();
        outcome
    }

    fn property(&self, name: &str) -> String {
        let words = ["show", "--value", "--property", name, &self.name()];
        systemctl(self.container.scene, &words).succeeds()
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        self.container.call(&["delete", "--force"], &[]);
        // systemd keeps an empty slice that it made for a scope.
        let _ = systemctl(self.container.scene, &["stop", &self.slice]);
    }
}

#[test]
fn limits_are_properties_of_the_unit_and_files_of_its_cgroup() {
    let scene = Scene::new("systemd limits");
    skip_unless!(
        scene,
        systemd_runs() && cgroup_v2(),
        "no systemd with cgroup v2 here"
    );
    let unit = Unit::new(&scene, "c", |config| {
        config["linux"]["resources"]["memory"] =
            json!({"limit": 33_554_432, "reservation": 25_165_824});
        config["linux"]["resources"]["cpu"] =
            json!({"shares": 512, "quota": 3333, "period": 50_000, "cpus": "0"});
        config["linux"]["resources"]["pids"] = json!({"limit": 20});
        config["linux"]["resources"]["unified"] = json!({"memory.high": "29999104"});
        config["annotations"] = json!({
            "org.systemd.property.TimeoutStopSec": "7",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
        });
    });
    unit.make("run --detach").succeeds();
    for (property, value) in [
        ("Description", "libcontainer container c"),
        ("Slice", &unit.slice),
        ("Delegate", "yes"),
        ("ActiveState", "active"),
        ("MemoryMax", "33554432"),
        ("MemoryLow", "25165824"),
        ("MemoryHigh", "29999104"),
        ("CPUWeight", "59"),
        ("CPUQuotaPerSecUSec", "70ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
        ("AllowedCPUs", "0"),
        ("TasksMax", "20"),
        ("DevicePolicy", "strict"),
        ("TimeoutStopUSec", "7s"),
        ("CollectMode", "inactive-or-failed"),
        ("NeedDaemonReload", "no"),
    ] {
        assert_eq!(unit.property(property), value, "{property}");
    }
    for (file, value) in [
        ("memory.max", "33554432"),
        ("memory.low", "25165824"),
        ("memory.high", "29999104"),
        ("cpu.max", "3500 50000"),
        ("cpu.weight", "59"),
        ("cpuset.cpus", "0"),
        ("pids.max", "20"),
    ] {
        assert_eq!(unit.value(file), value, "{file}");
    }
    assert_eq!(
        unit.value("cgroup.procs"),
        unit.container.state()["pid"].to_string()
    );
}

#[test]
fn changes_reach_systemd_and_outlast_its_reload() {
    let scene = Scene::new("systemd update");
    skip_unless!(
        scene,
        systemd_runs() && cgroup_v2(),
        "no systemd with cgroup v2 here"
    );
    let unit = Unit::new(&scene, "c", |config| {
        config["linux"]["resources"]["cpu"] = json!({"quota": 3333, "period": 50_000});
    });
    unit.make("run --detach").succeeds();
    let flags = [
        "update",
        "--memory",
        "67108864",
        "--pids-limit",
        "10",
        "--cpu-quota",
        "40000",
    ];
    unit.container.call(&flags, &[]).succeeds();
    for (property, value) in [
        ("MemoryMax", "67108864"),
        ("TasksMax", "10"),
        ("CPUQuotaPerSecUSec", "800ms"),
    ] {
        assert_eq!(unit.property(property), value, "{property}");
    }
    // What systemd writes again is what we wrote.
    systemctl(&scene, &["daemon-reload"]).succeeds();
    assert_eq!(unit.value("cpu.max"), "40000 50000");
    assert_eq!(unit.value("pids.max"), "10");
    unit.container.exec("echo >/dev/null").succeeds();
}

#[test]
fn later_commands_need_no_flag() {
    let scene = Scene::new("systemd commands");
    skip_unless!(
        scene,
        systemd_runs() && cgroup_v2(),
        "no systemd with cgroup v2 here"
    );
    let unit = Unit::new(&scene, "c", |_| {});
    unit.make("create").succeeds();
    assert_eq!(unit.container.status(), "created");
    unit.container.call(&["start"], &[]).succeeds();
    let inside = unit.container.exec("cat /proc/self/cgroup").succeeds();
    assert_eq!(
        inside, "0::/",
        "its own cgroup is the root of its cgroup namespace"
    );
    unit.container.call(&["pause"], &[]).succeeds();
    assert_eq!(unit.container.status(), "paused");
    unit.container.call(&["resume"], &[]).succeeds();
    let pids = unit
        .container
        .call(&["ps", "--format", "json"], &[])
        .succeeds();
    assert_eq!(pids, format!("[{}]", unit.container.state()["pid"]));
    // Another container cannot have the same unit, and does it no harm; nor
    // can one be where it would stand still.
    let other = Unit::new(&scene, "d", |config| {
        config["linux"]["cgroupsPath"] = json!(format!("{}:{}:c", unit.slice, scene.mark()));
    });
    let _ = other
        .make("create")
        .fails(1, &["container's cgroup is not empty"]);
    assert_eq!(unit.container.status(), "running");
    let cold = Unit::new(&scene, "e", |_| {});
    std::fs::create_dir(cold.cgroup()).unwrap();
    std::fs::write(cold.cgroup().join("cgroup.freeze"), "1").unwrap();
    let _ = cold
        .make("create")
        .fails(1, &["container's cgroup unexpectedly frozen"]);
    std::fs::remove_dir(cold.cgroup()).unwrap();
    unit.container.call(&["kill"], &["KILL"]).succeeds();
    scene.wait_until("it stopped", || unit.container.status() == "stopped");
    unit.container.call(&["delete"], &[]).succeeds();
    assert_eq!(unit.property("LoadState"), "not-found");
    assert!(!unit.cgroup().exists());
}

#[test]
fn a_unit_that_failed_is_forgotten_with_its_container() {
    let scene = Scene::new("failed unit");
    skip_unless!(
        scene,
        systemd_runs() && cgroup_v2(),
        "no systemd with cgroup v2 here"
    );
    let unit = Unit::new(&scene, "c", |config| {
        config["annotations"] = json!({
            "org.systemd.property.RuntimeMaxSec": "1",
            "org.systemd.property.TimeoutStopSec": "1",
        });
    });
    unit.make("run --detach").succeeds();
    scene.wait_until("systemd ends it", || {
        unit.property("ActiveState") == "failed"
    });
    unit.container.call(&["delete"], &[]).succeeds();
    assert_eq!(unit.property("LoadState"), "not-found");
    // A unit of that name that failed is no hindrance either.
    unit.make("run --detach").succeeds();
    scene.wait_until("systemd ends it again", || {
        unit.property("ActiveState") == "failed"
    });
    let again = Unit::new(&scene, "again", |config| {
        config["linux"]["cgroupsPath"] = json!(format!("{}:{}:c", unit.slice, scene.mark()));
    });
    again.make("run --detach").succeeds();
    assert_eq!(unit.property("ActiveState"), "active");
}

#[test]
fn a_slice_can_be_the_unit() {
    let scene = Scene::new("slice");
    skip_unless!(
        scene,
        systemd_runs() && cgroup_v2(),
        "no systemd with cgroup v2 here"
    );
    let mut name = String::new();
    let unit = Unit::new(&scene, "c", |config| {
        let path = config["linux"]["cgroupsPath"].as_str().unwrap();
        let slice = path.split(".slice").next().unwrap();
        name = format!("{slice}-c.slice");
        config["linux"]["cgroupsPath"] = json!(format!("{slice}.slice::{name}"));
    });
    unit.make("run --detach").succeeds();
    let cgroup = hierarchy().join(&unit.slice).join(&name);
    let procs = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), unit.container.state()["pid"].to_string());
    unit.container.call(&["delete", "--force"], &[]).succeeds();
    assert!(!cgroup.exists());
}

/// The runtime in the hands of a user, in a session that is none of systemd's
/// own services: no process may be moved from there without systemd's help.
struct User<'a> {
    scene: &'a Scene,
    folder: String,
    id: String,
}

impl<'a> User<'a> {
    /// `None` where no such user lingers.
    fn new(scene: &'a Scene, id: &str, resources: &Value) -> Option<Self> {
        if !Path::new("/var/lib/systemd/linger").join(USER).exists() {
            return None;
        }
        // It starts when the host has booted, which may be just now.
        let uid = scene.run("id", ["-u", USER]).succeeds();
        let service = format!("user@{uid}.service");
        scene.run("systemctl", ["start", &service]).succeeds();
        let folder = scene.path("user").display().to_string();
        scene.rootfs("user/rootfs");
        let user = Self {
            scene,
            id: format!("{}-{id}", scene.mark()),
            folder,
        };
        scene.shell(&format!(
            "chmod 711 . && cp {} user/runtime && chown -R {USER}: user",
            binary("teu-runtime").display()
        ));
        user.call("spec --rootless").succeeds();
        let path = scene.path("user/config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sleep", "1000"]);
        config["linux"]["resources"] = resources.clone();
        std::fs::write(path, config.to_string()).unwrap();
        Some(user)
    }

    fn call(&self, words: &str) -> Outcome {
        self.shell(&format!("./runtime --root {}/state {words}", self.folder))
    }

    fn shell(&self, line: &str) -> Outcome {
        let line = format!(
            "cd {0} && exec setpriv --reuid {USER} --regid {USER} --init-groups sh -c 'export XDG_RUNTIME_DIR=/run/user/$(id -u); unset DBUS_SESSION_BUS_ADDRESS; {line}'",
            self.folder
        );
        self.scene.run("sh", ["-c", &line])
    }

    fn run(&self) -> Outcome {
        self.call(&format!(
            "--systemd-cgroup run --detach {} </dev/null >/dev/null 2>err",
            self.id
        ))
    }

    fn property(&self, name: &str) -> String {
        let line = format!(
            "systemctl --user show --value --property {name} runc-{}.scope",
            self.id
        );
        self.shell(&line).succeeds()
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        self.call(&format!("delete --force {}", self.id));
    }
}

#[test]
fn a_user_asks_the_systemd_of_its_own() {
    let scene = Scene::new("user's systemd");
    needs_root!(scene, "only root becomes another user");
    skip_unless!(
        scene,
        systemd_runs() && cgroup_v2(),
        "no systemd with cgroup v2 here"
    );
    let limits = json!({"pids": {"limit": 20}, "memory": {"limit": 33_554_432}});
    let user = User::new(&scene, "c", &limits);
    skip_unless!(scene, user.is_some(), "no user named `user` lingers here");
    let user = user.unwrap();
    let ran = user.run();
    let said = std::fs::read_to_string(scene.path("user/err")).unwrap();
    assert_eq!(ran.code(), 0, "{said}");
    assert_eq!(user.property("Slice"), "user.slice");
    assert_eq!(user.property("TasksMax"), "20");
    let cgroup = format!("/sys/fs/cgroup{}", user.property("ControlGroup"));
    let value = |file| std::fs::read_to_string(Path::new(&cgroup).join(file)).unwrap();
    assert_eq!(value("pids.max"), "20\n");
    assert_eq!(value("memory.max"), "33554432\n");
    let inside = user.call(&format!("exec {} cat /proc/self/cgroup", user.id));
    assert_eq!(inside.succeeds(), "0::/", "moved by systemd");
    user.call(&format!("update --pids-limit 30 {}", user.id))
        .succeeds();
    assert_eq!(value("pids.max"), "30\n");
    user.call(&format!("delete --force {}", user.id)).succeeds();
    assert!(!Path::new(&cgroup).exists());
}

#[test]
fn a_controller_that_is_not_delegated_is_named() {
    let scene = Scene::new("not delegated");
    needs_root!(scene, "only root becomes another user");
    skip_unless!(
        scene,
        systemd_runs() && cgroup_v2(),
        "no systemd with cgroup v2 here"
    );
    let limits = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]});
    let user = User::new(&scene, "c", &limits);
    skip_unless!(scene, user.is_some(), "no user named `user` lingers here");
    let user = user.unwrap();
    assert_eq!(user.run().code(), 1);
    let said = std::fs::read_to_string(scene.path("user/err")).unwrap();
    assert!(
        said.contains("hugetlb") && said.contains("Delegate="),
        "{said}"
    );
    assert_eq!(user.property("LoadState"), "not-found");
}
