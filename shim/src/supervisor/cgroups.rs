//! Which cgroups a process is in, and where they are mounted.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// Largest file of a cgroup or of /proc read here, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The folders of a process's cgroups. `cgroups(7)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// A host whose controllers have hierarchies of their own: name and folder of each.
    V1(Vec<(String, PathBuf)>),
    /// A host with the unified hierarchy alone.
    V2(PathBuf),
}

/// The name that [`Cgroups::dir`] knows the unified hierarchy of a hybrid host by.
pub const UNIFIED: &str = "";

impl Cgroups {
    /// Those of process `pid` at this moment. `None`: it is gone, or no hierarchy is mounted here.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let memberships = read(Path::new(&format!("/proc/{pid}/cgroup")))?;
        let mounts = mounts(|line| line.contains(" - cgroup"))?;
        Self::parse(&memberships, &mounts)
    }

    /// Those at `path` of each hierarchy that this process is in, whether they exist or not.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        let own = read(Path::new("/proc/self/cgroup"))?;
        let memberships: String = own
            .lines()
            .filter_map(|line| line.match_indices(':').nth(1).map(|(at, _)| &line[..=at]))
            .map(|hierarchy| format!("{hierarchy}/{}\n", path.trim_start_matches('/')))
            .collect();
        Self::parse(&memberships, &mounts(|line| line.contains(" - cgroup"))?)
    }

    /// All folders.
    #[must_use]
    pub fn folders(&self) -> Vec<&Path> {
        match self {
            Self::V1(folders) => folders.iter().map(|(_, folder)| folder.as_path()).collect(),
            Self::V2(folder) => vec![folder],
        }
    }

    /// The same from the texts of `/proc/PID/cgroup` and `/proc/self/mountinfo`.
    #[must_use]
    pub fn parse(memberships: &str, mounts: &str) -> Option<Self> {
        let mut folders = Vec::new();
        let mut unified = None;
        for line in memberships.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            if controllers == UNIFIED {
                unified = locate(path, mounts, "cgroup2", None);
                continue;
            }
            for name in controllers.split(',').filter(|name| !name.contains('=')) {
                if let Some(folder) = locate(path, mounts, "cgroup", Some(name)) {
                    folders.push((name.to_owned(), folder));
                }
            }
        }
        if folders.is_empty() {
            return unified.map(Self::V2);
        }
        folders.extend(unified.map(|folder| (UNIFIED.to_owned(), folder)));
        Some(Self::V1(folders))
    }

    /// The folder with `controller`'s files; with the unified hierarchy alone it
    /// is the same for all, whether the controller is there or not.
    #[must_use]
    pub fn dir(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V1(folders) => folders
                .iter()
                .find(|(name, _)| name == controller)
                .map(|(_, folder)| folder.as_path()),
            Self::V2(folder) => Some(folder),
        }
    }
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
        // Without a slash at the end, which joining nothing would leave.
        let folder: PathBuf = Path::new(target).join(below).components().collect();
        (named && right).then_some(folder)
    })
}

/// The lines of `/proc/self/mountinfo` that are wanted. Read line by line: with
/// many overlays, the whole is megabytes. `None`: it cannot be read.
#[must_use]
pub fn mounts(mut wanted: impl FnMut(&str) -> bool) -> Option<String> {
    let mut lines = BufReader::new(File::open("/proc/thread-self/mountinfo").ok()?);
    let (mut text, mut line) = (String::new(), Vec::new());
    while lines.read_until(b'\n', &mut line).ok()? > 0 {
        // A path may be any bytes; none that are not text belong to us.
        if let Ok(line) = std::str::from_utf8(&line)
            && wanted(line)
        {
            text.push_str(line);
        }
        line.clear();
    }
    Some(text)
}

/// The text of a small file of a cgroup or of /proc. `None`: it is gone, or not text.
#[must_use]
pub fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "29 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw shared:8 - cgroup cgroup rw,cpu,cpuacct\n\
                      30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V2: &str = "24 20 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const PART: &str = "24 20 0:22 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn controllers_of_v1_have_folders_of_their_own() {
        let text = "7:name=systemd:/s\n5:memory:/teu/x\n4:cpu,cpuacct:/\n3:devices:/d\n0::/y\n";
        let cgroups = Cgroups::parse(text, V1).unwrap();
        let dir = |name| cgroups.dir(name).map(|path| path.display().to_string());
        assert_eq!(dir("memory").unwrap(), "/sys/fs/cgroup/memory/teu/x");
        assert_eq!(dir("cpuacct").unwrap(), "/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(dir("devices"), None, "nothing is mounted");
        assert_eq!(dir("systemd"), None, "no controller");
        assert_eq!(dir(UNIFIED).unwrap(), "/sys/fs/cgroup/unified/y");
    }

    #[test]
    fn the_unified_hierarchy_is_found_also_below_a_bind_mount() {
        let of = |text, mounts| Cgroups::parse(text, mounts);
        let v2 = |path: &str| Some(Cgroups::V2(path.into()));
        assert_eq!(of("0::/teu/x\n", V2), v2("/sys/fs/cgroup/teu/x"));
        assert_eq!(of("0::/pod/x\n", PART), v2("/sys/fs/cgroup/x"));
        assert_eq!(of("1:name=systemd:/\n0::/x\n", V2), v2("/sys/fs/cgroup/x"));
        assert_eq!(of("0::/elsewhere\n", PART), None);
        assert_eq!(of("", V1), None);
        assert_eq!(of("nonsense\n::\n", V1), None);
    }

    #[test]
    fn this_process_is_somewhere() {
        let own = i32::try_from(std::process::id()).unwrap();
        match Cgroups::of(own) {
            Some(Cgroups::V1(folders)) => assert!(folders.iter().all(|(_, dir)| dir.is_dir())),
            Some(Cgroups::V2(dir)) => assert!(dir.is_dir()),
            None => eprintln!("SKIPPED this_process_is_somewhere: no cgroups are mounted"),
        }
        assert_eq!(Cgroups::of(i32::MAX), None);
    }
}
