//! `restore`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Gid, Mode};
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::process::{Pid, PidfdFlags};

use super::criu::{Criu, Worker, ended};
use super::dump::{explain, open_both};
use super::outside::{self, Joined};
use super::private::Elsewhere;
use super::privileges::{self, Allowed, Refusal, Verdict};
use super::rpc::{CgroupRoot, Kind, Notify, Options, Request, Version};
use super::streams::{self, Inherited};
use super::{EMPTY_NAMESPACES, Wishes, foreign, images, mounts, protection, saved_mounts};
use crate::cgroup::{self, Home, systemd};
use crate::container::create::{self, Prepared, run_runtime_hooks};
use crate::error::Error;
use crate::init::cgroup_view::View;
use crate::init::child::Console;
use crate::init::protocol::send_with_fd;
use crate::proc;
use crate::rootfs::mount::clone_host;
use crate::spec::{Linux, NamespaceType};
use crate::state::{Locked, Phase, State};
use crate::{resctrl, sys};

/// Name of CRIU's log.
pub(super) const LOG_FILE: &str = "restore.log";

/// Mount point of the root while CRIU works, in the state directory: CRIU needs
/// a mount of its own, on a directory that nothing covers.
const ROOT: &str = "criu-root";

/// Since this version CRIU can change LSM profiles.
const CHANGES_LSM: Version = Version(31_600);

/// What the receiver of a terminal is told; runc's word.
const TERMINAL_NAME: &[u8] = b"orphan-pts-master";

/// A container that runs again.
#[derive(Debug)]
pub(crate) struct Restored {
    /// Its directory, locked.
    pub locked: Locked,
    /// Its state, as saved.
    pub state: State,
    /// Its init, a child of this process.
    pub pidfd: OwnedFd,
    /// Master side of its terminal, where the runtime stays in the foreground.
    pub master: Option<OwnedFd>,
}

/// Makes a container as `request` says and fills it from the images; on
/// failure nothing of it is left.
pub(crate) fn restore(request: &create::Request<'_>, wishes: &Wishes) -> Result<Restored, Error> {
    let mut prepared = create::prepare(request)?;
    let start = prepared.systemd.take();
    let criu = Criu::find(&wishes.criu, request.log)?;
    let rootfs = prepared.init.rootfs.rootfs.clone();
    let mut state = State::intent(
        request.id,
        &prepared.spec,
        &request.bundle,
        &rootfs,
        prepared.paths.clone(),
    );
    state.unit = start.as_ref().map(|start| start.unit().clone());
    state.resctrl = prepared.resctrl.as_ref().map(|plan| plan.group.clone());
    let mut locked = request.root.create(request.id)?;
    let made = locked.save(&state).and_then(|()| {
        let attempt = Attempt {
            request,
            wishes,
            criu,
            prepared: &prepared,
            start,
            locked: &mut locked,
            state: &mut state,
            master: None,
            compared: None,
        };
        attempt.make()
    });
    match made {
        Ok((pidfd, master)) => Ok(Restored {
            locked,
            state,
            pidfd,
            master,
        }),
        Err(error) => {
            // The reason is worth more than what the cleaning may say.
            if !error.is_of_others() {
                let kill = rustix::process::Signal::KILL;
                let _ = cgroup::procs::signal_all(&state.cgroups, kill);
                let _ = cgroup::destroy(state.unit.as_ref(), &state.cgroups);
            }
            let _ = state.resctrl.as_ref().map(resctrl::Group::remove);
            let _ = locked.remove();
            Err(error)
        }
    }
}

/// A CRIU that waits for its request, and the folders that it reaches through us.
struct Started {
    worker: Worker,
    images: OwnedFd,
    work: Option<OwnedFd>,
}

struct Attempt<'a> {
    request: &'a create::Request<'a>,
    wishes: &'a Wishes,
    criu: Criu,
    prepared: &'a Prepared,
    start: Option<systemd::Start>,
    locked: &'a mut Locked,
    state: &'a mut State,
    master: Option<OwnedFd>,
    /// What came of comparing the processes with the bundle, before they ran.
    compared: Option<Result<Verdict, Refusal>>,
}

impl Attempt<'_> {
    fn make(mut self) -> Result<(OwnedFd, Option<OwnedFd>), Error> {
        self.check_lsm()?;
        let home = self.cgroups()?;
        if let Some(filter) = &self.prepared.init.filter {
            crate::container::exec::save_filter(self.locked, filter)?;
        }
        let plan = &self.prepared.init.rootfs;
        let config = outside::config(&self.prepared.spec, plan)?;
        mounts::make_points(plan)?;
        let mut joined = outside::to_join(self.criu, &self.prepared.spec.linux)?;
        let mut streams = streams::inherited(&self.wishes.images)?;
        joined.open.append(&mut streams.open);
        let mut options = self.options(&joined, &streams)?;
        options.config_file = config.as_ref().map(|(path, _)| path.clone());
        let talked = self.talk(options, joined, home);
        // CRIU has left: the directory is no mount point any more.
        self.locked.remove_file(ROOT)?;
        let log = self.wishes.log_dir().join(LOG_FILE);
        let pidfd = talked.map_err(|error| explain(error, &log, self.request.log))?;
        Ok((pidfd, self.master))
    }

    fn check_lsm(&self) -> Result<(), super::Error> {
        for (flag, value) in [
            ("--lsm-profile", &self.wishes.lsm_profile),
            ("--lsm-mount-context", &self.wishes.lsm_mount_context),
        ] {
            if value.is_some() && !self.criu.is(CHANGES_LSM) {
                return Err(super::Error::FlagTooNew { flag });
            }
        }
        Ok(())
    }

    fn cgroups(&mut self) -> Result<Home, Error> {
        let Prepared {
            spec,
            cgroups,
            resctrl,
            ..
        } = self.prepared;
        let resctrl = resctrl.as_ref();
        let (request, start) = (self.request, self.start.take());
        let (locked, state) = (&mut *self.locked, &mut *self.state);
        let home = create::make_groups(request, spec, cgroups, resctrl, start, locked, state)?;
        home.limit(cgroups)?;
        Ok(home)
    }

    /// The container's cgroups as it sees them.
    fn view(&self) -> View {
        let linux = &self.prepared.spec.linux;
        let own_namespace = linux.namespace(NamespaceType::Cgroup).is_some();
        View::new(&self.state.cgroups, own_namespace)
    }

    fn options(&self, joined: &Joined, streams: &Inherited) -> Result<Options, Error> {
        let mut inherit_fd = joined.inherit.clone();
        inherit_fd.extend(streams.inherit.clone());
        Ok(Options {
            log_file: LOG_FILE,
            root: self.locked.dir().path().join(ROOT),
            manage_cgroups_mode: self.wishes.cgroups,
            empty_ns: EMPTY_NAMESPACES,
            evasive_devices: Some(true),
            rst_sibling: Some(true),
            lsm_profile: self.wishes.lsm_profile.clone(),
            lsm_mount_context: self.wishes.lsm_mount_context.clone(),
            ext_unix_sk: self.wishes.ext_unix_sk,
            tcp_established: self.wishes.tcp_established,
            shell_job: self.wishes.shell_job,
            file_locks: self.wishes.file_locks,
            auto_dedup: self.wishes.auto_dedup,
            lazy_pages: self.wishes.lazy_pages,
            ext_mnt: mounts::for_restore(&self.prepared.init.rootfs, &self.view())?,
            inherit_fd,
            join_ns: joined.join.clone(),
            ..Options::default()
        })
    }

    fn talk(&mut self, mut options: Options, joined: Joined, home: Home) -> Result<OwnedFd, Error> {
        let Started {
            mut worker,
            images,
            work,
        } = self.start()?;
        options.images_dir_fd = images.as_raw_fd();
        options.work_dir_fd = work.as_ref().map(AsRawFd::as_raw_fd);
        // CRIU has them now; no hook shall.
        drop(joined.open);
        if let Some(pid) = Pid::from_raw(worker.pid()) {
            home.adopt(pid, &self.state.cgroups, &self.prepared.cgroups)?;
            if let Some(group) = &self.state.resctrl {
                group.join(worker.pid())?;
            }
        }
        options.cg_root = cgroup_roots(worker.pid())?;
        let allowed = Allowed::new(
            &self.prepared.spec.linux,
            &self.prepared.init,
            self.criu,
            worker.pid(),
        )?;
        let request = Request::with(Kind::Restore, &options);
        let mut pidfd = None;
        let answered = worker.ask(&request, &mut |notify, descriptor| {
            self.hear(notify, descriptor, &mut pidfd, &allowed)
        });
        let answered = answered.and_then(|response| match response.kind {
            Kind::Restore => Ok(()),
            kind => Err(super::Error::Unexpected { kind }.into()),
        });
        let finished = answered.and_then(|()| {
            let status = worker.finish()?;
            if status.success() {
                return Ok(());
            }
            Err(super::Error::Exit { how: ended(status) }.into())
        });
        let finished = match self.compared.take() {
            Some(Err(refusal)) => Err(refusal.end()),
            Some(Ok(verdict)) => finished.and_then(|()| self.finish(verdict)),
            None => finished.and_then(|()| Err(super::Error::Uncompared.into())),
        };
        match (finished, pidfd) {
            (Ok(()), Some(pidfd)) => Ok(pidfd),
            (Ok(()), None) => Err(Error::State("criu named no restored process".into())),
            (Err(error), pidfd) => {
                if let Some(pidfd) = pidfd {
                    end(&pidfd);
                }
                Err(error)
            }
        }
    }

    /// Starts CRIU in a mount namespace where the container's root is a mount.
    /// The folders are opened in there too: CRIU mounts in the one it works in.
    fn start(&self) -> Result<Started, Error> {
        let path = self.locked.dir().path().join(ROOT);
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).map_err(Error::on("create", &path))?;
        let _private = Elsewhere::private()?;
        let rootfs = &self.state.rootfs;
        let root = clone_host(rootfs, true).map_err(Error::on("open root", rootfs))?;
        let from = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&root, "", CWD, &path, from).map_err(Error::on("mount root on", &path))?;
        let (images, work) = open_both(self.wishes)?;
        saved_mounts::check(&images, &self.wishes.images, &self.prepared.init.rootfs)?;
        if let Some(group) = group_of_root(&self.prepared.spec.linux)
            && let Err(error) = images::let_in(&images, &self.wishes.images, group)
        {
            // CRIU says whether it can read them all the same.
            self.request.log.warn(&error.chain());
        }
        Ok(Started {
            worker: Worker::start(&self.wishes.criu, true)?,
            images,
            work,
        })
    }

    fn hear(
        &mut self,
        notify: &Notify,
        descriptor: Option<OwnedFd>,
        pidfd: &mut Option<OwnedFd>,
        allowed: &Allowed,
    ) -> Result<(), Error> {
        self.request
            .log
            .debug(|| format!("notify: {}", notify.script));
        if let (None, Some(pid)) = (&pidfd, notify.pid.and_then(Pid::from_raw)) {
            *pidfd = Some(self.name_init(pid)?);
        }
        match notify.script.as_str() {
            "setup-namespaces" => run_runtime_hooks(&self.prepared.spec.hooks, self.state),
            "post-restore" => self.restored(),
            "pre-resume" => {
                let plan = &self.prepared.init.rootfs;
                let mounts = |pids: &[i32]| {
                    let binds = mounts::for_restore(plan, &self.view())?;
                    foreign::check(pids, plan, &binds, allowed.mounts())
                };
                self.compared = Some(privileges::check(self.state.pid, allowed, mounts));
                Ok(())
            }
            "orphan-pts-master" => self.terminal(descriptor),
            _ => Ok(()),
        }
    }

    /// Says on disk which process is init, before it does anything.
    fn name_init(&mut self, pid: Pid) -> Result<OwnedFd, Error> {
        let number = pid.as_raw_nonzero().get();
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(Error::on("open pidfd of pid", number))?;
        let stat = proc::stat(number).map_err(Error::on("read the state of pid", number))?;
        self.state.pid = number;
        self.state.start_ticks = stat
            .ok_or_else(|| Error::State("restored init has ended".into()))?
            .start;
        self.locked
            .name_init(self.state.pid, self.state.start_ticks)?;
        Ok(pidfd)
    }

    /// All processes are there and stand still: the last moment when CRIU ends
    /// them if they are refused.
    fn restored(&mut self) -> Result<(), Error> {
        if self.prepared.init.rootfs.own_mounts {
            protection::restore(self.state.pid, &self.prepared.init.rootfs)?;
        }
        let time = NamespaceType::Time;
        // CRIU gives them a time namespace, so that their clocks go on.
        if !self.state.namespaces.contains(&time) && has_own_time(self.state.pid) {
            self.state.namespaces.push(time);
            self.locked.save(self.state)?;
        }
        Ok(())
    }

    fn terminal(&mut self, descriptor: Option<OwnedFd>) -> Result<(), Error> {
        let master =
            descriptor.ok_or_else(|| Error::State("criu sent no terminal with its news".into()))?;
        match &self.prepared.console {
            Console::Socket(socket) => send_with_fd(socket, TERMINAL_NAME, &master)
                .map_err(Error::at("send terminal to", "console socket")),
            Console::Runtime => {
                self.master = Some(master);
                Ok(())
            }
        }
    }

    /// Tells the caller and the state that the container runs.
    fn finish(&mut self, verdict: Verdict) -> Result<(), Error> {
        if verdict == Verdict::MayGain {
            let lost = "noNewPrivileges is not in force: this CRIU cannot restore it (3.19 can)";
            self.request.log.warn(lost);
        }
        self.state.phase = Phase::Running;
        self.locked.reached(Phase::Running)?;
        match &self.request.pid_file {
            Some(path) => crate::file::write_pid(path, self.state.pid),
            None => Ok(()),
        }
    }
}

fn end(pidfd: &OwnedFd) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::os::fd::AsFd;
    let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
    // It is our child only where CRIU came so far.
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// What the group of the container's root is outside, where it is another.
fn group_of_root(linux: &Linux) -> Option<Gid> {
    let map = linux.gid_mappings.iter().find(|map| map.container == 0)?;
    (map.host != 0).then(|| Gid::from_raw(map.host))
}

/// Whether a process has another time namespace than this one.
fn has_own_time(pid: i32) -> bool {
    let link = |pid: &str| std::fs::read_link(Path::new("/proc").join(pid).join("ns/time")).ok();
    link(&pid.to_string()) != link("self")
}

/// Where the restored cgroups begin: where CRIU itself was put.
fn cgroup_roots(pid: i32) -> Result<Vec<CgroupRoot>, Error> {
    let path = format!("/proc/{pid}/cgroup");
    let text = crate::file::read_limited(Path::new(&path), CGROUP_BYTES_MAX)?;
    Ok(parse_cgroups(&String::from_utf8_lossy(&text)))
}

/// Largest `/proc/PID/cgroup` that is read, in bytes: a path of 4096 a
/// hierarchy, of which there are at most 15.
const CGROUP_BYTES_MAX: u64 = 64 * 1024;

fn parse_cgroups(text: &str) -> Vec<CgroupRoot> {
    let line = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some((controllers.to_owned(), path.to_owned()))
    };
    text.lines()
        .filter_map(line)
        .flat_map(|(controllers, path)| {
            let roots: Vec<_> = controllers
                .split(',')
                .map(|controller| CgroupRoot {
                    controller: controller.to_owned(),
                    path: path.clone(),
                })
                .collect();
            roots
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_has_its_root() {
        let roots = parse_cgroups("4:cpu,cpuacct:/a:b\n1:name=systemd:/c\n0::/\n");
        let roots: Vec<_> = roots
            .iter()
            .map(|root| (root.controller.as_str(), root.path.as_str()))
            .collect();
        let all = [
            ("cpu", "/a:b"),
            ("cpuacct", "/a:b"),
            ("name=systemd", "/c"),
            ("", "/"),
        ];
        assert_eq!(roots, all);
    }
}
