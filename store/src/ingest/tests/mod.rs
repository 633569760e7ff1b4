//! Layers through the whole store, on both back-ends, compared with what GNU tar unpacks.

mod hostile;
mod stacks;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{
    CWD, FileType, Mode, XattrFlags, lgetxattr, llistxattr, lsetxattr, makedev, mknodat,
};

use crate::{Backend, DiffId, Digest, Error, Store};

/// A store in a scratch folder; nothing of it stays mounted.
struct Scratch {
    dir: tempfile::TempDir,
    store: Store,
}

impl Scratch {
    /// `None`, with the reason printed, where this machine cannot.
    fn new(test: &str, backend: Backend) -> Option<Scratch> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED {test}: needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path().join("store")).unwrap();
        if backend == Backend::Erofs && store.backend().unwrap() != Backend::Erofs {
            eprintln!("SKIPPED {test}: EROFS cannot be mounted from files here");
            return None;
        }
        store.force_backend(backend);
        Some(Scratch { dir, store })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn layer(&self, tar: &[u8]) -> Result<DiffId, Error> {
        let work = self.store.begin()?;
        let mut writer = work.layer_writer()?;
        // A thread that has given up says why at the end.
        let _ = writer.write_all(tar);
        let layer = writer.finish()?;
        // Kept by the root that follows: nothing cleans up in a test.
        Ok(layer.diff_id)
    }

    fn seen(&self, layers: &[DiffId]) -> BTreeMap<Vec<u8>, String> {
        let root = self.store.root("test", layers).unwrap();
        let view = self.store.view(layers).unwrap();
        let seen = snapshot(Path::new(&format!(
            "/proc/self/fd/{}/",
            std::os::fd::AsRawFd::as_raw_fd(&view)
        )));
        drop(view);
        root.release().unwrap();
        seen
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever a failed test left behind.
        for root in fs::read_dir(self.store.folder("roots"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = fs::remove_file(root.path());
        }
        let _ = self.store.drop_views();
    }
}

const BACKENDS: [Backend; 2] = [Backend::Erofs, Backend::Directory];

/// Everything about everything below `root`, a line each.
fn snapshot(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut out = BTreeMap::new();
    let mut inodes: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).unwrap();
        let kind = meta.file_type();
        let name = path.as_os_str().as_bytes().to_vec();
        let content = if kind.is_symlink() {
            format!("-> {:?}", fs::read_link(&full).unwrap())
        } else if kind.is_file() {
            let mut bytes = Vec::new();
            File::open(&full).unwrap().read_to_end(&mut bytes).unwrap();
            format!("{} bytes {}", meta.len(), Digest::of(&bytes))
        } else if kind.is_dir() {
            let names = fs::read_dir(&full)
                .unwrap()
                .map(|entry| path.join(entry.unwrap().file_name()));
            pending.extend(names);
            String::new()
        } else {
            format!("device {:x}", meta.rdev())
        };
        let first = if kind.is_dir() {
            name.clone()
        } else {
            inodes
                .entry((meta.dev(), meta.ino()))
                .or_insert(name.clone())
                .clone()
        };
        let links = if kind.is_dir() { 0 } else { meta.nlink() };
        let line = format!(
            "{:o} {}:{} {}.{:09} links {links} of {:?} {:?} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            String::from_utf8_lossy(&first),
            xattrs(&full)
        );
        out.insert(name, line);
    }
    out
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 65_536];
    let n = llistxattr(path, &mut names[..]).unwrap();
    let mut out = Vec::new();
    for name in names[..n]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"security.selinux"))
    {
        let mut value = vec![0; 65_536];
        let n = lgetxattr(path, name, &mut value[..]).unwrap();
        out.push((
            String::from_utf8_lossy(name).into_owned(),
            value[..n].to_vec(),
        ));
    }
    out.sort();
    out
}

/// Inode numbers differ between file systems, so hard links are compared by the first name that a walk meets;
/// both walks go in the order of reading directories, which differs, too.
fn without_first_names(seen: &BTreeMap<Vec<u8>, String>) -> BTreeMap<Vec<u8>, String> {
    let mut groups: BTreeMap<&str, Vec<&Vec<u8>>> = BTreeMap::new();
    let first = |line: &str| {
        line.split(" of ")
            .nth(1)
            .unwrap_or_default()
            .split('"')
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    };
    let firsts: BTreeMap<&Vec<u8>, String> = seen
        .iter()
        .map(|(name, line)| (name, first(line)))
        .collect();
    for (name, first) in &firsts {
        groups.entry(first).or_default().push(name);
    }
    let smallest =
        |name: &Vec<u8>| String::from_utf8_lossy(groups[firsts[name].as_str()][0]).into_owned();
    seen.iter()
        .map(|(name, line)| {
            (
                name.clone(),
                line.replacen(
                    &format!("of \"{}\"", firsts[name]),
                    &format!("of {:?}", smallest(name)),
                    1,
                ),
            )
        })
        .collect()
}

fn assert_same(seen: &BTreeMap<Vec<u8>, String>, wanted: &BTreeMap<Vec<u8>, String>) {
    let (seen, wanted) = (without_first_names(seen), without_first_names(wanted));
    for (name, line) in &wanted {
        assert_eq!(
            seen.get(name),
            Some(line),
            "{}",
            String::from_utf8_lossy(name)
        );
    }
    assert_eq!(seen.len(), wanted.len());
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// A tree with all that a layer may hold.
fn rich_tree(root: &Path) {
    let file = |name: &str, content: &[u8]| {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), content).unwrap();
    };
    file("empty", b"");
    file("small", b"x");
    file("block", &[7; 512]);
    file("usr/bin/large", &b"0123456789abcdef".repeat(70_001));
    file(&format!("long/{}", "n".repeat(255)), b"long name");
    file(&["d"; 300].join("/"), b"deep");
    file("usr/share/!before-dot", b"sorts before .");
    fs::write(
        root.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff\xfe")),
        "bytes",
    )
    .unwrap();
    rich_links(root);
    rich_attributes(root);
}

fn rich_links(root: &Path) {
    fs::hard_link(root.join("small"), root.join("usr/linked")).unwrap();
    fs::hard_link(root.join("small"), root.join("a-linked")).unwrap();
    symlink("usr/bin/large", root.join("link")).unwrap();
    symlink("x".repeat(100), root.join("link-100")).unwrap();
    symlink("/".repeat(700) + "etc", root.join("link-700")).unwrap();
    symlink("y".repeat(4095), root.join("link-4095")).unwrap();
    symlink("nowhere", root.join("link-owned")).unwrap();
}

fn rich_attributes(root: &Path) {
    let node = |name: &str, kind, major, minor| {
        mknodat(
            CWD,
            root.join(name),
            kind,
            Mode::from_raw_mode(0o640),
            makedev(major, minor),
        )
        .unwrap()
    };
    node("null", FileType::CharacterDevice, 1, 3);
    node("disk", FileType::BlockDevice, 259, 70_000);
    node("pipe", FileType::Fifo, 0, 0);
    let own = |name: &str, uid, gid| {
        std::os::unix::fs::lchown(root.join(name), Some(uid), Some(gid)).unwrap()
    };
    own("usr/bin/large", 4_000_000_000, 70_000);
    own("link-owned", 1000, 1001);
    own("pipe", 5, 6);
    let mode = |name: &str, mode| {
        fs::set_permissions(
            root.join(name),
            std::os::unix::fs::PermissionsExt::from_mode(mode),
        )
        .unwrap()
    };
    mode("usr/bin/large", 0o6755);
    mode("long", 0o1777);
    let set = |name: &str, key: &str, value: &[u8]| {
        lsetxattr(
            root.join(name),
            CString::new(key).unwrap().as_c_str(),
            value,
            XattrFlags::empty(),
        )
        .unwrap();
    };
    set("small", "user.comment", b"line\nwith \0 nul");
    set("block", "user.shared", &[b'v'; 300]);
    set("empty", "user.shared", &[b'v'; 300]);
    set("long", "user.shared", &[b'v'; 300]);
    set("usr", "trusted.note", b"trusted");
    set("link", "trusted.on-link", b"1");
    for key in 0..20 {
        set("usr/bin", &format!("user.key-{key}"), &[key; 60]);
    }
    // cap_net_raw=ep, revision 2.
    set(
        "usr/bin/large",
        "security.capability",
        &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(5_000_000).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(&[9; 10_000], 1_234_567).unwrap();
    let holes = File::create(root.join("all-hole")).unwrap();
    holes.set_len(100_000).unwrap();
}

fn unpacked_by_tar(scratch: &Scratch, tar: &Path) -> BTreeMap<Vec<u8>, String> {
    let target = scratch.path("by-tar");
    let _ = crate::dirs::remove(&target);
    fs::create_dir(&target).unwrap();
    run(
        "tar",
        &[
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "-xpf",
            tar.to_str().unwrap(),
            "-C",
            target.to_str().unwrap(),
        ],
    );
    snapshot(&target)
}

// issue: "a hash of the tree through the kernel's mount equals that of GNU tar's extraction".
#[test]
fn layers_show_what_tar_unpacks() {
    for backend in BACKENDS {
        let Some(scratch) = Scratch::new("layers_show_what_tar_unpacks", backend) else {
            continue;
        };
        let source = scratch.path("source");
        fs::create_dir(&source).unwrap();
        rich_tree(&source);
        // Neither GNU's own format keeps nanoseconds or xattrs; both must be read.
        let pax = ["--format=posix", "--xattrs", "--xattrs-include=*"];
        let formats: [(&str, Vec<&str>); 5] = [
            ("pax", pax.to_vec()),
            (
                "pax-sparse-1.0",
                [&pax[..], &["--sparse", "--sparse-version=1.0"]].concat(),
            ),
            (
                "pax-sparse-0.1",
                [&pax[..], &["--sparse", "--sparse-version=0.1"]].concat(),
            ),
            (
                "pax-sparse-0.0",
                [&pax[..], &["--sparse", "--sparse-version=0.0"]].concat(),
            ),
            ("gnu-sparse", vec!["--format=gnu", "--sparse"]),
        ];
        for (name, options) in formats {
            let tar = scratch.path("archive.tar");
            let arguments = [
                &options[..],
                &[
                    "--numeric-owner",
                    "-cf",
                    tar.to_str().unwrap(),
                    "-C",
                    source.to_str().unwrap(),
                    ".",
                ],
            ]
            .concat();
            run("tar", &arguments);
            let bytes = fs::read(&tar).unwrap();
            let layer = scratch.layer(&bytes).unwrap();
            assert_eq!(layer.0, Digest::of(&bytes), "{name}");
            eprintln!("{backend:?} {name}");
            assert_same(&scratch.seen(&[layer]), &unpacked_by_tar(&scratch, &tar));
        }
    }
}

#[test]
fn a_directory_of_100_000_entries() {
    for backend in [Backend::Erofs] {
        let Some(scratch) = Scratch::new("a_directory_of_100_000_entries", backend) else {
            continue;
        };
        let mut tar = crate::tar::Writer::new(Vec::new());
        let attributes = crate::tar::Attributes {
            mode: 0o644,
            ..Default::default()
        };
        for n in 0..100_000_u64 {
            // An order that is not the names'.
            let name = format!("d/{}", n * 7_919 % 100_003);
            tar.file(name.as_bytes(), &attributes, 1, &b"x"[..])
                .unwrap();
        }
        let layer = scratch.layer(&tar.finish().unwrap()).unwrap();
        let root = scratch.store.root("test", &[layer]).unwrap();
        let lower = root.lowers()[0].join("d");
        assert_eq!(fs::read_dir(&lower).unwrap().count(), 100_000);
        for n in [0_u64, 1, 99, 50_000, 99_999] {
            assert_eq!(
                fs::read(lower.join((n * 7_919 % 100_003).to_string())).unwrap(),
                b"x"
            );
        }
        assert!(!lower.join("100003").exists());
        assert!(!lower.join("5x").exists());
        root.release().unwrap();
    }
}

/// Path, type, link target, data.
type Member<'m> = (&'m str, u8, &'m str, &'m [u8]);

/// One member after another, each a header with its data.
fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, typeflag, link, data) in members {
        let mut block = [0; 512];
        block[..path.len()].copy_from_slice(path.as_bytes());
        block[100..107].copy_from_slice(b"0000755");
        block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        block[156] = *typeflag;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend_from_slice(&block);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}
