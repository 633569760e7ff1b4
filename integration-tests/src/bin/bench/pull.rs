//! From a registry to a root filesystem: an image of 15,758 files.

use crate::measure::{Contender, Sample, in_turn, run, sum, version};
use crate::report::Table;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use teu_integration_tests::{Scene, binary};

/// Entries of the layer, as in a minimal Debian with python3, perl, git and a compiler.
const FILES: usize = 15_758;
/// Size of the layer's content, bytes.
const CONTENT_BYTES: usize = 520 << 20;

/// Measures pull-to-rootfs with us, podman, skopeo with umoci, and `tar x`.
pub(crate) fn table(rounds: usize) -> Table {
    let scene = Scene::new("bench pull");
    let tar = layer(&scene);
    let registry = Registry::start(&scene);
    let source = format!("127.0.0.1:{}/bench:latest", registry.port);
    scene
        .run(
            "teu-store",
            ["import".as_ref(), tar.as_os_str(), source.as_ref()],
        )
        .succeeds();
    scene.run("teu-store", ["push", &source]).succeeds();
    let mut contenders = contenders(&scene, &tar, &source);
    let samples = in_turn(&mut contenders, rounds);
    let rows = contenders
        .into_iter()
        .map(|one| one.name)
        .zip(samples)
        .collect();
    drop(registry);
    Table {
        name: "pull".into(),
        title: format!("pull to root filesystem, {FILES} files"),
        rows,
    }
}

fn contenders<'a>(scene: &'a Scene, tar: &'a Path, source: &'a str) -> Vec<Contender<'a>> {
    let name = |program: &str| version(program).unwrap_or_else(|| program.to_owned());
    vec![
        Contender {
            name: name(&binary("teu-store").display().to_string()),
            task: Box::new(move |_| teu(scene, source)),
        },
        Contender {
            name: name("podman"),
            task: Box::new(move |_| podman(scene, source)),
        },
        Contender {
            name: format!("{} + {}", name("skopeo"), name("umoci")),
            task: Box::new(move |_| skopeo_and_umoci(scene, source)),
        },
        Contender {
            name: "tar x of the gzip layer (no pull, no check)".into(),
            task: Box::new(move |_| {
                let archive = tar.with_extension("tar.gz");
                let root = fresh(scene, "pull-tar");
                run(Command::new("tar")
                    .arg("-xzf")
                    .arg(archive)
                    .arg("-C")
                    .arg(root))
            }),
        },
    ]
}

/// An empty folder; what the round before left there is removed, untimed.
pub(crate) fn fresh(scene: &Scene, name: &str) -> PathBuf {
    let folder = scene.path(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("make a folder");
    folder
}

fn teu(scene: &Scene, source: &str) -> Sample {
    let store = fresh(scene, "pull-teu");
    let bundle = fresh(scene, "bundle-teu");
    let request = scene.write("request.json", r#"{"args": ["/bin/true"]}"#);
    let request = request.to_str().expect("a path in UTF-8");
    let command = |args: &[&str]| {
        let mut command = Command::new(binary("teu-store"));
        command.arg("--root").arg(&store).args(args);
        command
    };
    let create = [
        "bundle",
        "create",
        "--id",
        "bench",
        "--request",
        request,
        source,
    ];
    let pulled = run(&mut command(&["pull", "-q", source]));
    let mounted = run(command(&create).arg(bundle));
    run(&mut command(&["bundle", "release", "bench"]));
    sum([pulled, mounted])
}

fn podman(scene: &Scene, source: &str) -> Sample {
    let folder = fresh(scene, "pull-podman");
    let mut command = Command::new("podman");
    command.arg("--root").arg(folder.join("root"));
    command.arg("--runroot").arg(folder.join("run"));
    command.args(["--storage-driver", "overlay"]);
    command.args(["pull", "-q", "--tls-verify=false", source]);
    run(command.stderr(Stdio::null()))
}

fn skopeo_and_umoci(scene: &Scene, source: &str) -> Sample {
    let folder = fresh(scene, "pull-skopeo");
    let layout = format!("{}:bench", folder.join("layout").display());
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "-q", "--src-tls-verify=false"]);
    skopeo.args([format!("docker://{source}"), format!("oci:{layout}")]);
    let mut umoci = Command::new("umoci");
    umoci
        .args(["unpack", "--image", &layout])
        .arg(folder.join("bundle"));
    sum([run(&mut skopeo), run(&mut umoci)])
}

/// A tar of files whose names, sizes and compressibility are those of a distribution.
pub(crate) fn layer(scene: &Scene) -> PathBuf {
    let root = scene.path("layer");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mean = CONTENT_BYTES / FILES;
    for number in 0..FILES {
        let folder = root.join(format!(
            "usr/share/part{}/group{}",
            number % 37,
            number % 411
        ));
        if number < 37 * 411 {
            std::fs::create_dir_all(&folder).expect("make a folder");
        }
        // Many small files and a few large ones: sizes fall off as in a distribution.
        let scale = (next() % 1000) as f64 / 1000.0;
        let size = (mean as f64 * 4.0 * scale.powi(3)) as usize + 64;
        let mut content = Vec::with_capacity(size + 16);
        while content.len() < size {
            // A random word, then text: compresses about 2.7 times, as binaries and text together do.
            content.extend_from_slice(&next().to_le_bytes());
            content.extend_from_slice(&b"the quick brown container "[..(next() % 24) as usize]);
        }
        content.truncate(size);
        std::fs::write(folder.join(format!("file-{number}.dat")), content).expect("write a file");
    }
    let tar = scene.path("layer.tar");
    scene.shell(&format!(
        "tar -C {} --numeric-owner -cf {tar} usr && gzip -6 -k {tar} && rm -rf {}",
        root.display(),
        root.display(),
        tar = tar.display()
    ));
    tar
}

/// Debian's docker-registry on loopback in the scene's network namespace.
pub(crate) struct Registry {
    process: Child,
    pub(crate) port: u16,
}

impl Registry {
    pub(crate) fn start(scene: &Scene) -> Self {
        let port = 5000;
        let config = scene.write(
            "registry.yml",
            format!("version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n", scene.path("registry").display()),
        );
        let process = Command::new("setpriv")
            // A benchmark that panics runs no destructor.
            .args(["--pdeathsig", "TERM", "docker-registry", "serve"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry (package docker-registry)");
        scene.wait_until("the registry answers", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { process, port }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
