//! What is remembered about containers.
//!
//! ```text
//! ROOT/                       0700; --root
//! └── <id>/                   0700; its flock(2) is the container's lock
//!     ├── state.json          the intent, before any side effect; whole by rename,
//!     │                       its first member the checksum of all behind it
//!     ├── init -> PID:TICKS:CHECKSUM
//!     │                       a symbolic link as a fact: init's pid and start time
//!     ├── created             an empty file as a fact: init waits for its start
//!     ├── running             an empty file as a fact: it was started
//!     ├── start               the gate's socket, where init waits
//!     ├── criu-root/          where CRIU mounts the root, while `restore` runs
//!     ├── notify/             only for a service: its socket to the manager
//!     ├── seccomp             the compiled filter, for `exec`; only with a profile
//!     └── failure             one page shared with init, for a failure under the filter
//! ```
//!
//! What changes is not rewritten but added, a fact a file: each appears in one
//! system call, whole or not at all, and costs a tenth of replacing a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::container::agent::Agent;
use crate::container::service::notify;
use crate::error::Error;
use crate::id::ContainerId;
use crate::resctrl;
use crate::spec::{Hook, MemoryPolicy, NamespaceType, Personality};

/// Name of the state file.
pub(crate) const STATE: &str = "state.json";

/// Largest state file that is read, in bytes: it holds annotations and hooks,
/// which the configuration's own limit bounds.
const STATE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Version of the state file's form; another one is not read.
const VERSION: u32 = 1;

/// Pause between two tries to take a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// Name of the link that names init.
const INIT: &str = "init";

/// How far a container has come. Whether it still lives is asked of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Being made; what is there may be incomplete.
    #[default]
    Creating,
    /// Waiting for `start`.
    Created,
    /// Started.
    Running,
}

/// A container's state file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// [`VERSION`].
    pub version: u32,
    /// The container.
    pub id: String,
    /// `ociVersion` of its configuration.
    pub oci_version: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Who created it: a user id of the host.
    pub owner: u32,
    /// How far it has come; not in the file.
    #[serde(skip)]
    pub phase: Phase,
    /// Pid of init, 0 before there is one; not in the file.
    #[serde(skip)]
    pub pid: i32,
    /// Start time of init in clock ticks since boot: a reused pid differs in
    /// it. Not in the file.
    #[serde(skip)]
    pub start_ticks: u64,
    /// Its cgroups, known before they exist.
    pub cgroups: cgroup::Paths,
    /// Its group in resctrl, known before it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<resctrl::Group>,
    /// Its unit of systemd's, where the cgroups are one's; known before it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<cgroup::systemd::Unit>,
    /// Whether so little memory is allowed that init may not reach its program.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tiny_memory: bool,
    /// Namespaces that are not the host's.
    pub namespaces: Vec<NamespaceType>,
    /// Who decides on system calls that the filter does not settle.
    pub agent: Option<Agent>,
    /// Execution domain of its processes.
    #[serde(default)]
    pub personality: Option<Personality>,
    /// NUMA policy of its processes.
    #[serde(default)]
    pub memory_policy: Option<MemoryPolicy>,
    /// Hooks that are still to be run.
    pub hooks: LaterHooks,
    /// Annotations of the configuration.
    pub annotations: BTreeMap<String, String>,
}

/// Hooks of `start` and `delete`: the bundle may be gone by then.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct LaterHooks {
    /// After the program has started.
    pub poststart: Vec<Hook>,
    /// After the container is deleted.
    pub poststop: Vec<Hook>,
}

/// Below this limit of memory, in bytes, init is looked after when it starts:
/// with 64 KiB it is killed before its program, with 512 KiB it is not.
const TINY_MEMORY_BYTES: i64 = 4 * 1024 * 1024;

fn has_tiny_memory(spec: &crate::spec::Spec) -> bool {
    let resources = spec.linux.resources.as_ref();
    let memory = resources.and_then(|resources| resources.memory.as_ref());
    memory
        .and_then(|memory| memory.limit)
        .is_some_and(|limit| (1..TINY_MEMORY_BYTES).contains(&limit))
}

impl State {
    /// The state of a container of which nothing exists yet.
    pub(crate) fn intent(
        id: &ContainerId,
        spec: &crate::spec::Spec,
        bundle: &Path,
        rootfs: &Path,
        cgroups: cgroup::Paths,
    ) -> State {
        State {
            version: VERSION,
            id: id.to_string(),
            oci_version: spec.oci_version.clone(),
            bundle: bundle.to_owned(),
            rootfs: rootfs.to_owned(),
            created: crate::time::rfc3339_nanos(crate::time::now()),
            owner: rustix::process::geteuid().as_raw(),
            phase: Phase::Creating,
            pid: 0,
            start_ticks: 0,
            cgroups,
            resctrl: None,
            unit: None,
            tiny_memory: has_tiny_memory(spec),
            namespaces: spec
                .linux
                .namespaces
                .iter()
                .map(|namespace| namespace.kind)
                .collect(),
            agent: Agent::of(spec.linux.seccomp.as_ref()),
            personality: spec.linux.personality.clone(),
            memory_policy: spec.linux.memory_policy.clone(),
            hooks: LaterHooks {
                poststart: spec.hooks.poststart.clone(),
                poststop: spec.hooks.poststop.clone(),
            },
            annotations: spec.annotations.clone(),
        }
    }

    /// Whether init is alive: neither ended nor another process with its pid.
    pub(crate) fn alive(&self) -> Result<bool, Error> {
        if self.pid <= 0 {
            return Ok(false);
        }
        crate::proc::lives(self.pid, self.start_ticks)
    }
}

/// The directory with all containers.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
}

/// The directory of one container, opened. Reading needs no lock.
#[derive(Debug)]
pub(crate) struct StateDir {
    id: ContainerId,
    path: PathBuf,
    fd: OwnedFd,
}

/// The same directory with its lock held: the only way to change the state.
/// The lock ends with the value.
#[derive(Debug)]
pub(crate) struct Locked {
    dir: StateDir,
}

impl Root {
    /// The directory of `--root`; it need not exist.
    pub(crate) fn new(path: PathBuf) -> Root {
        Root { path }
    }

    /// Where the directory of a container is, or will be.
    pub(crate) fn place(&self, id: &ContainerId) -> PathBuf {
        self.path.join(id.as_str())
    }

    /// Makes the directory of a new container and takes its lock. On a crash
    /// before the first [`Locked::save`] an empty directory is left, which
    /// `delete --force` removes.
    pub(crate) fn create(&self, id: &ContainerId) -> Result<Locked, Error> {
        let path = self.path.join(id.as_str());
        let mode = Mode::from_raw_mode(0o700);
        match rustix::fs::mkdir(&path, mode) {
            Err(Errno::NOENT) => {
                use std::os::unix::fs::DirBuilderExt;
                let made = std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.path);
                made.map_err(Error::on("create", &self.path))?;
                rustix::fs::mkdir(&path, mode)
            }
            result => result,
        }
        .map_err(|errno| match errno {
            Errno::EXIST => Error::State("container with given ID already exists".into()),
            errno => Error::on("create", &path)(errno),
        })?;
        self.open(id)?.lock()
    }

    /// Opens the directory of a container.
    pub(crate) fn open(&self, id: &ContainerId) -> Result<StateDir, Error> {
        let path = self.path.join(id.as_str());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => not_there(),
            errno => Error::on("open", &path)(errno),
        })?;
        Ok(StateDir {
            id: id.clone(),
            path,
            fd,
        })
    }

    /// Fails where the directory of all containers is not there: one that was
    /// named wrongly, or in which nothing was ever created.
    pub(crate) fn check(&self) -> Result<(), Error> {
        std::fs::metadata(&self.path)
            .map(drop)
            .map_err(Error::on("open", &self.path))
    }

    /// The ids of all containers, sorted. A missing directory holds none.
    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>, Error> {
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(Error::on("read", &self.path))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::on("read", &self.path))?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        ids.sort_by(|a: &ContainerId, b| a.as_str().cmp(b.as_str()));
        Ok(ids)
    }
}

fn not_there() -> Error {
    Error::State("container does not exist".into())
}

impl Phase {
    /// Name of the file whose presence is the fact.
    fn fact(self) -> Option<&'static str> {
        match self {
            Phase::Creating => None,
            Phase::Created => Some("created"),
            Phase::Running => Some("running"),
        }
    }
}

/// What [`Locked::name_init`] stores.
fn format_init(pid: i32, start_ticks: u64) -> String {
    let fact = format!("{pid}:{start_ticks}");
    let check = crate::file::checksum(fact.as_bytes());
    format!("{fact}:{check:016x}")
}

/// Reads that back; a damaged one must not come to mean another process.
fn parse_init(link: &str) -> Option<(i32, u64)> {
    let (pid, rest) = link.split_once(':')?;
    let (ticks, _) = rest.split_once(':')?;
    let (pid, ticks) = (
        pid.parse().ok().filter(|&pid| pid > 0)?,
        ticks.parse().ok()?,
    );
    (format_init(pid, ticks) == link).then_some((pid, ticks))
}

/// The checksum as the first member of the state's JSON object.
fn first_member(rest: &[u8]) -> String {
    format!("{{\"check\":\"{:016x}\",", crate::file::checksum(rest))
}

/// The state's JSON with its checksum in front.
fn sealed(json: &[u8]) -> Vec<u8> {
    // What stands behind the opening brace: a state has members.
    let rest = json.get(1..).unwrap_or_default();
    [first_member(rest).as_bytes(), rest].concat()
}

/// Whether the text is as [`sealed`] has made it.
fn is_whole(text: &[u8]) -> bool {
    let length = first_member(&[]).len();
    text.split_at_checked(length)
        .is_some_and(|(first, rest)| first == first_member(rest).as_bytes())
}

impl StateDir {
    /// Reads the state and the facts added to it.
    pub(crate) fn load(&self) -> Result<State, Error> {
        let path = self.path.join(STATE);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd =
            rustix::fs::openat(&self.fd, STATE, flags, Mode::empty()).map_err(
                |errno| match errno {
                    Errno::NOENT => not_there(),
                    errno => Error::on("open", &path)(errno),
                },
            )?;
        let text = crate::file::read_open(File::from(fd), STATE_BYTES_MAX)
            .map_err(Error::on("read", &path))?;
        if !is_whole(&text) {
            return Err(Error::on("read", &path)(crate::file::damaged()));
        }
        let mut state: State = serde_json::from_slice(&text).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        if state.version != VERSION || state.id != self.id.as_str() {
            return Err(Error::State(format!(
                "{path:?} is not a state of container {} that this version can read",
                self.id
            )));
        }
        self.add_facts(&mut state)?;
        Ok(state)
    }

    /// Pid and start time of init, where it is named already.
    pub(crate) fn init(&self) -> Result<Option<(i32, u64)>, Error> {
        let path = || self.path.join(INIT);
        let link = match rustix::fs::readlinkat(&self.fd, INIT, Vec::new()) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(Error::on("read", path()))?,
        };
        let named = link.to_str().ok().and_then(parse_init);
        let damaged = || Error::on("read", path())(crate::file::damaged());
        named.map(Some).ok_or_else(damaged)
    }

    fn add_facts(&self, state: &mut State) -> Result<(), Error> {
        let Some((pid, start_ticks)) = self.init()? else {
            return Ok(());
        };
        (state.pid, state.start_ticks) = (pid, start_ticks);
        for phase in [Phase::Running, Phase::Created] {
            let there =
                |name| rustix::fs::accessat(&self.fd, name, Access::EXISTS, AtFlags::empty());
            if phase.fact().is_some_and(|name| there(name).is_ok()) {
                state.phase = phase;
                break;
            }
        }
        Ok(())
    }

    /// The same, but gives up after a time: whoever holds it may be stopped.
    pub(crate) fn lock_within(self, limit: Duration) -> Result<Locked, Error> {
        let end = Instant::now() + limit;
        loop {
            match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return self.locked(),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(errno) => return Err(Error::on("lock", &self.path)(errno)),
            }
        }
    }

    /// Takes the lock and makes sure that the directory was not removed
    /// meanwhile (`flock(2)`; a removed directory has no links).
    pub(crate) fn lock(self) -> Result<Locked, Error> {
        rustix::io::retry_on_intr(|| rustix::fs::flock(&self.fd, FlockOperation::LockExclusive))
            .map_err(Error::on("lock", &self.path))?;
        self.locked()
    }

    fn locked(self) -> Result<Locked, Error> {
        let stat = rustix::fs::fstat(&self.fd).map_err(Error::on("stat", &self.path))?;
        if stat.st_nlink == 0 {
            return Err(not_there());
        }
        Ok(Locked { dir: self })
    }
}

impl StateDir {
    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Locked {
    /// The directory, for reading.
    pub(crate) fn dir(&self) -> &StateDir {
        &self.dir
    }

    /// Replaces the state: readers see the old or the new one.
    pub(crate) fn save(&mut self, state: &State) -> Result<(), Error> {
        let text = serde_json::to_vec(state).map_err(|source| Error::Json {
            path: STATE.into(),
            source,
        })?;
        crate::file::replace(&self.dir.fd, STATE, &sealed(&text))
            .map_err(Error::on("write", self.dir.path.join(STATE)))
    }

    /// Adds the fact which process init is. One system call: there or not.
    pub(crate) fn name_init(&mut self, pid: i32, start_ticks: u64) -> Result<(), Error> {
        rustix::fs::symlinkat(format_init(pid, start_ticks), &self.dir.fd, INIT)
            .map_err(Error::on("write", self.dir.path.join(INIT)))
    }

    /// Adds the fact that the container has come so far.
    pub(crate) fn reached(&mut self, phase: Phase) -> Result<(), Error> {
        let Some(name) = phase.fact() else {
            return Ok(());
        };
        let mode = Mode::from_raw_mode(0o600);
        match rustix::fs::mknodat(&self.dir.fd, name, FileType::RegularFile, mode, 0) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(Error::on("write", self.dir.path.join(name))(errno)),
        }
    }

    /// Removes one file, or one empty directory; its absence is no error.
    pub(crate) fn remove_file(&mut self, name: &str) -> Result<(), Error> {
        let removed = match rustix::fs::unlinkat(&self.dir.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(&self.dir.fd, name, AtFlags::REMOVEDIR),
            result => result,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::on("remove", self.dir.path.join(name))(errno)),
        }
    }

    /// Forgets the container: the state last, so that a crash on the way
    /// leaves what a further `delete` needs.
    pub(crate) fn remove(mut self) -> Result<(), Error> {
        let entries =
            rustix::fs::Dir::read_from(&self.dir.fd).map_err(Error::on("read", &self.dir.path))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::on("read", &self.dir.path))?;
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        names.retain(|name| name != "." && name != ".." && name != STATE);
        for name in &names {
            if name == notify::FOLDER {
                notify::remove_folder(&self)?;
            } else {
                self.remove_file(name)?;
            }
        }
        self.remove_file(STATE)?;
        match rustix::fs::unlinkat(CWD, &self.dir.path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::on("remove", &self.dir.path)(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str) -> Root {
        let path =
            std::env::temp_dir().join(format!("teu-runtime-state-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Root::new(path)
    }

    fn state(id: &ContainerId) -> State {
        let text = br#"{"ociVersion":"1.0.2","root":{"path":"rootfs"}}"#;
        let spec = crate::spec::Spec::parse(text).unwrap();
        State::intent(
            id,
            &spec,
            Path::new("/b"),
            Path::new("/b/rootfs"),
            cgroup::Paths::default(),
        )
    }

    #[test]
    fn a_container_is_made_once_and_forgotten_whole() {
        let root = root("once");
        let id: ContainerId = "c".parse().unwrap();
        let mut locked = root.create(&id).unwrap();
        assert!(
            root.create(&id)
                .unwrap_err()
                .to_string()
                .contains("already exists")
        );
        locked.save(&state(&id)).unwrap();
        assert_eq!(
            root.open(&id).unwrap().load().unwrap().phase,
            Phase::Creating
        );
        assert_eq!(root.ids().unwrap(), std::slice::from_ref(&id));
        locked.remove().unwrap();
        assert!(
            root.open(&id)
                .unwrap_err()
                .to_string()
                .contains("does not exist")
        );
        std::fs::remove_dir(&root.path).unwrap();
    }

    #[test]
    fn facts_are_added_to_the_state() {
        let root = root("facts");
        let id: ContainerId = "c".parse().unwrap();
        let mut locked = root.create(&id).unwrap();
        locked.save(&state(&id)).unwrap();
        locked.name_init(7, 99).unwrap();
        let read = |locked: &Locked| {
            locked
                .dir()
                .load()
                .map(|s| (s.pid, s.start_ticks, s.phase))
                .unwrap()
        };
        assert_eq!(read(&locked), (7, 99, Phase::Creating));
        locked.reached(Phase::Created).unwrap();
        assert_eq!(read(&locked).2, Phase::Created);
        locked.reached(Phase::Running).unwrap();
        assert_eq!(read(&locked).2, Phase::Running);
        locked.remove().unwrap();
        std::fs::remove_dir(&root.path).unwrap();
    }

    #[test]
    fn a_damaged_link_names_nobody() {
        for link in ["", "7", "0:1", "-1:1", "x:1", "7:", "7:x"] {
            assert_eq!(parse_init(link), None, "{link:?}");
        }
    }

    #[test]
    fn a_removed_directory_cannot_be_locked() {
        let root = root("gone");
        let id: ContainerId = "c".parse().unwrap();
        let locked = root.create(&id).unwrap();
        let late = root.open(&id).unwrap();
        locked.remove().unwrap();
        assert!(late.lock().is_err());
        std::fs::remove_dir(&root.path).unwrap();
    }

    #[test]
    fn a_torn_state_is_an_error_and_not_a_panic() {
        let root = root("torn");
        let id: ContainerId = "c".parse().unwrap();
        let locked = root.create(&id).unwrap();
        for text in ["", "{", "[]", "{\"version\":1}", "\0\0\0"] {
            std::fs::write(root.path.join("c/state.json"), text).unwrap();
            assert!(locked.dir().load().is_err());
        }
        locked.remove().unwrap();
        std::fs::remove_dir(&root.path).unwrap();
    }

    #[test]
    fn a_damaged_record_is_never_believed() {
        let whole = sealed(br#"{"version":1,"id":"c"}"#);
        assert!(serde_json::from_slice::<serde_json::Value>(&whole).is_ok());
        assert!(is_whole(&whole));
        assert!((0..whole.len()).all(|length| !is_whole(&whole[..length])));
        let link = format_init(123, 456);
        assert_eq!(parse_init(&link), Some((123, 456)));
        let flipped = |text: &[u8], bit: usize| {
            let mut text = text.to_vec();
            text[bit / 8] ^= 1 << (bit % 8);
            text
        };
        assert!((0..8 * whole.len()).all(|bit| !is_whole(&flipped(&whole, bit))));
        for bit in 0..8 * link.len() {
            let link = flipped(link.as_bytes(), bit);
            assert_eq!(std::str::from_utf8(&link).ok().and_then(parse_init), None);
        }
    }
}
