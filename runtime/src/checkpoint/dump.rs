//! `checkpoint`.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::criu::{Criu, Worker, ended};
use super::rpc::{Features, Kind, Notify, Options, Request, Version};
use super::streams::Streams;
use super::{EMPTY_NAMESPACES, Wishes, images, mounts, outside, quote};
use crate::cgroup::freezer;
use crate::container::delete;
use crate::container::status::Status;
use crate::error::Error;
use crate::id::ContainerId;
use crate::init::cgroup_view::View;
use crate::log::Log;
use crate::rootfs;
use crate::spec::{NamespaceType, Spec};
use crate::state::{Root, State};

/// Name of CRIU's log; containerd looks for it.
pub(super) const LOG_FILE: &str = "dump.log";

/// Since this version CRIU freezes by cgroup2.
const FREEZES_V2: Version = Version(31_400);

/// Since this version CRIU says by a notification that its pages may be asked for.
const SAYS_READY: Version = Version(31_500);

/// How long a saved init may take to end, in seconds: CRIU has killed it.
const END_SECONDS_MAX: i64 = 10;

/// Saves a container. Unless it is to go on running, nothing of it is left
/// but the images.
pub(crate) fn checkpoint(
    root: &Root,
    id: &ContainerId,
    wishes: &Wishes,
    log: &Log,
) -> Result<(), Error> {
    let locked = root.open(id)?.lock()?;
    let state = locked.dir().load()?;
    match Status::of(&state)? {
        Status::Running | Status::Paused => (),
        status => {
            return Err(Error::State(format!(
                "Container cannot be checkpointed in {} state",
                status.word()
            )));
        }
    }
    prepare_images(wishes)?;
    let ready = wishes.status_fd.filter(|_| wishes.lazy_pages);
    let ready = ready.map(Ready::open).transpose()?;
    let criu = Criu::find(&wishes.criu, log)?;
    criu.needs_features_of(wishes)?;
    let init = delete::init_of(&state)?;
    save(criu, &state, wishes, ready, log)?;
    if wishes.leave_running || wishes.pre_dump {
        return Ok(());
    }
    let left = init
        .map_or(Ok(()), |init| wait_for_end(&init, state.pid))
        .and_then(|()| delete::destroy(locked, &state, log));
    if let Err(error) = left {
        // It is saved; what could not be removed is left to `delete --force`.
        log.warn(&error.chain());
    }
    Ok(())
}

impl Criu {
    fn needs_features_of(self, wishes: &Wishes) -> Result<(), super::Error> {
        let wanted = Features {
            mem_track: wishes.pre_dump,
            lazy_pages: wishes.lazy_pages,
        };
        if wanted == Features::default() {
            return Ok(());
        }
        self.needs_features(&wishes.criu, wanted)
    }
}

/// Makes the folder of the images and looks at that of its parent, in runc's
/// words.
fn prepare_images(wishes: &Wishes) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&wishes.images);
    made.map_err(Error::on("create", &wishes.images))?;
    let Some(parent) = &wishes.parent else {
        return Ok(());
    };
    if Path::new(parent).is_absolute() {
        return Err(Error::Usage("--parent-path must be relative".into()));
    }
    let place = wishes.images.join(parent);
    let why = match std::fs::metadata(&place) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => std::io::Error::from(std::io::ErrorKind::NotADirectory),
        Err(error) => error,
    };
    Err(Error::Usage(format!(
        "invalid --parent-path: stat {}: {why}",
        place.display()
    )))
}

/// Opens a folder for CRIU, which reaches it through our descriptor.
pub(super) fn open_folder(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::on("open", path))
}

/// Opens the folder of `--work-path`, made where it is missing.
fn open_work(path: &Path) -> Result<OwnedFd, Error> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => open_folder(path),
        Err(errno) => Err(Error::on("create", path)(errno)),
    }
}

/// Opens the folder of the images, and that of `--work-path` if there is one;
/// nothing in them leads CRIU elsewhere.
pub(super) fn open_both(wishes: &Wishes) -> Result<(OwnedFd, Option<OwnedFd>), Error> {
    let folder = open_folder(&wishes.images)?;
    images::forget_links(&folder, &wishes.images)?;
    images::check(&folder, &wishes.images)?;
    let work = wishes.work.as_deref().map(open_work).transpose()?;
    if let (Some(work), Some(path)) = (&work, &wishes.work) {
        images::forget_links(work, path)?;
    }
    Ok((folder, work))
}

/// The asked-for reader of `--status-fd`, who waits for one zero byte.
#[derive(Debug)]
struct Ready {
    number: RawFd,
    file: File,
}

impl Ready {
    /// Opens what the caller has passed on under this number.
    fn open(number: RawFd) -> Result<Self, Error> {
        let invalid =
            |why: &str| Error::Usage(format!("invalid --status-fd argument {number}: {why}"));
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))
            .map_err(|_| invalid("bad file descriptor"))?;
        let flags = flags
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
        if flags.is_none_or(|flags| flags & libc::O_ACCMODE == libc::O_RDONLY) {
            return Err(invalid("not writable"));
        }
        let file = File::options()
            .write(true)
            .open(format!("/proc/self/fd/{number}"))
            .map_err(|error| invalid(&error.to_string()))?;
        Ok(Self { number, file })
    }

    /// A reader who has gone away misses nothing.
    fn say(mut self, log: &Log) {
        if let Err(error) = self.file.write_all(&[0]) {
            log.warn(&format!("can't write \\0 to status fd: {error}"));
        }
    }
}

fn save(
    criu: Criu,
    state: &State,
    wishes: &Wishes,
    mut ready: Option<Ready>,
    log: &Log,
) -> Result<(), Error> {
    let spec = Spec::load(&state.bundle)?;
    let plan = rootfs::Plan::new(&spec, &state.bundle, false)?;
    let (images, work) = open_both(wishes)?;
    let config = outside::config(&spec, &plan)?;
    let mut options = Options {
        config_file: config.as_ref().map(|(path, _)| path.clone()),
        external: outside::to_leave(criu, &spec.linux, state.pid)?,
        freeze_cgroup: freezer_of(criu, state),
        status_fd: ready
            .as_ref()
            .filter(|_| !criu.is(SAYS_READY))
            .map(|ready| ready.number),
        ..asked_for(wishes, state)
    };
    options.images_dir_fd = images.as_raw_fd();
    options.work_dir_fd = work.as_ref().map(AsRawFd::as_raw_fd);
    let kind = if wishes.pre_dump {
        Kind::PreDump
    } else {
        let own_cgroup = spec.linux.namespace(NamespaceType::Cgroup).is_some();
        let view = View::new(&state.cgroups, own_cgroup);
        options.ext_mnt = mounts::for_dump(state.pid, &plan, &view)?;
        let streams = Streams::of(state.pid)?;
        options.external.extend(streams.outside());
        streams.save(&images)?;
        Kind::Dump
    };
    log.debug(|| format!("Using CRIU in {kind} mode"));
    let mut listen = |notify: &Notify, _| {
        log.debug(|| format!("notify: {}", notify.script));
        if notify.script == "status-ready"
            && let Some(ready) = ready.take()
        {
            ready.say(log);
        }
        Ok(())
    };
    talk(&wishes.criu, kind, &options, &mut listen)
        .map_err(|error| explain(error, &wishes.log_dir().join(LOG_FILE), log))
}

fn talk(
    program: &Path,
    kind: Kind,
    options: &Options,
    listen: &mut super::criu::Listener<'_>,
) -> Result<(), Error> {
    let mut worker = Worker::start(program, false)?;
    let response = worker.ask(&Request::with(kind, options), listen)?;
    if response.kind != kind {
        return Err(super::Error::Unexpected {
            kind: response.kind,
        }
        .into());
    }
    let status = worker.finish()?;
    // After a pre-dump CRIU waits for the dump, and ends without it in failure.
    if status.success() || kind == Kind::PreDump {
        return Ok(());
    }
    Err(super::Error::Exit { how: ended(status) }.into())
}

/// Quotes CRIU's log, and names it in the error.
pub(super) fn explain(error: Error, file: &Path, log: &Log) -> Error {
    match error {
        Error::Checkpoint(error) if error.is_about_criu() => {
            quote::errors(file, log);
            super::Error::Logged {
                log: file.to_owned(),
                error: Box::new(error),
            }
            .into()
        }
        other => other,
    }
}

impl super::Error {
    /// Whether CRIU's log says more.
    fn is_about_criu(&self) -> bool {
        matches!(
            self,
            Self::Failed { .. } | Self::Exit { .. } | Self::Gone { .. }
        )
    }
}

/// What the flags say.
fn asked_for(wishes: &Wishes, state: &State) -> Options {
    Options {
        pid: Some(state.pid),
        root: state.rootfs.clone(),
        log_file: LOG_FILE,
        parent_img: wishes.parent.clone(),
        track_mem: wishes.parent.as_ref().map(|_| true),
        manage_cgroups_mode: wishes.cgroups,
        empty_ns: EMPTY_NAMESPACES,
        page_server: wishes.page_server.clone(),
        leave_running: Some(wishes.leave_running),
        link_remap: Some(wishes.link_remap),
        tcp_skip_in_flight: Some(wishes.tcp_skip_in_flight),
        ext_unix_sk: wishes.ext_unix_sk,
        tcp_established: wishes.tcp_established,
        shell_job: wishes.shell_job,
        file_locks: wishes.file_locks,
        auto_dedup: wishes.auto_dedup,
        lazy_pages: wishes.lazy_pages,
        ..Options::default()
    }
}

/// The cgroup through which CRIU holds all processes still; without one it
/// stops them one by one with ptrace(2).
fn freezer_of(criu: Criu, state: &State) -> Option<std::path::PathBuf> {
    let (path, is_v2) = freezer::place(&state.cgroups)?;
    (!is_v2 || criu.is(FREEZES_V2)).then(|| path.to_owned())
}

fn wait_for_end(init: &OwnedFd, pid: i32) -> Result<(), Error> {
    let timeout = Timespec {
        tv_sec: END_SECONDS_MAX,
        tv_nsec: 0,
    };
    let ended =
        rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(init, PollFlags::IN)], Some(&timeout)));
    match ended.map_err(Error::at("wait for", "init"))? {
        0 => Err(Error::State(format!(
            "init (pid {pid}) still runs {END_SECONDS_MAX} seconds after its checkpoint"
        ))),
        _ => Ok(()),
    }
}
