//! teu-runtime as its callers see it: runc's command line, exit codes and words.
//!
//! Every expectation here is runc 1.5's own or the runtime specification's:
//! `TEU_RUNTIME=runc cargo test --test runtime` runs the suite against runc
//! (1.1, as Debian has it, knows no time namespace, and its `kill` reaches only
//! the first process where the pid namespace is shared).
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use teu_integration_tests::{Outcome, Scene, fixture, skip_unless};

#[path = "runtime/execution.rs"]
mod execution;
#[path = "runtime/rootless.rs"]
mod rootless;

/// A container of a scene, by its bundle, deleted when dropped.
struct Container<'a> {
    scene: &'a Scene,
    id: String,
    bundle: PathBuf,
}

impl<'a> Container<'a> {
    /// A bundle that runs `args` in busybox, with `change` applied to its configuration.
    fn new(scene: &'a Scene, id: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let bundle = scene.bundle(id, args, change);
        let id = format!("{}-{id}", scene.cgroup().trim_start_matches('/'));
        Self { scene, id, bundle }
    }

    /// A bundle that runs a shell script.
    fn script(scene: &'a Scene, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> Self {
        Self::new(scene, id, &["/bin/sh", "-c", script], change)
    }

    /// `teu-runtime VERB... ID ARGS...`
    fn call(&self, verb: &[&str], args: &[&str]) -> Outcome {
        let id = self.id.as_str();
        let words = verb.iter().chain([&id]).chain(args);
        self.scene.run("teu-runtime", words)
    }

    fn run(&self) -> Outcome {
        self.call(&["run", "-b", self.bundle.to_str().unwrap()], &[])
    }

    /// `run --detach`, its output thrown away: a detached container keeps it.
    fn run_detached(&self) {
        self.leave_behind("run --detach");
    }

    fn create(&self) {
        self.leave_behind("create");
    }

    /// A verb whose container outlives it: its streams must not be the test's.
    fn leave_behind(&self, verb: &str) {
        let line = format!("{} >/dev/null 2>{}", self.line(verb), self.log().display());
        let outcome = self.scene.run("sh", ["-c", &line]);
        assert_eq!(
            outcome.code(),
            0,
            "{}",
            std::fs::read_to_string(self.log()).unwrap()
        );
    }

    fn log(&self) -> PathBuf {
        self.bundle.join("stderr")
    }

    /// The command line of a verb that takes the bundle.
    fn line(&self, verb: &str) -> String {
        let command = self.scene.command("teu-runtime", Vec::<&str>::new());
        let words: Vec<_> = [command.get_program()]
            .into_iter()
            .chain(command.get_args())
            .collect();
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        format!(
            "{} {verb} -b {} {}",
            words.join(" "),
            self.bundle.display(),
            self.id
        )
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state"], &[]).succeeds()).expect("state prints JSON")
    }

    fn status(&self) -> String {
        self.state()["status"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn exec(&self, script: &str) -> Outcome {
        self.call(&["exec"], &["/bin/sh", "-c", script])
    }

    /// The cgroup folder in one v1 hierarchy, or in v2's only one.
    fn cgroup(&self, controller: &str) -> PathBuf {
        let name = self.bundle.file_name().unwrap().to_str().unwrap();
        let below = format!("{}/{name}", self.scene.cgroup());
        let one = Path::new("/sys/fs/cgroup").join(controller);
        let hierarchy = if one.is_dir() {
            one
        } else {
            "/sys/fs/cgroup".into()
        };
        hierarchy.join(below.trim_start_matches('/'))
    }

    fn cgroup_value(&self, controller: &str, file: &str) -> String {
        let path = self.cgroup(controller).join(file);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("read {path:?}: {error}"))
            .trim()
            .to_owned()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.call(&["delete", "--force"], &[]);
    }
}

fn cgroup_v1() -> bool {
    Path::new("/sys/fs/cgroup/memory").is_dir()
}

fn in_container(name: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let scene = Scene::new(name);
    Container::script(&scene, "c", script, change)
        .run()
        .succeeds()
}

// --- lifecycle -------------------------------------------------------------

#[test]
fn run_gives_the_exit_status_and_output() {
    let scene = Scene::new("run");
    let container = Container::script(&scene, "c", "echo out; echo err >&2; exit 7", |_| {});
    let outcome = container.run().exits(7);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("out\n", "err\n")
    );
    container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
}

#[test]
fn run_gives_128_and_the_signal() {
    let scene = Scene::new("run signal");
    let _ = Container::script(&scene, "c", "kill -KILL $$; sleep 9", |_| {}).run();
    // Process 1 of a pid namespace ignores its own signals: a child it is.
    let container = Container::script(&scene, "d", "sh -c 'kill -SEGV $$'; exit $?", |_| {});
    let _ = container.run().exits(139);
}

#[test]
fn lifecycle_of_create_start_kill_delete() {
    let scene = Scene::new("lifecycle");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.create();
    let state = container.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], container.id.as_str());
    assert_eq!(state["bundle"], container.bundle.to_str().unwrap());
    assert_eq!(
        state["rootfs"],
        container.bundle.join("rootfs").to_str().unwrap()
    );
    assert!(state["pid"].as_i64().unwrap() > 1);
    container.call(&["start"], &[]).succeeds();
    assert_eq!(container.status(), "running");
    container
        .call(&["start"], &[])
        .fails(1, &["cannot start an already running container"]);
    container
        .call(&["delete"], &[])
        .fails(1, &["is not stopped"]);
    container.call(&["kill"], &["KILL"]).succeeds();
    scene.wait_until("stopped", || container.status() == "stopped");
    container
        .call(&["kill"], &["KILL"])
        .fails(1, &["container not running"]);
    container.call(&["delete"], &[]).succeeds();
    container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
    container
        .call(&["delete"], &[])
        .fails(1, &["does not exist"]);
    container.call(&["delete", "--force"], &[]).succeeds();
}

#[test]
fn create_does_not_start_the_program() {
    let scene = Scene::new("create waits");
    let container = Container::script(&scene, "c", "touch /tmp/started; sleep 1000", |config| {
        config["root"]["readonly"] = json!(false);
    });
    container.create();
    let mark = container.bundle.join("rootfs/tmp/started");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!mark.exists());
    container.call(&["start"], &[]).succeeds();
    scene.wait_until("the program runs", || mark.exists());
}

#[test]
fn an_id_is_taken_once() {
    let scene = Scene::new("id taken");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let _ = container.run().fails(1, &["already exists"]);
    assert_eq!(container.status(), "running");
}

#[test]
fn bad_ids_are_refused() {
    let scene = Scene::new("bad ids");
    let bundle = scene.bundle("c", &["/bin/true"], |_| {});
    for id in ["..", ".", "a/b", "a b", "a\nb", "%2e", "\u{2024}\u{2024}"] {
        for verb in ["state", "delete", "kill", "start"] {
            let outcome = scene.run("teu-runtime", [verb, "--", id]);
            assert!(
                !outcome.status.success() && !outcome.stderr.contains("panicked"),
                "{outcome}"
            );
        }
        let outcome = scene.run(
            "teu-runtime",
            ["run", "-b", bundle.to_str().unwrap(), "--", id],
        );
        assert!(!outcome.status.success(), "{outcome}");
    }
}

#[test]
fn list_shows_the_containers() {
    let scene = Scene::new("list");
    scene.run("teu-runtime", ["list"]).succeeds();
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let table = scene.run("teu-runtime", ["list"]).succeeds();
    let mut lines = table.lines();
    let header: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        header,
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    );
    let row: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        (row[0], row[2], row[5]),
        (container.id.as_str(), "running", "root")
    );
    assert_eq!(
        scene.run("teu-runtime", ["list", "-q"]).succeeds(),
        container.id
    );
    let all: Value =
        serde_json::from_str(&scene.run("teu-runtime", ["list", "-f", "json"]).succeeds()).unwrap();
    assert_eq!(all[0]["id"], container.id.as_str());
    assert_eq!(all[0]["status"], "running");
}

#[test]
fn ps_lists_the_processes() {
    let scene = Scene::new("ps");
    let container = Container::script(&scene, "c", "sleep 1000 & wait", |_| {});
    container.run_detached();
    scene.wait_until("two processes", || {
        let pids: Vec<i64> =
            serde_json::from_str(&container.call(&["ps", "--format", "json"], &[]).succeeds())
                .unwrap();
        pids.len() == 2
    });
    let table = container.call(&["ps"], &[]).succeeds();
    assert!(table.lines().next().unwrap().starts_with("UID"), "{table}");
    assert!(table.contains("sleep 1000"), "{table}");
}

#[test]
fn flags_may_follow_the_id() {
    let scene = Scene::new("flags after id");
    let container = Container::script(&scene, "c", "exit 3", |_| {});
    let bundle = container.bundle.to_str().unwrap();
    let outcome = scene.run("teu-runtime", ["run", &container.id, "--bundle", bundle]);
    let _ = outcome.exits(3);
}

#[test]
fn the_pid_file_is_relative_to_the_caller() {
    let scene = Scene::new("pid file");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    let line = format!(
        "{} --pid-file pid.txt >/dev/null 2>&1",
        container.line("create")
    );
    scene.shell(&line);
    let pid = std::fs::read_to_string(scene.path("pid.txt")).unwrap();
    assert_eq!(pid, container.state()["pid"].to_string());
}

#[test]
fn detached_run_survives_its_parent_and_kill_takes_numbers() {
    let scene = Scene::new("detached");
    let container = Container::script(
        &scene,
        "c",
        "trap 'exit 0' USR1; while :; do sleep 0.1; done",
        |_| {},
    );
    container.run_detached();
    assert_eq!(container.status(), "running");
    container.call(&["kill"], &["10"]).succeeds();
    scene.wait_until("stopped", || container.status() == "stopped");
    container.call(&["kill"], &["NOSUCH"]).fails(1, &["NOSUCH"]);
}

// --- errors ----------------------------------------------------------------

#[test]
fn a_missing_program_is_named_in_runcs_words() {
    let scene = Scene::new("missing program");
    let absolute = Container::new(&scene, "c", &["/no/such"], |_| {});
    let _ = absolute
        .run()
        .fails(1, &["exec", "/no/such", "no such file or directory"]);
    let relative = Container::new(&scene, "d", &["nosuch"], |_| {});
    let _ = relative
        .run()
        .fails(1, &["nosuch", "executable file not found in $PATH"]);
    let folder = Container::new(&scene, "e", &["/tmp"], |_| {});
    let _ = folder.run().fails(1, &["/tmp", "permission denied"]);
}

#[test]
fn the_log_holds_the_error_as_json() {
    let scene = Scene::new("log");
    let container = Container::new(&scene, "c", &["/no/such"], |_| {});
    let log = scene.path("log.json");
    let bundle = container.bundle.to_str().unwrap();
    let args = [
        "--log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
        "run",
        "-b",
        bundle,
        &container.id,
    ];
    let _ = scene.run("teu-runtime", args).exits(1);
    let text = std::fs::read_to_string(&log).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    assert!(
        last["msg"]
            .as_str()
            .unwrap()
            .contains("no such file or directory"),
        "{last}"
    );
    assert!(last["time"].as_str().unwrap().contains('T'), "{last}");
}

#[test]
fn a_failed_create_leaves_nothing() {
    let scene = Scene::new("failed create");
    let container = Container::new(&scene, "c", &["/no/such"], |_| {});
    let _ = container.run().exits(1);
    scene.run("teu-runtime", ["list", "-q"]).succeeds();
    container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
    assert!(!container.cgroup("memory").exists());
}

#[test]
fn bad_configurations_are_errors() {
    let scene = Scene::new("bad configurations");
    let cases: [(&str, Value); 6] = [
        ("not JSON", json!(null)),
        (
            "empty arguments",
            json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": [], "cwd": "/", "user": {"uid": 0, "gid": 0}}, "linux": {}}),
        ),
        (
            "relative cwd",
            json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": ["/bin/true"], "cwd": "tmp", "user": {"uid": 0, "gid": 0}}, "linux": {}}),
        ),
        (
            "wrong type",
            json!({"ociVersion": "1.0.2", "root": {"path": 7}, "process": {}}),
        ),
        (
            "unknown namespace",
            json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}}, "linux": {"namespaces": [{"type": "moon"}]}}),
        ),
        (
            "no root",
            json!({"ociVersion": "1.0.2", "process": {"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}}}),
        ),
    ];
    for (number, (what, config)) in cases.into_iter().enumerate() {
        let container = Container::new(&scene, &format!("c{number}"), &["/bin/true"], |_| {});
        fixture::write_config(&container.bundle, &config);
        let outcome = container.run();
        assert!(
            outcome.code() != 0 && !outcome.stderr.is_empty(),
            "{what}: {outcome}"
        );
        assert!(
            !outcome.stderr.contains("panicked") && outcome.code() < 128,
            "{what}: {outcome}"
        );
    }
}

#[test]
fn a_missing_bundle_is_named() {
    let scene = Scene::new("missing bundle");
    let outcome = scene.run("teu-runtime", ["run", "-b", "/no/such/bundle", "x"]);
    let _ = outcome.fails(1, &["/no/such/bundle"]);
}

#[test]
fn unknown_commands_and_flags_are_errors() {
    let scene = Scene::new("unknown words");
    assert_ne!(scene.run("teu-runtime", ["frobnicate"]).code(), 0);
    assert_ne!(
        scene
            .run("teu-runtime", ["run", "--frobnicate", "x"])
            .code(),
        0
    );
    assert_ne!(scene.run("teu-runtime", ["start"]).code(), 0);
}

// --- information -----------------------------------------------------------

#[test]
fn version_help_features_and_spec() {
    let scene = Scene::new("information");
    let version = scene.run("teu-runtime", ["--version"]).succeeds();
    assert!(version.contains("spec: 1."), "{version}");
    for args in [
        &["--help"][..],
        &["-h"],
        &["run", "--help"],
        &["exec", "-h"],
    ] {
        let help = scene.run("teu-runtime", args).succeeds();
        assert!(help.to_lowercase().contains("usage"), "{help}");
    }
    let spec = scene.path("spec");
    std::fs::create_dir(&spec).unwrap();
    scene
        .run("teu-runtime", ["spec", "-b", spec.to_str().unwrap()])
        .succeeds();
    let config: Value =
        serde_json::from_slice(&std::fs::read(spec.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"], json!(["sh"]));
    scene
        .run("teu-runtime", ["spec", "-b", spec.to_str().unwrap()])
        .fails(1, &["config.json"]);
    let output = scene.run("teu-runtime", ["features"]);
    skip_unless!(
        scene,
        !output.stderr.contains("No help topic"),
        "this runtime has no features command"
    );
    let features: Value = serde_json::from_str(&output.succeeds()).unwrap();
    let namespaces = features["linux"]["namespaces"].as_array().unwrap();
    assert!(
        namespaces.contains(&json!("time")) && namespaces.contains(&json!("user")),
        "{features}"
    );
    assert!(features["hooks"].as_array().unwrap().len() == 6);
    for absent in ["netDevices", "intelRdt"] {
        assert_eq!(features["linux"][absent]["enabled"], json!(false));
    }
    let archs = features["linux"]["seccomp"]["archs"].as_array().unwrap();
    if cfg!(target_arch = "x86_64") {
        let own = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
        assert_eq!(archs, &own.map(|name| json!(name)));
    }
    let modes = features["linux"]["memoryPolicy"]["modes"].as_array();
    assert_eq!(modes.map(Vec::len), Some(7));
}

// --- the process -----------------------------------------------------------

#[test]
fn environment_and_working_directory() {
    let out = in_container(
        "environment",
        "pwd; echo \"$GREETING\"; echo $HOME; env | wc -l",
        |config| {
            config["process"]["cwd"] = json!("/tmp");
            config["process"]["env"] = json!(["PATH=/bin", "GREETING=a b\nc"]);
        },
    );
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..4], ["/tmp", "a b", "c", "/root"]);
}

#[test]
fn a_missing_working_directory_is_made() {
    let out = in_container("working directory", "pwd", |config| {
        config["process"]["cwd"] = json!("/made/for/me");
        config["root"]["readonly"] = json!(false);
    });
    assert_eq!(out, "/made/for/me");
}

#[test]
fn user_groups_and_umask() {
    let out = in_container("user", "id -u; id -g; id -G; umask", |config| {
        config["process"]["user"] =
            json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 2000], "umask": 0o27});
    });
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["1000", "1001", "1001 5 2000", "0027"]
    );
}

#[test]
fn capabilities_are_those_asked_for() {
    let out = in_container("capabilities", "grep ^Cap /proc/self/status", |config| {
        config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]});
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    let set = |name: &str| {
        let line = out.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    let (chown, kill) = (1 << 0, 1 << 5);
    assert_eq!(
        [
            set("CapInh"),
            set("CapPrm"),
            set("CapEff"),
            set("CapBnd"),
            set("CapAmb")
        ],
        [kill, kill, kill, kill | chown, kill]
    );
}

#[test]
fn a_user_without_ambient_capabilities_has_none() {
    let out = in_container(
        "no ambient",
        "grep -E '^Cap(Eff|Amb|Inh)' /proc/self/status",
        |config| {
            config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        },
    );
    for line in out.lines() {
        assert!(line.ends_with("0000000000000000"), "{out}");
    }
}

#[test]
fn limits_and_no_new_privileges() {
    let out = in_container(
        "limits",
        "ulimit -n; ulimit -Hn; grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj",
        |config| {
            config["process"]["rlimits"] =
                json!([{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 600}]);
            config["process"]["oomScoreAdj"] = json!(77);
        },
    );
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["512", "600", "NoNewPrivs:\t1", "77"]
    );
}

#[test]
fn no_descriptor_leaks_into_the_container() {
    let scene = Scene::new("descriptors");
    let container = Container::script(&scene, "c", "ls /proc/self/fd", |_| {});
    let out = scene.shell(&format!("exec 7</etc/passwd; {}", container.line("run")));
    // `ls` holds the directory it reads as descriptor 3.
    assert_eq!(
        out.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
}

#[test]
fn preserved_descriptors_are_passed() {
    let scene = Scene::new("preserved descriptors");
    let container = Container::script(&scene, "c", "cat <&3; cat <&4", |_| {});
    scene.write("three", "3");
    scene.write("four", "4");
    let line = container.line("run --preserve-fds 2");
    assert_eq!(scene.shell(&format!("exec 3<three 4<four; {line}")), "34");
}

// --- namespaces ------------------------------------------------------------

#[test]
fn the_container_has_namespaces_of_its_own() {
    let script = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; hostname; echo $$";
    let out = in_container("namespaces", script, |_| {});
    let lines: Vec<_> = out.lines().collect();
    for (name, line) in ["cgroup", "ipc", "mnt", "net", "pid", "uts"]
        .iter()
        .zip(&lines)
    {
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(host.to_str().unwrap(), *line);
    }
    assert_eq!(lines[6..], ["scene", "1"]);
}

#[test]
fn existing_namespaces_are_joined() {
    let scene = Scene::new("joined namespaces");
    let first = Container::new(&scene, "first", &["/bin/sleep", "1000"], |_| {});
    first.run_detached();
    let pid = first.state()["pid"].clone();
    let second = Container::script(
        &scene,
        "second",
        "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; hostname; ps | grep -c '[s]leep 1000'",
        |config| {
            config["hostname"] = json!(null);
            config["linux"]["namespaces"] = json!([
                {"type": "mount"}, {"type": "cgroup"},
                {"type": "network", "path": format!("/proc/{pid}/ns/net")},
                {"type": "ipc", "path": format!("/proc/{pid}/ns/ipc")},
                {"type": "uts", "path": format!("/proc/{pid}/ns/uts")},
                {"type": "pid", "path": format!("/proc/{pid}/ns/pid")},
            ]);
        },
    );
    let out = second.run().succeeds();
    let lines: Vec<_> = out.lines().collect();
    for (name, line) in ["net", "ipc", "uts", "pid"].iter().zip(&lines) {
        let joined = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(joined.to_str().unwrap(), *line);
    }
    assert_eq!(lines[4..], ["scene", "1"]);
}

#[test]
fn a_user_namespace_maps_ids() {
    let scene = Scene::new("user namespace");
    let container = Container::script(
        &scene,
        "c",
        "id -u; cat /proc/self/uid_map; touch /tmp/mine; stat -c %u /tmp/mine",
        |config| {
            config["root"]["readonly"] = json!(false);
            config["linux"]["uidMappings"] =
                json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            config["linux"]["gidMappings"] =
                json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            config["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .push(json!({"type": "user"}));
        },
    );
    scene.shell(&format!(
        "chown -R 100000:100000 {0}/rootfs && chmod 755 {1} {0}",
        container.bundle.display(),
        scene.path("").display()
    ));
    let out = container.run().succeeds();
    let lines: Vec<Vec<_>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines, [vec!["0"], vec!["0", "100000", "65536"], vec!["0"]]);
    let made = std::fs::metadata(container.bundle.join("rootfs/tmp/mine")).unwrap();
    assert_eq!(made.uid(), 100_000);
}

#[test]
fn sysctls_are_set_in_their_namespace() {
    let out = in_container(
        "sysctl",
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced",
        |config| {
            config["linux"]["sysctl"] =
                json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"});
        },
    );
    assert_eq!(out.lines().collect::<Vec<_>>(), ["1", "1"]);
    let scene = Scene::new("host sysctl");
    let container = Container::script(&scene, "c", "true", |config| {
        config["linux"]["sysctl"] = json!({"vm.swappiness": "1"});
    });
    let _ = container.run().fails(1, &["vm.swappiness"]);
}

// --- the root filesystem ---------------------------------------------------

#[test]
fn the_root_is_read_only_where_asked() {
    let out = in_container(
        "read-only",
        "touch /x 2>&1 || true; mount | grep ' / '",
        |_| {},
    );
    assert!(out.contains("Read-only file system"), "{out}");
    let out = in_container("writable", "touch /x && ls /x", |config| {
        config["root"]["readonly"] = json!(false)
    });
    assert_eq!(out, "/x");
}

#[test]
fn standard_mounts_devices_and_links_are_there() {
    let script = "for d in null zero full random urandom tty; do stat -c '%n %F %t,%T %a' /dev/$d; done; for l in fd stdin ptmx; do readlink /dev/$l; done; grep -cE ' (/proc|/dev|/dev/pts|/dev/shm|/dev/mqueue|/sys) ' /proc/self/mountinfo; echo x > /dev/null";
    let out = in_container("devices", script, |_| {});
    assert!(
        out.contains("/dev/null character special file 1,3 666"),
        "{out}"
    );
    assert!(
        out.contains("/dev/tty character special file 5,0 666"),
        "{out}"
    );
    assert!(
        out.contains("/proc/self/fd") && out.contains("/proc/self/fd/0"),
        "{out}"
    );
}

#[test]
fn asked_devices_are_made() {
    let out = in_container(
        "more devices",
        "stat -c '%F %t,%T %a %u:%g' /dev/mine",
        |config| {
            config["linux"]["devices"] = json!([{"path": "/dev/mine", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6}]);
            config["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"}]);
        },
    );
    assert_eq!(out, "character special file a,e5 640 5:6");
}

#[test]
fn binds_follow_their_options() {
    let scene = Scene::new("binds");
    scene.write("shared/file", "content");
    scene.write("one-file", "one");
    let shared = scene.path("shared");
    let container = Container::script(
        &scene,
        "c",
        "cat /a/file /f; touch /a/new 2>&1; touch /b/new && ls /b; mount | grep -E ' /(a|b) '",
        |config| {
            config["root"]["readonly"] = json!(false);
            config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/a", "type": "bind", "source": shared, "options": ["rbind", "ro", "nosuid", "nodev"]}),
            json!({"destination": "/b", "type": "bind", "source": shared, "options": ["bind"]}),
            json!({"destination": "/f", "type": "bind", "source": scene.path("one-file"), "options": ["bind"]}),
        ]);
        },
    );
    let out = container.run().succeeds();
    assert!(
        out.starts_with("contentone") && out.contains("Read-only file system"),
        "{out}"
    );
    assert!(out.contains("file\nnew"), "{out}");
    assert!(
        out.lines()
            .any(|line| line.contains(" /a ") && line.contains("ro,nosuid,nodev")),
        "{out}"
    );
}

#[test]
fn tmpfs_can_be_filled_from_below() {
    let out = in_container(
        "tmpcopyup",
        "cat /etc/passwd | head -n 1; touch /etc/new && echo writable; stat -f -c %T /etc",
        |config| {
            config["mounts"].as_array_mut().unwrap().push(json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]}));
        },
    );
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["root:x:0:0:root:/root:/bin/sh", "writable", "tmpfs"]
    );
}

#[test]
fn masked_and_read_only_paths() {
    let script = "cat /proc/kcore | wc -c; ls /sys/firmware 2>/dev/null | wc -l; echo 1 > /proc/sys/kernel/domainname 2>/dev/null || echo refused";
    let out = in_container("masked", script, |_| {});
    assert_eq!(out.lines().collect::<Vec<_>>(), ["0", "0", "refused"]);
}

#[test]
fn mount_destinations_do_not_leave_the_root() {
    let scene = Scene::new("confinement");
    let outside = scene.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let container = Container::script(&scene, "c", "true", |config| {
        config["root"]["readonly"] = json!(false);
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/link/made", "type": "tmpfs", "source": "tmpfs"}));
    });
    std::os::unix::fs::symlink(&outside, container.bundle.join("rootfs/link")).unwrap();
    let _ = container.run();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_proc_that_is_a_link_is_refused() {
    let scene = Scene::new("proc link");
    let container = Container::script(&scene, "c", "true", |_| {});
    let root = container.bundle.join("rootfs");
    std::fs::remove_dir(root.join("proc")).unwrap();
    std::fs::create_dir(root.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("/elsewhere", root.join("proc")).unwrap();
    let _ = container.run().fails(1, &["/proc"]);
}

#[test]
fn the_old_root_cannot_be_reached() {
    let out = in_container(
        "old root",
        "awk '{print $5}' /proc/self/mountinfo | grep -c '^/$'; ls /",
        |_| {},
    );
    assert_eq!(out.lines().next(), Some("1"), "{out}");
    assert!(!out.contains("lost+found"), "{out}");
}

// --- hooks -----------------------------------------------------------------

#[test]
fn hooks_run_in_their_order_with_the_state() {
    let scene = Scene::new("hooks");
    let record = scene.path("record");
    let hook = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} $(jq -r .status) >> {}", record.display())], "env": ["PATH=/usr/bin:/bin"]}]);
    let container = Container::script(&scene, "c", "true", |config| {
        config["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/state"]}],
            "poststart": hook("poststart"), "poststop": hook("poststop"),
        });
        config["root"]["readonly"] = json!(false);
    });
    let _ = container.run().exits(0);
    let text = std::fs::read_to_string(&record).unwrap();
    let names: Vec<_> = text
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "prestart",
            "createRuntime",
            "createContainer",
            "poststart",
            "poststop"
        ],
        "{text}"
    );
    assert!(
        text.contains("createRuntime creating") || text.contains("createRuntime created"),
        "{text}"
    );
    assert!(text.contains("poststop stopped"), "{text}");
    let state: Value =
        serde_json::from_slice(&std::fs::read(container.bundle.join("rootfs/tmp/state")).unwrap())
            .unwrap();
    assert_eq!(state["id"], container.id.as_str());
}

#[test]
fn a_failing_hook_stops_the_container() {
    let scene = Scene::new("failing hook");
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let container = Container::script(&scene, kind, "true", |config| {
            config["hooks"][kind] = json!([{"path": "/bin/true"}, {"path": "/bin/false"}]);
        });
        let _ = container.run().fails(1, &["hook #1"]);
        container
            .call(&["state"], &[])
            .fails(1, &["does not exist"]);
    }
}

#[test]
fn a_hook_has_its_time_limit() {
    let scene = Scene::new("hook timeout");
    let container = Container::script(&scene, "c", "true", |config| {
        config["hooks"]["createRuntime"] =
            json!([{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]);
    });
    let _ = container.run().fails(1, &["hook #0"]);
}

// --- exec ------------------------------------------------------------------

#[test]
fn exec_joins_and_gives_the_exit_status() {
    let scene = Scene::new("exec");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let outcome = container.exec("hostname; echo err >&2; exit 9").exits(9);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("scene\n", "err\n")
    );
    let outcome = container.call(
        &["exec", "--cwd", "/tmp", "-e", "A=b", "--user", "1000:1001"],
        &["/bin/sh", "-c", "pwd; echo $A; id -u; id -g"],
    );
    assert_eq!(
        outcome.succeeds().lines().collect::<Vec<_>>(),
        ["/tmp", "b", "1000", "1001"]
    );
    container
        .call(&["exec"], &["/no/such"])
        .fails(255, &["no such file or directory"]);
    container
        .call(&["exec"], &["nosuch"])
        .fails(255, &["executable file not found in $PATH"]);
    assert_eq!(container.exec("kill -TERM $$").code(), 143);
}

#[test]
fn exec_takes_a_process_file() {
    let scene = Scene::new("exec process");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let process = json!({"args": ["/bin/sh", "-c", "id -u; pwd; echo $X; grep CapEff /proc/self/status"], "cwd": "/tmp", "env": ["PATH=/bin", "X=y"], "user": {"uid": 0, "gid": 0}, "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}, "noNewPrivileges": true});
    let file = scene.write("process.json", process.to_string());
    let out = container
        .call(&["exec", "--process", file.to_str().unwrap()], &[])
        .succeeds();
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["0", "/tmp", "y", "CapEff:\t0000000000000020"]
    );
}

#[test]
fn exec_can_detach() {
    let scene = Scene::new("exec detach");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let command = scene.command(
        "teu-runtime",
        [
            "exec",
            "--detach",
            "--pid-file",
            "exec.pid",
            &container.id,
            "/bin/sleep",
            "999",
        ],
    );
    let words: Vec<_> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_str().unwrap().to_owned())
        .collect();
    scene.shell(&format!("{} >/dev/null 2>&1", words.join(" ")));
    let pid = std::fs::read_to_string(scene.path("exec.pid")).unwrap();
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(line, "/bin/sleep\0999\0");
}

#[test]
fn exec_needs_a_running_container() {
    let scene = Scene::new("exec stopped");
    let container = Container::new(&scene, "c", &["/bin/true"], |_| {});
    container.create();
    container.call(&["start"], &[]).succeeds();
    scene.wait_until("stopped", || container.status() == "stopped");
    let outcome = container.exec("true");
    assert_eq!(outcome.code(), 255, "{outcome}");
    assert!(outcome.stderr.contains("stopped"), "{outcome}");
}

// --- cgroups ---------------------------------------------------------------

#[test]
fn limits_reach_the_cgroup() {
    let scene = Scene::new("limits");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 33_554_432});
        config["linux"]["resources"]["pids"] = json!({"limit": 42});
        config["linux"]["resources"]["cpu"] =
            json!({"quota": 50_000, "period": 100_000, "shares": 512});
        config["linux"]["resources"]["cpu"]["cpus"] = json!("0");
    });
    container.run_detached();
    assert_eq!(container.cgroup_value("pids", "pids.max"), "42");
    if cgroup_v1() {
        assert_eq!(
            container.cgroup_value("memory", "memory.limit_in_bytes"),
            "33554432"
        );
        assert_eq!(container.cgroup_value("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(container.cgroup_value("cpu", "cpu.shares"), "512");
        assert_eq!(container.cgroup_value("cpuset", "cpuset.cpus"), "0");
    } else {
        assert_eq!(container.cgroup_value("", "memory.max"), "33554432");
        assert_eq!(container.cgroup_value("", "cpu.max"), "50000 100000");
        assert_eq!(container.cgroup_value("", "cpuset.cpus"), "0");
    }
    container
        .call(
            &["update", "--pids-limit", "50", "--memory", "67108864"],
            &[],
        )
        .succeeds();
    assert_eq!(container.cgroup_value("pids", "pids.max"), "50");
    let resources = r#"{"pids": {"limit": 60}, "cpu": {"shares": 256}}"#;
    let outcome = scene.run_with_input(
        "teu-runtime",
        ["update", "--resources", "-", &container.id],
        resources.as_bytes(),
    );
    outcome.succeeds();
    assert_eq!(container.cgroup_value("pids", "pids.max"), "60");
    container.call(&["delete", "--force"], &[]).succeeds();
    assert!(!container.cgroup("pids").exists());
}

#[test]
fn memory_beyond_the_limit_is_killed() {
    let scene = Scene::new("memory limit");
    let container = Container::script(&scene, "c", "head -c 100m /dev/zero | tail", |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 16_777_216});
    });
    let outcome = container.run();
    assert_ne!(outcome.code(), 0, "{outcome}");
}

#[test]
fn devices_are_denied_unless_allowed() {
    let script = "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg; mknod /tmp/null c 1 3 && cat /tmp/null && echo null works";
    let scene = Scene::new("devices cgroup");
    let container = Container::script(&scene, "c", script, |config| {
        config["root"]["readonly"] = json!(false);
        let caps = json!(["CAP_MKNOD", "CAP_SYSLOG"]);
        config["process"]["capabilities"] =
            json!({"bounding": caps, "effective": caps, "permitted": caps});
        config["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}]);
    });
    let outcome = container.run();
    assert!(
        outcome.stderr.contains("Operation not permitted") && outcome.stdout.contains("null works"),
        "{outcome}"
    );
}

#[test]
fn pause_freezes_and_resume_thaws() {
    let scene = Scene::new("pause");
    let container = Container::script(
        &scene,
        "c",
        "while :; do echo x >> /tmp/beat; sleep 0.02; done",
        |config| {
            config["root"]["readonly"] = json!(false);
        },
    );
    container.run_detached();
    let beat =
        || std::fs::metadata(container.bundle.join("rootfs/tmp/beat")).map_or(0, |meta| meta.len());
    scene.wait_until("it beats", || beat() > 0);
    container.call(&["pause"], &[]).succeeds();
    assert_eq!(container.status(), "paused");
    let before = beat();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(beat(), before);
    container
        .exec("true")
        .fails(255, &["cannot exec in a paused container"]);
    container.call(&["resume"], &[]).succeeds();
    assert_eq!(container.status(), "running");
    scene.wait_until("it beats again", || beat() > before);
    container.call(&["pause"], &[]).succeeds();
    container.call(&["delete", "--force"], &[]).succeeds();
}

#[test]
fn a_shared_pid_namespace_is_emptied() {
    let scene = Scene::new("host pids");
    let container = Container::script(&scene, "c", "sleep 1001 & sleep 1001 & wait", |config| {
        config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}, {"type": "network"}]);
    });
    container.run_detached();
    scene.wait_until("three processes", || {
        container
            .cgroup_value("pids", "cgroup.procs")
            .lines()
            .count()
            == 3
    });
    container.call(&["kill"], &["KILL"]).succeeds();
    scene.wait_until("no process", || {
        container.cgroup_value("pids", "cgroup.procs").is_empty()
    });
}

// --- seccomp ---------------------------------------------------------------

#[test]
fn seccomp_refuses_with_the_chosen_error() {
    let scene = Scene::new("seccomp");
    let container = Container::script(
        &scene,
        "c",
        "mkdir /tmp/d; chmod 700 /tmp; echo alive",
        |config| {
            config["root"]["readonly"] = json!(false);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "syscalls": [
                    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100},
                    {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"},
                ],
            });
        },
    );
    let outcome = container.run().exits(0);
    assert!(outcome.stderr.contains("Network is down"), "{outcome}");
    assert!(
        outcome.stderr.contains("Operation not permitted"),
        "{outcome}"
    );
    assert_eq!(outcome.stdout, "alive\n");
}

#[test]
fn seccomp_compares_arguments_and_kills() {
    let scene = Scene::new("seccomp arguments");
    let container = Container::script(
        &scene,
        "c",
        "kill -CONT 1 && echo allowed; kill -USR1 1; echo not reached",
        |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}],
            });
        },
    );
    let outcome = container.run().exits(159);
    assert_eq!(outcome.stdout, "allowed\n");
}

// --- terminals -------------------------------------------------------------

#[test]
fn a_terminal_comes_over_the_console_socket() {
    let scene = Scene::new("console");
    let container = Container::script(&scene, "c", "tty; stty size; echo done", |config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 10, "width": 110});
    });
    let receiver = r#"
import array, os, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(sys.argv[1]); server.listen(1); print("listening", flush=True)
peer, _ = server.accept()
_, control, _, _ = peer.recvmsg(4096, socket.CMSG_SPACE(4))
master = array.array("i", control[0][2][:4])[0]
out = b""
while True:
    try: part = os.read(master, 4096)
    except OSError: break
    if not part: break
    out += part
sys.stdout.write(out.decode())
"#;
    skip_unless!(
        scene,
        !teu_integration_tests::missing_command("python3"),
        "python3 receives the terminal"
    );
    let socket = scene.path("console.sock");
    let script = scene.write("receive.py", receiver);
    let line = format!(
        "python3 {} {socket} > got & receiver=$!; while [ ! -S {socket} ]; do sleep 0.01; done; {} --console-socket {socket}; {} ; wait $receiver; cat got",
        script.display(),
        container.line("create"),
        container
            .line("start")
            .replace(&format!(" -b {}", container.bundle.display()), ""),
        socket = socket.display(),
    );
    let out = scene.shell(&line);
    assert!(
        out.contains("/dev/pts/0") && out.contains("10 110") && out.contains("done"),
        "{out}"
    );
}

#[test]
fn a_terminal_needs_a_socket_when_detached() {
    let scene = Scene::new("console missing");
    let container = Container::script(&scene, "c", "true", |config| {
        config["process"]["terminal"] = json!(true)
    });
    let outcome = container.call(&["create", "-b", container.bundle.to_str().unwrap()], &[]);
    let _ = outcome.fails(1, &["console"]);
}
