//! No mount of a restored container is the images' alone.
//!
//! CRIU mounts what the images say: whoever edits them could add a mount of
//! something of the host's, an overlay whose lower directory is `/etc`, the file
//! system of a disk. So, while CRIU still holds all processes, each mount of
//! each of their mount namespaces must be one that creation makes from the bundle,
//! show the part of a file system that it shows there, or be such as the
//! container could have made itself. That there is more than a place and a kind
//! to a mount is [`protection`](super::protection)'s to mind.
//!
//! Parts of file systems are compared as mount tables show them: device, and path
//! within it.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, statx};

use super::mounts::{self, TABLE_BYTES_MAX};
use super::private::Elsewhere;
use super::rpc::ExternalMount;
use super::table::Mount;
use crate::error::Error;
use crate::rootfs::op::What;
use crate::rootfs::plan::Plan;
use crate::rootfs::root::RootDir;

/// File systems that hold nothing of the host's files: what a container with
/// `CAP_SYS_ADMIN` may have mounted itself.
pub(super) const OWN_KINDS: [&str; 9] = [
    "cgroup",
    "cgroup2",
    "devpts",
    "hugetlbfs",
    "mqueue",
    "proc",
    "ramfs",
    "sysfs",
    "tmpfs",
];

/// Of these each mount is another file system: one of the host's is no new one.
const NEW_EACH_TIME: [&str; 3] = ["devpts", "ramfs", "tmpfs"];

/// Their names.
const LAYERS: [&str; 3] = ["lowerdir", "upperdir", "workdir"];

/// A part of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// As mount tables show it, `MAJOR:MINOR`.
    device: String,
    /// Path within the file system.
    root: PathBuf,
}

impl Part {
    fn of(mount: &Mount) -> Self {
        Self {
            device: mount.device.clone(),
            root: mount.root.clone(),
        }
    }

    fn has(&self, other: &Self) -> bool {
        self.device == other.device && other.root.starts_with(&self.root)
    }
}

/// What may be mounted on one place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Is {
    /// This, from the host.
    Part(Part),
    /// A file system of this kind.
    Filesystem {
        kind: String,
        source: String,
        layers: Vec<String>,
    },
    /// The container's cgroups; those of version 1 are below the place.
    Cgroups,
    /// What is there without it, now read-only, with all mounts below.
    Itself,
    /// The container's own terminal.
    Console,
}

/// All that creation would mount.
#[derive(Debug)]
struct Expected {
    places: Vec<(PathBuf, Is)>,
    /// Devices of what is mounted on the host.
    host: HashSet<String>,
    /// Whether the container may mount.
    may_mount: bool,
}

/// The mount that a path of this process is in, and the part that it shows.
fn part(table: &[Mount], path: &Path) -> Result<Option<Part>, Error> {
    let stat = match statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        result => result.map_err(Error::on("stat", path))?,
    };
    let real = std::fs::canonicalize(path).map_err(Error::on("look up", path))?;
    let mount = table.iter().find(|mount| mount.id == stat.stx_mnt_id);
    Ok(mount.and_then(|mount| {
        let below = real.strip_prefix(&mount.point).ok()?;
        let device = mount.device.clone();
        let root = joined(&mount.root, below);
        Some(Part { device, root })
    }))
}

/// `join` adds a slash for an empty path.
fn joined(path: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() {
        path.to_owned()
    } else {
        path.join(below)
    }
}

impl Expected {
    /// Of a bundle whose bind mounts CRIU was told. The host is asked what it
    /// has mounted now.
    fn new(plan: &Plan, binds: &[ExternalMount], may_mount: bool) -> Result<Self, Error> {
        let table = Mount::table(&read("/proc/self/mountinfo")?);
        let mut places = filesystems(plan);
        let recursive = |place: &Path| {
            plan.mounts.iter().any(|op| {
                op.target == place
                    && matches!(
                        op.what,
                        What::Bind {
                            recursive: true,
                            ..
                        }
                    )
            })
        };
        let root = (Path::new("/"), plan.rootfs.as_path(), true);
        let binds = binds.iter().map(|bind| {
            (
                bind.key.as_path(),
                bind.value.as_path(),
                recursive(&bind.key),
            )
        });
        for (place, source, recursive) in binds.chain([root]) {
            let Some(part) = part(&table, source)? else {
                continue;
            };
            places.push((place.to_owned(), Is::Part(part)));
            if recursive {
                let real = std::fs::canonicalize(source).map_err(Error::on("look up", source))?;
                places.extend(below(&table, place, &real));
            }
        }
        if let Some(null) = part(&table, Path::new("/dev/null"))? {
            let masked = plan.masked.iter();
            places.extend(masked.map(|path| (path.clone(), Is::Part(null.clone()))));
        }
        Ok(Self {
            places,
            host: table.into_iter().map(|mount| mount.device).collect(),
            may_mount,
        })
    }
}

/// What a recursive bind mount of `source` brings along to `place`.
fn below(table: &[Mount], place: &Path, source: &Path) -> Vec<(PathBuf, Is)> {
    let mount = |mount: &Mount| {
        let below = mount.point.strip_prefix(source).ok()?;
        let is_below = !below.as_os_str().is_empty();
        is_below.then(|| (place.join(below), Is::Part(Part::of(mount))))
    };
    table.iter().filter_map(mount).collect()
}

/// All that is no part of the host's tree.
fn filesystems(plan: &Plan) -> Vec<(PathBuf, Is)> {
    let own = |kind: &str| Is::Filesystem {
        kind: kind.to_owned(),
        source: String::new(),
        layers: Vec::new(),
    };
    let mut all = vec![(PathBuf::from("/dev/console"), Is::Console)];
    for op in &plan.mounts {
        let is = match &op.what {
            What::Bind { .. } | What::Remount => continue,
            What::Cgroup => Is::Cgroups,
            What::Filesystem { kind, source } => Is::Filesystem {
                kind: kind.clone(),
                source: source.clone(),
                layers: layers(&op.options.filesystem),
            },
        };
        all.push((op.target.clone(), is));
    }
    all.extend(plan.masked.iter().map(|path| (path.clone(), own("tmpfs"))));
    let readonly = plan.readonly_paths.iter();
    all.extend(readonly.map(|path| (path.clone(), Is::Itself)));
    all
}

/// The options of an overlay that name directories of the host.
pub(super) fn layers(options: &[(String, Option<String>)]) -> Vec<String> {
    options
        .iter()
        .filter(|(key, _)| LAYERS.contains(&key.as_str()))
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)))
        .collect()
}

impl Is {
    /// Whether this is what `mount` is. `on` says whether it is right on the place,
    /// not below it.
    fn explains(&self, mount: &Mount, on: bool, host: &HashSet<String>) -> bool {
        match self {
            Self::Part(part) => on && *part == Part::of(mount),
            Self::Filesystem {
                kind,
                source,
                layers,
            } => on && mount.kind == *kind && is_new(mount, host) && same(mount, source, layers),
            Self::Cgroups if on => {
                mount.kind == "cgroup2" || mount.kind == "tmpfs" && is_new(mount, host)
            }
            Self::Cgroups => mount.kind == "cgroup" || mount.kind == "cgroup2",
            Self::Itself | Self::Console => false,
        }
    }

    /// Whether this is what a `mount` is that shows a part of another mount of the
    /// container.
    fn explains_part(&self, mount: &Mount, on: bool) -> bool {
        match self {
            Self::Itself => true,
            Self::Console => on && mount.kind == "devpts",
            Self::Part(_) | Self::Filesystem { .. } | Self::Cgroups => false,
        }
    }
}

fn is_new(mount: &Mount, host: &HashSet<String>) -> bool {
    !NEW_EACH_TIME.contains(&mount.kind.as_str()) || !host.contains(&mount.device)
}

/// Whether a file system that holds files of the host's holds those that were
/// asked for.
pub(super) fn same(mount: &Mount, source: &str, layers: &[String]) -> bool {
    let shown = if source.is_empty() { "none" } else { source };
    let is_layer = |word: &&str| LAYERS.iter().any(|layer| word.starts_with(layer));
    OWN_KINDS.contains(&mount.kind.as_str())
        || mount.source == shown
            && mount
                .options
                .split(',')
                .filter(is_layer)
                .all(|word| layers.iter().any(|layer| layer == word))
}

/// The first mount of a container that nothing explains. `resolved` says where
/// what is meant to be mounted on a place is mounted, if links lead there.
fn unexplained<'a>(
    table: &'a [Mount],
    expected: &Expected,
    resolved: &dyn Fn(&Path) -> Option<PathBuf>,
) -> Option<&'a Mount> {
    let places: Vec<(PathBuf, &Is)> = expected
        .places
        .iter()
        .flat_map(|(place, is)| {
            let other = resolved(place).filter(|other| other != place);
            std::iter::once((place.clone(), is)).chain(other.map(|other| (other, is)))
        })
        .collect();
    let planned = |mount: &&Mount| {
        places.iter().any(|(place, is)| match is {
            Is::Cgroups if mount.point.parent() == Some(place) => {
                is.explains(mount, false, &expected.host)
            }
            _ => *place == mount.point && is.explains(mount, true, &expected.host),
        })
    };
    let (explained, rest): (Vec<_>, Vec<_>) = table.iter().partition(planned);
    let parts: Vec<Part> = explained.into_iter().map(Part::of).collect();
    rest.into_iter().find(|mount| {
        let part = Part::of(mount);
        let shown = parts.iter().any(|known| known.has(&part));
        let own = OWN_KINDS.contains(&mount.kind.as_str()) && is_new(mount, &expected.host);
        let planned = places.iter().any(|(place, is)| {
            mount.point.starts_with(place) && is.explains_part(mount, *place == mount.point)
        });
        !(shown && planned || expected.may_mount && (shown || own))
    })
}

pub(super) fn read(path: &str) -> Result<Vec<u8>, Error> {
    crate::file::read_limited(Path::new(path), TABLE_BYTES_MAX)
}

fn open(path: &str, flags: OFlags) -> Result<OwnedFd, Error> {
    rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::on("open", path))
}

/// Compares the mounts of the mount namespaces that these processes are in with
/// those of the bundle; `binds` are those that CRIU was told.
///
/// # Errors
/// Names the mount that is not the bundle's; or a mount table could not be read.
pub(super) fn check(
    pids: &[i32],
    plan: &Plan,
    binds: &[ExternalMount],
    may_mount: bool,
) -> Result<(), Error> {
    if !plan.own_mounts {
        return Ok(());
    }
    let expected = Expected::new(plan, binds, may_mount)?;
    let mut seen = HashSet::new();
    for &pid in pids {
        let path = format!("/proc/{pid}/ns/mnt");
        // What has ended has none.
        let Ok(namespace) = std::fs::metadata(&path) else {
            continue;
        };
        if seen.insert((namespace.dev(), namespace.ino())) {
            check_namespace(pid, &expected)?;
        }
    }
    Ok(())
}

/// A process may have its own root: all that is mounted is seen from that of the
/// namespace only.
fn check_namespace(pid: i32, expected: &Expected) -> Result<(), Error> {
    let path = "/proc/self";
    let own = open(path, OFlags::PATH | OFlags::DIRECTORY)?;
    let inside = Elsewhere::of(pid)?;
    let root = RootDir(open("/", OFlags::PATH | OFlags::DIRECTORY)?);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&own, "mountinfo", flags, Mode::empty())
        .map_err(Error::on("open mountinfo of", path))?;
    let text = crate::file::read_open(File::from(file), TABLE_BYTES_MAX)
        .map_err(Error::on("read mountinfo of", path))?;
    let table = Mount::table(&text);
    if table.is_empty() {
        return Err(mounts::refused(Path::new("/"), "cannot be seen"));
    }
    let resolved = |place: &Path| {
        let place = root.open(place, OFlags::PATH).ok()?;
        let stat = statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
        let on_root = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        let mount = table.iter().find(|mount| mount.id == stat.stx_mnt_id);
        Some(mount.filter(|_| on_root)?.point.clone())
    };
    let found = unexplained(&table, expected, &resolved);
    drop(inside);
    match found {
        None => Ok(()),
        Some(mount) => {
            let Mount { kind, source, .. } = mount;
            let why = format!(
                "({kind} from {source:?}) was restored from the images, and is not what the bundle says"
            );
            Err(mounts::refused(&mount.point, &why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    const BASE: &str = "1 0 8:1 /b/rootfs / ro - ext4 /dev/sda rw
2 1 0:50 / /proc rw - proc proc rw
3 1 0:51 / /dev rw - tmpfs tmpfs rw
4 3 0:52 / /dev/pts rw - devpts devpts rw
5 2 0:50 /sys /proc/sys ro - proc proc rw
6 2 0:6 /null /proc/kcore ro - devtmpfs udev rw
7 2 0:53 / /proc/acpi ro - tmpfs tmpfs rw
8 3 0:52 /0 /dev/console rw - devpts devpts rw
9 1 8:1 /data /data rw - ext4 /dev/sda rw
10 9 0:30 / /data/in rw - tmpfs host rw
11 1 0:54 / /cg rw - tmpfs tmpfs rw
12 11 0:31 /c /cg/cpu rw - cgroup cgroup rw
";

    fn expected(may_mount: bool) -> Expected {
        let text = r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"mounts":[
            {"destination":"/proc","type":"proc"},{"destination":"/dev","type":"tmpfs"},
            {"destination":"/dev/pts","type":"devpts"},{"destination":"/cg","type":"cgroup"},
            {"destination":"/ov","type":"overlay","source":"o","options":["lowerdir=/a:/b"]}],
            "linux":{"namespaces":[{"type":"mount"}],"readonlyPaths":["/proc/sys"],
            "maskedPaths":["/proc/kcore","/proc/acpi"]}}"#;
        let spec = Spec::parse(text.as_bytes()).unwrap();
        let plan = Plan::new(&spec, Path::new("/b"), false).unwrap();
        let host = "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:6 / /dev rw - devtmpfs udev rw\n\
            3 1 0:30 / /data/in rw - tmpfs host rw\n";
        let host = Mount::table(host.as_bytes());
        let shows = |device: &str, root: &str| {
            Is::Part(Part {
                device: device.into(),
                root: root.into(),
            })
        };
        let mut places = filesystems(&plan);
        places.push(("/".into(), shows("8:1", "/b/rootfs")));
        places.push(("/data".into(), shows("8:1", "/data")));
        places.push(("/proc/kcore".into(), shows("0:6", "/null")));
        places.extend(below(&host, Path::new("/data"), Path::new("/data")));
        Expected {
            places,
            host: host.into_iter().map(|mount| mount.device).collect(),
            may_mount,
        }
    }

    /// The mount point that is refused when this line is there, too.
    fn refused(line: &str, may_mount: bool) -> Option<PathBuf> {
        let table = Mount::table(format!("{BASE}{line}\n").as_bytes());
        unexplained(&table, &expected(may_mount), &|_| None).map(|mount| mount.point.clone())
    }

    #[test]
    fn what_creation_makes_is_explained() {
        assert_eq!(refused("", false), None);
        let overlay = "20 1 0:60 / /ov rw - overlay o rw,lowerdir=/a:/b,index=off";
        assert_eq!(refused(overlay, false), None);
    }

    #[test]
    fn nothing_of_the_host_is_added() {
        for line in [
            "20 1 0:60 / /x rw - overlay o rw,lowerdir=/etc",
            "20 1 0:60 / /ov rw - overlay o rw,lowerdir=/a:/etc",
            "20 1 8:2 / /x rw - ext4 /dev/sdb rw",
            "20 1 8:1 /etc /x rw - ext4 /dev/sda rw",
            "20 1 8:1 /b/rootfs2 /x rw - ext4 /dev/sda rw",
            "20 1 8:1 /etc / rw - ext4 /dev/sda rw",
            "20 1 8:1 /etc /data rw - ext4 /dev/sda rw",
            "20 1 8:1 /etc /proc rw - ext4 /dev/sda rw",
            "20 1 0:30 / /dev rw - tmpfs host rw",
            "20 1 0:30 /x /data/other rw - devtmpfs udev rw",
            "20 1 0:6 / /proc/acpi rw - devtmpfs udev rw",
            "20 1 8:1 /etc /proc/sys rw - ext4 /dev/sda rw",
            "20 1 0:9 /0 /dev/console rw - devpts devpts rw",
            "20 1 8:1 /etc /cg/cpu rw - ext4 /dev/sda rw",
        ] {
            assert!(refused(line, false).is_some(), "{line}");
        }
        let elsewhere = "20 1 0:6 / /x rw - devtmpfs udev rw";
        assert_eq!(refused(elsewhere, true), Some("/x".into()));
    }

    #[test]
    fn who_may_mount_may_have_mounted_what_is_its_own() {
        for line in [
            "20 1 0:60 / /x rw - tmpfs tmpfs rw",
            "20 1 0:61 / /x rw - proc proc rw",
            "20 1 8:1 /b/rootfs/etc /x rw - ext4 /dev/sda rw",
            "20 1 0:30 / /x rw - tmpfs host rw",
        ] {
            assert_eq!(refused(line, true), None, "{line}");
            assert_eq!(refused(line, false), Some("/x".into()), "{line}");
        }
        for line in [
            "20 1 0:60 / /x rw - overlay o rw,lowerdir=/etc",
            "20 1 8:2 / /x rw - ext4 /dev/sdb rw",
            "20 1 8:1 /etc /x rw - ext4 /dev/sda rw",
            "20 1 8:1 / /x rw - ext4 /dev/sda rw",
        ] {
            assert_eq!(refused(line, true), Some("/x".into()), "{line}");
        }
    }

    #[test]
    fn a_place_may_be_behind_a_link() {
        let line = "20 1 8:1 /data /srv rw - ext4 /dev/sda rw\n";
        let table = Mount::table(format!("{BASE}{line}").as_bytes());
        let link = |place: &Path| (place == Path::new("/data")).then(|| PathBuf::from("/srv"));
        assert!(unexplained(&table, &expected(false), &link).is_none());
        assert!(unexplained(&table, &expected(false), &|_| None).is_some());
    }
}
