//! How often the kernel has files in memory that several containers read.

use super::Bench;
use crate::measure::run;
use crate::pull::fresh;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// Containers of one image, and images on one base, whose files are in memory once.
const CONTAINERS: usize = 20;
const IMAGES_ON_A_BASE: usize = 5;

/// Mounts that end with it.
#[derive(Default)]
struct Unmount(Vec<PathBuf>);

impl Drop for Unmount {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = Command::new("umount").arg(path).status();
        }
    }
}

impl Bench {
    /// What the kernel keeps in memory of files that several containers read, ours over that of directories on the same
    /// file system. Containers are overlays with uppers of their own.
    pub(super) fn page_cache(&mut self) {
        let (store, name) = (self.path("pull-store"), self.name("zst"));
        let base = self.path("unpack-teu/rootfs");
        let bundle = |bench: &Bench, image: &str, id: &str| {
            let folder = fresh(&bench.scene, &format!("cache-bundle-{id}"));
            let request = bench.path("request.json").display().to_string();
            let words = ["bundle", "create", "--id", id, "--request", &request, image];
            let made = bench.teu(&store, &words).arg(folder).output();
            let made: serde_json::Value =
                serde_json::from_slice(&made.expect("make a bundle").stdout).expect("a bundle");
            let lower = made["lower"].as_array().expect("its layers").iter();
            lower
                .map(|path| path.as_str().expect("a path").to_owned())
                .collect::<Vec<_>>()
        };
        let lowers = vec![bundle(self, &name, "cache-0"); CONTAINERS];
        let ours = self.cached(&lowers);
        let plain = vec![vec![base.display().to_string()]; CONTAINERS];
        let theirs = self.cached(&plain);
        let what = format!("page cache of {CONTAINERS} containers of one image over ext4's");
        self.goal(what, ours / theirs, 1.0);
        let mut lowers = Vec::new();
        let mut plain = Vec::new();
        for number in 0..IMAGES_ON_A_BASE {
            let own = self.path(&format!("small-{number}"));
            self.scene.shell(&format!(
                "mkdir -p {own} && head -c 1000000 /dev/urandom > {own}/data-{number} && tar -cf {own}.tar -C {own} . && gzip -kf {own}.tar",
                own = own.display()
            ));
            let files = [&self.tar, &self.packed("zst")].map(|path| path.display().to_string());
            let own = own.display().to_string();
            let small = [format!("{own}.tar"), format!("{own}.tar.gz")];
            let image = self.publish(
                &format!("on-a-base-{number}"),
                "layout",
                &[&files[0], &files[1], &small[0], &small[1]],
            );
            run(&mut self.teu(&store, &["pull", "-q", &image]));
            lowers.push(bundle(self, &image, &format!("cache-{}", number + 1)));
            plain.push(vec![own, base.display().to_string()]);
        }
        let (ours, theirs) = (self.cached(&lowers), self.cached(&plain));
        let what = format!("page cache of {IMAGES_ON_A_BASE} images on one base over ext4's");
        self.goal(what, ours / theirs, 1.0);
        for number in 0..=IMAGES_ON_A_BASE {
            run(&mut self.teu(&store, &["bundle", "release", &format!("cache-{number}")]));
        }
    }

    /// Bytes of page cache when the files of all these overlays, each of lower directories from its top, were read in turn.
    fn cached(&self, containers: &[Vec<String>]) -> f64 {
        let sources = ["index", "tars"].map(|folder| self.path("pull-store").join(folder));
        let mut cold = self.python(&["cold-content"]);
        cold.args(&sources)
            .args(containers.iter().flatten().collect::<BTreeSet<_>>());
        run(&mut cold);
        let mut merged = Unmount::default();
        for (number, lowers) in containers.iter().enumerate() {
            let folder = fresh(&self.scene, &format!("cache-{number}"));
            let [upper, work, root] = ["upper", "work", "root"].map(|part| folder.join(part));
            for part in [&upper, &work, &root] {
                std::fs::create_dir(part).expect("make a directory of an overlay");
            }
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                lowers.join(":"),
                upper.display(),
                work.display()
            );
            let mut mount = Command::new("mount");
            mount.args(["-t", "overlay", "overlay", "-o", &options]);
            run(mount.arg(&root));
            merged.0.push(root);
        }
        let bytes = self.python(&["cached"]).args(&merged.0).output();
        let bytes = String::from_utf8(bytes.expect("read all files").stdout);
        let bytes = bytes.expect("a number").trim().parse::<f64>();
        bytes.expect("a number of bytes")
    }
}
