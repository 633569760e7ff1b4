//! A thousand generated archives, and three others who say what is in them: Python's tarfile, member by member; GNU tar,
//! by what it extracts; and the kernel, by what it shows of the index that was made of the archive.

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

#[test]
fn a_thousand_archives_are_what_three_others_say() {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "SKIPPED a_thousand_archives_are_what_three_others_say: owners and devices need root"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // In memory, where it can be: ten thousand files are made and removed. The kernel shows no index that lies there.
    let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let memory = memory.unwrap();
    let Some(expected) = archives(folder.path()) else {
        eprintln!("SKIPPED a_thousand_archives_are_what_three_others_say: no python3");
        return;
    };
    assert_eq!(expected.len(), COUNT);
    let mut is_mounted = true;
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
            Ok(root) => assert_eq!(
                difference(&tree, &tar, &root),
                None,
                "archive {number}, as the kernel shows its index"
            ),
            Err(err) => {
                assert!(number == 0 || !is_mounted, "archive {number}: {err}");
                is_mounted = false;
            }
        }
        for gone in [gnu, own, index] {
            dirs::remove(&gone).unwrap();
        }
    }
    if !is_mounted {
        eprintln!("SKIPPED a_thousand_archives_are_what_three_others_say: EROFS cannot be mounted");
    }
}
