//! Builds: cold, unchanged, and with one small file changed.

use crate::measure::{Contender, Sample, in_turn, run, version};
use crate::report::Table;
use std::path::Path;
use std::process::Stdio;
use teu_integration_tests::{Scene, binary};

/// Small files of the context; 8 KiB each, 80 MB together.
const FILES: usize = 10_000;
/// The one large file of the context, bytes.
const LARGE_BYTES: usize = 100_000_000;

const DOCKERFILE: &str = "FROM base AS build\nWORKDIR /src\nCOPY . .\nRUN cat small/0/* | md5sum > /sum\nFROM base\nCOPY --from=build /sum /sum\nCOPY small /small\nCMD [\"cat\", \"/sum\"]\n";

/// What is different before each build of a task.
#[derive(Clone, Copy)]
enum Change {
    Cold,
    Nothing,
    OneFile,
}

/// Measures the three tasks with us and buildah.
pub(crate) fn tables(rounds: usize) -> Vec<Table> {
    let scene = Scene::on_host_network("bench build");
    let context = context(&scene);
    scene.busybox("base");
    let tar = scene.path("busybox.tar");
    scene
        .run(
            "buildah",
            buildah(&scene, &["from", "--name", "import", "scratch"]),
        )
        .succeeds();
    scene
        .run(
            "buildah",
            buildah(
                &scene,
                &["add", "-q", "import", &tar.display().to_string(), "/"],
            ),
        )
        .succeeds();
    scene
        .run(
            "buildah",
            buildah(&scene, &["commit", "-q", "--rm", "import", "base"]),
        )
        .succeeds();
    [
        (Change::Cold, "build-cold", "build without a cache"),
        (
            Change::Nothing,
            "build-unchanged",
            "build again, nothing changed",
        ),
        (
            Change::OneFile,
            "build-one-file",
            "build again, one small file changed",
        ),
    ]
    .into_iter()
    .map(|(change, name, title)| {
        let mut contenders = contenders(&scene, &context, change);
        let samples = in_turn(&mut contenders, rounds);
        let rows = contenders
            .into_iter()
            .map(|one| one.name)
            .zip(samples)
            .collect();
        Table {
            name: name.into(),
            title: format!(
                "{title} ({FILES} files, {} MB and one of {} MB)",
                FILES * 8192 / 1_000_000,
                LARGE_BYTES / 1_000_000
            ),
            rows,
        }
    })
    .collect()
}

fn contenders<'a>(scene: &'a Scene, context: &'a Path, change: Change) -> Vec<Contender<'a>> {
    let name = |program: &str| version(program).unwrap_or_else(|| program.to_owned());
    let teu = binary("teu-build").display().to_string();
    vec![
        Contender {
            name: name(&teu),
            task: Box::new(move |round| {
                prepare(context, change, round, "teu");
                let mut command = scene.command("teu-build", ["build", "-q", "-t", "bench"]);
                if matches!(change, Change::Cold) {
                    command.arg("--no-cache");
                }
                run(command.arg(context))
            }) as Box<dyn FnMut(usize) -> Sample>,
        },
        Contender {
            name: name("buildah"),
            task: Box::new(move |round| {
                prepare(context, change, round, "buildah");
                let mut command = scene.command(
                    "buildah",
                    buildah(
                        scene,
                        &[
                            "build",
                            "-q",
                            "--layers",
                            "--isolation",
                            "chroot",
                            "-t",
                            "bench",
                        ],
                    ),
                );
                if matches!(change, Change::Cold) {
                    command.arg("--no-cache");
                }
                run(command.arg(context).stderr(Stdio::null()))
            }),
        },
    ]
}

/// buildah's arguments with storage of the scene's own.
fn buildah(scene: &Scene, args: &[&str]) -> Vec<String> {
    let mut all = vec![
        "--root".into(),
        scene.path("buildah/root").display().to_string(),
        "--runroot".into(),
        scene.path("buildah/run").display().to_string(),
        "--storage-driver".into(),
        "overlay".into(),
    ];
    all.extend(args.iter().map(|&arg| arg.to_owned()));
    all
}

/// A cold build differs from all before only by `--no-cache`; one file gets new content each round.
fn prepare(context: &Path, change: Change, round: usize, who: &str) {
    if matches!(change, Change::OneFile) {
        std::fs::write(
            context.join("small/0/0"),
            format!(
                "changed for {who} in round {round}, {:?}",
                std::time::SystemTime::now()
            ),
        )
        .expect("change a file");
    }
}

fn context(scene: &Scene) -> std::path::PathBuf {
    let context = scene.path("context");
    let mut seed = 1_u64;
    let mut noise = |size: usize| -> Vec<u8> {
        (0..size / 8)
            .flat_map(|_| {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                seed.to_le_bytes()
            })
            .collect()
    };
    for number in 0..FILES {
        scene.write(
            format!("context/small/{}/{number}", number % 100),
            noise(8192),
        );
    }
    scene.write("context/large", noise(LARGE_BYTES));
    scene.write("context/Dockerfile", DOCKERFILE);
    context
}
