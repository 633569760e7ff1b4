//! What was asked of the builder: builds cold, unchanged, and with one small file changed, in turn
//! with its peers; large contexts, and Dockerfiles of many steps.

mod peers;

use crate::measure::{Contender, Sample, in_turn, median, run, version};
use crate::pull::{Registry, fresh};
use crate::report::{Goal, Table};
use jiff::Timestamp;
use peers::{BuildKit, Buildah};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use teu_integration_tests::{Scene, binary};

/// Small files of the context; 8 KiB each, 80 MB together.
const FILES: usize = 10_000;
/// Of the context that is to take ten times as long.
const MANY_FILES: usize = 10 * FILES;
/// The one large file of the context, bytes.
const LARGE_BYTES: usize = 100_000_000;
/// Of the Dockerfile that is only planned.
const STEPS: usize = 500;
/// How often short commands are measured.
const SHORT_ROUNDS: usize = 20;

const NAMED: [&str; 2] = ["-t", "bench"];

const DOCKERFILE: &str = "FROM base AS build\nWORKDIR /src\nCOPY . .\nRUN cat small/0/* | md5sum > /sum\nFROM base\nCOPY --from=build /sum /sum\nCOPY small /small\nCMD [\"cat\", \"/sum\"]\n";

/// What is different before each build of a task.
#[derive(Clone, Copy)]
enum Change {
    Cold,
    Nothing,
    OneFile,
}

impl Change {
    const ALL: [Self; 3] = [Self::Cold, Self::Nothing, Self::OneFile];

    fn name(self) -> &'static str {
        match self {
            Self::Cold => "build-cold",
            Self::Nothing => "build-unchanged",
            Self::OneFile => "build-one-file",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Cold => "build without a cache",
            Self::Nothing => "build again, nothing changed",
            Self::OneFile => "build again, one small file changed",
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Cold => &["--no-cache"],
            Self::Nothing | Self::OneFile => &[],
        }
    }

    /// What it may take beyond the time of its RUN steps, seconds.
    fn limit(self) -> f64 {
        match self {
            Self::Cold => 1.2,
            Self::Nothing => 0.04,
            Self::OneFile => 0.6,
        }
    }

    /// A cold build differs from all before only by its flag; one file gets new content each time.
    fn prepare(self, context: &Path) {
        if matches!(self, Self::OneFile) {
            let content = format!("changed at {:?}", std::time::SystemTime::now());
            std::fs::write(context.join("small/0/0"), content).expect("change a file");
        }
    }
}

/// Measures all; the tables of comparisons, and the goals.
pub(crate) fn measure(rounds: usize) -> (Vec<Table>, Vec<Goal>) {
    let scene = Scene::new("bench build");
    scene.busybox("base");
    let registry = Registry::start(&scene);
    let mut bench = Bench {
        scene: &scene,
        goals: Vec::new(),
    };
    let context = bench.context("context", FILES, LARGE_BYTES, DOCKERFILE);
    let (buildah, buildkit) = (Buildah::new(&scene), BuildKit::new(&scene));
    let tables = Change::ALL
        .map(|change| bench.compare(change, &context, &buildah, buildkit.as_ref(), rounds))
        .into();
    bench.export(&context, &registry);
    bench.large_contexts(rounds);
    bench.many_steps();
    (tables, bench.goals)
}

struct Bench<'a> {
    scene: &'a Scene,
    goals: Vec<Goal>,
}

impl Bench<'_> {
    fn goal(&mut self, what: impl Into<String>, is: f64, at_most: impl Into<Option<f64>>) {
        self.goals.push(Goal::new(what, is, at_most));
    }

    /// One way of building, with all builders.
    fn compare(
        &mut self,
        change: Change,
        context: &Path,
        buildah: &Buildah<'_>,
        buildkit: Option<&BuildKit<'_>>,
        rounds: usize,
    ) -> Table {
        let name = |program: &str| version(program).unwrap_or_else(|| program.to_owned());
        let spent_in_run = RefCell::new(Vec::new());
        let bench = &*self;
        let mut contenders = vec![
            Contender {
                name: name(&binary("teu-build").display().to_string()),
                task: Box::new(|_| {
                    change.prepare(context);
                    let (sample, running) =
                        bench.build(context, &[change.flags(), &NAMED].concat());
                    spent_in_run.borrow_mut().push(running);
                    sample
                }),
            },
            Contender {
                name: name("buildah"),
                task: Box::new(|_| {
                    change.prepare(context);
                    buildah.build(context, change.flags())
                }),
            },
        ];
        if let Some(buildkit) = buildkit {
            contenders.push(Contender {
                name: format!("BuildKit in {}", name("dockerd")),
                task: Box::new(|_| {
                    change.prepare(context);
                    buildkit.build(context, change.flags())
                }),
            });
        }
        let samples = in_turn(&mut contenders, rounds);
        let names = contenders.into_iter().map(|one| one.name);
        let table = Table {
            name: change.name().into(),
            title: format!(
                "{} ({FILES} files, {} MB and one of {} MB)",
                change.title(),
                FILES * 8192 / 1_000_000,
                LARGE_BYTES / 1_000_000
            ),
            rows: names.zip(samples).collect(),
        };
        // As of the samples, the first round only warms.
        let running: Vec<Duration> = spent_in_run.into_inner().into_iter().skip(1).collect();
        self.goals_of(change, &table, &running);
        table
    }

    fn goals_of(&mut self, change: Change, table: &Table, running: &[Duration]) {
        let ours = &table.rows[0].1;
        let beyond: Vec<Sample> = ours
            .iter()
            .zip(running)
            .map(|(sample, running)| Sample {
                wall: sample.wall.saturating_sub(*running),
                ..*sample
            })
            .collect();
        let seconds = Table::wall_ms(&beyond) / 1e3;
        let what = format!("{}, beyond its RUN steps, s", change.title());
        self.goal(what, seconds, change.limit());
        let whole = Table::wall_ms(ours) / 1e3;
        self.goal("the same, RUN steps, s", whole - seconds, None);
        self.goal("the same, peak MB", peak_mb(ours), 100.0);
    }

    /// Builds once with us: what it took, and the time that RUN steps took of it.
    fn build(&self, context: &Path, flags: &[&str]) -> (Sample, Duration) {
        let log = self.scene.path("build.log");
        let file = File::create(&log).expect("make the log of a build");
        let words = ["build", "--progress", "rawjson"];
        let mut command = self.scene.command("teu-build", words);
        let sample = run(command.args(flags).arg(context).stderr(file));
        (sample, run_steps(&log))
    }

    /// What pushing adds to a build of which nothing has changed.
    fn export(&mut self, context: &Path, registry: &Registry) {
        let name = format!("127.0.0.1:{}/exported:latest", registry.port);
        let (named, push) = (["-t", name.as_str()], ["--push", "-t", name.as_str()]);
        self.build(context, &push);
        let (mut plain, mut pushed) = (Vec::new(), Vec::new());
        for _ in 0..SHORT_ROUNDS {
            plain.push(self.build(context, &named).0);
            pushed.push(self.build(context, &push).0);
        }
        let added = Table::wall_ms(&pushed) - Table::wall_ms(&plain);
        self.goal("push of an image that is there, ms", added, 50.0);
    }

    /// Ten times the files are to take ten times as long.
    fn large_contexts(&mut self, rounds: usize) {
        const COPY: &str = "FROM scratch\nCOPY small /small\n";
        let contexts = [FILES, MANY_FILES]
            .map(|count| self.context(&format!("context-{count}"), count, 0, COPY));
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (context, samples) in contexts.iter().zip(&mut samples) {
                samples.push(self.build(context, &["--no-cache", "-t", "large"]).0);
            }
        }
        let [few, many] = samples;
        let cpu = |samples: &[Sample]| median(samples, |sample| sample.cpu.as_secs_f64());
        let what = format!("CPU s a file, {MANY_FILES} files over {FILES}");
        self.goal(what, cpu(&many) / cpu(&few) / 10.0, 1.2);
        self.goal("the same, peak MB", peak_mb(&many), 100.0);
    }

    fn many_steps(&mut self) {
        let folder = fresh(self.scene, "steps");
        let steps: String = (0..STEPS)
            .map(|step| format!("RUN echo {step}\n"))
            .collect();
        std::fs::write(folder.join("Dockerfile"), format!("FROM base\n{steps}"))
            .expect("write a long Dockerfile");
        let samples: Vec<Sample> = (0..SHORT_ROUNDS)
            .map(|_| run(self.scene.command("teu-build", ["plan"]).arg(&folder)))
            .collect();
        let what = format!("plan of a Dockerfile of {STEPS} steps, ms");
        self.goal(what, Table::wall_ms(&samples), 10.0);
    }

    /// A context of noise.
    fn context(&self, name: &str, files: usize, large: usize, dockerfile: &str) -> PathBuf {
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
        for number in 0..files {
            let file = format!("{name}/small/{}/{number}", number % 100);
            self.scene.write(file, noise(8192));
        }
        if large > 0 {
            self.scene.write(format!("{name}/large"), noise(large));
        }
        self.scene.write(format!("{name}/Dockerfile"), dockerfile);
        self.scene.path(name)
    }
}

fn peak_mb(samples: &[Sample]) -> f64 {
    median(samples, |sample| sample.peak_kib as f64 * 1024.0 / 1e6)
}

/// How long the RUN steps of a build took together, of its progress in JSON lines.
fn run_steps(log: &Path) -> Duration {
    let text = std::fs::read_to_string(log).expect("read the log of a build");
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut took: HashMap<String, Duration> = HashMap::new();
    for line in lines {
        for vertex in line["vertexes"].as_array().into_iter().flatten() {
            let time = |field: &str| vertex[field].as_str()?.parse::<Timestamp>().ok();
            let is_run = vertex["name"]
                .as_str()
                .is_some_and(|name| name.contains("] RUN "));
            if let (true, Some(begin), Some(end)) = (is_run, time("started"), time("completed")) {
                let spent = end.duration_since(begin).unsigned_abs();
                took.insert(vertex["digest"].to_string(), spent);
            }
        }
    }
    took.values().sum()
}
