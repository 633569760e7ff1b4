//! Runtimes: `run` and `exec` of `true`, and create, start, delete; then the
//! same where there is much of something: containers, mounts, processes.

use crate::measure::{Contender, Sample, in_turn, run, sum, version};
use crate::report::Table;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use teu_integration_tests::{Scene, binary};

/// Containers that others have.
const OTHERS: usize = 1000;
/// Bind mounts in one configuration; crun 1.8 keeps a descriptor open for each,
/// of which it may have 1,024.
const MOUNTS: usize = 500;
/// Processes in one container.
const PROCESSES: usize = 1000;
/// Rounds of what takes a second and more.
const SLOW_ROUNDS: usize = 5;

/// A runtime under measurement.
struct Runtime {
    name: String,
    /// Short name, for the ids of its containers: without a cgroup path in the
    /// bundle, the id names the cgroup, which two runtimes must not share.
    short: &'static str,
    program: PathBuf,
    root: PathBuf,
}

impl Runtime {
    /// `RUNTIME --root ROOT VERB... bench-<short> PROGRAM...`
    fn command(&self, verb: &[&str], program: &[&str], bundle: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(verb);
        command.arg(format!("bench-{}", self.short)).args(program);
        command.current_dir(bundle);
        command
    }
}

/// Measures the tasks with every runtime there is.
pub(crate) fn tables(rounds: usize) -> Vec<Table> {
    enter_own_mounts();
    hide_cgroup2_controllers();
    let scene = Scene::new("bench runtime");
    mount_states(&scene);
    let true_bundle = scene.bundle("true", &["/bin/true"], |_| {});
    let sleep_bundle = scene.bundle("sleep", &["/bin/sleep", "100000"], |config| {
        config["linux"]["cgroupsPath"] = json!(null);
    });
    let runtimes = runtimes(&scene);
    let (name, title) = ("create-start-delete", "create, start, delete --force");
    let mut tables = vec![
        run_true(&scene, &runtimes, &true_bundle, rounds),
        exec_true(&runtimes, &sleep_bundle, rounds),
        create_start_delete((name, title), &runtimes, &sleep_bundle, rounds),
    ];
    let slow_rounds = rounds.min(SLOW_ROUNDS);
    tables.push(run_with_mounts(&scene, &runtimes, slow_rounds));
    tables.push(delete_processes(&scene, &runtimes, slow_rounds));
    let title = format!("{title}, beside {OTHERS} containers");
    let name = "create-start-delete-beside-others";
    for runtime in &runtimes {
        for number in 0..OTHERS {
            let other = runtime.root.join(format!("other-{number}"));
            std::fs::create_dir(other).expect("make a state folder");
        }
    }
    tables.push(create_start_delete(
        (name, &title),
        &runtimes,
        &sleep_bundle,
        rounds,
    ));
    unmount_states(&scene);
    remove_own_cgroups(&scene);
    tables
}

/// All contenders run in one private mount namespace.
fn enter_own_mounts() {
    #[allow(
        unsafe_code,
        reason = "rustix marks unshare unsafe for flags that are not used here"
    )]
    // SAFETY: CLONE_NEWNS does not unshare the descriptor table.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
        .expect("unshare the mount namespace (the benchmarks run as root)");
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::REC | rustix::mount::MountPropagationFlags::PRIVATE,
    )
    .expect("make / private");
}

fn mount_tmpfs(place: &Path) {
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", place, "tmpfs", flags, None).expect("mount a tmpfs");
}

/// crun 1.8 refuses hosts where cgroup v1 and v2 both have controllers.
fn hide_cgroup2_controllers() {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.join("cgroup.controllers").exists() {
        mount_tmpfs(unified);
    }
}

/// States live in memory, as below /run on any host: on a disk its file system
/// would be measured.
fn mount_states(scene: &Scene) {
    std::fs::create_dir(scene.path("states")).expect("make a folder");
    mount_tmpfs(&scene.path("states"));
}

fn unmount_states(scene: &Scene) {
    let flags = rustix::mount::UnmountFlags::DETACH;
    rustix::mount::unmount(scene.path("states"), flags).expect("unmount the states");
}

fn runtimes(scene: &Scene) -> Vec<Runtime> {
    let named = |variable: &str, default: &str| {
        std::env::var(variable).unwrap_or_else(|_| default.to_owned())
    };
    let ours = binary("teu-runtime").display().to_string();
    [
        ("teu", ours),
        ("crun", named("CRUN", "crun")),
        ("runc", named("RUNC", "runc")),
        ("youki", named("YOUKI", "youki")),
    ]
    .into_iter()
    .filter_map(|(short, program)| {
        let Some(version) = version(&program) else {
            println!("{short}: no {program} here, left out");
            return None;
        };
        Some(Runtime {
            name: version,
            short,
            program: program.into(),
            root: scene.path(format!("states/{short}")),
        })
    })
    .collect()
}

fn table(name: &str, title: &str, mut contenders: Vec<Contender<'_>>, rounds: usize) -> Table {
    let samples = in_turn(&mut contenders, rounds);
    Table {
        name: name.into(),
        title: title.into(),
        rows: contenders
            .into_iter()
            .map(|one| one.name)
            .zip(samples)
            .collect(),
    }
}

fn run_true(scene: &Scene, runtimes: &[Runtime], bundle: &Path, rounds: usize) -> Table {
    let mut contenders: Vec<Contender<'_>> = runtimes
        .iter()
        .map(|runtime| Contender {
            name: runtime.name.clone(),
            task: Box::new(move |_| run(&mut runtime.command(&["run"], &[], bundle))),
        })
        .collect();
    let rootfs = bundle.join("rootfs");
    let cgroup = scene.mark().to_owned() + "-least";
    contenders.push(Contender {
        name: "the least work".into(),
        task: Box::new(move |_| {
            run(Command::new(binary("least-work"))
                .arg(&rootfs)
                .arg(&cgroup)
                .arg("/bin/true"))
        }),
    });
    table("run-true", "run of `true`", contenders, rounds)
}

fn exec_true(runtimes: &[Runtime], bundle: &Path, rounds: usize) -> Table {
    for runtime in runtimes {
        let mut command = runtime.command(&["run", "--detach"], &[], bundle);
        run(command.stderr(std::process::Stdio::null()));
    }
    let contenders = runtimes
        .iter()
        .map(|runtime| Contender {
            name: runtime.name.clone(),
            task: Box::new(move |_| run(&mut runtime.command(&["exec"], &["/bin/true"], bundle)))
                as Box<dyn FnMut(usize) -> Sample>,
        })
        .collect();
    let table = table("exec-true", "exec of `true`", contenders, rounds);
    for runtime in runtimes {
        run(&mut runtime.command(&["delete", "--force"], &[], bundle));
    }
    table
}

fn run_with_mounts(scene: &Scene, runtimes: &[Runtime], rounds: usize) -> Table {
    let source = scene.write("source", "x");
    let bundle = scene.bundle("mounts", &["/bin/true"], |config| {
        let mounts = config["mounts"].as_array_mut().expect("a list of mounts");
        mounts.push(json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs"}));
        mounts.extend((0..MOUNTS).map(|number| {
            json!({"destination": format!("/m/{number}"), "type": "bind", "source": source, "options": ["bind", "ro"]})
        }));
    });
    let bundle = bundle.as_path();
    let contenders = runtimes
        .iter()
        .map(|runtime| Contender {
            name: runtime.name.clone(),
            task: Box::new(move |_| run(&mut runtime.command(&["run"], &[], bundle)))
                as Box<dyn FnMut(usize) -> Sample>,
        })
        .collect();
    let title = format!("run of `true` with {MOUNTS} bind mounts");
    table("run-mounts", &title, contenders, rounds)
}

fn delete_processes(scene: &Scene, runtimes: &[Runtime], rounds: usize) -> Table {
    let ready = scene.path("ready");
    std::fs::create_dir(&ready).expect("make a folder");
    let script = format!(
        "i=0; while [ $i -lt {PROCESSES} ]; do sleep 10000 & i=$((i+1)); done; touch /ready/all; wait"
    );
    let bundle = scene.bundle("processes", &["/bin/sh", "-c", &script], |config| {
        config["linux"]["cgroupsPath"] = json!(null);
        let mounts = config["mounts"].as_array_mut().expect("a list of mounts");
        mounts.push(json!({"destination": "/ready", "type": "bind", "source": ready, "options": ["bind", "rw"]}));
    });
    let (bundle, all) = (bundle.as_path(), ready.join("all"));
    let contenders = runtimes
        .iter()
        .map(|runtime| {
            let all = all.clone();
            let task = move |_| {
                let mut command = runtime.command(&["run", "--detach"], &[], bundle);
                run(command.stderr(std::process::Stdio::null()));
                scene.wait_until("all processes", || std::fs::remove_file(&all).is_ok());
                run(&mut runtime.command(&["delete", "--force"], &[], bundle))
            };
            Contender {
                name: runtime.name.clone(),
                task: Box::new(task) as Box<dyn FnMut(usize) -> Sample>,
            }
        })
        .collect();
    let title = format!("delete --force of {PROCESSES} processes");
    table("delete-processes", &title, contenders, rounds)
}

fn create_start_delete(
    (name, title): (&str, &str),
    runtimes: &[Runtime],
    bundle: &Path,
    rounds: usize,
) -> Table {
    let verbs: [&[&str]; 3] = [&["create"], &["start"], &["delete", "--force"]];
    let contenders = runtimes
        .iter()
        .map(|runtime| Contender {
            name: runtime.name.clone(),
            task: Box::new(move |_| {
                sum(verbs
                    .iter()
                    .map(|verb| run(&mut runtime.command(verb, &[], bundle))))
            }) as Box<dyn FnMut(usize) -> Sample>,
        })
        .collect();
    table(name, title, contenders, rounds)
}

/// runc leaves the parents that it made, and crun files in place of the hidden hierarchy.
fn remove_own_cgroups(scene: &Scene) {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if !unified.join("cgroup.controllers").exists() {
        let _ = rustix::mount::unmount(unified, rustix::mount::UnmountFlags::DETACH);
    }
    let name = scene.mark().to_owned();
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup");
    for hierarchy in hierarchies.into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir(hierarchy.path().join(&name));
    }
}
