//! What restored processes may do is compared with the bundle.
//!
//! CRIU gives each thread the credentials that the images say, in the namespaces
//! that they say: whoever edits an image could give more than `config.json` does.
//! So, when CRIU has done all of its work and its ptrace(2) still holds every
//! process at its last system call (`pre-resume`; at `post-restore` they have
//! CRIU's own credentials), procfs is asked what they will run with, and one that
//! has too much ends the restore.
//!
//! The bundle's bounding set is the ceiling of every bounding set. The other
//! sets may be what some process of the bundle could come to have: execve(2)
//! gives a set-id program what the bounding set has, unless `noNewPrivileges`
//! keeps it from that. `exec --cap` gives a process more than the bundle has; what
//! it left behind in the container is refused as well, because the images cannot
//! say who gave it. Whoever means it names the capability in the bundle.
//!
//! User ids are not compared: `exec --user` and set-id programs change them, and
//! what an id is worth is bounded by the capabilities and the user namespace.
//! That a filter of system calls is there is checked, not what it lets pass. CRIU
//! before 3.19 cannot restore `noNewPrivileges`: then the caller is warned.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::Error;
use super::criu::Criu;
use super::rpc::Version;
use crate::error::Error as Any;
use crate::file::read_limited;
use crate::init;
use crate::namespace::proc_name;
use crate::process::caps::{self, Sets};
use crate::spec::{Linux, NamespaceType};

/// Largest `/proc/PID/status` that is read, in bytes: 65,536 groups of 11 each,
/// and the rest.
const STATUS_BYTES_MAX: u64 = 1024 * 1024;

/// Largest list of children that is read, in bytes: all 4,194,304 pids.
const CHILDREN_BYTES_MAX: u64 = 8 * 4_194_304;

/// Since this version CRIU brings `noNewPrivileges` back.
const KEEPS_NO_NEW_PRIVS: Version = Version(31_900);

/// `CAP_SYS_ADMIN`.
const MAY_MOUNT: u64 = 1 << 21;

/// The namespaces that confine. A cgroup namespace only changes names, and CRIU
/// makes none where it is to leave cgroups alone; clocks are CRIU's to shift.
const CONFINING: [NamespaceType; 6] = [
    NamespaceType::Ipc,
    NamespaceType::Mount,
    NamespaceType::Network,
    NamespaceType::Pid,
    NamespaceType::User,
    NamespaceType::Uts,
];

/// What no restored process may exceed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allowed {
    bounding: u64,
    /// The ceiling of the other four sets.
    reach: u64,
    /// Whether execve(2) may grant nothing.
    no_new_privs: bool,
    /// Whether CRIU brings that back.
    restores_no_new_privs: bool,
    /// Whether system calls are filtered.
    filtered: bool,
    /// Device and inode of the host's namespaces that nobody may be in.
    outside: Vec<(&'static str, (u64, u64))>,
}

impl Allowed {
    /// What the bundle allows. `worker` is the process that restores: whoever
    /// gets no namespace from the images stays in its own.
    pub(super) fn new(
        linux: &Linux,
        init: &init::Plan,
        criu: Criu,
        worker: i32,
    ) -> Result<Self, Any> {
        let Sets {
            bounding,
            effective,
            inheritable,
            permitted,
            ambient,
        } = init.process.caps;
        let given = effective | inheritable | permitted | ambient;
        let no_new_privs = init.process.no_new_privs;
        let mut outside = Vec::new();
        for kind in CONFINING {
            let Some(namespace) = linux.namespace(kind) else {
                continue;
            };
            let name = proc_name(kind);
            let host = inode(&Path::new("/proc").join(format!("{worker}/ns/{name}")))?;
            let path = &namespace.path;
            if path.as_os_str().is_empty() || inode(path)? != host {
                outside.push((name, host));
            }
        }
        Ok(Self {
            bounding,
            reach: if no_new_privs {
                given
            } else {
                given | bounding
            },
            no_new_privs,
            restores_no_new_privs: criu.is(KEEPS_NO_NEW_PRIVS),
            filtered: init.filter.is_some(),
            outside,
        })
    }

    /// Whether a process may mount.
    pub(super) fn mounts(&self) -> bool {
        self.bounding & MAY_MOUNT != 0
    }

    /// Why a thread with these values is refused.
    fn excess(&self, status: &Status) -> Option<String> {
        let sets = &status.sets;
        let held = [
            ("bounding", sets.bounding, self.bounding),
            ("permitted", sets.permitted, self.reach),
            ("effective", sets.effective, self.reach),
            ("inheritable", sets.inheritable, self.reach),
            ("ambient", sets.ambient, self.reach),
        ];
        if let Some((set, has, may)) = held.into_iter().find(|(_, has, may)| has & !may != 0) {
            let names = words(has & !may);
            return Some(format!(
                "{names} in its {set} set (name it in the bundle's process.capabilities if it is meant)"
            ));
        }
        if self.may_gain(status) && self.restores_no_new_privs {
            return Some("no noNewPrivileges".to_owned());
        }
        (self.filtered && !status.filtered).then(|| "no filter of system calls".to_owned())
    }

    /// Whether it could gain privileges that the bundle withholds.
    fn may_gain(&self, status: &Status) -> bool {
        self.no_new_privs && !status.no_new_privs
    }
}

fn inode(path: &Path) -> Result<(u64, u64), Any> {
    let metadata = std::fs::metadata(path).map_err(Any::on("stat namespace", path))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The names of the bits of a set; a number where the kernel knows more than we.
fn words(set: u64) -> String {
    let known = (1 << caps::NAMES.len()) - 1;
    let later = (0..u64::BITS).filter(|bit| set & !known & (1 << bit) != 0);
    let names = caps::names(set).map(str::to_owned);
    let all: Vec<_> = names
        .chain(later.map(|bit| format!("capability {bit}")))
        .collect();
    all.join(" ")
}

/// What `/proc/PID/status` says of a thread (`proc_pid_status(5)`).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Status {
    /// Its name, in which the kernel writes a line break as `\n`.
    name: String,
    /// Whether it has ended, and has what CRIU had when it made it.
    dead: bool,
    sets: Sets,
    no_new_privs: bool,
    filtered: bool,
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
                .map(str::trim)
        };
        let set = |key: &str| u64::from_str_radix(value(key)?, 16).ok();
        Some(Self {
            name: value("Name")?.to_owned(),
            dead: value("State")?.starts_with(['Z', 'X', 'x']),
            sets: Sets {
                bounding: set("CapBnd")?,
                effective: set("CapEff")?,
                inheritable: set("CapInh")?,
                permitted: set("CapPrm")?,
                ambient: set("CapAmb")?,
            },
            no_new_privs: value("NoNewPrivs")? == "1",
            // A kernel without filters has no such line.
            filtered: value("Seccomp").is_some_and(|mode| mode != "0"),
        })
    }
}

/// A thread that waits to be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Thread {
    pid: i32,
    tid: i32,
}

impl Thread {
    fn folder(self) -> String {
        format!("/proc/{}/task/{}", self.pid, self.tid)
    }

    /// Its status; `None` where it has ended.
    fn status(self) -> Result<Option<Status>, Any> {
        let path = format!("{}/status", self.folder());
        let Some(text) = present(read_limited(Path::new(&path), STATUS_BYTES_MAX))? else {
            return Ok(None);
        };
        match Status::parse(&String::from_utf8_lossy(&text)) {
            Some(status) => Ok((!status.dead).then_some(status)),
            None => Err(Any::on("read", path)(rustix::io::Errno::INVAL)),
        }
    }

    /// Whose namespace it is in, of those that it must not be in.
    fn stray(self, allowed: &Allowed) -> Result<Option<&'static str>, Any> {
        for (name, host) in &allowed.outside {
            let path = format!("{}/ns/{name}", self.folder());
            if present(inode(Path::new(&path)))? == Some(*host) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn check(self, allowed: &Allowed) -> Result<Verdict, Any> {
        let Some(status) = self.status()? else {
            return Ok(Verdict::Fits);
        };
        let more = match self.stray(allowed)? {
            Some(name) => Some(format!("the host's {name} namespace")),
            None => allowed.excess(&status),
        };
        if let Some(more) = more {
            let (tid, name) = (self.tid, status.name);
            let why = format!(
                "process {tid} ({name}) was restored from the images with {more}, which is not what the bundle says"
            );
            return Err(Error::Refused(why).into());
        }
        Ok(match allowed.may_gain(&status) {
            true => Verdict::MayGain,
            false => Verdict::Fits,
        })
    }
}

/// What is to be said of processes that are not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// They are as the bundle says.
    Fits,
    /// `noNewPrivileges` of the bundle is not in force for one, because CRIU
    /// could not bring it back.
    MayGain,
}

/// `None` for what belonged to a thread that has ended.
fn present<T>(result: Result<T, Any>) -> Result<Option<T>, Any> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Any::System { source, .. })
            if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Adds the descendants of those in `pids`: all restored processes, from their
/// first one on. They stand still, so that the lists of children are whole;
/// kernels that CRIU can work on have them.
fn add_descendants(pids: &mut Vec<i32>) -> Result<(), Any> {
    let mut index = 0;
    while let Some(&pid) = pids.get(index) {
        index += 1;
        for thread in threads(pid)? {
            let path = format!("{}/children", thread.folder());
            let text = present(read_limited(Path::new(&path), CHILDREN_BYTES_MAX))?;
            let text = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
            let children = text.split_whitespace();
            pids.extend(children.filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    Ok(())
}

fn threads(pid: i32) -> Result<Vec<Thread>, Any> {
    let folder = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&folder).map_err(Any::on("read", &folder));
    let Some(entries) = present(entries)? else {
        return Ok(Vec::new());
    };
    let tids = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(tids.map(|tid| Thread { pid, tid }).collect())
}

/// Restored processes that were refused, and why. They are stopped, and will
/// not run.
#[derive(Debug)]
pub(super) struct Refusal {
    pids: Vec<i32>,
    error: Box<Any>,
}

impl Refusal {
    /// Kills them, once CRIU has left; gives the reason.
    pub(super) fn end(self) -> Any {
        signal(&self.pids, Signal::KILL);
        *self.error
    }
}

fn signal(pids: &[i32], signal: Signal) {
    for pid in pids.iter().copied().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Compares the restored processes, from `init` on, with what is allowed, and then
/// lets `mounts` look at theirs. If one has more, all are sent SIGSTOP before this returns. CRIU will resume them
/// whatever it is told, and then they stop before they execute anything; were
/// they killed, CRIU would wait for ever for the first of them, which itself waits
/// for children that CRIU traces.
///
/// # Errors
/// Names the process and what it has, or what `mounts` says; or procfs could not be
/// read.
pub(super) fn check(
    init: i32,
    allowed: &Allowed,
    mounts: impl FnOnce(&[i32]) -> Result<(), Any>,
) -> Result<Verdict, Refusal> {
    let mut pids = vec![init];
    add_descendants(&mut pids)
        .and_then(|()| check_all(&pids, allowed))
        .and_then(|verdict| mounts(&pids).map(|()| verdict))
        .map_err(|error| {
            signal(&pids, Signal::STOP);
            let error = Box::new(error);
            Refusal { pids, error }
        })
}

fn check_all(pids: &[i32], allowed: &Allowed) -> Result<Verdict, Any> {
    let mut verdict = Verdict::Fits;
    for &pid in pids {
        for thread in threads(pid)? {
            verdict = verdict.max(thread.check(allowed)?);
        }
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILL: u64 = 1 << 5;
    const ADMIN: u64 = 1 << 21;

    fn status(line: &str, value: &str) -> Status {
        let text = "Name:\tsh\\nCapEff:\nUmask:\t0022\nState:\tt (tracing stop)\nCapInh:\t0000000000000000\n\
            CapPrm:\t0000000000000020\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000020\n\
            CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let changed = text.lines().map(|known| match known.split_once(':') {
            Some((key, _)) if key == line => format!("{key}:\t{value}\n"),
            _ => format!("{known}\n"),
        });
        Status::parse(&changed.collect::<String>()).unwrap()
    }

    fn allowed() -> Allowed {
        Allowed {
            bounding: KILL,
            reach: KILL,
            no_new_privs: true,
            restores_no_new_privs: true,
            filtered: true,
            outside: Vec::new(),
        }
    }

    #[test]
    fn a_status_is_read() {
        let read = status("", "");
        assert_eq!(read.name, "sh\\nCapEff:");
        assert_eq!((read.sets.permitted, read.sets.ambient), (KILL, 0));
        assert!(read.no_new_privs && read.filtered && !read.dead);
        assert!(status("State", "Z (zombie)").dead);
        assert!(!status("Seccomp", "0").filtered);
        for cut in ["", "Name:\tx\n", "Name:\tx\nState:\tR\nCapBnd:\txyz\n"] {
            assert_eq!(Status::parse(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn every_set_has_its_ceiling() {
        assert_eq!(allowed().excess(&status("", "")), None);
        for (line, set) in [
            ("CapBnd", "bounding"),
            ("CapPrm", "permitted"),
            ("CapEff", "effective"),
            ("CapInh", "inheritable"),
            ("CapAmb", "ambient"),
        ] {
            let said = allowed().excess(&status(line, "0000000000200020")).unwrap();
            assert!(
                said.starts_with(&format!("CAP_SYS_ADMIN in its {set} set")),
                "{said}"
            );
            let less = status(line, "0000000000000000");
            assert_eq!(allowed().excess(&less), None);
        }
        let said = allowed()
            .excess(&status("CapBnd", "8000000000000020"))
            .unwrap();
        assert!(said.starts_with("capability 63 in"), "{said}");
        let bare = status("Seccomp", "0");
        assert!(allowed().excess(&bare).unwrap().contains("filter"));
        let free = status("NoNewPrivs", "0");
        assert!(allowed().excess(&free).unwrap().contains("noNewPriv"));
        let older = Allowed {
            restores_no_new_privs: false,
            ..allowed()
        };
        assert!(older.excess(&free).is_none() && older.may_gain(&free));
        let unfiltered = Allowed {
            filtered: false,
            ..allowed()
        };
        assert_eq!(unfiltered.excess(&bare), None);
    }

    #[test]
    fn a_set_id_program_may_have_what_the_bounding_set_has() {
        let gained = status("CapPrm", "0000000000200000");
        let mut allowed = allowed();
        allowed.bounding |= ADMIN;
        assert!(allowed.excess(&gained).is_some());
        allowed.reach |= allowed.bounding;
        assert_eq!(allowed.excess(&gained), None);
    }

    #[test]
    fn children_of_all_threads_are_found() {
        let own = std::process::id() as i32;
        let child = std::thread::spawn(|| {
            std::process::Command::new("sleep")
                .arg("1000")
                .spawn()
                .unwrap()
        });
        let mut child = child.join().unwrap();
        let mut found = vec![own];
        add_descendants(&mut found).unwrap();
        let pid = child.id() as i32;
        child.kill().unwrap();
        // Not reaped yet: it has ended, and is passed over.
        let thread = Thread { pid, tid: pid };
        let dead = || thread.status().unwrap().is_none();
        while !dead() {
            std::thread::yield_now();
        }
        assert_eq!(check_all(&[pid], &allowed()).unwrap(), Verdict::Fits);
        child.wait().unwrap();
        assert!(found.contains(&own) && found.contains(&pid), "{found:?}");
        assert_eq!(check_all(&[pid], &allowed()).unwrap(), Verdict::Fits);
        let host = inode(Path::new("/proc/self/ns/mnt")).unwrap();
        let confined = Allowed {
            outside: vec![("mnt", host)],
            ..allowed()
        };
        let refused = check_all(&[own], &confined).unwrap_err().to_string();
        assert!(refused.contains("the host's mnt namespace"), "{refused}");
    }
}
