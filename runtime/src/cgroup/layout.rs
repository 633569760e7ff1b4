//! Where the host keeps its cgroups, and where in there a container belongs.
//!
//! Three layouts exist (cgroups(7)): one cgroup2 at `/sys/fs/cgroup`; one v1
//! mount a controller below it; and the hybrid, v1 with a cgroup2 of few or no
//! controllers beside it at `/sys/fs/cgroup/unified`. The usual places are
//! tried with statfs(2) first: reading the mount table costs what the host has
//! of mounts, so it is read only where those places do not serve.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{Error, dir};

/// Where cgroups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// `CGROUP_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP1_MAGIC: u64 = 0x0027_e0eb;
/// The longest `cgroupsPath` in bytes: the kernel takes paths below 4096, mount
/// point, own cgroup and file name need their part.
const PATH_BYTES_MAX: usize = 3072;

/// The host's cgroup hierarchies, as this process finds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// cgroup2 alone.
    V2,
    /// A hierarchy a controller, and on a hybrid host cgroup2 as one more.
    V1(Vec<Hierarchy>),
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Its controllers; `name=...` without any, and `""` for cgroup2.
    names: Vec<String>,
    /// Where it is mounted.
    mount: PathBuf,
    /// This process's own cgroup, seen from the root of the hierarchy.
    own: PathBuf,
}

/// A container's cgroup in every hierarchy, by controller; cgroup2 is `""`.
///
/// The form of `cgroup_paths` in runc's state file. It is recorded before
/// anything is created, so what a killed runtime left can be found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Paths(BTreeMap<String, PathBuf>);

impl Layout {
    /// Looks at the host. Reads, at most, `/proc/self/cgroup` and the mount table.
    pub(crate) fn discover() -> Result<Self, Error> {
        match magic(Path::new(ROOT)) {
            Ok(CGROUP2_MAGIC) => Ok(Self::V2),
            Ok(_) => Ok(Self::V1(hierarchies(&dir::read_path(Path::new(
                "/proc/self/cgroup",
            ))?)?)),
            Err(source) => Err(Error::NoCgroups {
                path: ROOT.into(),
                source,
            }),
        }
    }

    /// The place of container `id`: `cgroupsPath` below the mount points when it
    /// is absolute, else below this process's own cgroup, where `id` stands for
    /// an absent path. On cgroup2 it is the parent of the own cgroup, since one
    /// with processes in it cannot have children with controllers.
    pub(crate) fn place(&self, cgroups_path: Option<&str>, id: &str) -> Result<Paths, Error> {
        let wish = match cgroups_path {
            None | Some("") => id,
            Some(path) => path,
        };
        let inner = checked(wish)?;
        let absolute = wish.starts_with('/');
        let mut paths = BTreeMap::new();
        match self {
            Self::V2 => {
                let mut place = PathBuf::from(ROOT);
                if !absolute {
                    let text = dir::read_path(Path::new("/proc/self/cgroup"))?;
                    place.push(below_root(
                        own_unified(&text).parent().unwrap_or(Path::new("/")),
                    ));
                }
                paths.insert(String::new(), place.join(inner));
            }
            Self::V1(hierarchies) => {
                for hierarchy in hierarchies {
                    let base = if absolute {
                        hierarchy.mount.clone()
                    } else {
                        hierarchy.own_directory()?
                    };
                    let place = base.join(&inner);
                    paths.extend(
                        hierarchy
                            .names
                            .iter()
                            .map(|name| (name.clone(), place.clone())),
                    );
                }
            }
        }
        Ok(Paths(paths))
    }
}

impl Layout {
    /// The cgroups that a process is in, without those that it shares with us.
    pub(crate) fn of_process(&self, pid: i32) -> Result<Paths, Error> {
        let text = dir::read_path(&PathBuf::from(format!("/proc/{pid}/cgroup")))?;
        let mut paths = BTreeMap::new();
        match self {
            Self::V2 => {
                let own = dir::read_path(Path::new("/proc/self/cgroup"))?;
                let place = own_unified(&text);
                if place != own_unified(&own) && place != Path::new("/") {
                    paths.insert(String::new(), Path::new(ROOT).join(below_root(place)));
                }
            }
            Self::V1(ours) => {
                for hierarchy in hierarchies(&text)? {
                    if hierarchy.own != Path::new("/") && !ours.contains(&hierarchy) {
                        let place = hierarchy.own_directory()?;
                        let names = hierarchy.names.into_iter();
                        paths.extend(names.map(|name| (name, place.clone())));
                    }
                }
            }
        }
        Ok(Paths(paths))
    }

    /// The cgroups of this process itself.
    pub(crate) fn own(&self) -> Result<Paths, Error> {
        let mut paths = BTreeMap::new();
        match self {
            Self::V2 => {
                let own = dir::read_path(Path::new("/proc/self/cgroup"))?;
                let place = Path::new(ROOT).join(below_root(own_unified(&own)));
                paths.insert(String::new(), place);
            }
            Self::V1(hierarchies) => {
                for hierarchy in hierarchies {
                    let place = hierarchy.own_directory()?;
                    let names = hierarchy.names.iter();
                    paths.extend(names.map(|name| (name.clone(), place.clone())));
                }
            }
        }
        Ok(Paths(paths))
    }
}

impl Hierarchy {
    /// The directory of this process's own cgroup. In a container the mount may
    /// show only a part of the hierarchy: then the mount table says which.
    fn own_directory(&self) -> Result<PathBuf, Error> {
        let direct = self.mount.join(below_root(&self.own));
        if self.own == Path::new("/") || direct.is_dir() {
            return Ok(direct);
        }
        let table = dir::read_path(Path::new("/proc/self/mountinfo"))?;
        let root = Mount::all(&table)
            .find(|m| m.point == self.mount)
            .map(|m| m.root);
        let rest = root.and_then(|root| self.own.strip_prefix(root).ok().map(Path::to_owned));
        Ok(self.mount.join(rest.unwrap_or_default()))
    }
}

impl Paths {
    /// The paths by name, as recorded.
    #[cfg(test)]
    pub(crate) fn from_pairs<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, path)| (name.to_owned(), path.into()))
                .collect(),
        )
    }

    /// Whether there is cgroup2 and nothing else.
    pub(crate) fn is_v2(&self) -> bool {
        self.0.len() == 1 && self.0.contains_key("")
    }

    /// The cgroup of one controller, `""` for cgroup2.
    pub(crate) fn get(&self, name: &str) -> Option<&Path> {
        self.0.get(name).map(PathBuf::as_path)
    }

    /// The cgroup that holds `controller`'s files, on v2 the only one.
    #[cfg(test)]
    pub(crate) fn of(&self, controller: &str) -> Option<&Path> {
        if self.is_v2() {
            self.get("")
        } else {
            self.get(controller)
        }
    }

    /// Every directory once, with the names of its controllers. A hierarchy
    /// with several controllers is one directory.
    pub(crate) fn directories(&self) -> Vec<(&Path, Vec<&str>)> {
        let mut all: Vec<(&Path, Vec<&str>)> = Vec::with_capacity(self.0.len());
        for (name, path) in &self.0 {
            match all.iter_mut().find(|(known, _)| known == path) {
                Some((_, names)) => names.push(name),
                None => all.push((path, vec![name])),
            }
        }
        all
    }

    /// These, and of the hierarchies that are missing here those of `others`.
    #[must_use]
    pub(crate) fn or(mut self, others: Paths) -> Paths {
        for (name, path) in others.0 {
            self.0.entry(name).or_insert(path);
        }
        self
    }

    /// The same without the directories that `keep` refuses.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Path) -> bool) {
        self.0.retain(|_, path| keep(path));
    }
}

/// The wish as a path that stays below where it is put.
fn checked(wish: &str) -> Result<PathBuf, Error> {
    let refused = |why| Error::Path {
        path: wish.to_owned(),
        why,
    };
    if wish.len() > PATH_BYTES_MAX {
        return Err(refused("it is longer than 3072 bytes"));
    }
    let mut path = PathBuf::new();
    for part in Path::new(wish).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(refused("`..` could leave the parent cgroup"));
            }
        }
    }
    if path.as_os_str().is_empty() {
        return Err(refused("it names the root cgroup"));
    }
    Ok(path)
}

/// `/proc/self/cgroup` (cgroups(7)): `id:controllers:path`, a line a hierarchy.
fn lines(text: &str) -> impl Iterator<Item = (&str, &Path)> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        Some((names, Path::new(path)))
    })
}

/// This process's own cgroup in cgroup2.
fn own_unified(text: &str) -> &Path {
    lines(text)
        .find(|(names, _)| names.is_empty())
        .map_or(Path::new("/"), |(_, path)| path)
}

/// `path` relative to the root; a cgroup outside the cgroup namespace
/// (`/../x`) has no place here, the root stands for it.
fn below_root(path: &Path) -> &Path {
    if path.components().any(|part| part == Component::ParentDir) {
        return Path::new("");
    }
    path.strip_prefix("/").unwrap_or(path)
}

/// The hierarchies of `/proc/self/cgroup` that are mounted.
fn hierarchies(text: &str) -> Result<Vec<Hierarchy>, Error> {
    let mut table = None;
    let mut found = Vec::new();
    for (names, own) in lines(text) {
        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
        let mount = match usual_place(&names) {
            Some(mount) => mount,
            // A hybrid host has cgroup2 at its usual place or not at all.
            None if names[0].is_empty() => continue,
            None => {
                let table = match &table {
                    Some(table) => table,
                    None => table.insert(dir::read_path(Path::new("/proc/self/mountinfo"))?),
                };
                match Mount::all(table).find(|m| m.serves(&names[0])) {
                    Some(mount) => mount.point.to_owned(),
                    None => continue,
                }
            }
        };
        found.push(Hierarchy {
            names,
            mount,
            own: own.to_owned(),
        });
    }
    Ok(found)
}

/// The mount point that systemd and most init scripts give a hierarchy, if it is one.
fn usual_place(names: &[String]) -> Option<PathBuf> {
    let root = Path::new(ROOT);
    if names[0].is_empty() {
        let place = root.join("unified");
        return (magic(&place) == Ok(CGROUP2_MAGIC)).then_some(place);
    }
    let joined = names.join(",");
    let name = joined.strip_prefix("name=").unwrap_or(&joined);
    let place = root.join(name);
    if magic(&place) == Ok(CGROUP1_MAGIC) {
        return Some(place);
    }
    let place = root.join(&names[0]);
    (names.len() > 1 && magic(&place) == Ok(CGROUP1_MAGIC)).then_some(place)
}

fn magic(path: &Path) -> Result<u64, Errno> {
    // The type of f_type differs between architectures; its value is unsigned 32 bits.
    #[allow(
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "a magic number, not a quantity"
    )]
    rustix::fs::statfs(path).map(|s| s.f_type as u64)
}

/// A line of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
struct Mount<'a> {
    root: &'a Path,
    point: &'a Path,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn all(table: &'a str) -> impl Iterator<Item = Self> {
        table.lines().filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut before = before.split(' ').skip(3);
            let mut after = after.split(' ');
            Some(Mount {
                root: Path::new(before.next()?),
                point: Path::new(before.next()?),
                kind: after.next()?,
                options: after.nth(1)?,
            })
        })
    }

    fn serves(&self, controller: &str) -> bool {
        self.kind == "cgroup" && self.options.split(',').any(|option| option == controller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v1() -> Layout {
        let hierarchy = |names: &[&str], mount: &str| Hierarchy {
            names: names.iter().map(|&n| n.to_owned()).collect(),
            mount: mount.into(),
            own: "/".into(),
        };
        Layout::V1(vec![
            hierarchy(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct"),
            hierarchy(&["freezer"], "/sys/fs/cgroup/freezer"),
            hierarchy(&[""], "/sys/fs/cgroup/unified"),
        ])
    }

    #[test]
    fn an_absolute_path_is_taken_from_the_mount_points() {
        let paths = v1().place(Some("/pod/web"), "c1").unwrap();
        assert_eq!(
            paths.get("cpuacct"),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/pod/web"))
        );
        assert_eq!(
            paths.get(""),
            Some(Path::new("/sys/fs/cgroup/unified/pod/web"))
        );
        assert_eq!(paths.directories().len(), 3);
        assert!(!paths.is_v2());
        let paths = Layout::V2.place(Some("/pod/web"), "c1").unwrap();
        assert_eq!(
            paths.of("memory"),
            Some(Path::new("/sys/fs/cgroup/pod/web"))
        );
        assert!(paths.is_v2());
    }

    #[test]
    fn without_a_path_the_id_names_it() {
        let paths = v1().place(None, "c1").unwrap();
        assert_eq!(
            paths.get("freezer"),
            Some(Path::new("/sys/fs/cgroup/freezer/c1"))
        );
    }

    #[test]
    fn nothing_leads_outside() {
        for bad in ["../x", "/a/../../x", "/..", "/", ".", &"x/".repeat(2500)] {
            assert!(v1().place(Some(bad), "c1").is_err(), "{bad:?}");
        }
        let odd = v1().place(Some("//a/./b/"), "c1").unwrap();
        assert_eq!(
            odd.get("freezer"),
            Some(Path::new("/sys/fs/cgroup/freezer/a/b"))
        );
    }

    #[test]
    fn the_cgroup_file_is_read_with_colons_in_paths() {
        let text = "12:cpu,cpuacct:/a:b\n1:name=systemd:/x\n0::/user.slice\n";
        let all: Vec<_> = lines(text).collect();
        assert_eq!(all[0], ("cpu,cpuacct", Path::new("/a:b")));
        assert_eq!(own_unified(text), Path::new("/user.slice"));
        assert_eq!(below_root(Path::new("/../../x")), Path::new(""));
    }

    #[test]
    fn a_mount_is_found_by_its_controller() {
        let table = "30 24 0:26 / /cg/a rw,relatime shared:9 - cgroup cgroup rw,cpuset\n\
                     31 24 0:27 /docker/1 /cg/b rw - cgroup none rw,cpu,cpuacct\n";
        let found = Mount::all(table).find(|m| m.serves("cpuacct")).unwrap();
        assert_eq!(
            (found.point, found.root),
            (Path::new("/cg/b"), Path::new("/docker/1"))
        );
    }

    #[test]
    fn the_record_survives_the_state_file() {
        let paths = v1().place(Some("/pod/web"), "c1").unwrap();
        let text = serde_json::to_string(&paths).unwrap();
        assert_eq!(serde_json::from_str::<Paths>(&text).unwrap(), paths);
    }
}
