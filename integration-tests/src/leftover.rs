//! What a scene must not leave behind, found by the scene's mark.

use crate::ordinary;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long what is ending may take to be gone: process 1 may reap late.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything of the scene that still exists, a line each.
pub(crate) fn after(mark: &str, folder: &Path) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut left = processes(mark, folder);
        left.extend(
            mounts(folder)
                .iter()
                .map(|path| format!("mount {}", path.display())),
        );
        left.extend(container_cgroups(mark));
        left.extend(network_namespaces(mark));
        left.extend(intent_files(folder));
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Removes what is left, so that one failed test does not fail the next.
/// Ends only processes that carry the scene's mark.
pub(crate) fn remove(mark: &str, folder: &Path) {
    for _ in 0..20 {
        let pids = marked_pids(mark, folder);
        for pid in &pids {
            if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        for path in mounts(folder).iter().rev() {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
        for cgroup in cgroups(mark).iter().rev() {
            let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
            let _ = fs::remove_dir(cgroup);
        }
        if pids.is_empty() && cgroups(mark).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes that name the scene in their command line, environment or cgroup.
fn processes(mark: &str, folder: &Path) -> Vec<String> {
    let describe = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = state
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next())
            .unwrap_or('?');
        format!("process {pid} ({state}) {line}")
    };
    marked_pids(mark, folder)
        .into_iter()
        .map(describe)
        .collect()
}

fn marked_pids(mark: &str, folder: &Path) -> Vec<i32> {
    let own = std::process::id() as i32;
    let folder = folder.as_os_str().as_encoded_bytes();
    let holds = |pid: i32, file: &str, needle: &[u8]| {
        fs::read(format!("/proc/{pid}/{file}"))
            .is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    };
    numbers("/proc")
        .into_iter()
        .filter(|&pid| pid != own && !awaits_process_1(pid))
        .filter(|&pid| {
            holds(pid, "cgroup", mark.as_bytes())
                || holds(pid, "cmdline", folder)
                || holds(pid, "environ", mark.as_bytes())
        })
        .collect()
}

/// Whether a process has ended and only process 1 has not taken note of it yet.
fn awaits_process_1(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    fields.next() == Some("Z") && fields.next() == Some("1")
}

fn numbers(folder: &str) -> Vec<i32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Mount points below the scene's folder in the test's own mount namespace.
fn mounts(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|path| path.starts_with(folder))
        .collect()
}

/// The scene's own parent may stand until the scene ends; what is below it may not.
fn container_cgroups(mark: &str) -> Vec<String> {
    cgroups(mark)
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name != mark))
        .map(|path| format!("cgroup {}", path.display()))
        .collect()
}

/// The scene's cgroups in every hierarchy, parents first.
fn cgroups(mark: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let mut folders = vec![
            hierarchy
                .join(ordinary::parent().trim_start_matches('/'))
                .join(mark),
        ];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            folders.extend(
                entries
                    .flatten()
                    .filter(|entry| entry.path().is_dir())
                    .map(|entry| entry.path()),
            );
            // Where a hierarchy is not mounted, podman writes to a plain folder.
            if folder.join("cgroup.procs").exists() {
                found.push(folder);
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Named network namespaces (`ip netns`) that carry the mark.
fn network_namespaces(mark: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(mark))
        .map(|name| format!("network namespace {name}"))
        .collect()
}

/// Containers and unfinished writes that no command of the scene removed.
fn intent_files(folder: &Path) -> Vec<String> {
    [
        "data/containers",
        "data/store/tmp",
        "data/store/roots",
        "state/runtime",
        "state/netns",
    ]
    .iter()
    .flat_map(|name| {
        fs::read_dir(folder.join(name))
            .into_iter()
            .flatten()
            .flatten()
    })
    .map(|entry| format!("file {}", entry.path().display()))
    .collect()
}
