//! What the store makes durable before what, read from its system calls: this holds for any file system, also for one
//! that forgets whatever it was not told to keep.

use super::peers::Registry;
use super::{STEPS, images, step};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use teu_integration_tests::{Scene, missing_command, needs_root, skip_unless};

/// The folders whose names are believed. What stands in the others (`packed`, `roots`, `tmp`) may be lost.
const BELIEVED: [&str; 6] = ["blobs", "tars", "index", "dirs", "images", "layers"];
const CALLS: &str = "trace=openat,write,pwrite64,ftruncate,copy_file_range,rename,renameat,renameat2,linkat,unlink,unlinkat,mkdir,mkdirat,symlinkat,mknodat,fsync,fdatasync,syncfs";

/// What is not durable yet, by paths.
#[derive(Default)]
struct Disk {
    store: String,
    data: BTreeSet<String>,
    names: BTreeSet<String>,
    /// Folders synced by this command.
    synced: BTreeSet<String>,
    faults: Vec<String>,
    /// How many names of content, and of images, came to be.
    named: usize,
    references: usize,
}

/// One system call: its name, its strings in quotes, the paths of its descriptors, and what it returned.
struct Call<'l> {
    name: &'l str,
    texts: Vec<&'l str>,
    paths: Vec<&'l str>,
    arguments: &'l str,
}

/// The texts between two characters.
fn between(text: &str, open: char, close: char) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once(open) {
        let Some((inner, behind)) = behind.split_once(close) else {
            break;
        };
        found.push(inner);
        rest = behind;
    }
    found
}

impl<'l> Call<'l> {
    /// A line of `strace -y`, if the call succeeded.
    fn parse(line: &'l str) -> Option<Self> {
        let (call, result) = line.rsplit_once(" = ")?;
        let (name, arguments) = call.split_once('(')?;
        (!result.starts_with('-')).then(|| Call {
            name,
            texts: between(arguments, '"', '"'),
            paths: between(line, '<', '>'),
            arguments,
        })
    }

    /// A path argument: absolute, or below the descriptor before it.
    fn path(&self, number: usize) -> String {
        let text = self.texts[number];
        match text.starts_with('/') {
            true => text.to_owned(),
            false => format!("{}/{text}", self.paths[number.min(self.paths.len() - 1)]),
        }
    }
}

impl Disk {
    fn folder(&self, path: &str) -> Option<String> {
        let inner = path.strip_prefix(&self.store)?.trim_start_matches('/');
        inner.split('/').next().map(str::to_owned)
    }

    fn is_believed(&self, path: &str) -> bool {
        self.folder(path)
            .is_some_and(|folder| BELIEVED.contains(&folder.as_str()))
    }

    fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// Whatever of `path`, or below it, is not durable.
    fn unsynced(&self, path: &str) -> Option<String> {
        let below = format!("{path}/");
        let is_of = |other: &&String| *other == path || other.starts_with(&below);
        let data = self.data.iter().find(is_of);
        let names = self.names.iter().find(|name| name.starts_with(&below));
        data.or(names).cloned()
    }

    fn moved(&mut self, from: &str, to: &str) {
        let is_name = self.is_believed(to) || self.folder(to).as_deref() == Some("refs");
        if let Some(what) = self.unsynced(from).filter(|_| is_name) {
            self.fault(format!("{to} is named before {what} is durable"));
        }
        if self.is_believed(to) {
            self.named += 1;
        }
        if self.folder(to).as_deref() == Some("refs") {
            self.references += 1;
            let lost = self.names.iter().find(|name| self.is_believed(name));
            if let Some(name) = lost.cloned() {
                self.fault(format!("{to} is named before the name {name} is durable"));
            }
        }
        if self.folder(to).as_deref() == Some("VERSION") {
            let lost = self.names.iter().find(|name| self.is_believed(name));
            if let Some(name) = lost.cloned() {
                self.fault(format!("the store is whole before {name} is durable"));
            }
        }
        for set in [&mut self.data, &mut self.names] {
            let below = format!("{from}/");
            let moving: Vec<String> = set
                .iter()
                .filter(|path| **path == from || path.starts_with(&below))
                .cloned()
                .collect();
            for path in moving {
                set.remove(&path);
                set.insert(format!("{to}{}", &path[from.len()..]));
            }
        }
        self.names.insert(to.to_owned());
    }

    fn written(&mut self, path: &str) {
        if self.is_believed(path) || self.folder(path).as_deref() == Some("refs") {
            self.fault(format!("{path} is written to under its name"));
        }
        self.data.insert(path.to_owned());
    }

    fn meets(&mut self, call: &Call<'_>) {
        match call.name {
            "openat" if call.arguments.contains("O_CREAT") => {
                if let Some(path) = call.paths.last() {
                    self.names.insert((*path).to_owned());
                }
            }
            "write" | "pwrite64" | "ftruncate" => self.written(call.paths[0]),
            "copy_file_range" => self.written(call.paths[1]),
            "rename" | "renameat" | "renameat2" => {
                let (from, to) = (call.path(0), call.path(1));
                self.moved(&from, &to);
            }
            "linkat" => {
                let (from, to) = (call.path(0), call.path(1));
                if self.data.contains(&from) {
                    self.data.insert(to.clone());
                }
                self.names.insert(to);
            }
            // Of what goes, only names of images must be gone for good.
            "unlink" | "unlinkat" => {
                let path = call.path(0);
                self.data.remove(&path);
                self.names.remove(&path);
                if self.folder(&path).as_deref() == Some("refs") {
                    self.names.insert(path);
                }
            }
            "mkdir" | "mkdirat" | "symlinkat" | "mknodat" => {
                let last = call.texts.len() - 1;
                self.names.insert(call.path(last));
            }
            "fsync" | "fdatasync" => {
                let path = call.paths[0].to_owned();
                self.data.remove(&path);
                let is_in = |name: &String| {
                    name.rsplit_once('/')
                        .is_some_and(|(folder, _)| folder == path)
                };
                self.names.retain(|name| !is_in(name));
                self.synced.insert(path);
            }
            "syncfs" => {
                self.data.clear();
                self.names.clear();
            }
            _ => {}
        }
    }

    /// The program says that it is done.
    fn ends(&mut self) {
        let names = self.names.iter();
        let lost = names.filter(|name| self.folder(name).as_deref() == Some("refs"));
        for name in lost.cloned().collect::<Vec<_>>() {
            self.fault(format!("{name} is not durable at the end"));
        }
    }
}

/// Lines of a log, whole: what strace tore because another thread came between is put together again.
fn lines(log: &str) -> Vec<String> {
    let mut torn: BTreeMap<&str, String> = BTreeMap::new();
    let mut whole = Vec::new();
    for line in log.lines() {
        let Some((pid, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if let Some(begin) = call.strip_suffix(" <unfinished ...>") {
            torn.insert(pid, begin.to_owned());
        } else if let Some(rest) = call.strip_prefix("<... ") {
            let rest = rest.split_once(" resumed>").map_or("", |(_, rest)| rest);
            whole.push(torn.remove(pid).unwrap_or_default() + rest);
        } else {
            whole.push(call.to_owned());
        }
    }
    whole
}

/// Follows one command from a durable store on.
fn follow(scene: &Scene, backend: &str, words: &[String]) -> Disk {
    let log = scene.path("strace.log");
    let mut command = scene.command(
        "strace",
        ["-f", "-qq", "-y", "-s", "0", "-e", "signal=none"],
    );
    command.args(["-e", CALLS, "-o"]).arg(&log).arg("--");
    let own = scene.command("teu-store", ["--backend", backend]);
    command
        .arg(own.get_program())
        .args(own.get_args())
        .args(words);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(status.unwrap().success(), "{words:?}");
    let mut disk = Disk {
        store: scene.store().to_str().unwrap().to_owned(),
        ..Disk::default()
    };
    for line in lines(&std::fs::read_to_string(&log).unwrap()) {
        if let Some(call) = Call::parse(&line) {
            disk.meets(&call);
        }
    }
    disk.ends();
    disk
}

#[test]
fn what_names_lead_to_is_durable_before_them() {
    let scene = Scene::new("order of durability");
    needs_root!(scene, "a registry of its own needs a network of its own");
    skip_unless!(
        scene,
        !missing_command("strace"),
        "strace shows system calls"
    );
    images(&scene);
    let registry = Registry::http(&scene);
    let remote = registry.name("team/x:1");
    scene.shell(&format!(
        "skopeo copy -q --dest-tls-verify=false oci:oci:x docker://{remote}"
    ));
    for backend in ["erofs", "directory"] {
        let (mut named, mut references) = (0, 0);
        for words in STEPS {
            let words = step(words, &remote);
            let disk = follow(&scene, backend, &words);
            assert_eq!(disk.faults, Vec::<String>::new(), "{words:?} on {backend}");
            named += disk.named;
            references += disk.references;
        }
        // What a name means already was durable before it was named, and is not written again.
        let again = follow(&scene, backend, &step(&["pull", "-q", "{remote}"], &remote));
        let written = (again.faults, again.references, again.named);
        assert_eq!(written, (vec![], 0, 0), "{backend}");
        // What others put there a moment ago is made durable by who names it.
        let tag = follow(&scene, backend, &step(&["tag", "{remote}", "new"], &remote));
        assert_eq!((tag.faults, tag.references), (vec![], 1), "{backend}");
        for folder in ["blobs", "tars", "layers"] {
            let folder = format!("{}/{folder}/sha256", tag.store);
            assert!(tag.synced.contains(&folder), "{folder} on {backend}");
        }
        eprintln!("{backend}: {named} names of content and {references} of images are in order");
        assert!(named > 15 && references > 6);
        scene.run("teu-store", ["prune", "--all"]).succeeds();
        scene.shell("rm -r data/store");
    }
}
