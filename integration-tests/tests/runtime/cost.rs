//! What the commands cost, in system calls: unlike time, these are the same on
//! every machine. A ceiling that a change exceeds is a question to its author.

use super::Container;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use teu_integration_tests::{Scene, binary, is_root, missing_command, skip_unless};

/// create and start of a bundle as `runc spec` makes it, on a host with ten
/// hierarchies; runc makes about 6,000.
const CREATE_AND_START_CALLS_MAX: usize = 650;
/// A process more in a running container, on the same host.
const EXEC_CALLS_MAX: usize = 219;
/// Calls that a retry (a rename on the host during a lookup) and the layout of
/// memory may add.
const NOISE_CALLS: usize = 8;
/// Calls for one bind mount: look up, copy, attach, and what is closed after.
const BIND_MOUNT_CALLS_MAX: usize = 18;
/// However many processes there are: the kernel ends them with their first.
const KILL_CALLS_MAX: usize = 60;
/// The same, with repetitions for cgroups that are still being left.
const DELETE_CALLS_MAX: usize = 250;
/// Largest stripped release binary, in bytes.
const BINARY_BYTES_MAX: u64 = 3_000_000;

/// Whether calls can be counted here, of the program that this file is about, and
/// without the user namespace of an ordinary user, which takes more of them.
fn countable() -> bool {
    !missing_command("strace") && std::env::var_os("TEU_RUNTIME").is_none() && is_root()
}

/// A command of the runtime under strace, which follows all it makes.
fn traced(container: &Container<'_>, trace: &Path, words: &[&str]) -> std::process::Command {
    let runtime = container.scene.command("teu-runtime", Vec::<&str>::new());
    let mut command = container.scene.command("strace", ["-f", "-qq", "-o"]);
    command.arg(trace).arg(runtime.get_program());
    command.args(runtime.get_args()).args(words);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Orphans are process 1's to reap, which on a busy machine takes its time.
fn wait_for_reaper(scene: &Scene, pids: &[impl AsRef<str>]) {
    let gone = |pid: &str| !Path::new("/proc").join(pid).exists();
    scene.wait_until("reaped", || pids.iter().all(|pid| gone(pid.as_ref())));
}

/// Runs one traced command to its end; the calls it made.
fn calls_of(container: &Container<'_>, words: &[&str]) -> usize {
    let trace = container.bundle.join("trace");
    let status = traced(container, &trace, words)
        .status()
        .expect("start strace");
    assert!(status.success(), "{words:?} under strace");
    count(&trace)
}

/// The calls in a trace that the runtime made itself: a process of the
/// container is counted until its program begins.
fn count(trace: &Path) -> usize {
    let text = std::fs::read_to_string(trace).expect("read the trace");
    let mut programs = HashSet::new();
    let mut calls = 0;
    for line in text.lines() {
        let (pid, call) = line.split_once(' ').expect("a pid before the call");
        let call = call.trim_start();
        let begun = call.starts_with(|first: char| first.is_ascii_lowercase());
        // Debug builds check every descriptor before they close it.
        if !begun || call.contains("F_GETFD") || programs.contains(pid) {
            continue;
        }
        calls += 1;
        if call.starts_with("execve(\"/bin/") {
            programs.insert(pid);
        }
    }
    calls
}

/// The calls of create and of start, for a container that then ends at once.
fn create_and_start(scene: &Scene, id: &str, change: impl FnOnce(&mut Value)) -> (usize, usize) {
    let container = Container::new(scene, id, &["/bin/true"], change);
    let (created, started) = (scene.path("created"), scene.path("started"));
    let bundle = container.bundle.display().to_string();
    // strace ends with the last process, which waits for start.
    let words = ["create", "-b", &bundle, &container.id];
    let mut create = traced(&container, &created, &words)
        .spawn()
        .expect("start strace");
    scene.wait_until("created", || {
        let state = container.call(&["state"], &[]);
        state.stdout.contains("\"created\"")
    });
    let init = container.state()["pid"].to_string();
    let start = traced(&container, &started, &["start", &container.id]).status();
    assert!(start.expect("start strace").success());
    assert!(create.wait().expect("wait for strace").success());
    wait_for_reaper(scene, &[&init]);
    (count(&created), count(&started))
}

#[test]
fn create_and_start_make_few_calls() {
    let scene = Scene::new("calls of create and start");
    skip_unless!(
        scene,
        countable(),
        "it takes strace, root, and our own runtime"
    );
    let (create, start) = create_and_start(&scene, "c", |_| {});
    println!("create: {create}, start: {start}");
    assert!(
        create + start <= CREATE_AND_START_CALLS_MAX,
        "create makes {create} system calls and start {start}"
    );
}

#[test]
fn exec_makes_few_calls() {
    let scene = Scene::new("calls of exec");
    skip_unless!(
        scene,
        countable(),
        "it takes strace, root, and our own runtime"
    );
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let calls = calls_of(&container, &["exec", &container.id, "/bin/true"]);
    println!("exec: {calls}");
    assert!(calls <= EXEC_CALLS_MAX, "exec makes {calls} system calls");
}

#[test]
fn other_containers_cost_nothing() {
    let scene = Scene::new("calls beside other containers");
    skip_unless!(
        scene,
        countable(),
        "it takes strace, root, and our own runtime"
    );
    let others = |from: usize, to: usize| {
        for number in from..to {
            scene.write(format!("state/runtime/other-{number}/state.json"), "{}");
        }
    };
    // The first makes the cgroup above all.
    create_and_start(&scene, "first", |_| {});
    others(0, 10);
    let (beside_ten, _) = create_and_start(&scene, "ten", |_| {});
    others(10, 1000);
    let (beside_thousand, _) = create_and_start(&scene, "thousand", |_| {});
    std::fs::remove_dir_all(scene.path("state/runtime")).unwrap();
    println!("create beside 10: {beside_ten}, beside 1,000: {beside_thousand}");
    assert!(
        beside_thousand <= beside_ten + NOISE_CALLS,
        "beside 10 containers: {beside_ten} system calls, beside 1,000: {beside_thousand}"
    );
}

#[test]
fn bind_mounts_cost_the_same_each() {
    let scene = Scene::new("calls of many mounts");
    skip_unless!(
        scene,
        countable(),
        "it takes strace, root, and our own runtime"
    );
    let cost = |number: usize| {
        let source = scene.write("source", "x");
        let id = format!("with-{number}");
        let (create, _) = create_and_start(&scene, &id, |config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs"}));
            mounts.extend((0..number).map(|index| {
                json!({"destination": format!("/m/{index}"), "type": "bind", "source": source, "options": ["bind", "ro"]})
            }));
        });
        create
    };
    // The first makes the cgroup above all.
    let [_, none, half, whole] = [0, 0, 1000, 2000].map(cost);
    let each = (half - none).div_ceil(1000);
    println!("0 mounts: {none}, 1,000: {half}, 2,000: {whole} system calls");
    assert!(
        whole - half <= half - none + NOISE_CALLS,
        "1,000 bind mounts take {} system calls, 1,000 more {}",
        half - none,
        whole - half
    );
    assert!(
        each <= BIND_MOUNT_CALLS_MAX,
        "{each} calls for one bind mount"
    );
}

/// The calls of kill and of delete for a container with this many processes
/// beside its first.
fn end_of_many(scene: &Scene, processes: usize, change: impl FnOnce(&mut Value)) -> (usize, usize) {
    let script =
        format!("i=0; while [ $i -lt {processes} ]; do sleep 10000 & i=$((i+1)); done; wait");
    let container = Container::script(scene, "c", &script, change);
    container.run_detached();
    let procs = container.cgroup("pids").join("cgroup.procs");
    scene.wait_until("all processes", || {
        let text = std::fs::read_to_string(&procs).unwrap_or_default();
        text.lines().count() > processes
    });
    let members = std::fs::read_to_string(&procs).unwrap();
    let kill = calls_of(&container, &["kill", &container.id, "KILL"]);
    scene.wait_until("stopped", || container.status() == "stopped");
    let delete = calls_of(&container, &["delete", &container.id]);
    let members: Vec<_> = members.lines().collect();
    wait_for_reaper(scene, &members);
    println!("{processes} processes: kill {kill}, delete {delete}");
    (kill, delete)
}

#[test]
fn a_thousand_processes_end_with_their_first() {
    let scene = Scene::new("calls of kill and delete");
    skip_unless!(
        scene,
        countable(),
        "it takes strace, root, and our own runtime"
    );
    let (kill, delete) = end_of_many(&scene, 1000, |_| {});
    assert!(kill <= KILL_CALLS_MAX, "kill makes {kill} system calls");
    assert!(
        delete <= DELETE_CALLS_MAX,
        "delete makes {delete} system calls"
    );
}

#[test]
fn processes_without_a_pid_namespace_take_few_calls_each() {
    let scene = Scene::new("calls of kill and delete, host pids");
    skip_unless!(
        scene,
        countable(),
        "it takes strace, root, and our own runtime"
    );
    let processes = 20;
    let (kill, delete) = end_of_many(&scene, processes, |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let calls_max = KILL_CALLS_MAX + 3 * processes;
    assert!(kill <= calls_max, "kill makes {kill} system calls");
    assert!(
        delete <= DELETE_CALLS_MAX,
        "delete makes {delete} system calls"
    );
}

#[test]
fn the_runtime_has_one_thread() {
    let scene = Scene::new("threads");
    let container = Container::new(&scene, "c", &["/bin/true"], |_| {});
    container.create();
    let pid = container.state()["pid"].as_i64().unwrap();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .count();
    assert_eq!(tasks, 1, "init waits with {tasks} threads");
    let program = std::fs::read(format!("/proc/{pid}/exe")).unwrap();
    assert!(interpreter(&program).is_none(), "there is a dynamic loader");
}

/// The container may read, but not write, whatever it reaches of the runtime (CVE-2019-5736).
#[test]
fn init_waits_in_a_read_only_binary() {
    let scene = Scene::new("read-only binary");
    skip_unless!(scene, countable(), "runc 1.1 copies itself into memory");
    let container = Container::new(&scene, "c", &["/bin/true"], |_| {});
    container.create();
    let exe = format!("/proc/{}/exe", container.state()["pid"]);
    let flags = rustix::fs::statvfs(&exe).unwrap().f_flag;
    let read_only = flags.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    let in_memory = std::fs::read_link(&exe).unwrap().starts_with("/memfd:");
    assert!(read_only || in_memory, "{exe} could be written to");
}

/// The path in an ELF file's program header PT_INTERP (`elf(5)`), 64 bits.
fn interpreter(program: &[u8]) -> Option<usize> {
    let number = |at: usize, bytes: usize| {
        let field = &program[at..at + bytes];
        field
            .iter()
            .rev()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count)
        .map(|index| table + index * size)
        .find(|&at| number(at, 4) == 3)
}

#[test]
fn the_release_binary_is_small_and_static() {
    let scene = Scene::new("size of the release binary");
    let debug = binary("teu-runtime");
    let release: PathBuf = debug.with_file_name("../release/teu-runtime");
    let release = if release.is_file() { release } else { debug };
    skip_unless!(
        scene,
        release
            .parent()
            .is_some_and(|folder| folder.ends_with("release")),
        "there is no release build beside this one (make)"
    );
    let program = std::fs::read(&release).unwrap();
    println!("{} bytes", program.len());
    assert!(
        program.len() as u64 <= BINARY_BYTES_MAX,
        "{} bytes",
        program.len()
    );
    assert!(interpreter(&program).is_none(), "there is a dynamic loader");
}
