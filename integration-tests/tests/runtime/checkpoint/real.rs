//! `checkpoint` and `restore` with CRIU itself, where it can work.

use super::SLEEP;
use crate::{Container, cgroup_v1};
use serde_json::{Value, json};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::PathBuf;
use teu_integration_tests::{Scene, skip_unless};

/// Why CRIU cannot work on this host, if so. It is asked once.
pub(super) fn obstacle() -> Option<&'static str> {
    static CHECKED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let check = || match std::process::Command::new("criu")
        .args(["check", "--no-default-config"])
        .output()
    {
        Err(error) => Some(format!("no criu: {error}")),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            Some(format!(
                "criu check: {}",
                said.lines().last().unwrap_or("it fails")
            ))
        }
    };
    CHECKED.get_or_init(check).as_deref()
}

macro_rules! scene_with_criu {
    ($scene:ident, $name:literal) => {
        let $scene = Scene::new($name);
        skip_unless!(
            $scene,
            obstacle().is_none(),
            "{}",
            obstacle().unwrap_or_default()
        );
    };
}

pub(super) use scene_with_criu;

/// Counts up in a file of the container, so that a restored one is seen to go
/// on where it was. Its streams are no files of the host's.
pub(super) const COUNT: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.1; done";

/// A running container whose streams are its own files.
pub(super) fn running<'a>(
    scene: &'a Scene,
    script: &str,
    change: impl FnOnce(&mut Value),
) -> Container<'a> {
    let script = format!("exec </dev/null >/dev/null 2>&1; {script}");
    let container = Container::script(scene, "c", &script, change);
    detached(&container, "run --detach");
    container
}

/// Runs a verb whose container outlives it, with streams that CRIU can save:
/// the container closes those it is given.
pub(super) fn detached(container: &Container<'_>, verb: &str) {
    let log = container.log();
    let line = format!(
        "{} </dev/null >/dev/null 2>{}",
        container.line(verb),
        log.display()
    );
    let outcome = container.scene.run("sh", ["-c", &line]);
    let said = std::fs::read_to_string(log).unwrap();
    assert_eq!(outcome.code(), 0, "{verb}: {said}");
}

pub(super) fn checkpoint(container: &Container<'_>, flags: &[&str]) {
    let words: Vec<&str> = std::iter::once("checkpoint")
        .chain(flags.iter().copied())
        .collect();
    container.call(&words, &[]).succeeds();
}

fn count(container: &Container<'_>) -> u64 {
    let text = container.exec("cat /dev/shm/count").succeeds();
    text.trim().parse().unwrap_or(0)
}

/// Waits until it counts, and gives how far it has come.
pub(super) fn counted(container: &Container<'_>, beyond: u64) -> u64 {
    let mut seen = 0;
    container.scene.wait_until("the container counts", || {
        seen = count(container);
        seen > beyond
    });
    seen
}

pub(super) fn gone(container: &Container<'_>) {
    let _ = container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
}

#[test]
fn a_container_goes_on_where_it_was_more_than_once() {
    scene_with_criu!(scene, "criu");
    let data = scene.path("data");
    std::fs::create_dir(&data).unwrap();
    let container = running(&scene, COUNT, |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        for name in ["/data", "/odd,[x] y"] {
            mounts.push(
                json!({"destination": name, "source": data, "options": ["bind", "ro", "nosuid"]}),
            );
        }
    });
    // CRIU loses attributes of a second mount of one source, and of the root.
    let mounts = "cut -d' ' -f4-6 /proc/self/mountinfo | sort";
    let before = container.exec(mounts).succeeds();
    let mut reached = counted(&container, 3);
    for round in 0..2 {
        checkpoint(&container, &[]);
        gone(&container);
        assert!(scene.path("checkpoint/inventory.img").is_file());
        detached(&container, "restore --detach --pid-file pid");
        let state = container.state();
        assert_eq!(state["status"], "running");
        assert_eq!(
            std::fs::read_to_string(scene.path("pid")).unwrap(),
            state["pid"].to_string()
        );
        reached = counted(&container, reached);
        assert_eq!(container.exec(mounts).succeeds(), before);
        std::fs::write(data.join("later"), round.to_string()).unwrap();
        let seen = container
            .exec("cat /data/later '/odd,[x] y/later'; touch /data/x 2>&1 || true")
            .succeeds();
        assert!(
            seen.starts_with(&format!("{round}{round}")) && seen.contains("Read-only"),
            "{seen}"
        );
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains("criu-root"), "{table}");
    let _ = container.call(&["kill"], &["KILL"]).exits(0);
    scene.wait_until("it ends", || container.status() == "stopped");
}

#[test]
fn one_that_is_left_running_goes_on_and_can_be_restored_beside() {
    scene_with_criu!(scene, "criu leave-running");
    let container = running(&scene, COUNT, |_| ());
    let reached = counted(&container, 3);
    checkpoint(
        &container,
        &[
            "--leave-running",
            "--image-path",
            "images",
            "--work-path",
            "work",
        ],
    );
    assert!(scene.path("work/dump.log").is_file());
    let later = counted(&container, reached + 2);
    // Another container of the same bundle, from the images.
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(container.bundle.join("config.json")).unwrap())
            .unwrap();
    config["linux"]["cgroupsPath"] = json!(format!("{}/other", scene.cgroup()));
    std::fs::write(container.bundle.join("config.json"), config.to_string()).unwrap();
    let other = Container {
        scene: &scene,
        id: format!("{}-other", container.id),
        bundle: container.bundle.clone(),
    };
    detached(
        &other,
        "restore --detach --image-path images --manage-cgroups-mode ignore",
    );
    assert!(counted(&other, 0) >= 3);
    assert!(counted(&container, later) > later);
    assert_ne!(container.state()["pid"], other.state()["pid"]);
    let folder = container.cgroup("freezer").with_file_name("other");
    let there = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap();
    let pid = other.state()["pid"].to_string();
    assert!(there.lines().any(|line| line == pid), "{there}");
}

#[test]
fn memory_saved_before_is_a_parent() {
    scene_with_criu!(scene, "criu pre-dump");
    let works = std::process::Command::new("criu")
        .args([
            "check",
            "--no-default-config",
            "--feature",
            "mem_dirty_track",
        ])
        .output();
    skip_unless!(
        scene,
        works.is_ok_and(|output| output.status.success()),
        "no tracking of dirty memory"
    );
    let container = running(&scene, COUNT, |_| ());
    let reached = counted(&container, 3);
    checkpoint(&container, &["--pre-dump", "--image-path", "parent"]);
    assert_eq!(container.status(), "running");
    checkpoint(
        &container,
        &["--parent-path", "../parent", "--image-path", "images"],
    );
    assert!(scene.path("images/parent").exists());
    gone(&container);
    detached(&container, "restore --detach --image-path images");
    counted(&container, reached);
}

#[test]
fn a_terminal_is_handed_out_again() {
    scene_with_criu!(scene, "criu terminal");
    let container = Container::script(
        &scene,
        "c",
        "while read line; do echo got $line; done",
        |config| {
            config["process"]["terminal"] = json!(true);
        },
    );
    let socket = scene.path("console.sock");
    let receive = |verb: &str| -> std::fs::File {
        let _ = std::fs::remove_file(&socket);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        detached(
            &container,
            &format!("{verb} --detach --console-socket {}", socket.display()),
        );
        let (peer, _) = listener.accept().unwrap();
        receive_descriptor(&peer)
    };
    let mut first = receive("run");
    hear(&mut first.try_clone().unwrap(), &mut first, "one");
    checkpoint(&container, &[]);
    drop(first);
    gone(&container);
    let mut second = receive("restore");
    hear(&mut second.try_clone().unwrap(), &mut second, "two");
}

fn receive_descriptor(peer: &std::os::unix::net::UnixStream) -> std::fs::File {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 4096];
    let mut parts = [std::io::IoSliceMut::new(&mut name)];
    recvmsg(peer, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.next().unwrap().next().unwrap().into()
}

#[test]
fn joined_namespaces_are_joined_again() {
    scene_with_criu!(scene, "criu namespaces");
    let holder = Container::script(&scene, "holder", SLEEP, |_| ());
    holder.run_detached();
    let pid = holder.state()["pid"].clone();
    let link =
        |pid: &Value, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for (kind, name) in [("network", "net"), ("pid", "pid")] {
        // Without children: the first process of the holder's does not reap
        // them, and the numbers of the dead would not be free for the restored.
        let container = running(&scene, SLEEP, |config| {
            let own = config["linux"]["namespaces"].as_array_mut().unwrap();
            let own = own.iter_mut().find(|own| own["type"] == kind).unwrap();
            own["path"] = json!(format!("/proc/{pid}/ns/{name}"));
        });
        checkpoint(&container, &[]);
        gone(&container);
        detached(&container, "restore --detach");
        assert_eq!(container.status(), "running");
        assert_eq!(link(&container.state()["pid"], name), link(&pid, name));
        let _ = container.call(&["delete", "--force"], &[]).exits(0);
    }
}

#[test]
fn pipes_and_limits_come_back() {
    scene_with_criu!(scene, "criu pipes");
    let script = "while read line; do echo got $line; done";
    let container = Container::script(&scene, "c", script, |config| {
        config["linux"]["resources"]["pids"] = json!({"limit": 42});
    });
    let (stdin, mut input) = std::io::pipe().unwrap();
    let (mut output, stdout) = std::io::pipe().unwrap();
    let start = |verb: &str, stdin: PipeReader, stdout: PipeWriter| {
        let line = format!("exec {}", container.line(verb));
        let status = std::process::Command::new("sh")
            .args(["-c", &line])
            .current_dir(scene.path(""))
            .env("TEU_TEST_SCENE", "pipes")
            .stdin(stdin)
            .stderr(stdout.try_clone().unwrap())
            .stdout(stdout)
            .status();
        assert!(status.unwrap().success(), "{verb}");
    };
    start("run --detach", stdin, stdout);
    hear(&mut input, &mut output, "one");
    checkpoint(&container, &["--file-locks"]);
    drop((input, output));
    let (stdin, mut input) = std::io::pipe().unwrap();
    let (mut output, stdout) = std::io::pipe().unwrap();
    start("restore --detach --file-locks", stdin, stdout);
    hear(&mut input, &mut output, "two");
    assert_eq!(container.cgroup_value("pids", "pids.max"), "42");
}

/// Says a word, and waits until the container says it back.
fn hear(input: &mut impl Write, output: &mut impl Read, word: &str) {
    writeln!(input, "{word}").unwrap();
    let mut heard = String::new();
    let mut byte = [0];
    while !heard.contains(&format!("got {word}")) {
        output.read_exact(&mut byte).unwrap();
        heard.push(byte[0].into());
    }
}

#[test]
fn the_foreground_ends_as_the_restored_program_does() {
    scene_with_criu!(scene, "criu foreground");
    let container = running(
        &scene,
        "while [ ! -e /dev/shm/end ]; do sleep 0.1; done; exit 7",
        |_| (),
    );
    container.exec("true").succeeds();
    checkpoint(&container, &["--image-path", "images"]);
    let flag = scene.path("ended");
    let line = format!(
        "{{ {} || echo $? > {}; }} </dev/null >/dev/null 2>&1 &",
        container.line("restore --image-path images"),
        flag.display()
    );
    scene.shell(&line);
    scene.wait_until("it runs again", || {
        container.call(&["state"], &[]).stdout.contains("running")
    });
    container.exec("touch /dev/shm/end").succeeds();
    let mut status = String::new();
    scene.wait_until("it ends", || {
        status = std::fs::read_to_string(&flag).unwrap_or_default();
        status.ends_with('\n')
    });
    assert_eq!(status.trim(), "7");
    gone(&container);
}

#[test]
fn cgroups_without_a_namespace_are_mounted_again() {
    scene_with_criu!(scene, "criu cgroup mounts");
    let container = running(&scene, COUNT, |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    });
    let reached = counted(&container, 1);
    let file = if cgroup_v1() {
        "pids/cgroup.procs"
    } else {
        "cgroup.procs"
    };
    let seen = |container: &Container<'_>| {
        container
            .exec(&format!("cat /sys/fs/cgroup/{file} | head -n 1"))
            .succeeds()
    };
    assert!(!seen(&container).is_empty());
    checkpoint(&container, &[]);
    detached(&container, "restore --detach");
    counted(&container, reached);
    assert!(!seen(&container).is_empty());
}

#[test]
fn torn_images_leave_nothing_behind() {
    scene_with_criu!(scene, "criu torn images");
    let container = running(&scene, COUNT, |_| ());
    counted(&container, 1);
    checkpoint(&container, &["--image-path", "images"]);
    let cores: Vec<PathBuf> = std::fs::read_dir(scene.path("images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("core-")
        })
        .collect();
    std::fs::write(&cores[0], b"torn").unwrap();
    let bundle = container.bundle.to_str().unwrap();
    let words = ["restore", "-d", "-b", bundle, "--image-path", "images"];
    let _ = container
        .call(&words, &[])
        .fails(1, &["criu failed: type RESTORE", "restore.log"]);
    gone(&container);
    assert!(!container.cgroup("pids").exists());
}

#[test]
fn the_null_device_of_the_host_comes_back() {
    scene_with_criu!(scene, "criu null device");
    let container = Container::script(&scene, "c", COUNT, |_| ());
    let line = |verb: &str| {
        let log = container.log();
        let line = format!("{} </dev/null >/dev/null 2>&1", container.line(verb));
        let outcome = scene.run("sh", ["-c", &line]);
        assert_eq!(outcome.code(), 0, "{verb}: {outcome}, {}", log.display());
    };
    line("run --detach");
    let reached = counted(&container, 1);
    checkpoint(&container, &[]);
    gone(&container);
    line("restore --detach");
    counted(&container, reached);
    let streams = "stat -L -c %t:%T /proc/1/fd/0 /proc/1/fd/1 /proc/1/fd/2";
    assert_eq!(container.exec(streams).succeeds(), "1:3\n1:3\n1:3");
}
