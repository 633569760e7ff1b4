//! Runtimes: `run` and `exec` of `true`, and create, start, delete.

use crate::measure::{Contender, Sample, in_turn, run, sum, version};
use crate::report::Table;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use teu_integration_tests::{Scene, binary};

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

/// Measures the three tasks with every runtime there is.
pub(crate) fn tables(rounds: usize) -> Vec<Table> {
    hide_cgroup2_controllers();
    let scene = Scene::new("bench runtime");
    let true_bundle = scene.bundle("true", &["/bin/true"], |_| {});
    let sleep_bundle = scene.bundle("sleep", &["/bin/sleep", "100000"], |config| {
        config["linux"]["cgroupsPath"] = json!(null);
    });
    let runtimes = runtimes(&scene);
    let tables = vec![
        run_true(&scene, &runtimes, &true_bundle, rounds),
        exec_true(&runtimes, &sleep_bundle, rounds),
        create_start_delete(&runtimes, &sleep_bundle, rounds),
    ];
    remove_own_cgroups(&scene);
    tables
}

/// crun 1.8 refuses hosts where cgroup v1 and v2 both have controllers. All
/// contenders run in one private mount namespace where those of v2 are hidden.
fn hide_cgroup2_controllers() {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if !unified.join("cgroup.controllers").exists() {
        return;
    }
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
    rustix::mount::mount(
        "none",
        unified,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .expect("hide cgroup2");
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
            root: scene.path(format!("state-{short}")),
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
    let cgroup = scene.cgroup().trim_start_matches('/').to_owned() + "-least";
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

fn create_start_delete(runtimes: &[Runtime], bundle: &Path, rounds: usize) -> Table {
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
    table(
        "create-start-delete",
        "create, start, delete --force",
        contenders,
        rounds,
    )
}

/// runc leaves the parents that it made, and crun files in place of the hidden hierarchy.
fn remove_own_cgroups(scene: &Scene) {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if !unified.join("cgroup.controllers").exists() {
        let _ = rustix::mount::unmount(unified, rustix::mount::UnmountFlags::DETACH);
    }
    let name = scene.cgroup().trim_start_matches('/').to_owned();
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup");
    for hierarchy in hierarchies.into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir(hierarchy.path().join(&name));
    }
}
