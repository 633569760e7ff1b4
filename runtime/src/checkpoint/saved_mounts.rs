//! What the images say was mounted, looked at before CRIU mounts it.
//!
//! What CRIU has mounted is compared with the bundle ([`foreign`]), but by then it
//! has unpacked files into what is new: whoever edits the images could have it write
//! to a devtmpfs, which is the host's `/dev`. So each mount must be one from outside,
//! by a name that the bundle says more about, show a part of such a one or of the
//! root, or be new and the container's own. (CRIU's `images/mnt.proto`.)

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, openat};

use super::foreign::{self, OWN_KINDS};
use super::mounts::{TABLE_BYTES_MAX, refused};
use super::table::Mount;
use super::wire::{Fields, Malformed};
use crate::error::Error;
use crate::rootfs::op::What;
use crate::rootfs::plan::Plan;

/// How the images of mounts are called, one for each mount namespace.
const NAME_START: &[u8] = b"mountpoints-";

/// `IMG_COMMON_MAGIC` and the magic of its kind, which are CRIU's to check.
const MAGIC_BYTES: usize = 8;

/// The kinds of file systems by CRIU's numbers. `AUTO` has its name in the image;
/// the kinds between 20 and 22 are reserved.
const KINDS: [&str; 24] = [
    "unsupported",
    "proc",
    "sysfs",
    "devtmpfs",
    "binfmt_misc",
    "tmpfs",
    "devpts",
    "simfs",
    "pstore",
    "securityfs",
    "fusectl",
    "debugfs",
    "cgroup",
    "aufs",
    "mqueue",
    "fuse",
    AUTO,
    "overlay",
    "autofs",
    "tracefs",
    "rpc_pipefs",
    "nfs",
    "nfs4",
    "cgroup2",
];

const AUTO: &str = "auto";

/// A mount that was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Saved {
    /// As a mount table would show it, but for the device, which is CRIU's number.
    mount: Mount,
    /// The name of one from outside.
    name: String,
}

impl Saved {
    fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let mut named = String::new();
        let mut saved = Self {
            mount: Mount {
                id: 0,
                device: String::new(),
                root: PathBuf::new(),
                point: PathBuf::new(),
                kind: KINDS[0].to_owned(),
                source: String::new(),
                options: String::new(),
            },
            name: String::new(),
        };
        let mount = &mut saved.mount;
        for field in Fields::of(message) {
            let (number, value) = field?;
            let path = || PathBuf::from(OsString::from_vec(value.bytes().to_vec()));
            // As for every decoder the last of several counts.
            match number {
                1 => mount.kind = kind(value.int()),
                3 => mount.device = value.int().to_string(),
                6 => mount.root = path(),
                7 => mount.point = path(),
                8 => mount.source = value.text(),
                9 => mount.options = value.text(),
                14 => named = value.text(),
                18 => saved.name = value.text(),
                _ => (),
            }
        }
        if saved.mount.kind == AUTO {
            saved.mount.kind = named;
        }
        Ok(saved)
    }

    /// All of one image.
    fn all(image: &[u8]) -> Result<Vec<Self>, Malformed> {
        let mut rest = image.get(MAGIC_BYTES..).ok_or(Malformed)?;
        let mut all = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk().ok_or(Malformed)?;
            let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Malformed)?;
            let (message, after) = after.split_at_checked(length).ok_or(Malformed)?;
            all.push(Self::parse(message)?);
            rest = after;
        }
        Ok(all)
    }

    fn is_own(&self) -> bool {
        OWN_KINDS.contains(&self.mount.kind.as_str())
    }

    /// Whether both show the same file system: CRIU then makes one of the other.
    fn same_filesystem(&self, other: &Self) -> bool {
        let of = |saved: &Self| {
            let Mount {
                device,
                kind,
                source,
                options,
                ..
            } = saved.mount.clone();
            (device, kind, source, options)
        };
        of(self) == of(other)
    }

    /// Whether this is a file system that the bundle asks for.
    fn is_planned(&self, plan: &Plan) -> bool {
        plan.mounts.iter().any(|op| match &op.what {
            What::Filesystem { kind, source } => {
                let layers = foreign::layers(&op.options.filesystem);
                *kind == self.mount.kind && foreign::same(&self.mount, source, &layers)
            }
            What::Bind { .. } | What::Cgroup | What::Remount => false,
        })
    }

    /// Whether a recursive bind mount brings it along: `host` is what is mounted there.
    fn comes_along(&self, plan: &Plan, host: &[Mount]) -> bool {
        plan.mounts.iter().any(|op| {
            let What::Bind {
                source,
                recursive: true,
                ..
            } = &op.what
            else {
                return false;
            };
            let Ok(below) = self.mount.point.strip_prefix(&op.target) else {
                return false;
            };
            let real = std::fs::canonicalize(source).unwrap_or_else(|_| source.clone());
            let place = real.join(below);
            host.iter()
                .any(|mount| mount.point == place && mount.kind == self.mount.kind)
        })
    }
}

fn kind(number: i32) -> String {
    let known = usize::try_from(number)
        .ok()
        .and_then(|number| KINDS.get(number));
    known.map_or_else(|| format!("number {number}"), |kind| (*kind).to_owned())
}

/// The first saved mount that neither the bundle nor the container can have made,
/// and why.
fn unexplained<'a>(
    all: &'a [Saved],
    plan: &Plan,
    host: &[Mount],
) -> Option<(&'a Saved, &'static str)> {
    let is_root = |saved: &&Saved| saved.mount.point == Path::new("/") && !saved.is_own();
    let known: Vec<&Saved> = {
        let named = all.iter().filter(|saved| !saved.name.is_empty());
        // A mount namespace within has the root of the first.
        let root = all.iter().find(is_root);
        named.chain(root).collect()
    };
    all.iter().find_map(|saved| {
        let leads_up = |path: &Path| path.components().any(|part| part == Component::ParentDir);
        if leads_up(&saved.mount.root) || leads_up(&saved.mount.point) {
            return Some((saved, "leads elsewhere"));
        }
        let is_part = |whole: &&Saved| {
            saved.same_filesystem(whole) && saved.mount.root.starts_with(&whole.mount.root)
        };
        let explained = !saved.name.is_empty()
            || saved.is_own()
            || saved.is_planned(plan)
            || known.iter().any(is_part)
            || saved.comes_along(plan, host);
        (!explained).then_some((saved, "is not what the bundle says"))
    })
}

/// Looks at what would be mounted.
///
/// # Errors
/// Names the mount that is refused, or the image that cannot be read.
pub(super) fn check(folder: &OwnedFd, path: &Path, plan: &Plan) -> Result<(), Error> {
    if !plan.own_mounts {
        return Ok(());
    }
    let mut all = Vec::new();
    for entry in Dir::read_from(folder).map_err(Error::on("read", path))? {
        let entry = entry.map_err(Error::on("read", path))?;
        let name = entry.file_name();
        if !name.to_bytes().starts_with(NAME_START) {
            continue;
        }
        let place = || path.join(name.to_string_lossy().as_ref());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(folder.as_fd(), name, flags, Mode::empty())
            .map_err(Error::on("open", place()))?;
        let image = crate::file::read_open(File::from(file), TABLE_BYTES_MAX)
            .map_err(Error::on("read", place()))?;
        let saved = Saved::all(&image).map_err(|_| {
            super::Error::Refused(format!("image {:?} is cut off or damaged", place()))
        })?;
        all.extend(saved);
    }
    let host = Mount::table(&foreign::read("/proc/self/mountinfo")?);
    match unexplained(&all, plan, &host) {
        None => Ok(()),
        Some((Saved { mount, .. }, why)) => {
            let Mount { kind, source, .. } = mount;
            let why = format!("({kind} from {source:?}) is in the images, and {why}");
            Err(refused(&mount.point, &why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Message;
    use super::*;
    use crate::spec::Spec;

    fn plan() -> Plan {
        let text = r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"mounts":[
            {"destination":"/proc","type":"proc"},
            {"destination":"/data","source":"/srv","options":["bind"]},
            {"destination":"/rec","source":"/proc","options":["rbind"]},
            {"destination":"/ov","type":"overlay","source":"o","options":["lowerdir=/a:/b"]}],
            "linux":{"namespaces":[{"type":"mount"}]}}"#;
        let spec = Spec::parse(text.as_bytes()).unwrap();
        Plan::new(&spec, Path::new("/bundle"), false).unwrap()
    }

    fn host() -> Vec<Mount> {
        Mount::table(b"1 0 0:6 / /proc/x rw - debugfs d rw\n")
    }

    /// Kind, device, root, mount point, source, options, name.
    type Line<'a> = (i32, u32, &'a str, &'a str, &'a str, &'a str, &'a str);

    const ROOT: Line = (17, 7, "/", "/", "overlay", "lowerdir=/l", "");
    const DATA: Line = (0, 8, "/srv", "/data", "/dev/sda", "", "/data");

    fn message((kind, device, root, point, source, options, name): Line) -> Message {
        let mut message = Message::default();
        message.int(1, kind);
        message.unsigned(2, 1);
        message.unsigned(3, device);
        for (field, text) in [(6, root), (7, point), (8, source), (9, options)] {
            message.bytes(field, text.as_bytes());
        }
        if kind == 16 {
            message.bytes(14, b"ext4");
        }
        if !name.is_empty() {
            message.bytes(18, name.as_bytes());
        }
        message
    }

    fn image(lines: &[Line]) -> Vec<u8> {
        let mut image = b"12345678".to_vec();
        for line in lines {
            let message = message(*line);
            let length = message.as_bytes().len() as u32;
            image.extend(length.to_le_bytes());
            image.extend(message.as_bytes());
        }
        image
    }

    fn refuses(line: Line) -> bool {
        let all = Saved::all(&image(&[line, ROOT, DATA])).unwrap();
        assert_eq!(all.len(), 3);
        unexplained(&all, &plan(), &host()).is_some()
    }

    #[test]
    fn what_the_container_may_have_is_restored() {
        for line in [
            (1, 9, "/", "/proc", "proc", "", ""),
            (1, 9, "/sys", "/proc/sys", "proc", "", ""),
            (5, 10, "/", "/tmp", "tmpfs", "size=1k", ""),
            (17, 11, "/", "/ov", "o", "lowerdir=/a:/b,index=off", ""),
            (0, 8, "/null", "/proc/kcore", "udev", "", "/dev/null"),
            (17, 7, "/etc", "/x", "overlay", "lowerdir=/l", ""),
            (0, 8, "/srv/in", "/y", "/dev/sda", "", ""),
            (17, 7, "/", "/", "overlay", "lowerdir=/l", ""),
            (11, 13, "/", "/rec/x", "d", "", ""),
        ] {
            assert!(!refuses(line), "{line:?}");
        }
    }

    #[test]
    fn what_would_be_the_hosts_is_refused_before() {
        for line in [
            (3, 9, "/", "/x", "udev", "", ""),
            (11, 9, "/", "/x", "none", "", ""),
            (11, 13, "/", "/rec/y", "d", "", ""),
            (3, 13, "/", "/rec/x", "d", "", ""),
            (16, 9, "/", "/x", "/dev/sda", "", ""),
            (99, 9, "/", "/x", "none", "", ""),
            (17, 12, "/", "/x", "o", "lowerdir=/etc", ""),
            (17, 12, "/", "/ov", "o", "lowerdir=/a:/etc", ""),
            (17, 7, "/", "/x", "overlay", "lowerdir=/etc", ""),
            (17, 7, "/../etc", "/x", "overlay", "lowerdir=/l", ""),
            (1, 9, "/../..", "/x", "proc", "", ""),
            (1, 9, "/", "/x/../../y", "proc", "", ""),
            (0, 8, "/", "/x", "/dev/sda", "", ""),
            (0, 8, "/srv2", "/x", "/dev/sda", "", ""),
        ] {
            assert!(refuses(line), "{line:?}");
        }
        // Of two roots one is not the container's.
        let other = (3, 9, "/", "/", "udev", "", "");
        let all = Saved::all(&image(&[ROOT, other])).unwrap();
        assert!(unexplained(&all, &plan(), &host()).is_some());
    }

    #[test]
    fn a_damaged_image_is_no_image() {
        let whole = image(&[ROOT, DATA]);
        assert!(Saved::all(&whole).is_ok());
        for length in 0..whole.len() {
            let torn = Saved::all(&whole[..length]);
            assert!(torn.is_err() || torn.unwrap().len() < 2, "{length}");
        }
    }
}
