//! Scenes on the host's own cgroups, below `/teu-test-<pid>-<scene>`.

use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use rustix::process::Pid;

use super::super::{Layout, Paths, SubCgroup, freezer, procs, remove};
use super::*;
use crate::spec::resources::Resources;

/// A container's cgroups for one test, and a process in them.
struct Scene {
    paths: Paths,
    children: Vec<Child>,
}

impl Scene {
    /// `None`, with the reason on stderr, where cgroups cannot be made.
    fn new(name: &str) -> Option<Self> {
        let place = format!("/teu-test-{}-{name}/c1", std::process::id());
        let paths = Layout::discover().and_then(|layout| layout.place(Some(&place), "c1"));
        let probe = paths.map_err(|e| e.to_string()).and_then(|paths| {
            let made = Group::create(&paths, &Plan::default(), false);
            made.map(|_| paths).map_err(|error| format!("{error:?}"))
        });
        match probe {
            Ok(paths) => {
                remove(&paths).unwrap();
                Some(Self {
                    paths,
                    children: Vec::new(),
                })
            }
            Err(why) => {
                eprintln!("SKIPPED {name}: {why}");
                None
            }
        }
    }

    fn plan(&self, json: &str) -> Plan {
        Plan::new(
            &serde_json::from_str::<Resources>(json).unwrap(),
            &self.paths,
        )
        .unwrap()
    }

    fn create(&self) -> Group {
        Group::create(&self.paths, &Plan::default(), false).unwrap()
    }

    fn sleeper(&mut self) -> Pid {
        let child = Command::new("sleep")
            .arg("100")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        self.children.push(child);
        pid
    }

    /// Moves a process into every hierarchy from outside.
    fn fill(&self, pid: Pid) {
        for (path, _) in self.paths.directories() {
            std::fs::write(path.join("cgroup.procs"), pid.as_raw_nonzero().to_string()).unwrap();
        }
    }

    fn file(&self, controller: &str, file: &str) -> String {
        std::fs::read_to_string(self.paths.of(controller).unwrap().join(file))
            .unwrap()
            .trim()
            .to_owned()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        procs::signal_all(&self.paths, Signal::KILL).unwrap();
        for child in &mut self.children {
            child.wait().unwrap();
        }
        remove(&self.paths).unwrap();
        for (path, _) in self.paths.directories() {
            std::fs::remove_dir(path.parent().unwrap()).unwrap();
            assert!(!path.exists());
        }
    }
}

#[test]
fn limits_reach_the_kernel_and_can_grow_and_shrink() {
    let Some(scene) = Scene::new("limits") else {
        return;
    };
    let group = scene.create();
    let (limit, both) = if scene.paths.is_v2() {
        ("memory.max", None)
    } else {
        ("memory.limit_in_bytes", Some("memory.memsw.limit_in_bytes"))
    };
    for (memory, swap) in [
        (64 << 20, 128 << 20),
        (256 << 20, 512 << 20),
        (32 << 20, 32 << 20),
    ] {
        let plan = scene.plan(&format!(
            r#"{{"memory": {{"limit": {memory}, "swap": {swap}}}, "pids": {{"limit": 20}},
                "cpu": {{"quota": 50000, "period": 100000, "cpus": "0"}}}}"#
        ));
        group.apply(&plan).unwrap();
        assert_eq!(scene.file("memory", limit), memory.to_string());
        if let Some(both) = both {
            assert_eq!(scene.file("memory", both), swap.to_string());
        }
        assert_eq!(scene.file("pids", "pids.max"), "20");
        assert_eq!(scene.file("cpuset", "cpuset.cpus"), "0");
    }
    group
        .apply(&scene.plan(r#"{"memory": {"limit": -1}}"#))
        .unwrap();
    assert_ne!(scene.file("memory", limit), (32u32 << 20).to_string());
}

#[test]
fn a_process_joins_every_hierarchy_freezes_and_ends() {
    let Some(mut scene) = Scene::new("life") else {
        return;
    };
    let group = scene.create();
    group.apply(&scene.plan("{}")).unwrap();
    let pid = scene.sleeper();
    scene.fill(pid);
    for (path, _) in scene.paths.directories() {
        assert_eq!(procs::all_in(path).unwrap(), [pid], "{}", path.display());
    }
    assert!(!freezer::is_frozen(&scene.paths).unwrap());
    freezer::freeze(&scene.paths).unwrap();
    assert!(freezer::is_frozen(&scene.paths).unwrap());
    let error = Group::create(&scene.paths, &Plan::default(), false)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("container's cgroup is not empty: 1 process(es) found"),
        "{error}"
    );
    // The end of the scene kills it frozen.
}

#[test]
fn a_frozen_cgroup_is_refused() {
    let Some(scene) = Scene::new("frozen") else {
        return;
    };
    scene.create();
    freezer::freeze(&scene.paths).unwrap();
    let error = Group::create(&scene.paths, &Plan::default(), false)
        .unwrap_err()
        .to_string();
    freezer::thaw(&scene.paths).unwrap();
    assert!(
        error.starts_with("container's cgroup unexpectedly frozen"),
        "{error}"
    );
}

#[test]
fn a_refused_limit_names_file_and_value() {
    let Some(scene) = Scene::new("refused") else {
        return;
    };
    let group = scene.create();
    let error = group
        .apply(&scene.plan(r#"{"cpu": {"cpus": "4000-4001"}}"#))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("write \"4000-4001\" to /sys/fs/cgroup/")
            && error.ends_with("/c1/cpuset.cpus"),
        "{error}"
    );
}

#[test]
fn devices_are_denied_but_the_usual() {
    let Some(scene) = Scene::new("devices") else {
        return;
    };
    if scene.paths.is_v2() {
        eprintln!("SKIPPED devices: no devices.list on cgroup v2");
        return;
    }
    let group = scene.create();
    group.apply(&scene.plan("{}")).unwrap();
    let list = scene.file("devices", "devices.list");
    assert!(
        list.contains("c 1:3 rwm") && !list.contains("a *:*"),
        "{list}"
    );
    group
        .apply(&scene.plan(r#"{"devices": [{"allow": true, "access": "rwm"}]}"#))
        .unwrap();
    assert_eq!(scene.file("devices", "devices.list"), "a *:* rwm");
}

/// Reads one record of the kernel's log, device 1:11, from within `cgroup`.
fn read_kernel_log(cgroup: &std::path::Path) -> bool {
    let script =
        "echo 0 > \"$0/cgroup.procs\" && dd if=/dev/kmsg of=/dev/null count=1 bs=8k iflag=nonblock";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(cgroup).stderr(Stdio::null());
    shell.status().unwrap().success()
}

#[test]
fn the_kernel_runs_the_device_program_of_v2() {
    let Some(scene) = Scene::new("program") else {
        return;
    };
    let group = scene.create();
    let Some(dir) = group.unified() else {
        eprintln!("SKIPPED program: no cgroup2 on this host");
        return;
    };
    if !read_kernel_log(dir.path()) {
        eprintln!("SKIPPED program: the kernel log cannot be read");
        return;
    }
    let usual = super::Policy::new(&[]).unwrap();
    super::device_program::restrict(dir, &usual).unwrap();
    assert!(!read_kernel_log(dir.path()));
    let all = super::Policy {
        allow: true,
        ..super::Policy::default()
    };
    super::device_program::restrict(dir, &all).unwrap();
    assert!(read_kernel_log(dir.path()));
    assert_eq!(crate::sys::bpf::attached(dir).unwrap().len(), 1);
}

#[test]
fn nested_cgroups_and_their_processes_go_too() {
    let Some(mut scene) = Scene::new("nested") else {
        return;
    };
    scene.create();
    let first = scene.sleeper();
    scene.fill(first);
    let home = if scene.paths.is_v2() { "" } else { "freezer" };
    let inner = scene.paths.get(home).unwrap().join("inner/most");
    std::fs::create_dir_all(&inner).unwrap();
    let second = scene.sleeper();
    scene.fill(second);
    std::fs::write(
        inner.join("cgroup.procs"),
        second.as_raw_nonzero().to_string(),
    )
    .unwrap();
    if home == "freezer" {
        // A container with its own freezer must not be able to stay by it.
        std::fs::write(inner.join("freezer.state"), "FROZEN").unwrap();
    }
    let mut both = vec![first, second];
    both.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
    assert_eq!(procs::all_in(scene.paths.get(home).unwrap()).unwrap(), both);
}

#[test]
fn exec_is_let_into_a_cgroup_below_when_asked() {
    let Some(mut scene) = Scene::new("exec") else {
        return;
    };
    let group = scene.create();
    let parse = |wish: &str| SubCgroup::parse(&[wish.to_owned()], scene.paths.is_v2()).unwrap();
    let missing = parse("nosuch");
    let refused = if scene.paths.is_v2() {
        group.birthplace(&missing).map(drop)
    } else {
        group.doors(&missing).map(drop)
    };
    let error = refused.unwrap_err().to_string();
    assert!(
        error.starts_with("adding pid ") && error.ends_with("/nosuch/cgroup.procs"),
        "{error}"
    );
    let Some(home) = scene.paths.get("") else {
        eprintln!("SKIPPED exec: no cgroup2 on this host");
        return;
    };
    std::fs::create_dir(home.join("sub")).unwrap();
    let home = home.join("sub");
    let below = vec![SubCgroup::whole("sub")];
    let birthplace = group.birthplace(&below).unwrap().unwrap();
    let pid = scene.sleeper();
    group.join(&birthplace, pid, None).unwrap();
    assert_eq!(procs::all_in(&home).unwrap(), [pid]);
}

#[test]
fn without_permission_only_limits_are_an_error() {
    let paths = Paths::from_pairs([("pids", "/proc/teu-test")]);
    // procfs refuses directories with ENOENT, which no permission would change.
    assert!(matches!(
        Group::create(&paths, &Plan::default(), true),
        Err(Error::Create { .. })
    ));
    let group = Group {
        dirs: Vec::new(),
        is_v2: false,
    };
    group
        .apply(&Plan::new(&Resources::default(), &paths).unwrap())
        .unwrap();
    let limits = serde_json::from_str(r#"{"pids": {"limit": 3}}"#).unwrap();
    let error = group
        .apply(&Plan::new(&limits, &paths).unwrap())
        .unwrap_err();
    assert!(
        error.to_string().starts_with("rootless needs no limits"),
        "{error}"
    );
}
