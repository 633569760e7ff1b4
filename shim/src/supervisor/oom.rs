//! Whether the kernel's OOM killer struck in a container's cgroup.

use std::path::{Path, PathBuf};

/// Largest file of a cgroup or of /proc read here, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The file of the process's memory cgroup that counts OOM kills:
/// `memory.oom_control` of v1, `memory.events` of v2. Both have an `oom_kill N`
/// line. `None` where there is no memory controller.
#[must_use]
pub fn counter_of(pid: i32) -> Option<PathBuf> {
    let cgroups = read(Path::new(&format!("/proc/{pid}/cgroup")))?;
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    counter(&cgroups, &mounts)
}

/// The same from the texts of `/proc/PID/cgroup` and `/proc/self/mountinfo`.
fn counter(cgroups: &str, mounts: &str) -> Option<PathBuf> {
    let path_of = |wanted: &dyn Fn(&str) -> bool| {
        cgroups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            wanted(fields.next()?).then_some(fields.next()?)
        })
    };
    let v1 = path_of(&|controllers| controllers.split(',').any(|name| name == "memory"))
        .and_then(|path| locate(path, mounts, "cgroup", Some("memory")))
        .map(|dir| dir.join("memory.oom_control"));
    v1.or_else(|| {
        let path = path_of(&str::is_empty)?;
        Some(locate(path, mounts, "cgroup2", None)?.join("memory.events"))
    })
}

/// Where cgroup `path` is mounted: a mount shows a subtree (its root field).
fn locate(path: &str, mounts: &str, fstype: &str, option: Option<&str>) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, target) = (mount.next()?, mount.next()?);
        let mut filesystem = filesystem.split(' ');
        let named = filesystem.next()? == fstype;
        let options = filesystem.nth(1)?;
        let right = option.is_none_or(|wanted| options.split(',').any(|option| option == wanted));
        let below = Path::new(path).strip_prefix(root).ok()?;
        (named && right).then(|| Path::new(target).join(below))
    })
}

/// Whether the counter stands above zero. A cgroup that is gone tells nothing.
#[must_use]
pub fn happened(counter: &Path) -> bool {
    read(counter).is_some_and(|text| kills(&text) > 0)
}

fn kills(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0)
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .ok()?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V2: &str = "24 20 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const PART: &str = "24 20 0:22 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_counter_is_found_on_v1_v2_and_below_a_bind_mount() {
        let file =
            |cgroups, mounts| counter(cgroups, mounts).map(|path| path.display().to_string());
        assert_eq!(
            file("5:memory:/teu/x\n0::/y\n", V1).unwrap(),
            "/sys/fs/cgroup/memory/teu/x/memory.oom_control"
        );
        assert_eq!(
            file("0::/teu/x\n", V2).unwrap(),
            "/sys/fs/cgroup/teu/x/memory.events"
        );
        assert_eq!(
            file("0::/pod/x\n", PART).unwrap(),
            "/sys/fs/cgroup/x/memory.events"
        );
        assert_eq!(file("0::/elsewhere\n", PART), None);
        assert_eq!(file("", V1), None);
    }

    #[test]
    fn kills_are_counted_in_both_formats() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(kills("low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"), 1);
        assert_eq!(kills("oom_kill_disable 0\n"), 0);
    }
}
