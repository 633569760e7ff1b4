//! What was asked of the store: each figure beside its limit, and what it is compared with, in one run.
//!
//! The layer is a Debian with python3, perl, git and a compiler, made once by mmdebstrap and kept in
//! `$XDG_CACHE_HOME/teu-bench`; without package servers a tar of as many files of random words stands in.

mod page_cache;

use crate::measure::{Contender, Sample, in_turn, median, run, sum};
use crate::pull::{Registry, fresh, layer};
use crate::report::{Goal, Table};
use std::path::{Path, PathBuf};
use std::process::Command;
use teu_integration_tests::{Scene, binary};

/// Makes layouts, stores of many blobs, and files cold.
const FIXTURE: &str = include_str!("fixture.py");
/// Blobs and names of the store that is collected and listed.
const IMAGES: usize = 10_000;
const LAYERS: usize = 8;
const NAMES: usize = 10_000;
/// How often short commands are measured.
const SHORT_ROUNDS: usize = 20;
/// How often all files are read: a disk that others use, too, is what varies most.
const READ_ROUNDS: usize = 5;

/// Where everything lies.
struct Bench {
    /// Ends before the scene, which looks for what was left behind.
    registry: Registry,
    scene: Scene,
    tar: PathBuf,
    goals: Vec<Goal>,
}

/// Measures all; the tables of comparisons, and the goals.
pub(crate) fn measure(rounds: usize) -> (Vec<Table>, Vec<Goal>) {
    let scene = Scene::new("bench store");
    scene.write("fixture.py", FIXTURE);
    let tar = debian(&scene);
    let registry = Registry::start(&scene);
    let mut bench = Bench {
        scene,
        registry,
        tar,
        goals: Vec::new(),
    };
    let mut tables = Vec::new();
    for (packing, cpu) in [("gz", 2.5), ("zst", 1.4)] {
        tables.push(bench.pull(packing, cpu, rounds));
    }
    bench.pull_again();
    bench.shared_layers();
    bench.mounts();
    tables.push(bench.unpack(rounds));
    tables.push(bench.read(rounds.max(READ_ROUNDS)));
    bench.page_cache();
    tables.push(bench.push(rounds));
    bench.many_blobs();
    (tables, bench.goals)
}

/// The layer's tar, kept for the next time.
fn debian(scene: &Scene) -> PathBuf {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or(home);
    let folder = cache.unwrap_or_else(std::env::temp_dir).join("teu-bench");
    let tar = folder.join("debian.tar");
    if !tar.exists() {
        std::fs::create_dir_all(&folder).expect("make the cache folder");
        let made = Command::new("mmdebstrap")
            .args([
                "--quiet",
                "--variant=minbase",
                "--include=python3,perl,git,build-essential",
            ])
            .arg("bookworm")
            .arg(folder.join("unfinished.tar"))
            .status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("no Debian (mmdebstrap failed): a tar of random words stands in");
            return layer(scene);
        }
        std::fs::rename(folder.join("unfinished.tar"), &tar).expect("name the cached tar");
    }
    for pack in ["gzip -6 -k", "zstd -q -3"] {
        let suffix = if pack.starts_with('g') { "gz" } else { "zst" };
        if !tar.with_extension(format!("tar.{suffix}")).exists() {
            scene.shell(&format!("{pack} {}", tar.display()));
        }
    }
    tar
}

fn contender<'a>(name: &str, task: Box<dyn FnMut(usize) -> Sample + 'a>) -> Contender<'a> {
    Contender {
        name: name.to_owned(),
        task,
    }
}

fn compare(name: &str, title: &str, contenders: &mut [Contender<'_>], rounds: usize) -> Table {
    let samples = in_turn(contenders, rounds);
    let names = contenders.iter().map(|one| one.name.clone());
    Table {
        name: name.to_owned(),
        title: title.to_owned(),
        rows: names.zip(samples).collect(),
    }
}

fn cpu_ms(samples: &[Sample]) -> f64 {
    median(samples, |sample| sample.cpu.as_secs_f64() * 1e3)
}

fn mebibytes(samples: &[Sample]) -> f64 {
    median(samples, |sample| sample.peak_kib as f64 / 1024.0)
}

impl Bench {
    fn goal(&mut self, what: impl Into<String>, is: f64, at_most: impl Into<Option<f64>>) {
        self.goals.push(Goal::new(what, is, at_most));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.path(name)
    }

    fn fixture(&self, arguments: &[&str]) {
        run(&mut self.python(arguments));
    }

    fn python(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("python3");
        command.arg(self.path("fixture.py")).args(arguments);
        command
    }

    /// A command on a store of this benchmark.
    fn teu(&self, store: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("teu-store"));
        command.arg("--root").arg(store).args(arguments);
        command
    }

    fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}:latest", self.registry.port)
    }

    /// Puts the image of `layers` (tar and blob in turn) into the registry as it is; its name there.
    fn publish(&self, image: &str, fixture: &str, arguments: &[&str]) -> String {
        let folder = self.path(&format!("layout-{image}"));
        let text = folder.display().to_string();
        self.fixture(&[&[fixture, &text], arguments].concat());
        let name = self.name(image);
        self.scene.shell(&format!(
            "skopeo copy -q --dest-tls-verify=false oci:{text}:bench docker://{name}"
        ));
        name
    }

    fn packed(&self, packing: &str) -> PathBuf {
        self.tar.with_extension(format!("tar.{packing}"))
    }

    fn pull(&mut self, packing: &str, cpu: f64, rounds: usize) -> Table {
        let (tar, blob) = (self.tar.clone(), self.packed(packing));
        let (tar_text, blob_text) = (tar.display().to_string(), blob.display().to_string());
        let name = self.publish(packing, "layout", &[&tar_text, &blob_text]);
        let request = self
            .scene
            .write("request.json", r#"{"args": ["/bin/true"]}"#);
        let request = request.display().to_string();
        let bench = &*self;
        let mut contenders = [
            Contender {
                name: "teu-store pull, mounted".into(),
                task: Box::new(|_| {
                    let store = fresh(&bench.scene, "pull-store");
                    let bundle = fresh(&bench.scene, "pull-bundle");
                    let pulled = run(&mut bench.teu(&store, &["pull", "-q", &name]));
                    let create = [
                        "bundle",
                        "create",
                        "--id",
                        "b",
                        "--request",
                        &request,
                        &name,
                    ];
                    let mounted = run(bench.teu(&store, &create).arg(bundle));
                    run(&mut bench.teu(&store, &["bundle", "release", "b"]));
                    sum([pulled, mounted])
                }),
            },
            Contender {
                name: "copy of blob and tar, with fsync".into(),
                task: Box::new(|_| {
                    let folder = fresh(&bench.scene, "pull-copy");
                    let copy = |from: &Path, to: &str| {
                        let mut dd = Command::new("dd");
                        dd.arg(format!("if={}", from.display()));
                        dd.arg(format!("of={}", folder.join(to).display()));
                        run(dd.args(["bs=1M", "conv=fsync", "status=none"]))
                    };
                    sum([copy(&blob, "blob"), copy(&tar, "tar")])
                }),
            },
        ];
        let title = format!("pull to mounted root filesystem, .{packing}");
        let table = compare(
            &format!("store-pull-{packing}"),
            &title,
            &mut contenders,
            rounds,
        );
        drop(contenders);
        let ours = &table.rows[0].1;
        let spent = median(ours, |sample| sample.cpu.as_secs_f64());
        let (wall, peak) = (table.ratio(0, 1), mebibytes(ours));
        self.goal(format!("pull of a .{packing} layer, CPU s"), spent, cpu);
        self.goal("the same, wall time over a copy with fsync", wall, 1.3);
        self.goal("the same, peak MiB", peak, 64.0);
        table
    }

    /// The store that the last pull left has the image.
    fn pull_again(&mut self) {
        let (store, name) = (self.path("pull-store"), self.name("zst"));
        let samples: Vec<Sample> = (0..SHORT_ROUNDS)
            .map(|_| run(&mut self.teu(&store, &["pull", "-q", &name])))
            .collect();
        self.goal(
            "pull of a present image, ms",
            Table::wall_ms(&samples),
            20.0,
        );
    }

    fn shared_layers(&mut self) {
        let (tar, blob) = (
            self.tar.display().to_string(),
            self.packed("zst").display().to_string(),
        );
        self.scene.shell("mkdir small && date > small/new && tar -cf small.tar -C small new && gzip -k small.tar");
        let small = self.path("small.tar").display().to_string();
        let packed = format!("{small}.gz");
        let name = self.publish("second", "layout", &[&tar, &blob, &small, &packed]);
        let store = self.path("pull-store");
        let sample = run(&mut self.teu(&store, &["pull", "-q", &name]));
        self.goal(
            "pull of a second image on that layer, CPU s",
            sample.cpu.as_secs_f64(),
            0.1,
        );
    }

    fn mounts(&mut self) {
        let name = self.publish("deep", "tiny", &["128"]);
        let store = fresh(&self.scene, "deep-store");
        run(&mut self.teu(&store, &["pull", "-q", &name]));
        let mount = |bench: &Bench, at: &str| {
            let folder = fresh(&bench.scene, at);
            run(bench.teu(&store, &["mount", &name]).arg(folder))
        };
        let unmount = |bench: &Bench, at: &str| {
            run(bench.teu(&store, &["umount"]).arg(bench.path(at)));
        };
        let first = mount(self, "deep-first");

        let samples: Vec<Sample> = (0..SHORT_ROUNDS)
            .map(|_| {
                let sample = mount(self, "deep-again");
                unmount(self, "deep-again");
                sample
            })
            .collect();
        unmount(self, "deep-first");
        run(&mut self.teu(&store, &["gc"]));
        self.goal(
            "mount of an image of 128 layers, its layers in use, ms",
            Table::wall_ms(&samples),
            3.0,
        );
        self.goal("the same, CPU ms", cpu_ms(&samples), None);
        self.goal(
            "the same, its layers used for the first time, ms",
            Table::wall_ms(&[first]),
            None,
        );
    }

    fn unpack(&mut self, rounds: usize) -> Table {
        let (store, name) = (self.path("pull-store"), self.name("zst"));
        let bench = &*self;
        let mut contenders = [
            Contender {
                name: "teu-store unpack".into(),
                task: Box::new(|_| {
                    let bundle = fresh(&bench.scene, "unpack-teu");
                    run(bench.teu(&store, &["unpack", &name]).arg(bundle))
                }),
            },
            Contender {
                name: "tar x of the plain tar".into(),
                task: Box::new(|_| {
                    let root = fresh(&bench.scene, "unpack-tar");
                    let mut tar = Command::new("tar");
                    run(tar.arg("-xpf").arg(&bench.tar).arg("-C").arg(root))
                }),
            },
        ];
        let table = compare(
            "store-unpack",
            "unpack a root filesystem",
            &mut contenders,
            rounds,
        );
        drop(contenders);
        self.goal("unpack over tar x, wall time", table.ratio(0, 1), 1.0);
        table
    }

    /// Reads what the benchmark before has unpacked, and the same through a view.
    fn read(&mut self, rounds: usize) -> Table {
        let (store, name) = (self.path("pull-store"), self.name("zst"));
        let (view, unpacked) = (fresh(&self.scene, "view"), self.path("unpack-teu/rootfs"));
        let bench = &*self;
        let read = |folder: &Path| {
            let script = format!("tar -cf - -C {} . | cat > /dev/null", folder.display());
            run(Command::new("sh").args(["-c", &script]))
        };
        let sources = ["index", "tars"].map(|folder| store.join(folder).display().to_string());
        let through_view = |before: &dyn Fn()| {
            // A new mount has nothing in the page cache; what it is a view of may have.
            run(&mut bench.teu(&store, &["gc"]));
            bench.fixture(&["cold-content", &sources[0], &sources[1]]);
            run(bench.teu(&store, &["mount", &name]).arg(&view));
            before();
            let sample = read(&view);
            run(bench.teu(&store, &["umount"]).arg(&view));
            sample
        };
        let from_ext4 = |before: &dyn Fn()| {
            before();
            read(&unpacked)
        };
        let cold = || bench.fixture(&["cold"]);
        let forget_content = || bench.fixture(&["cold-content", &unpacked.display().to_string()]);
        let mut contenders = [
            contender("EROFS view, cold", Box::new(|_| through_view(&cold))),
            contender("ext4, cold", Box::new(|_| from_ext4(&cold))),
            contender(
                "EROFS view, warm",
                Box::new(|_| {
                    through_view(&|| {
                        read(&view);
                    })
                }),
            ),
            contender(
                "ext4, warm",
                Box::new(|_| {
                    from_ext4(&|| {
                        read(&unpacked);
                    })
                }),
            ),
            contender(
                "EROFS view, mounted anew",
                Box::new(|_| through_view(&|| ())),
            ),
            contender(
                "ext4, its content cold",
                Box::new(|_| from_ext4(&forget_content)),
            ),
        ];
        let table = compare("store-read", "read every file", &mut contenders, rounds);
        drop(contenders);
        let what = "reading through a view over ext4, wall time";
        self.goal(format!("{what}, cold"), table.ratio(0, 1), 1.0);
        self.goal(format!("{what}, warm"), table.ratio(2, 3), 1.0);
        let what = "reading through a new view over ext4 that has all names and inodes, wall time";
        self.goal(what, table.ratio(4, 5), None);
        table
    }

    /// The tar with one file more: no registry and no cache of podman's has met it.
    fn changed(&self, round: &str) -> String {
        let tar = self.path("changed.tar").display().to_string();
        self.scene.shell(&format!(
            "cp {} {tar} && echo {round} $(date +%s%N) > stamp && tar -rf {tar} stamp",
            self.tar.display()
        ));
        tar
    }

    /// Each push packs anew, and brings what the registry has not.
    fn push(&mut self, rounds: usize) -> Table {
        let bench = &*self;
        let podman = |arguments: &[&str]| {
            let mut command = Command::new("podman");
            command.arg("--root").arg(bench.path("push-podman"));
            command.arg("--runroot").arg(bench.path("push-podman-run"));
            command.args(["--storage-driver", "vfs"]).args(arguments);
            command.stderr(std::process::Stdio::null());
            command
        };
        let teu = |packing: &str, round: usize| {
            let store = fresh(&bench.scene, "push-store");
            let name = bench.name(&format!("pushed-by-teu-{packing}-{round}"));
            let tar = bench.changed(packing);
            run(&mut bench.teu(&store, &["import", "-q", &tar, &name]));
            run(&mut bench.teu(&store, &["push", "-q", "--compression", packing, &name]))
        };
        let mut contenders = [
            contender("teu-store push", Box::new(|round| teu("gzip", round))),
            contender(
                "teu-store push --compression zstd",
                Box::new(|round| teu("zstd", round)),
            ),
            Contender {
                name: "podman push".into(),
                task: Box::new(|round| {
                    let tar = bench.changed("podman");
                    run(&mut podman(&["import", "-q", &tar, "bench"]));
                    let name = bench.name(&format!("pushed-by-podman-{round}"));
                    run(&mut podman(&[
                        "push",
                        "-q",
                        "--tls-verify=false",
                        "bench",
                        &name,
                    ]))
                }),
            },
        ];
        let title = "push a layer that was made here";
        let table = compare("store-push", title, &mut contenders, rounds);
        drop(contenders);
        let what = "push of a layer made here over podman's, wall time";
        self.goal(format!("{what}, zstd"), table.ratio(1, 2), 0.33);
        self.goal(format!("{what}, gzip"), table.ratio(0, 2), None);
        table
    }

    fn many_blobs(&mut self) {
        let store = self.many(IMAGES);
        let list = self.short(&store, &["images"]);
        let what = format!("images over {NAMES} references, ms");
        self.goal(what, Table::wall_ms(&list), 100.0);
        self.goal("the same, CPU ms", cpu_ms(&list), None);
        self.goal("the same, peak MiB", mebibytes(&list), 64.0);
        let blobs = IMAGES * (LAYERS + 2);
        let mark = self.short(&store, &["gc"]);
        let what = format!("gc over {blobs} blobs, nothing to remove, s");
        self.goal(what, Table::wall_ms(&mark) / 1e3, 0.3);
        self.goal("the same, CPU s", cpu_ms(&mark) / 1e3, None);
        self.goal("the same, peak MiB", mebibytes(&mark), 64.0);
        self.fixture(&["forget", &store.display().to_string()]);
        let list = self.short(&store, &["images"]);
        let what = format!("images over {NAMES} references of an older store, ms");
        self.goal(what, Table::wall_ms(&list), None);
        let references = store.join("refs").display().to_string();
        self.scene
            .shell(&format!("find {references} -type f -delete"));
        let sweep = run(&mut self.teu(&store, &["gc"]));
        let what = format!("gc that unlinks all {blobs}, s");
        self.goal(what, sweep.wall.as_secs_f64(), None);
    }

    /// A store of so many images, and [`NAMES`] names of them.
    fn many(&self, images: usize) -> PathBuf {
        let store = fresh(&self.scene, &format!("many-{images}"));
        run(&mut self.teu(&store, &["images"]));
        let text = store.display().to_string();
        let counts = [images, LAYERS, NAMES].map(|count| count.to_string());
        self.fixture(&["many", &text, &counts[0], &counts[1], &counts[2]]);
        store
    }

    /// A short command, several times.
    fn short(&self, store: &Path, arguments: &[&str]) -> Vec<Sample> {
        let samples = (0..=SHORT_ROUNDS).map(|_| run(&mut self.teu(store, arguments)));
        samples.skip(1).collect()
    }
}
