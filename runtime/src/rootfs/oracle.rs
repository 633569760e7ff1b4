//! [`RootDir`] against the kernel's own answer, on random trees and paths.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::root::{RootDir, Stub, stat};
use crate::mutation::Random;

/// Paths tried unless `TEU_FUZZ_CASES` says how many.
const CASES: usize = 5000;
/// Paths tried on one tree before it is made anew: what is made stays in it.
const CASES_A_TREE: usize = 50;

const NAMES: [&str; 6] = ["a", "b", "c", "link", "file", "proc"];

/// A path of up to eight parts, with all that a hostile image may write.
fn path(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..=random.below(8) {
        match random.below(12) {
            0..=2 => text.push_str(".."),
            3 => text.push('.'),
            4 => text.push_str("self/fd/3"),
            5 => text.push_str("new"),
            _ => text.push_str(NAMES[random.below(NAMES.len())]),
        }
        text.push_str(["/", "/", "/", "//", "/./"][random.below(5)]);
    }
    if random.below(3) > 0 {
        text.truncate(text.trim_end_matches(['/', '.']).len());
    }
    // An empty path names nothing for the kernel.
    let absolute = if text.is_empty() || random.below(2) == 0 {
        "/"
    } else {
        ""
    };
    format!("{absolute}{text}")
}

/// A tree of directories, files and links, some of which lead out of it.
fn plant(random: &mut Random, root: &Path) {
    let _ = std::fs::remove_dir_all(root);
    std::fs::create_dir_all(root).unwrap();
    let mut folders = vec![root.to_owned()];
    for _ in 0..30 {
        let place = folders[random.below(folders.len())].join(NAMES[random.below(NAMES.len())]);
        match random.below(5) {
            0 | 1 if std::fs::create_dir(&place).is_ok() => folders.push(place),
            2 => drop(std::fs::File::create_new(&place)),
            _ => drop(std::os::unix::fs::symlink(path(random), &place)),
        }
    }
}

/// Whether an opened file lies below `root`, says the kernel.
fn is_inside(fd: &std::os::fd::OwnedFd, root: &Path) -> bool {
    use std::os::fd::AsRawFd;
    let place = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    place.starts_with(root)
}

/// R45: paths that end in links, slashes and dots, forty links deep, through
/// directories that do not exist: [`RootDir::open`] and [`RootDir::create`] never
/// leave the root, find what `openat2(2)` finds, and make what it then finds.
#[test]
fn paths_lead_where_the_kernel_leads_them() {
    let cases = std::env::var("TEU_FUZZ_CASES").map_or(CASES, |text| text.parse().unwrap());
    let base = std::env::temp_dir().join(format!("teu-runtime-oracle-{}", std::process::id()));
    let below = base.join("root");
    let mut random = Random::new(45);
    let mut counts = [0; 3];
    for case in 0..cases {
        if case % CASES_A_TREE == 0 {
            plant(&mut random, &below);
        }
        let root = rustix::fs::open(&below, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let root = RootDir(root.unwrap());
        let text = path(&mut random);
        let wanted = Path::new(&text);
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // A rename anywhere on the host disturbs the kernel's answer (EAGAIN).
        let ask = || openat2(&root, wanted, flags, Mode::empty(), how);
        let answers = || std::iter::repeat_with(ask);
        let oracle = || answers().find(|answer| answer.as_ref().err() != Some(&Errno::AGAIN));
        let oracle = || oracle().unwrap_or(Err(Errno::AGAIN));
        let before = oracle();
        let opened = root.open(wanted, OFlags::PATH);
        assert_eq!(before.as_ref().err(), opened.as_ref().err(), "{text:?}");
        let stub = [Stub::Directory, Stub::File][random.below(2)];
        let made = root.create(wanted, stub);
        if let Ok(made) = &made {
            assert!(is_inside(made, &below), "{text:?}");
            let made = stat(made).unwrap();
            match oracle().map(|found| stat(found).unwrap()) {
                Ok(found) => assert_eq!(
                    (found.st_dev, found.st_ino),
                    (made.st_dev, made.st_ino),
                    "{text:?}"
                ),
                // A slash behind a file, here or in a link: the kernel takes it
                // for a directory, `create` for nothing.
                Err(errno) => {
                    let kind = FileType::from_raw_mode(made.st_mode);
                    let file = kind == FileType::RegularFile;
                    assert!(errno == Errno::NOTDIR && file, "{text:?}: {errno}");
                }
            }
        }
        match (&before, &made) {
            (Ok(_), Ok(_)) => counts[0] += 1,
            (Err(_), Ok(_)) => counts[1] += 1,
            // Refusing is always right, but what is there must be found.
            (Err(_), Err(_)) => counts[2] += 1,
            (Ok(_), Err(error)) => panic!("{text:?} is there, but: {error}"),
        }
    }
    let outside: Vec<_> = std::fs::read_dir(&base).unwrap().collect();
    assert_eq!(outside.len(), 1, "{outside:?}");
    assert_eq!(std::fs::metadata(&base).unwrap().nlink(), 3);
    eprintln!(
        "{cases} paths: {} found, {} made, {} refused",
        counts[0], counts[1], counts[2]
    );
    std::fs::remove_dir_all(&base).unwrap();
}

/// Forty links are followed, as the kernel does, and no more.
#[test]
fn links_are_followed_to_a_limit() {
    let base = std::env::temp_dir().join(format!("teu-runtime-links-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&base);
    std::fs::create_dir_all(&base).unwrap();
    for number in 0..60 {
        std::os::unix::fs::symlink(format!("l{}", number + 1), base.join(format!("l{number}")))
            .unwrap();
    }
    let root = rustix::fs::openat(CWD, &base, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let root = RootDir(root.unwrap());
    let error = root.create(Path::new("/l0"), Stub::File).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    root.create(Path::new("/l30"), Stub::File).unwrap();
    assert!(base.join("l60").is_file());
    std::fs::remove_dir_all(base).unwrap();
}
