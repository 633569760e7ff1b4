//! Commands that bring processes to life: create, run, exec.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::args::Args;
use super::{Context, absolute, container_id, named};
use crate::container::create::{self as creation, Created, Request};
use crate::container::exec as execution;
use crate::container::foreground::{Foreground, caller_size};
use crate::container::service::Service;
use crate::container::service::notify::Proxy;
use crate::container::{delete, start};
use crate::error::Error;
use crate::id::ContainerId;
use crate::init::Wishes;
use crate::protect;
use crate::spec::{Capabilities, Process, Spec};
use crate::state::{Locked, State};
use crate::sys;

/// Most descriptors that are passed on: more than a process may have open.
const PRESERVE_FDS_MAX: u32 = 1 << 20;

/// What create, run and exec do first, before anything is opened: protects the
/// binary, and keeps from programs the descriptors that are not for them. How
/// many are to be passed on; with `listens` those of socket activation too.
pub(super) fn settle(args: &Args, listens: bool) -> Result<u32, Error> {
    protect::own_binary()?;
    let wish: u32 = args.number("preserve-fds")?.unwrap_or(0);
    let listen = if listens { listen_fds() } else { 0 };
    let preserved = wish.saturating_add(listen);
    if preserved > PRESERVE_FDS_MAX {
        return Err(Error::Usage(format!(
            "--preserve-fds {preserved} is more than {PRESERVE_FDS_MAX}"
        )));
    }
    // One that is not there would become one of ours, and be passed on.
    for at in 0..wish {
        let name = format!("/proc/self/fd/{}", 3 + listen + at);
        std::fs::metadata(&name).map_err(|source| Error::System {
            action: "unable to stat",
            object: format!("preserved-fd {at} (of {wish})"),
            source,
        })?;
    }
    sys::keep_from_programs(3 + preserved).map_err(Error::at("mark", "inherited descriptors"))?;
    Ok(preserved)
}

/// How many sockets the caller passes for whoever is started
/// (`sd_listen_fds(3)`): the first descriptors, meant for this very process.
fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match number("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}

/// What the flags of create, run and restore say.
pub(super) fn request<'a>(
    context: &'a Context<'_>,
    args: &Args,
    id: &'a ContainerId,
) -> Request<'a> {
    let path = |name: &str| {
        args.value(name)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    };
    Request {
        root: &context.root,
        id,
        bundle: absolute(args.value("bundle").unwrap_or(".")),
        console_socket: path("console-socket"),
        pidfd_socket: path("pidfd-socket"),
        pid_file: path("pid-file"),
        run: false,
        detached: true,
        wishes: Wishes {
            no_pivot: args.flag("no-pivot"),
            no_new_keyring: args.flag("no-new-keyring"),
            preserve_fds: context.preserve_fds,
            listen_fds: listen_fds(),
            rootless: context.rootless,
            debug: context.log.debugs(),
        },
        systemd_cgroup: context.systemd_cgroup,
        service: Service::default(),
        log: context.log,
    }
}

/// `create`.
pub(super) fn create(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    let request = Request {
        service: Service::of_this_process(),
        ..request(context, args, &id)
    };
    let config = request.bundle.join("config.json");
    named("create", &id, creation::create(&request))
        .map(|_| 0)
        .map_err(|error| error.asked_by(&config, ""))
}

/// `run`.
pub(super) fn run(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    let detached = args.flag("detach");
    let foreground = if detached {
        None
    } else {
        Some(Foreground::prepare()?)
    };
    let request = Request {
        run: true,
        detached,
        service: Service::of_this_process(),
        ..request(context, args, &id)
    };
    let config = request.bundle.join("config.json");
    let mut created = named("run", &id, creation::create(&request))
        .map_err(|error| error.asked_by(&config, ""))?;
    let notify = match &request.service.notify {
        Some(address) => Proxy::listen(&created.locked, address),
        None => Ok(None),
    };
    let begun = notify.and_then(|notify| {
        start::begin(&mut created, context.log)?;
        Ok(notify)
    });
    let notify = match begun {
        Ok(notify) => notify,
        Err(error) => {
            return abandoned(context, created, &id, error)
                .map_err(|error| error.asked_by(&config, ""));
        }
    };
    let Some(mut foreground) = foreground else {
        return named("run", &id, until_ready(created, notify)).map(|()| 0);
    };
    foreground.notify(notify);
    let Created {
        locked,
        state,
        init,
        master,
        ..
    } = created;
    let running = Running {
        locked,
        state,
        pidfd: init.pidfd,
        master,
    };
    named(
        "run",
        &id,
        stay(context, running, &foreground, args.flag("keep")),
    )
}

/// Ends a container that did not become its program.
fn abandoned(
    context: &Context<'_>,
    created: Created,
    id: &ContainerId,
    error: Error,
) -> Result<u8, Error> {
    let _ = sys::pidfd_signal(created.init.pidfd.as_fd(), libc::SIGKILL);
    let _ = creation::reap(&created.init);
    let _ = delete::destroy(created.locked, &created.state, context.log);
    named("run", id, Err(error))
}

/// Stays until a service is ready, where its manager wants to hear of it.
/// Others may act on the container meanwhile.
fn until_ready(created: Created, notify: Option<Proxy>) -> Result<(), Error> {
    let Created {
        locked,
        state,
        init,
        ..
    } = created;
    drop(locked);
    match notify {
        Some(notify) => notify.wait(init.pidfd.as_fd(), state.pid.unsigned_abs()),
        None => Ok(()),
    }
}

/// A container that was just started, or restored.
pub(super) struct Running {
    /// Its directory, locked.
    pub locked: Locked,
    /// Its state.
    pub state: State,
    /// Its init, a child of this process.
    pub pidfd: OwnedFd,
    /// Master side of its terminal.
    pub master: Option<OwnedFd>,
}

/// Stays until the container ends, and removes it unless told to `keep` it.
pub(super) fn stay(
    context: &Context<'_>,
    running: Running,
    foreground: &Foreground,
    keep: bool,
) -> Result<u8, Error> {
    let Running {
        locked,
        state,
        pidfd,
        master,
    } = running;
    // Others may act on the container while it runs.
    drop(locked);
    crate::trace::write();
    let waited = foreground.wait(pidfd.as_fd(), master);
    if waited.is_err() {
        // Nobody would look after it: no terminal to show its own, for instance.
        let _ = delete::delete(&context.root, &state.id.parse()?, true, context.log);
    }
    let code = waited?;
    if !keep {
        // Someone else may have deleted it meanwhile.
        let left = context
            .root
            .open(&state.id.parse()?)
            .and_then(|dir| dir.lock());
        match left {
            Ok(locked) => delete::destroy(locked, &state, context.log)?,
            Err(Error::State(_)) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(code as u8)
}

/// `exec`.
pub(super) fn exec(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    let started = (|| {
        let mut process = process(context, args, &id)?;
        process.check("process")?;
        let detached = args.flag("detach");
        if !detached && process.console_size.is_none() {
            process.console_size = caller_size();
        }
        let path = |name: &str| {
            args.value(name)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        };
        let console_request = Request {
            console_socket: path("console-socket"),
            detached,
            ..request(context, args, &id)
        };
        let console = creation::console(&console_request, process.terminal)?;
        let foreground = if detached {
            None
        } else {
            Some(Foreground::prepare()?)
        };
        let request = execution::Request {
            root: &context.root,
            id: &id,
            process,
            console,
            pidfd_socket: path("pidfd-socket"),
            pid_file: path("pid-file"),
            preserve_fds: context.preserve_fds,
            cgroups: args.values("cgroup"),
            ignore_paused: args.flag("ignore-paused"),
            log: context.log,
        };
        let started = execution::exec(request)?;
        match foreground {
            Some(foreground) => {
                crate::trace::write();
                foreground.wait(started.child.pidfd.as_fd(), started.master)
            }
            None => Ok(0),
        }
    })();
    let exited = named("exec", &id, started).map(|code| code as u8);
    match args.value("process").filter(|file| !file.is_empty()) {
        Some(file) => exited.map_err(|error| error.asked_by(file.as_ref(), "/process")),
        None => exited,
    }
}

/// The process of `--process`, or the container's own one changed by flags.
fn process(context: &Context<'_>, args: &Args, id: &ContainerId) -> Result<Process, Error> {
    // An empty value is none, as with runc.
    let given = |name| args.value(name).filter(|value| !value.is_empty());
    if let Some(file) = given("process") {
        return execution::read_process(file);
    }
    if args.words.len() < 2 {
        return Err(Error::Usage("process args cannot be empty".into()));
    }
    let state = context.root.open(id)?.load()?;
    let mut process = Spec::load(&state.bundle)?.process()?.clone();
    process.args = args.words[1..].to_vec();
    process.terminal = args.flag("tty");
    if let Some(cwd) = given("cwd") {
        process.cwd = cwd.into();
    }
    if let Some(label) = given("process-label") {
        process.selinux_label = label.to_owned();
    }
    if let Some(profile) = given("apparmor") {
        process.apparmor_profile = profile.to_owned();
    }
    if args.flag("no-new-privs") {
        process.no_new_privileges = true;
    }
    process.env.extend(args.values("env"));
    add_capabilities(&mut process, &args.values("cap"));
    if let Some(user) = given("user") {
        (process.user.uid, process.user.gid) = user_of(user, process.user.gid)?;
    }
    for gid in args.values("additional-gids") {
        let number = decimal(&gid).ok_or_else(|| {
            Error::Usage(format!(
                "invalid value {gid:?} for --additional-gids: not a group id"
            ))
        })?;
        process.user.additional_gids.push(number);
    }
    Ok(process)
}

/// As runc: bounding, effective and permitted always, ambient where the
/// container's process has any inheritable.
fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let sets = process
        .capabilities
        .get_or_insert_with(Capabilities::default);
    for name in names {
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            if !set.contains(name) {
                set.push(name.clone());
            }
        }
        if !sets.inheritable.is_empty() {
            sets.inheritable.push(name.clone());
            sets.ambient.push(name.clone());
        }
    }
}

/// `UID[:GID]`, numbers only and exact: nothing that a program could read as
/// another number.
fn user_of(text: &str, default_gid: u32) -> Result<(u32, u32), Error> {
    let invalid = || {
        Error::Usage(format!(
            "invalid value {text:?} for --user: UID[:GID] as numbers from 0 to 4294967294"
        ))
    };
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let uid = decimal(uid).ok_or_else(invalid)?;
    let gid = gid
        .map(|gid| decimal(gid).ok_or_else(invalid))
        .transpose()?;
    Ok((uid, gid.unwrap_or(default_gid)))
}

/// Digits only; the largest number means "unchanged" to the kernel.
fn decimal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|&number| number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_exactly_what_is_written() {
        assert_eq!(user_of("1", 7).unwrap(), (1, 7));
        assert_eq!(user_of("0:5", 7).unwrap(), (0, 5));
        for bad in [
            "",
            "1:",
            ":1",
            "-1",
            "+0",
            "0x1",
            " 1",
            "1 ",
            "1abc",
            "4294967295",
            "4294967296",
            "1:2:3",
            "root",
            "１",
        ] {
            assert!(user_of(bad, 0).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn added_capabilities_are_not_inherited_by_themselves() {
        let mut process = Process::default();
        add_capabilities(&mut process, &["CAP_KILL".into()]);
        let sets = process.capabilities.unwrap();
        assert_eq!(sets.permitted, ["CAP_KILL"]);
        assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
    }
}
