//! Commands that save and bring back containers: checkpoint, restore.

use std::path::PathBuf;

use super::args::Args;
use super::run::{Running, request, stay};
use super::table::{
    BUNDLE, CONSOLE_SOCKET, FlagSpec, HELP, NO_PIVOT, PID_FILE, short, switch, value,
};
use super::{Context, absolute, container_id, named};
use crate::checkpoint::{self as saving, CgroupMode, PageServer, Wishes};
use crate::container::create::Request;
use crate::container::foreground::Foreground;
use crate::error::Error;

const IMAGES: FlagSpec = value(
    "image-path",
    "DIR",
    "folder of the images (default: ./checkpoint)",
);
const WORK: FlagSpec = value(
    "work-path",
    "DIR",
    "folder for CRIU's log and temporary files (default: the images')",
);
const TCP: FlagSpec = switch("tcp-established", "allow open TCP connections");
const UNIX: FlagSpec = switch("ext-unix-sk", "allow unix sockets to the outside");
const SHELL: FlagSpec = switch("shell-job", "allow a session whose leader is outside");
const LOCKS: FlagSpec = switch("file-locks", "save and restore file locks");
const CGROUPS: FlagSpec = value(
    "manage-cgroups-mode",
    "MODE",
    "soft, full, strict or ignore (default: CRIU's, soft)",
);
const EMPTY: FlagSpec = value(
    "empty-ns",
    "KIND",
    "namespace without its content; network is always so",
);
const DEDUP: FlagSpec = switch("auto-dedup", "drop what a parent's images hold twice");
const LAZY: FlagSpec = switch("lazy-pages", "bring memory in when it is touched");

/// Flags of `checkpoint`.
pub(super) const CHECKPOINT: &[FlagSpec] = &[
    IMAGES,
    WORK,
    value(
        "parent-path",
        "DIR",
        "folder of an earlier --pre-dump, relative to the images",
    ),
    switch("leave-running", "let the container go on"),
    TCP,
    switch(
        "tcp-skip-in-flight",
        "pass over connections that are being made",
    ),
    switch("link-remap", "link deleted files again, where possible"),
    UNIX,
    SHELL,
    LAZY,
    value(
        "status-fd",
        "FD",
        "descriptor that gets a zero byte when --lazy-pages are ready",
    ),
    value("page-server", "ADDRESS:PORT", "send the memory there"),
    LOCKS,
    switch(
        "pre-dump",
        "save the memory only, and let the container go on",
    ),
    CGROUPS,
    EMPTY,
    DEDUP,
    HELP,
];

/// Flags of `restore`.
pub(super) const RESTORE: &[FlagSpec] = &[
    CONSOLE_SOCKET,
    IMAGES,
    WORK,
    TCP,
    UNIX,
    SHELL,
    LOCKS,
    CGROUPS,
    BUNDLE,
    short('d', switch("detach", "do not stay with the container")),
    PID_FILE,
    switch(
        "no-subreaper",
        "accepted: this runtime never adopts orphans of the container",
    ),
    NO_PIVOT,
    EMPTY,
    DEDUP,
    LAZY,
    value("lsm-profile", "TYPE:NAME", "restore with this LSM profile"),
    value(
        "lsm-mount-context",
        "CONTEXT",
        "restore mounts with this LSM context",
    ),
    HELP,
];

/// `checkpoint`.
pub(super) fn checkpoint(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    warn_rootless(context);
    let wishes = wishes(context, args)?;
    let saved = saving::checkpoint(&context.root, &id, &wishes, context.log);
    named("checkpoint", &id, saved).map(|()| 0)
}

/// `restore`.
pub(super) fn restore(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    warn_rootless(context);
    let wishes = wishes(context, args)?;
    let detached = args.flag("detach");
    let foreground = if detached {
        None
    } else {
        Some(Foreground::prepare()?)
    };
    let request = Request {
        run: true,
        detached,
        ..request(context, args, &id)
    };
    let config = request.bundle.join("config.json");
    let restored = named("restore", &id, saving::restore(&request, &wishes))
        .map_err(|error| error.asked_by(&config, ""))?;
    let Some(foreground) = foreground else {
        return Ok(0);
    };
    let running = Running {
        locked: restored.locked,
        state: restored.state,
        pidfd: restored.pidfd,
        master: restored.master,
    };
    named("restore", &id, stay(context, running, &foreground, false))
}

fn warn_rootless(context: &Context<'_>) {
    if !rustix::process::geteuid().is_root() {
        context
            .log
            .warn("checkpoint and restore are untested with rootless containers: CRIU needs root");
    }
}

fn wishes(context: &Context<'_>, args: &Args) -> Result<Wishes, Error> {
    let given = |name: &str| args.value(name).filter(|value| !value.is_empty());
    for kind in args.values("empty-ns") {
        if kind != "network" {
            return Err(Error::Usage(format!("namespace {kind:?} is not supported")));
        }
    }
    let status_fd: Option<i32> = args.number("status-fd")?;
    Ok(Wishes {
        criu: context.criu.into(),
        images: absolute(given("image-path").unwrap_or("checkpoint")),
        work: given("work-path").map(|path| absolute(PathBuf::from(path))),
        parent: given("parent-path").map(str::to_owned),
        leave_running: args.flag("leave-running"),
        tcp_established: args.flag("tcp-established"),
        tcp_skip_in_flight: args.flag("tcp-skip-in-flight"),
        link_remap: args.flag("link-remap"),
        ext_unix_sk: args.flag("ext-unix-sk"),
        shell_job: args.flag("shell-job"),
        lazy_pages: args.flag("lazy-pages"),
        status_fd: status_fd.filter(|&fd| fd != -1),
        page_server: given("page-server").map(page_server).transpose()?,
        file_locks: args.flag("file-locks"),
        pre_dump: args.flag("pre-dump"),
        cgroups: cgroup_mode(given("manage-cgroups-mode").unwrap_or(""))?,
        auto_dedup: args.flag("auto-dedup"),
        lsm_profile: given("lsm-profile").map(str::to_owned),
        lsm_mount_context: given("lsm-mount-context").map(str::to_owned),
    })
}

fn cgroup_mode(word: &str) -> Result<CgroupMode, Error> {
    match word {
        "" => Ok(CgroupMode::Default),
        "soft" => Ok(CgroupMode::Soft),
        "full" => Ok(CgroupMode::Full),
        "strict" => Ok(CgroupMode::Strict),
        "ignore" => Ok(CgroupMode::Ignore),
        other => Err(Error::Usage(format!(
            "invalid manage-cgroups-mode value {other:?}: soft, full, strict or ignore"
        ))),
    }
}

/// `ADDRESS:PORT`, the address in brackets where it has colons itself.
fn page_server(text: &str) -> Result<PageServer, Error> {
    let wrong = || Error::Usage("Use --page-server ADDRESS:PORT to specify page server".into());
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let address = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
        None if address.contains(':') => return Err(wrong()),
        None => address,
    };
    if address.is_empty() || port.is_empty() {
        return Err(wrong());
    }
    let port = port
        .parse()
        .map_err(|_| Error::Usage(format!("Invalid port number {port:?}")))?;
    Ok(PageServer {
        address: address.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        let parse = |text: &str| page_server(text).map(|server| (server.address, server.port));
        assert_eq!(parse("10.0.0.1:27").unwrap(), ("10.0.0.1".into(), 27));
        assert_eq!(parse("[::1]:65535").unwrap(), ("::1".into(), 65535));
        for bad in [
            "", "host", "host:", ":1", "::1:5", "[::1:5", "h:x", "h:65536", "h:-1",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn modes_have_runcs_names() {
        assert_eq!(cgroup_mode("").unwrap(), CgroupMode::Default);
        assert_eq!(cgroup_mode("strict").unwrap(), CgroupMode::Strict);
        let error = cgroup_mode("hard").unwrap_err().to_string();
        assert!(
            error.starts_with("invalid manage-cgroups-mode value"),
            "{error}"
        );
    }
}
