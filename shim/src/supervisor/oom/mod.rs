//! Whether the kernel's OOM killer struck in a container's cgroup.

mod watch;

use std::path::{Path, PathBuf};

use super::cgroups::{Cgroups, UNIFIED, read};

pub use watch::Watch;

/// The file of the process's memory cgroup that counts OOM kills:
/// `memory.oom_control` of v1, `memory.events` of v2. Both have an `oom_kill N`
/// line. `None` where there is no memory controller.
#[must_use]
pub fn counter_of(pid: i32) -> Option<PathBuf> {
    counter(&Cgroups::of(pid)?)
}

/// The same in known cgroups.
#[must_use]
pub fn counter(cgroups: &Cgroups) -> Option<PathBuf> {
    let v2 = |folder: &Path| folder.join("memory.events");
    match cgroups {
        Cgroups::V1(_) => cgroups
            .dir("memory")
            .map(|folder| folder.join("memory.oom_control"))
            .or_else(|| cgroups.dir(UNIFIED).map(v2)),
        Cgroups::V2(folder) => Some(v2(folder)),
    }
}

/// Whether the counter stands above zero. A cgroup that is gone tells nothing.
#[must_use]
pub fn happened(counter: &Path) -> bool {
    read(counter).is_some_and(|text| kills(&text) > 0)
}

/// How often it struck, by such a file's text.
#[must_use]
pub fn kills(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_v1s_or_v2s() {
        let file = |cgroups: &Cgroups| counter(cgroups).map(|path| path.display().to_string());
        let v1 = |names: &[&str]| {
            let folder = |name: &&str| ((*name).to_owned(), PathBuf::from(format!("/c/{name}")));
            file(&Cgroups::V1(names.iter().map(folder).collect()))
        };
        assert_eq!(v1(&["memory", ""]).unwrap(), "/c/memory/memory.oom_control");
        assert_eq!(v1(&["cpu", ""]).unwrap(), "/c/memory.events");
        assert_eq!(v1(&["cpu"]), None);
        assert_eq!(file(&Cgroups::V2("/c".into())).unwrap(), "/c/memory.events");
    }

    #[test]
    fn kills_are_counted_in_both_formats() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(kills("low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"), 1);
        assert_eq!(kills("oom_kill_disable 0\n"), 0);
    }
}
