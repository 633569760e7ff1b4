//! Hearing of the kernel's OOM killer while a container lives.
//!
//! The kernel wakes us when something happened in the memory cgroup; whether it
//! was a kill, its counter says. On cgroup v1 the wake-up comes before the kill,
//! and also for want of memory in a cgroup above, where another container may be
//! the victim: so the counter is looked at again for a while.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use crate::supervisor::cgroups::{Cgroups, read};
use crate::supervisor::oom::{counter, kills};

/// How long after a wake-up the kill is waited for: the victim has to be woken and to die.
const KILL_LIMIT: Duration = Duration::from_secs(1);
/// How often the counter is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// More than any burst of inotify events between two looks; the rest wakes us again.
const NOTICE_BYTES: usize = 1024;

/// The ear at one container's memory cgroup. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Watch {
    wakes: OwnedFd,
    counter: PathBuf,
    /// Kills that were told.
    told: u64,
    /// Until when a kill is expected.
    expected: Option<Instant>,
    v1: bool,
}

impl Watch {
    /// Listens. `None`: nobody counts memory there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(cgroups: &Cgroups) -> io::Result<Option<Self>> {
        let Some(counter) = counter(cgroups).filter(|file| file.exists()) else {
            return Ok(None);
        };
        let v1 = counter.ends_with("memory.oom_control");
        let wakes = if v1 {
            listen_v1(&counter)?
        } else {
            listen_v2(&counter)?
        };
        Ok(Some(Self {
            told: read(&counter).map_or(0, |text| kills(&text)),
            wakes,
            counter,
            expected: None,
            v1,
        }))
    }

    /// Whether the killer struck since this was last asked. To be asked when the
    /// descriptor is readable, when [`Watch::deadline`] has passed, and before it
    /// is told that a process of the container ended, of which it may be the reason.
    pub fn check(&mut self, now: Instant) -> bool {
        let woken = self.drain();
        let text = read(&self.counter).unwrap_or_default();
        let killed = kills(&text);
        // Somebody with the killer switched off: its processes stand still instead.
        let stuck = text.contains("under_oom 1") && text.contains("oom_kill_disable 1");
        if killed > self.told || (woken && stuck) {
            self.told = killed;
            self.expected = None;
            return true;
        }
        if woken && self.v1 && !text.is_empty() {
            self.expected = Some(now + KILL_LIMIT);
        } else if self.expected.is_some_and(|until| until <= now) || text.is_empty() {
            self.expected = None;
        }
        false
    }

    /// When [`Watch::check`] is to be asked even if nothing happens.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.expected.map(|until| until.min(now + LOOK_INTERVAL))
    }

    fn drain(&self) -> bool {
        let mut notices = [0; NOTICE_BYTES];
        matches!(rustix::io::read(&self.wakes, &mut notices), Ok(1..))
    }
}

impl AsFd for Watch {
    /// Readable when [`Watch::check`] is to be asked.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakes.as_fd()
    }
}

/// An eventfd at `memory.oom_control`. Linux, `Documentation/admin-guide/cgroup-v1/memory.rst`, section 10.
fn listen_v1(counter: &Path) -> io::Result<OwnedFd> {
    let wakes = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = File::open(counter)?;
    let request = format!("{} {}", wakes.as_raw_fd(), control.as_raw_fd());
    File::options()
        .write(true)
        .open(counter.with_file_name("cgroup.event_control"))?
        .write_all(request.as_bytes())?;
    Ok(wakes)
}

/// An inotify watch of `memory.events`. Linux, `Documentation/admin-guide/cgroup-v2.rst`.
fn listen_v2(counter: &Path) -> io::Result<OwnedFd> {
    let wakes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&wakes, counter, inotify::WatchFlags::MODIFY)?;
    Ok(wakes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::poller::{Name, Poller};
    use rustix::event::epoll::EventFlags;
    use std::fs;
    use std::process::Command;

    #[derive(Clone, Copy)]
    struct Only;

    impl Name for Only {
        fn encode(self) -> u64 {
            0
        }
        fn decode(_: u64) -> Self {
            Self
        }
    }

    /// Whether a kill is told within `limit`, by an event loop's rules.
    fn hears(watch: &mut Watch, limit: Duration) -> bool {
        let mut poller = Poller::<Only>::new().unwrap();
        poller.add(&*watch, Only, EventFlags::IN).unwrap();
        let until = Instant::now() + limit;
        while Instant::now() < until {
            let next = watch
                .deadline(Instant::now())
                .map_or(until, |at| at.min(until));
            let patience = next.saturating_duration_since(Instant::now());
            poller.wait(Some(patience)).unwrap();
            if watch.check(Instant::now()) {
                return true;
            }
        }
        false
    }

    /// A memory cgroup of v1 with a limit; removed when dropped.
    struct Group(PathBuf);

    impl Group {
        fn new(name: &str) -> Option<Self> {
            let own = Cgroups::of(i32::try_from(std::process::id()).ok()?)?;
            let Cgroups::V1(_) = &own else { return None };
            let folder = own
                .dir("memory")?
                .join(format!("teu-test-{name}-{}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            fs::write(folder.join("memory.limit_in_bytes"), "8388608").ok()?;
            Some(Self(folder))
        }

        /// Runs a program in it that wants more memory than there is, below `folder`.
        fn starve(&self, folder: &Path) {
            let script = "echo $$ > \"$0\"/cgroup.procs; exec tail /dev/zero";
            let status = Command::new("sh")
                .args(["-c", script])
                .arg(folder)
                .status()
                .unwrap();
            assert!(!status.success());
        }

        fn cgroups(&self) -> Cgroups {
            Cgroups::V1(vec![("memory".into(), self.0.clone())])
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = fs::remove_dir(self.0.join("child"));
            let _ = fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn each_kill_is_told_once_on_v1() {
        let Some(group) = Group::new("oom") else {
            eprintln!("SKIPPED each_kill_is_told_once_on_v1: no cgroup v1 to make cgroups in");
            return;
        };
        let mut watch = Watch::new(&group.cgroups()).unwrap().unwrap();
        assert!(
            !hears(&mut watch, Duration::from_millis(50)),
            "nothing happened"
        );
        for _ in 0..2 {
            group.starve(&group.0);
            assert!(hears(&mut watch, Duration::from_secs(5)), "a kill");
            assert!(!hears(&mut watch, Duration::from_millis(100)), "told twice");
        }
    }

    /// The exit of the victim may be known before the wake-up is: then the
    /// counter is right already.
    #[test]
    fn a_kill_is_known_when_its_victim_has_ended() {
        let Some(group) = Group::new("oom-exit") else {
            eprintln!("SKIPPED a_kill_is_known_when_its_victim_has_ended: no cgroup v1");
            return;
        };
        let mut watch = Watch::new(&group.cgroups()).unwrap().unwrap();
        group.starve(&group.0);
        assert!(watch.check(Instant::now()));
        assert!(!watch.check(Instant::now()));
    }

    #[test]
    fn a_removed_cgroup_tells_nothing_and_keeps_no_one_awake() {
        let Some(group) = Group::new("oom-gone") else {
            eprintln!(
                "SKIPPED a_removed_cgroup_tells_nothing_and_keeps_no_one_awake: no cgroup v1"
            );
            return;
        };
        let mut watch = Watch::new(&group.cgroups()).unwrap().unwrap();
        drop(group);
        assert!(!hears(&mut watch, Duration::from_millis(50)));
        assert_eq!(watch.deadline(Instant::now()), None);
    }

    /// The same on files that look like v2's.
    #[test]
    fn a_counter_of_v2_that_grows_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::V2(dir.path().to_owned());
        assert!(
            Watch::new(&cgroups).unwrap().is_none(),
            "no memory controller"
        );
        let file = dir.path().join("memory.events");
        fs::write(&file, "max 0\noom 0\noom_kill 1\n").unwrap();
        let mut watch = Watch::new(&cgroups).unwrap().unwrap();
        fs::write(&file, "max 1\noom 0\noom_kill 1\n").unwrap();
        assert!(!hears(&mut watch, Duration::from_millis(50)), "no kill");
        fs::write(&file, "max 1\noom 1\noom_kill 2\n").unwrap();
        assert!(hears(&mut watch, Duration::from_secs(1)));
        assert!(!hears(&mut watch, Duration::from_millis(50)), "told twice");
    }
}
