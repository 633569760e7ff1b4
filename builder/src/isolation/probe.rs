//! Tries out one way of isolation, in a process of its own: who has entered one cannot try another.

use super::{Isolation, Refused, enter_as, knobs, mounts};
use crate::execute::rootfs;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use teu_store::Store;

/// The word with which this program starts itself to try something out.
pub const PROBE: &str = "isolation-probe";

/// The probe within a probe: a procfs in a new process namespace.
const PROCFS: &str = "procfs";

/// The probe that ends well where a step can have a procfs of its own.
const OWN_PROCFS: &str = "own-procfs";

/// Whether steps must use the procfs that is here, because the kernel shows no other: it does not where something covers
/// parts of this one, as container engines do. For a process that has entered its isolation.
pub(super) fn must_share_procfs() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if is_first_namespace(&map) || !is_covered(&table) {
        return false;
    }
    let mut command = Command::new("/proc/self/exe");
    command.args([PROBE, OWN_PROCFS]).stdin(Stdio::null());
    !command.status().is_ok_and(|status| status.success())
}

/// Whether a namespace with these ids is the host's, in which nobody is denied a procfs.
fn is_first_namespace(map: &str) -> bool {
    let numbers: Vec<&str> = map.split_whitespace().collect();
    numbers == ["0", "0", "4294967295"]
}

/// Whether something lies on a part of /proc. What lies on a directory that is empty for ever covers nothing, and that of
/// binfmt_misc, which systemd mounts, is one.
fn is_covered(table: &str) -> bool {
    let mut places = table.lines().filter_map(|line| line.split(' ').nth(4));
    places.any(|place| place.starts_with("/proc/") && place != "/proc/sys/fs/binfmt_misc")
}

/// What was found out about something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) works: bool,
    /// How, or why not.
    pub(super) detail: String,
    /// Which knob it is.
    pub(super) advice: Option<String>,
}

impl Finding {
    fn yes(detail: impl Into<String>) -> Self {
        Self {
            works: true,
            detail: detail.into(),
            advice: None,
        }
    }

    pub(super) fn no(detail: impl Into<String>, advice: Option<String>) -> Self {
        Self {
            works: false,
            detail: detail.into(),
            advice,
        }
    }
}

impl From<Refused> for Finding {
    fn from(refused: Refused) -> Self {
        Self::no(
            format!("{}: {}", refused.attempt, refused.why),
            refused.advice,
        )
    }
}

/// What one way of isolation is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tried {
    pub(super) entered: Finding,
    /// Only where it could be entered.
    pub(super) overlay: Option<Finding>,
    pub(super) procfs: Option<Finding>,
    pub(super) cgroup: Option<Finding>,
}

/// Tries `isolation` with the store at `store`, in another process.
pub(super) fn try_out(isolation: Isolation, store: &Path) -> Tried {
    let mut command = Command::new("/proc/self/exe");
    command.arg(PROBE).arg(isolation.name()).arg(store);
    let output = command.stdin(Stdio::null()).output();
    let tried = output
        .ok()
        .and_then(|output| serde_json::from_slice(&output.stdout).ok());
    tried.unwrap_or_else(|| Tried {
        entered: Finding::no("the probe ended without an answer", None),
        overlay: None,
        procfs: None,
        cgroup: None,
    })
}

/// What a probe does: `isolation-probe ISOLATION STORE`, `isolation-probe procfs` or `isolation-probe own-procfs`.
pub fn probe(arguments: &[String]) -> ExitCode {
    let (Some(name), store) = (arguments.first(), arguments.get(1)) else {
        return ExitCode::FAILURE;
    };
    if name == PROCFS {
        return match mount_procfs() {
            Ok(()) => ExitCode::SUCCESS,
            Err(errno) => ExitCode::from(u8::try_from(errno.raw_os_error()).unwrap_or(u8::MAX)),
        };
    }
    if name == OWN_PROCFS {
        return match procfs().works {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        };
    }
    let isolation = Isolation::ALL.into_iter().find(|one| one.name() == name);
    let (Some(isolation), Some(store)) = (isolation, store) else {
        return ExitCode::FAILURE;
    };
    let tried = match enter_as(isolation) {
        Err(refused) => Tried {
            entered: refused.into(),
            overlay: None,
            procfs: None,
            cgroup: None,
        },
        Ok(()) => Tried {
            entered: Finding::yes(ids()),
            overlay: Some(overlay(Path::new(store))),
            procfs: Some(procfs()),
            cgroup: Some(cgroup(isolation)),
        },
    };
    let text = serde_json::to_string(&tried).unwrap_or_default();
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Which user ids there are.
fn ids() -> String {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let range = |line: &str| {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        let [inside, outside, count] = numbers[..] else {
            return None;
        };
        let last = |first: u64| match count {
            1 => first.to_string(),
            count => format!("{first}-{}", first + count - 1),
        };
        Some(format!("{} is {}", last(inside), last(outside)))
    };
    let ranges: Vec<String> = map.lines().filter_map(range).collect();
    format!("user {}", ranges.join(", "))
}

/// Whether an overlay can be written to, on the store's file system or on a tmpfs.
fn overlay(store: &Path) -> Finding {
    let refused = |error| Finding::no(crate::build::chain(&error), None);
    let store = match Store::open(store) {
        Ok(store) => store,
        Err(error) => return refused(error),
    };
    let work = match store.begin() {
        Ok(work) => work,
        Err(error) => return refused(error),
    };
    match write_to_overlay(work.scratch()) {
        Ok(()) => Finding::yes("on the store's file system"),
        Err(why) => {
            let memory = work.scratch().join("memory");
            let mounted = fs::create_dir(&memory)
                .ok()
                .and_then(|()| rootfs::tmpfs(&memory).ok());
            if mounted.is_some_and(|mounted| write_to_overlay(mounted.path()).is_ok()) {
                return Finding::yes(format!(
                    "on a tmpfs alone: what steps change is held in memory (on the store's file system: {why})"
                ));
            }
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            let advice = format!(
                "overlays in user namespaces need Linux 5.11, here is {}",
                release.trim()
            );
            Finding::no(why, knobs::is_filtered().then(|| "a seccomp filter is set, as container engines do; it must allow mount, fsopen, fsconfig, fsmount and move_mount".to_owned()).or(Some(advice)))
        }
    }
}

fn write_to_overlay(folder: &Path) -> Result<(), String> {
    let place = |name: &str| -> Result<PathBuf, String> {
        let path = folder.join(name);
        fs::create_dir(&path).map_err(|error| format!("create {path:?}: {error}"))?;
        Ok(path)
    };
    let (lower, upper, work, merged) = (
        place("lower")?,
        place("upper")?,
        place("work")?,
        place("merged")?,
    );
    fs::write(lower.join("file"), "lower").map_err(|error| error.to_string())?;
    let mounted = rootfs::overlay(&[lower], &upper, &work, &merged);
    let mounted = mounted.map_err(|error| crate::build::chain(&error))?;
    // Writing copies up: the part that fails on file systems without attributes.
    let written = fs::write(mounted.path().join("file"), "upper")
        .and_then(|()| fs::remove_file(mounted.path().join("file")));
    written.map_err(|error| format!("change a file of an overlay: {error}"))
}

/// Whether a container can have a procfs with its own processes alone.
fn procfs() -> Finding {
    if let Err(errno) = mounts::unshare(UnshareFlags::NEWPID) {
        return Refused::by_kernel("make a process namespace", errno).into();
    }
    // The next child is the first process of the new namespace.
    let status = Command::new("/proc/self/exe")
        .args([PROBE, PROCFS])
        .stdin(Stdio::null())
        .status();
    match status.as_ref().map(std::process::ExitStatus::code) {
        Ok(Some(0)) => Finding::yes("with the step's own processes alone"),
        Ok(Some(errno)) => Finding::no(
            format!("mount a procfs: {}", std::io::Error::from_raw_os_error(errno)),
            Some("steps see the processes around the build: parts of /proc are masked here, as container engines do, and then the kernel shows no other; --security-opt systempaths=unconfined (Kubernetes: procMount: Unmasked) lets them have their own".to_owned()),
        ),
        other => Finding::no(format!("mount a procfs: {other:?}"), None),
    }
}

fn mount_procfs() -> Result<(), rustix::io::Errno> {
    let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map(drop)
}

/// Whether a cgroup can be made below our own: then steps can have limits.
fn cgroup(isolation: Isolation) -> Finding {
    if isolation == Isolation::Root {
        return Finding::yes("made by the runtime, where steps have limits");
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::"));
    let made = own.map(|own| {
        let own = format!("/sys/fs/cgroup{}", own.trim_end_matches('/'));
        let path = format!("{own}/teu-doctor-{}", std::process::id());
        let made = fs::create_dir(&path).and_then(|()| fs::remove_dir(&path));
        (own, made)
    });
    let advice = "only --memory, --cpus and the like need one: systemd-run --user --scope -p Delegate=yes, and --cgroup-parent".to_owned();
    match made {
        Some((own, Ok(()))) => Finding::yes(format!("below {own}, with --cgroup-parent")),
        Some((own, Err(error))) => {
            Finding::no(format!("make a cgroup in {own}: {error}"), Some(advice))
        }
        None => Finding::no("there is no cgroup2 here", Some(advice)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_procfs_away() {
        assert!(is_first_namespace("         0          0 4294967295\n"));
        assert!(!is_first_namespace("0 0 4294967294\n") && !is_first_namespace("0 1000 1\n"));
        let line = |place: &str| format!("30 20 0:5 / {place} rw - proc proc rw\n");
        assert!(is_covered(&(line("/") + &line("/proc/kcore"))));
        assert!(!is_covered(
            &(line("/proc") + &line("/proc/sys/fs/binfmt_misc"))
        ));
    }
}
