//! The runtime in the hands of an ordinary user, and `--rootless`.

use super::Container;
use serde_json::{Value, json};
use teu_integration_tests::{Scene, binary, missing_command, skip_unless};

/// A user and a group that own nothing.
const NOBODY: u32 = 65534;

/// A scene in which that user has a folder, a bundle in it, and the runtime.
struct User<'a> {
    scene: &'a Scene,
    folder: String,
}

impl<'a> User<'a> {
    fn new(scene: &'a Scene) -> Self {
        let rootfs = scene.rootfs("user/bundle/rootfs");
        let folder = scene.path("user").display().to_string();
        let runtime = binary("teu-runtime").display().to_string();
        // The scratch folder is root's alone, and so may be where the runtime stands.
        scene.shell(&format!(
            "chmod 711 . && cp \"$(command -v {runtime})\" user/runtime && chown -R {NOBODY}:{NOBODY} user {}",
            rootfs.display()
        ));
        Self { scene, folder }
    }

    /// The command line of the runtime as this user, in the bundle.
    fn line(&self, words: &str) -> String {
        format!(
            "cd {0}/bundle && exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups env -u XDG_RUNTIME_DIR {0}/runtime --root {0}/state {words}",
            self.folder
        )
    }

    fn call(&self, words: &str) -> teu_integration_tests::Outcome {
        self.scene.run("sh", ["-c", &self.line(words)])
    }

    /// Changes the bundle's `config.json`.
    fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.scene.path("user/bundle/config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }
}

/// Whether that user may make a user namespace here.
fn user_namespaces(scene: &Scene) -> bool {
    let id = NOBODY.to_string();
    let words = [
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
        "unshare",
        "-Ur",
        "true",
    ];
    scene.run("setpriv", words).code() == 0
}

#[test]
fn an_ordinary_user_runs_a_container() {
    let scene = Scene::new("ordinary user");
    skip_unless!(
        scene,
        user_namespaces(&scene),
        "no user namespaces for ordinary users"
    );
    let user = User::new(&scene);
    user.call("spec --rootless").succeeds();
    user.change(|config| {
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", "id -u; cat /proc/self/uid_map; exit 6"]);
    });
    let out = user.call("run c").exits(6).stdout;
    let words: Vec<_> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "65534", "1"]);
    assert_eq!(user.call("list -q").succeeds(), "");
}

#[test]
fn an_ordinary_user_execs_into_a_container() {
    let scene = Scene::new("exec of an ordinary user");
    skip_unless!(
        scene,
        user_namespaces(&scene),
        "no user namespaces for ordinary users"
    );
    let user = User::new(&scene);
    user.call("spec --rootless").succeeds();
    user.change(|config| {
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sleep", "1000"]);
        config["root"]["readonly"] = json!(false);
    });
    user.call("run -d c >/dev/null 2>&1").succeeds();
    let out = user
        .call("exec c sh -c 'id -u; hostname; echo x >/made; exit 4'")
        .exits(4)
        .stdout;
    assert_eq!(out.lines().next(), Some("0"));
    let made = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(scene.path("user/bundle/rootfs/made")).unwrap(),
    );
    assert_eq!(made, NOBODY);
    user.call("delete --force c").succeeds();
    assert_eq!(user.call("list -q").succeeds(), "");
}

#[test]
fn rootless_and_no_subreaper_are_runcs_flags() {
    let scene = Scene::new("rootless flag");
    let container = Container::new(&scene, "c", &["/bin/true"], |_| {});
    let bundle = container.bundle.to_str().unwrap();
    for value in ["true", "false", "auto"] {
        let flag = format!("--rootless={value}");
        let words = [&flag, "run", "--no-subreaper", "-b", bundle, &container.id];
        scene.run("teu-runtime", words).succeeds();
    }
    let words = ["--rootless=perhaps", "run", "-b", bundle, &container.id];
    let _ = scene.run("teu-runtime", words).fails(1, &["--rootless"]);
}

/// Ids of the host that are lent to that user, for newuidmap(1) and newgidmap(1).
const LENT: (u32, u32) = (700_000, 65_536);

#[test]
fn subordinate_ids_are_mapped_by_their_helpers() {
    let scene = Scene::new("subordinate ids");
    skip_unless!(
        scene,
        user_namespaces(&scene) && !missing_command("newuidmap"),
        "no user namespaces for ordinary users, or no newuidmap"
    );
    let user = User::new(&scene);
    scene.write("lent", format!("nobody:{}:{}\n", LENT.0, LENT.1));
    // In a mount namespace of its own, the host's lists are another test's.
    let call = |words: &str| {
        let script = format!(
            "mount --bind lent /etc/subuid && mount --bind lent /etc/subgid && {}",
            user.line(words)
        );
        scene.run("unshare", ["-m", "sh", "-c", &script])
    };
    call("spec --rootless").succeeds();
    let maps = json!([
        {"containerID": 0, "hostID": NOBODY, "size": 1},
        {"containerID": 1, "hostID": LENT.0, "size": LENT.1},
    ]);
    user.change(|config| {
        config["process"]["terminal"] = json!(false);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [7]});
        config["process"]["args"] = json!(["sh", "-c", "id -u; id -g; id -G; echo x > /tmp/made"]);
        config["root"]["readonly"] = json!(false);
        config["linux"]["uidMappings"] = maps.clone();
        config["linux"]["gidMappings"] = maps.clone();
    });
    let out = call("run c").succeeds();
    assert_eq!(out, "1000\n1000\n1000 7");
    let made = std::fs::metadata(scene.path("user/bundle/rootfs/tmp/made")).unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&made);
    assert_eq!(owner, LENT.0 + 999);
    // A folder of the process's user, in a group that the container does not know.
    let private = scene.path("private");
    scene.shell(&format!(
        "mkdir -m 700 private && chown {}:0 private",
        LENT.0 + 999
    ));
    user.change(|config| {
        config["process"]["args"] = json!(["pwd"]);
        config["process"]["cwd"] = json!("/private");
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/private", "source": private, "options": ["bind"]}));
    });
    assert_eq!(call("run c").succeeds(), "/private");
    // What was not lent is refused, and nothing stays.
    user.change(|config| config["linux"]["uidMappings"][1]["hostID"] = json!(500_000));
    let _ = call("run c").fails(1, &["newuidmap"]);
    assert_eq!(call("list -q").succeeds(), "");
}

#[test]
fn without_a_cgroup_of_its_own_a_container_sees_the_callers() {
    let scene = Scene::new("rootless without cgroup");
    skip_unless!(
        scene,
        user_namespaces(&scene) && super::cgroup_v1(),
        "no user namespaces for ordinary users, or no cgroup v1"
    );
    let user = User::new(&scene);
    user.call("spec --rootless").succeeds();
    let script = "cat /proc/self/cgroup; ls /sys/fs/cgroup/pids/tasks /sys/fs/cgroup/memory/tasks";
    user.change(|config| {
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", script]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}));
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    });
    let out = user.call("run c").succeeds();
    let own = scene.shell("grep :pids: /proc/self/cgroup");
    assert!(out.contains(own.trim()), "{own:?} in {out}");
    assert!(
        out.ends_with("/sys/fs/cgroup/memory/tasks\n/sys/fs/cgroup/pids/tasks"),
        "{out}"
    );
}

#[test]
fn an_agent_of_an_ordinary_user_decides() {
    let scene = Scene::new("agent of an ordinary user");
    skip_unless!(
        scene,
        user_namespaces(&scene) && !missing_command("python3"),
        "no user namespaces for ordinary users, or no python3 as agent"
    );
    let user = User::new(&scene);
    let (socket, record) = (scene.path("agent.sock"), scene.path("record"));
    let script = scene.write("agent.py", super::seccomp::AGENT);
    let mut agent = scene
        .command("python3", [&script, &socket, &record])
        .spawn()
        .unwrap();
    scene.wait_until("the agent listens", || socket.exists());
    scene.shell("chmod 777 agent.sock");
    user.call("spec --rootless").succeeds();
    for no_new_privileges in [true, false] {
        user.change(|config| {
            config["process"]["terminal"] = json!(false);
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["process"]["args"] = json!(["mkdir", "/dev/shm/x"]);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket,
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
            });
        });
        let _ = user.call("run c").fails(1, &["No medium found"]);
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn a_delegated_cgroup_limits_and_another_is_explained() {
    let scene = Scene::new("delegated cgroup");
    skip_unless!(
        scene,
        user_namespaces(&scene) && super::cgroup_v1(),
        "no user namespaces for ordinary users, or no cgroup v1"
    );
    let user = User::new(&scene);
    user.call("spec --rootless").succeeds();
    let cgroup = scene.cgroup();
    user.change(|config| {
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["cat", "/proc/self/cgroup"]);
        config["linux"]["cgroupsPath"] = json!(format!("{cgroup}/c"));
        config["linux"]["resources"] =
            json!({"pids": {"limit": 20}, "memory": {"limit": 33_554_432}});
    });
    let _ = user
        .call("run c")
        .fails(1, &["permission denied", "delegat"]);
    scene.shell(&format!(
        "for hierarchy in /sys/fs/cgroup/*/; do [ -e $hierarchy/tasks ] || continue\n\
         mkdir -p $hierarchy{cgroup} && chown -R {NOBODY} $hierarchy{cgroup}\n\
         for file in cpuset.cpus cpuset.mems; do [ ! -e $hierarchy/$file ] || cat $hierarchy/$file > $hierarchy{cgroup}/$file; done; done"
    ));
    let out = user.call("run c").succeeds();
    for controller in ["pids", "memory"] {
        let line = format!(":{controller}:{cgroup}/c\n");
        assert!(format!("{out}\n").contains(&line), "{line:?} in {out}");
    }
    let limits = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes";
    user.change(|config| {
        config["process"]["args"] = json!(["sh", "-c", limits]);
        config["mounts"].as_array_mut().unwrap().push(
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}),
        );
    });
    assert_eq!(user.call("run c").succeeds(), "20\n33554432");
}

/// On a hybrid host cgroup2 limits nothing, but the kernel refuses who may write
/// to a cgroup of it, and not to the one above: the container goes without.
#[test]
fn an_owned_cgroup2_beside_version_1_is_no_obstacle() {
    let scene = Scene::new("owned cgroup2");
    let unified = "/sys/fs/cgroup/unified";
    skip_unless!(
        scene,
        user_namespaces(&scene)
            && super::cgroup_v1()
            && std::path::Path::new(unified).join("cgroup.procs").exists(),
        "no user namespaces for ordinary users, or no hybrid host"
    );
    let user = User::new(&scene);
    user.call("spec --rootless").succeeds();
    let cgroup = scene.cgroup();
    user.change(|config| {
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sleep", "1000"]);
        config["linux"]["cgroupsPath"] = json!(format!("{cgroup}/c"));
        config["linux"]["resources"] = json!({"pids": {"limit": 20}});
    });
    scene.shell(&format!(
        "for hierarchy in /sys/fs/cgroup/*/; do [ -e $hierarchy/cgroup.procs ] || continue\n\
         mkdir -p $hierarchy{cgroup} && chown -R {NOBODY} $hierarchy{cgroup}\n\
         for file in cpuset.cpus cpuset.mems; do [ ! -e $hierarchy/$file ] || cat $hierarchy/$file > $hierarchy{cgroup}/$file; done; done"
    ));
    user.call("run -d c >/dev/null 2>&1").succeeds();
    let place = format!("{unified}{cgroup}/c");
    let inside = std::fs::read_to_string(format!("{place}/cgroup.procs")).unwrap();
    assert_eq!(inside, "", "the kernel lets nobody in");
    for pid in ["1", "self"] {
        let own = user.call(&format!("exec c cat /proc/{pid}/cgroup"));
        let own = own.succeeds();
        assert!(own.contains(&format!(":pids:{cgroup}/c")), "{own}");
        assert!(!own.contains(&format!("0::{cgroup}")), "{own}");
    }
    let asked = user.call("exec --cgroup / c true");
    let _ = asked.fails(255, &["/cgroup.procs", "permission denied"]);
    user.call("delete --force c").succeeds();
    assert!(!std::path::Path::new(&place).exists());
}
