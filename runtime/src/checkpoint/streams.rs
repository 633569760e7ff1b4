//! The standard streams of the first process, which the caller gave to it. Pipes
//! are replaced by our own at a restore. The host's null device, which a process
//! without input has for one, is in none of the container's mounts, so that
//! CRIU finds no path to it; it is declared as a file from outside, by the name
//! that CRIU has for such: `file[MOUNT:INODE]`, both hexadecimal.

use std::fmt::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, makedev, openat};

use super::criu::for_criu;
use super::rpc::InheritFd;
use crate::error::Error;
use crate::file::{read_limited, read_open};

/// File with the names of the streams, beside the images; the form and the name
/// are runc's, which passes over those of files.
const DESCRIPTORS: &str = "descriptors.json";

/// Largest [`DESCRIPTORS`] that is read, in bytes: it holds three names.
const DESCRIPTORS_BYTES_MAX: u64 = 64 * 1024;

/// Largest table of mounts that is read, in bytes: 100,000 mounts.
const MOUNTS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Largest `/proc/PID/fdinfo/N` that is read, in bytes; a file has below 200.
const FDINFO_BYTES_MAX: u64 = 64 * 1024;

/// The null device, and its numbers (Linux, `admin-guide/devices.txt`).
const NULL: &str = "/dev/null";
const NULL_NUMBERS: (u32, u32) = (1, 3);

/// How the name of a file from outside begins.
const FILE: &str = "file[";

/// What is saved of the three streams.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Streams([String; 3]);

impl Streams {
    /// Those of `pid`; empty where there is none.
    pub(super) fn of(pid: i32) -> Result<Self, Error> {
        let mounts = format!("/proc/{pid}/mountinfo");
        let mounts = read_limited(Path::new(&mounts), MOUNTS_BYTES_MAX)?;
        let mounts = String::from_utf8_lossy(&mounts);
        Ok(Self([0, 1, 2].map(|number| name(pid, number, &mounts))))
    }

    /// The names of those that CRIU must not save.
    pub(super) fn outside(&self) -> impl Iterator<Item = String> {
        let mut names: Vec<_> = self
            .0
            .iter()
            .filter(|name| name.starts_with(FILE))
            .collect();
        names.dedup();
        names.into_iter().cloned()
    }

    /// Writes the names beside the images.
    pub(super) fn save(&self, images: &OwnedFd) -> Result<(), Error> {
        let text = serde_json::to_vec(&self.0).map_err(|source| Error::Json {
            path: DESCRIPTORS.into(),
            source,
        })?;
        crate::file::replace(images, DESCRIPTORS, &text).map_err(Error::on("write", DESCRIPTORS))
    }
}

fn name(pid: i32, number: i32, mounts: &str) -> String {
    let place = format!("/proc/{pid}/fd/{number}");
    let outside = || {
        let file = std::fs::metadata(&place).ok()?;
        let (major, minor) = NULL_NUMBERS;
        let null = file.file_type().is_char_device() && file.rdev() == makedev(major, minor);
        let info = format!("/proc/{pid}/fdinfo/{number}");
        let info = read_limited(Path::new(&info), FDINFO_BYTES_MAX).ok()?;
        let mount = mount_of(&String::from_utf8_lossy(&info))?;
        (null && !has_mount(mounts, mount)).then(|| key(mount, file.ino()))
    };
    let link = || std::fs::read_link(&place).ok();
    outside()
        .or_else(|| Some(link()?.to_string_lossy().into_owned()))
        .unwrap_or_default()
}

/// The mount that an open file is in (`proc_pid_fdinfo(5)`).
fn mount_of(info: &str) -> Option<u32> {
    let line = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    line?.trim().parse().ok()
}

/// Whether a table (`proc_pid_mountinfo(5)`) has the mount.
fn has_mount(table: &str, mount: u32) -> bool {
    table
        .lines()
        .filter_map(|line| line.split(' ').next()?.parse::<u32>().ok())
        .any(|known| known == mount)
}

fn key(mount: u32, inode: u64) -> String {
    let mut key = FILE.to_owned();
    // A string takes all that is written to it.
    let _ = write!(key, "{mount:x}:{inode:x}]");
    key
}

/// What takes the place of the saved streams.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// By their names in the images.
    pub inherit: Vec<InheritFd>,
    /// Descriptors to be kept until CRIU has started.
    pub open: Vec<OwnedFd>,
}

/// For saved pipes our own streams, for the null device this host's, whatever the
/// images say that it was.
pub(super) fn inherited(images: &Path) -> Result<Inherited, Error> {
    let path = images.join(DESCRIPTORS);
    let file = super::images::open(&path).map_err(Error::on("open", &path))?;
    let text = read_open(file, DESCRIPTORS_BYTES_MAX).map_err(Error::on("read", &path))?;
    let names: Vec<String> =
        serde_json::from_slice(&text).map_err(|source| Error::Json { path, source })?;
    let mut all = Inherited::default();
    // More than the three are not ours to give.
    for (number, key) in names.into_iter().take(3).enumerate() {
        let known = all.inherit.iter().any(|other| other.key == key);
        let fd = if key.contains("pipe:") {
            number as i32
        } else if key.starts_with(FILE) && !known {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let null = openat(CWD, NULL, flags, Mode::empty()).map_err(Error::on("open", NULL))?;
            let null = for_criu(null)?;
            let number = null.as_raw_fd();
            all.open.push(null);
            number
        } else {
            continue;
        };
        all.inherit.push(InheritFd { key, fd });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_and_the_null_device_of_the_three_streams_are_inherited() {
        let folder = std::env::temp_dir().join(format!("teu-runtime-desc-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let read = |text: &str| {
            std::fs::write(folder.join(DESCRIPTORS), text).unwrap();
            inherited(&folder)
        };
        let streams = read(r#"["pipe:[1]","/dev/null","pipe:[3]","pipe:[4]"]"#).unwrap();
        let of = |streams: &Inherited| -> Vec<_> {
            let all = streams.inherit.iter();
            all.map(|s| (s.fd, s.key.clone())).collect()
        };
        let pipes = [(0, "pipe:[1]".to_owned()), (2, "pipe:[3]".to_owned())];
        assert_eq!(of(&streams), pipes);
        let streams = read(r#"["file[1a:5]","pipe:[3]","file[1a:5]"]"#).unwrap();
        let null = streams.open[0].as_raw_fd();
        let both = [(null, "file[1a:5]".to_owned()), (1, "pipe:[3]".to_owned())];
        assert_eq!((of(&streams), streams.open.len()), (both.to_vec(), 1));
        assert!(read("{").is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_in_a_mount_of_the_container_is_not_outside() {
        assert_eq!(
            mount_of("pos:\t0\nflags:\t02\nmnt_id:\t26\nino:\t5\n"),
            Some(26)
        );
        assert!(has_mount("26 1 0:5 / /dev rw - devtmpfs x rw\n", 26));
        assert!(!has_mount("126 1 0:5 / /dev rw - devtmpfs x rw\n", 26));
        assert_eq!(key(26, 0x105), "file[1a:105]");
    }

    #[test]
    fn the_null_device_of_elsewhere_has_another_name() {
        let null = std::fs::File::open(NULL).unwrap();
        let (pid, number) = (std::process::id() as i32, null.as_raw_fd());
        assert!(name(pid, number, "").starts_with(FILE));
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(name(pid, number, &table), NULL);
        let zero = std::fs::File::open("/dev/zero").unwrap();
        assert_eq!(name(pid, zero.as_raw_fd(), ""), "/dev/zero");
        assert_eq!(name(pid, -1, ""), "");
        let streams = Streams(["file[1:2]", "file[1:2]", "pipe:[1]"].map(str::to_owned));
        assert_eq!(streams.outside().collect::<Vec<_>>(), ["file[1:2]"]);
    }
}
