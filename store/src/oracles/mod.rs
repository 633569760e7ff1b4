//! A thousand generated archives, and others who say what is in them: Python's tarfile, member by member; GNU tar, by
//! what it extracts; mkfs.erofs, by the file system that it makes of that; the kernel, by what it shows of the index that
//! was made of the archive; and fsck.erofs, which reads that index, where it is new enough to know blocks of 512 bytes (1.6).

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::digest::{Algorithm, Hasher};
use crate::edit::{Before, Stamps, find_changes};
use crate::mount;
use crate::tar::content::Content;
use crate::tar::{FileSource, Kind, Reader};
use crate::tree::{self, Tree};
use crate::{dirs, erofs};

/// How many archives.
const COUNT: usize = 1000;

/// Archives and what Python says of them; `None` where there is no Python or no GNU tar.
fn archives(folder: &Path) -> Option<Vec<Value>> {
    let seed = std::env::var("TEU_ORACLE_SEED").unwrap_or_else(|_| "1".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/oracles/archives.py");
    let output = Command::new("python3")
        .arg(script)
        .arg(folder)
        .args([&COUNT.to_string(), &seed])
        .output();
    let output = output.ok()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    Some(
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What our reader says, in the form of the script.
fn told(tar: &File) -> Value {
    let mut reader = Reader::new(FileSource::new(tar).unwrap());
    let mut members = Vec::new();
    while let Some(entry) = reader.next(|| {}).unwrap() {
        let (kind, link, data) = match &entry.kind {
            Kind::File(data) => ("f", &[][..], Some(data)),
            Kind::Directory => ("d", &[][..], None),
            Kind::Symlink(target) => ("s", &target[..], None),
            Kind::HardLink(target) => ("h", &target[..], None),
            Kind::Device(device) if device.block => ("b", &[][..], None),
            Kind::Device(_) => ("c", &[][..], None),
            Kind::Fifo => ("p", &[][..], None),
        };
        let mut content = Vec::new();
        if let Some(data) = data {
            Content::new(tar, data.size, data.offset, data.odd.as_ref())
                .read_to_end(&mut content)
                .unwrap();
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&content);
        let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        let attributes = entry.attributes;
        members.push(json!([
            hex(path),
            kind,
            attributes.mode,
            attributes.uid,
            attributes.gid,
            attributes.mtime.seconds,
            content.len(),
            hex(link),
            hasher.finish().hex()
        ]));
    }
    Value::Array(members)
}

/// The first path in which a directory differs from the tree.
fn difference(tree: &Tree, tar: &File, root: impl AsFd) -> Option<String> {
    let tars = [tar.try_clone().unwrap()];
    let before = Before {
        tree,
        tars: &tars,
        stamps: &Stamps::none(),
    };
    let changes = find_changes(&before, root.as_fd(), &|_| false).unwrap();
    let first = changes.first();
    first.map(|path| String::from_utf8_lossy(&path).into_owned())
}

fn extracted(path: &Path, memory: &Path) -> std::path::PathBuf {
    let folder = memory.join("gnu");
    fs::create_dir(&folder).unwrap();
    let status = Command::new("tar")
        .arg("-C")
        .arg(&folder)
        // Otherwise a directory that is left and entered again keeps the time of the second visit.
        .args(["--delay-directory-restore", "--warning=no-timestamp"])
        .args(["--numeric-owner", "--same-owner", "--xattrs", "-xpf"])
        .arg(path)
        .status();
    assert!(status.unwrap().success(), "{path:?}");
    folder
}

/// What mkfs.erofs makes of a directory, as the kernel shows it.
fn made_by_mkfs(folder: &Path, image: &Path) -> rustix::fd::OwnedFd {
    let mut mkfs = Command::new("mkfs.erofs");
    mkfs.args(["--quiet", "--preserve-mtime"])
        .arg(image)
        .arg(folder);
    let output = mkfs.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mkfs.erofs {folder:?}: {said}");
    mount::erofs(image, &[]).unwrap()
}

/// What fsck.erofs has against an index.
fn faults(index: &Path, tar: &Path) -> Option<String> {
    let mut fsck = Command::new("fsck.erofs");
    let device = format!("--device={}", tar.display());
    let output = fsck.args([&device, "--extract"]).arg(index).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success()).then_some(said)
}

/// Whether a program of erofs-utils is here.
fn has(program: &str) -> bool {
    Command::new(program).arg("-V").output().is_ok()
}

/// The programs of erofs-utils, and how many archives each has judged.
struct Tools {
    has_mkfs: bool,
    has_fsck: bool,
    made: usize,
    checked: usize,
}

impl Tools {
    fn new() -> Tools {
        let (has_mkfs, has_fsck) = (has("mkfs.erofs"), has("fsck.erofs"));
        let (made, checked) = (0, 0);
        Tools {
            has_mkfs,
            has_fsck,
            made,
            checked,
        }
    }

    /// The archive `path` of content `tree`, which GNU tar extracted to `gnu`, and its index.
    fn judge(&mut self, number: usize, path: &Path, tree: &Tree, gnu: &Path, index: &Path) {
        if self.has_mkfs {
            let image = path.with_extension("mkfs");
            let tar = File::open(path).unwrap();
            let found = difference(tree, &tar, made_by_mkfs(gnu, &image));
            assert_eq!(found, None, "archive {number}, as mkfs.erofs makes it");
            fs::remove_file(image).unwrap();
            self.made += 1;
        }
        if !self.has_fsck {
            return;
        }
        if let Some(fault) = faults(index, path) {
            // An old one reads no such superblock at all.
            let is_old = number == 0 && fault.contains("failed to read superblock");
            assert!(is_old, "archive {number}, as fsck.erofs reads it: {fault}");
            self.has_fsck = false;
            return;
        }
        self.checked += 1;
    }

    /// Says what was judged.
    fn count(&self) {
        let Tools { made, checked, .. } = self;
        eprintln!("{COUNT} archives: {made} by mkfs.erofs, {checked} by fsck.erofs");
        for (count, program) in [
            (
                made,
                "mkfs.erofs: it is missing, or EROFS cannot be mounted",
            ),
            (checked, "fsck.erofs: it is missing, or older than 1.6"),
        ] {
            if *count == 0 {
                eprintln!("SKIPPED {program}");
            }
        }
    }
}

#[test]
fn a_thousand_archives_are_what_others_say() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED a_thousand_archives_are_what_others_say: owners and devices need root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // In memory, where it can be: ten thousand files are made and removed. The kernel shows no index that lies there.
    let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let memory = memory.unwrap();
    let Some(expected) = archives(folder.path()) else {
        eprintln!("SKIPPED a_thousand_archives_are_what_others_say: no python3");
        return;
    };
    assert_eq!(expected.len(), COUNT);
    let mut is_mounted = true;
    let mut tools = Tools::new();
    for (number, python) in expected.iter().enumerate() {
        let path = folder.path().join(format!("{number}.tar"));
        let tar = File::open(&path).unwrap();
        assert_eq!(&told(&tar), python, "archive {number}, as Python reads it");
        let (tree, _) = tree::scan(FileSource::new(&tar).unwrap()).unwrap();
        let gnu = extracted(&path, memory.path());
        let root = File::open(&gnu).unwrap();
        assert_eq!(
            difference(&tree, &tar, &root),
            None,
            "archive {number}, as GNU tar extracts it"
        );
        let own = memory.path().join("own");
        fs::create_dir(&own).unwrap();
        let root = File::open(&own).unwrap();
        dirs::write(&tree, &[&tar], root.as_fd(), dirs::Form::Plain).unwrap();
        assert_eq!(difference(&tree, &tar, &root), None, "archive {number}");
        let index = path.with_extension("index");
        let mut out = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&index)
            .unwrap();
        erofs::write(&tree, &[&tar], [0; 16], &mut out).unwrap();
        match mount::erofs(&index, &[&path]) {
            Ok(root) => {
                let found = difference(&tree, &tar, &root);
                assert_eq!(
                    found, None,
                    "archive {number}, as the kernel shows its index"
                );
            }
            Err(err) => {
                assert!(number == 0 || !is_mounted, "archive {number}: {err}");
                is_mounted = false;
            }
        }
        if is_mounted {
            tools.judge(number, &path, &tree, &gnu, &index);
        }
        for gone in [gnu, own, index] {
            dirs::remove(&gone).unwrap();
        }
    }
    tools.count();
    if !is_mounted {
        eprintln!("SKIPPED a_thousand_archives_are_what_others_say: EROFS cannot be mounted");
    }
}
