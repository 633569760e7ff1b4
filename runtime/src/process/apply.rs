//! Becoming the planned process: ids, privileges, limits, and at last execve.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};

use super::caps::{self, Sets};
use super::{Plan, explain, lookup, rlimit};
use crate::init::{Failure, Step};
use crate::protect;
use crate::rootfs::RootDir;
use crate::rootfs::root::Stub;
use crate::sys::{self, CStrings, SharedPage};

/// A seccomp filter ready to be loaded.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    /// The program.
    pub program: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`, `NEW_LISTENER` where an agent decides.
    pub flags: u64,
}

impl Filter {
    /// Whether an agent decides on some calls.
    pub(crate) fn notifies(&self) -> bool {
        self.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
    }
}

/// A process that has everything but its filter and its program.
#[derive(Debug)]
pub(crate) struct Prepared {
    path: CString,
    args: CStrings,
    env: CStrings,
    caps: Sets,
    /// Whether CAP_SYS_ADMIN is still permitted, for the filter alone.
    elevated: bool,
    /// Whether the runtime can take our listener only while we can be looked into.
    rootless: bool,
}

/// How long the runtime may take to pass the listener on; it may have died.
const AGENT_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(10);

const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Opens the working directory inside `root` and makes it where it is missing.
/// By descriptor: a name like /proc/self/fd/7 leads nowhere here.
pub(crate) fn open_cwd(root: &RootDir, cwd: &Path) -> Result<OwnedFd, Failure> {
    let fail = || format!("{cwd:?}");
    match root.open(cwd, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => root
            .create(cwd, Stub::Directory)
            .map_err(Step::Cwd.on(fail())),
        result => result.map_err(Step::Cwd.on(fail())),
    }
}

/// Takes on ids, limits and privileges, then finds the program as that user.
/// `filtered`: a filter will be loaded, which needs a privilege kept for it
/// unless the process gives up gaining any. `cwd`: the working directory, if
/// only that user may enter it.
pub(crate) fn prepare(
    plan: Plan,
    filtered: bool,
    cwd: Option<OwnedFd>,
) -> Result<Prepared, Failure> {
    rlimit::apply(&plan.rlimits)?;
    plan.execution.apply()?;
    plan.labels
        .iter()
        .try_for_each(super::label::Label::apply)?;
    if plan.no_new_privs {
        rustix::thread::set_no_new_privs(true)
            .map_err(Step::Attribute.on("process.noNewPrivileges"))?;
    }
    caps::bound(plan.caps.bounding)?;
    take_ids(&plan)?;
    if let Some(cwd) = cwd {
        rustix::process::fchdir(cwd).map_err(Step::Cwd.on(format!("{:?}", plan.cwd)))?;
    }
    let elevated = filtered && !plan.no_new_privs;
    let Sets {
        effective,
        permitted,
        inheritable,
        ambient,
        ..
    } = plan.caps;
    let kept = if elevated {
        permitted | CAP_SYS_ADMIN
    } else {
        permitted
    };
    caps::set(effective, kept, inheritable)
        .map_err(|errno| Step::Capabilities.on(unavailable(permitted))(errno))?;
    caps::raise_ambient(ambient)?;
    rustix::process::umask(Mode::from_raw_mode(plan.umask & 0o777));
    let path = lookup::program(&plan)?;
    let mut env = plan.env;
    if plan.needs_home {
        env.push(lookup::home(plan.uid));
    }
    Ok(Prepared {
        path,
        args: CStrings::new(plan.args),
        env: CStrings::new(env),
        caps: plan.caps,
        elevated,
        rootless: plan.rootless,
    })
}

/// Names what the process asks for and this runtime does not have itself.
fn unavailable(wanted: u64) -> String {
    let ours = rustix::thread::capabilities(None).map_or(u64::MAX, |sets| sets.permitted.bits());
    let missing: Vec<_> = caps::names(wanted & !ours).collect();
    if missing.is_empty() {
        "capset".into()
    } else {
        format!("{} (not available to the runtime)", missing.join(" "))
    }
}

fn take_ids(plan: &Plan) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    if plan.uid != 0 {
        own_streams(uid);
        rustix::thread::set_keep_capabilities(true).map_err(Step::User.on("keep_capabilities"))?;
    }
    let groups: Vec<Gid> = plan.groups.iter().copied().map(Gid::from_raw).collect();
    match rustix::thread::set_thread_groups(&groups) {
        // A rootless user namespace denies setgroups(2); there is nothing to take.
        Err(Errno::PERM) if groups.is_empty() => (),
        result => result.map_err(Step::User.on(format!("additional groups {:?}", plan.groups)))?,
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .map_err(Step::User.on(format!("gid {}", plan.gid)))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .map_err(Step::User.on(format!("uid {}", plan.uid)))
}

/// Gives pipes on the standard streams to the user, who otherwise could not
/// reopen them as /dev/stdout. Files, sockets and devices stay untouched.
fn own_streams(uid: Uid) {
    for stream in [stdin(), stdout(), stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else {
            continue;
        };
        let pipe = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo;
        if pipe && stat.st_uid != uid.as_raw() {
            // Refused where the owner is not mapped: then nobody expects it.
            let _ = rustix::fs::fchown(stream, Some(uid), None);
        }
    }
}

impl Prepared {
    /// The environment.
    pub(crate) fn env(&self) -> &CStrings {
        &self.env
    }

    /// Makes the caller, a child that becomes a hook, as confined as the
    /// program will be. A listener is for the program alone.
    pub(crate) fn confine(&self, filter: Option<&Filter>) -> Result<(), Failure> {
        if let Some(filter) = filter {
            let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            let flags = filter.flags & !listener;
            return self.load(&filter.program, flags, None);
        }
        let Sets {
            effective,
            permitted,
            inheritable,
            ..
        } = self.caps;
        caps::set(effective, permitted, inheritable).map_err(Step::Capabilities.on("capset"))
    }

    /// Loads the filter and becomes the program. Returns only on failure, and
    /// after the filter is loaded says so through `page`, since nothing else
    /// may be allowed any more.
    pub(crate) fn execute(&self, filter: Option<&Filter>, page: Option<&SharedPage>) -> Failure {
        let keep = |failure: &Failure| {
            if let Some(page) = page {
                page.store(&failure.encode());
            }
        };
        // The last that can be said: the filter may forbid it.
        crate::trace::step_of(|| format!("execute {:?}", self.path));
        let failure = match self.filter(filter, page) {
            Ok(()) => {
                let error = sys::execve(&self.path, &self.args, &self.env);
                let failure = Step::Execve.on(self.path.to_string_lossy())(error);
                // First what is certain: the filter may kill who looks further.
                keep(&failure);
                explain::failed(&self.path, failure)
            }
            Err(failure) => failure,
        };
        keep(&failure);
        failure
    }

    /// Loads the filter, and hands its listener over.
    pub(crate) fn filter(
        &self,
        filter: Option<&Filter>,
        page: Option<&SharedPage>,
    ) -> Result<(), Failure> {
        match filter {
            Some(filter) => self.load(&filter.program, filter.flags, page),
            None => Ok(()),
        }
    }

    fn load(
        &self,
        program: &[libc::sock_filter],
        flags: u64,
        page: Option<&SharedPage>,
    ) -> Result<(), Failure> {
        let Sets {
            effective,
            permitted,
            inheritable,
            ..
        } = self.caps;
        if self.elevated {
            caps::set(
                effective | CAP_SYS_ADMIN,
                permitted | CAP_SYS_ADMIN,
                inheritable,
            )
            .map_err(Step::Capabilities.on("capset"))?;
        }
        if self.rootless && flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
            protect::show().map_err(Step::Seccomp.on("PR_SET_DUMPABLE"))?;
        }
        let listener = sys::seccomp_load(program, flags).map_err(Step::Seccomp.on(""))?;
        if let (Some(listener), Some(page)) = (listener, page) {
            wait_for_agent(listener, page)?;
        }
        if self.elevated {
            caps::set(effective, permitted, inheritable)
                .map_err(Step::Capabilities.on("capset under the filter"))?;
        }
        Ok(())
    }
}

/// Spins until the runtime has taken the listener. Any system call might
/// already wait for an agent that is not there yet; reading the clock is none.
fn wait_for_agent(listener: i32, page: &SharedPage) -> Result<(), Failure> {
    page.offer(listener);
    let begun = std::time::Instant::now();
    while !page.accepted() {
        if begun.elapsed() > AGENT_WAIT_MAX {
            return Err(Step::Seccomp.says("the agent did not take the listener"));
        }
        std::hint::spin_loop();
    }
    Ok(())
}

/// Enters a directory by descriptor. One that we may not enter is given back:
/// the user of the process may, where its group is none of the user namespace.
pub(crate) fn enter(directory: OwnedFd, cwd: &Path) -> Result<Option<OwnedFd>, Failure> {
    match rustix::process::fchdir(&directory) {
        Ok(()) => Ok(None),
        Err(Errno::ACCESS) => Ok(Some(directory)),
        Err(errno) => Err(Step::Cwd.on(format!("{cwd:?}"))(errno)),
    }
}
