//! The process that looks after a pod: one loop for all that happens.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::fs::OFlags;
use rustix::net::{SocketAddrUnix, getsockname};
use rustix::process::{Pid, WaitOptions, set_child_subreaper, waitpid};

use super::events::publisher::Publisher;
use super::flags::Flags;
use super::proto::sandbox;
use super::proto::task::{SERVICE_V2, SERVICE_V3};
use super::proto::ttrpc::{Code, Request, Status};
use super::sandbox::{OWN_CONNECTION, Sandbox};
use super::task::request;
use super::task::service::Service;
use super::ttrpc::server::{Reply, Server};
use super::{Token, default_runtime, events_address};
use crate::Error;
use crate::error::{At as _, warn};
use crate::supervisor::poller::Poller;
use crate::supervisor::{event_loop::SIGNALS, socket};

/// How long events may still be delivered after containerd said that it needs this shim no more. One
/// that has just begun says so before it takes events, and its clients come back later still.
const FAREWELL_LIMIT: Duration = Duration::from_secs(60);
/// How long nothing must happen before memory is given back.
const REST_AFTER: Duration = Duration::from_secs(1);
/// How long the listener rests when this process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The loop and what it is about.
#[derive(Debug)]
struct Shim {
    poller: Poller<Token>,
    signals: OwnedFd,
    /// `None` once it was told to leave.
    listener: Option<OwnedFd>,
    /// Where that is in the file system.
    socket: Option<PathBuf>,
    server: Server,
    service: Service,
    sandbox: Sandbox,
    leave_by: Option<Instant>,
    /// Whether memory was given back since something happened.
    rested: bool,
}

/// Looks after the pod whose socket is standard input, in the folder of its first container.
///
/// # Errors
/// What the kernel says before it begins, or of epoll itself.
pub fn serve(flags: &Flags) -> Result<(), Error> {
    let signals = crate::sys::signalfd(&SIGNALS).call("signalfd")?;
    set_child_subreaper(Some(rustix::process::getpid())).call("prctl")?;
    let listener = take_stdin()?;
    log_to_containerd();
    let publisher = Publisher::new(&events_address(&flags.address), &flags.namespace);
    let poller = Poller::new().call("epoll_create1")?;
    poller
        .add(&signals, Token::Signals, EventFlags::IN)
        .call("epoll_ctl")?;
    let socket = path_of(&listener);
    poller
        .add(&listener, Token::Listener, EventFlags::IN)
        .call("epoll_ctl")?;
    Shim {
        poller,
        signals,
        listener: Some(listener),
        socket,
        server: Server::default(),
        service: Service::new(&flags.namespace, default_runtime(), publisher),
        sandbox: Sandbox::default(),
        leave_by: None,
        rested: false,
    }
    .run()
}

/// The listening socket; standard input is nobody's then.
fn take_stdin() -> Result<OwnedFd, Error> {
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).call("dup")?;
    let path = Path::new("/dev/null");
    let null = File::open(path).at("open", path)?;
    rustix::stdio::dup2_stdin(&null).call("dup2")?;
    Ok(listener)
}

/// Where the listener is in the file system.
fn path_of(listener: &OwnedFd) -> Option<PathBuf> {
    let name = SocketAddrUnix::try_from(getsockname(listener).ok()?).ok()?;
    let path = name.path()?.into_owned().into_bytes();
    Some(PathBuf::from(OsString::from_vec(path)))
}

/// Makes the fifo that containerd reads logs from standard error. It is opened for reading too, so
/// that neither opening nor writing depends on a reader; what does not fit into it is lost.
fn log_to_containerd() {
    let mut options = File::options();
    options.read(true).write(true);
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        OFlags::NONBLOCK.bits().cast_signed(),
    );
    if let Ok(log) = options.open("log") {
        let _: rustix::io::Result<()> = rustix::stdio::dup2_stderr(&log);
    }
}

impl Shim {
    fn run(mut self) -> Result<(), Error> {
        loop {
            let now = Instant::now();
            self.service.tick(now);
            self.sandbox.tick(now, &mut self.service);
            self.send_answers();
            if self
                .leave_by
                .is_some_and(|by| by <= now || self.service.publisher.is_idle())
            {
                return Ok(());
            }
            self.settle(now).call("epoll_ctl")?;
            let events = self.poller.wait(self.patience(now)).call("epoll_wait")?;
            if events.is_empty() && !self.rested {
                self.rested = true;
                crate::sys::rest();
            }
            for (token, flags) in events {
                self.rested = false;
                self.dispatch(token, flags);
            }
        }
    }

    fn patience(&self, now: Instant) -> Option<Duration> {
        let rest = (!self.rested).then(|| now + REST_AFTER);
        let deadlines = self.service.deadline(now).into_iter();
        let deadlines = deadlines
            .chain(self.sandbox.deadline())
            .chain(self.leave_by)
            .chain(rest);
        deadlines.min().map(|at| at.saturating_duration_since(now))
    }

    fn settle(&mut self, now: Instant) -> std::io::Result<()> {
        self.service.settle(&self.poller, now)?;
        let poller = &self.poller;
        self.server
            .settle(|number, fd, flags| poller.modify(fd, Token::Connection(number), flags))
    }

    fn dispatch(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Signals => self.reap(),
            Token::Listener => self.accept(),
            Token::Connection(number) => {
                let heard = self.server.ready(number, flags);
                for (reply, request) in heard.calls {
                    self.take(reply, request);
                }
                if heard.gone {
                    self.service.forget(number);
                }
            }
            Token::Publisher => self.service.publisher.ready(Instant::now(), flags),
            Token::Stdio(key, part) => self.service.stream_ready(key, part),
            Token::Oom(key) => self.service.oom_ready(key),
        }
    }

    /// Everything that ended is a child: calls of the runtime, containers, loggers, and orphans.
    fn reap(&mut self) {
        while let Ok(Some(_)) = crate::sys::next_signal(&self.signals) {}
        // First noted, then reaped: if we are killed in between, the process table still knows.
        while let Ok(Some((pid, status))) = crate::sys::ended_child() {
            self.service.reaped(pid, status);
            let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        match socket::accept(listener) {
            Ok(Some(fd)) => {
                if let Some((number, fd)) = self.server.add(fd)
                    && let Err(err) = self
                        .poller
                        .add(fd, Token::Connection(number), EventFlags::IN)
                {
                    warn("shim", &err);
                }
            }
            Ok(None) => {}
            Err(err) => {
                // The connection stays in the queue, and would be reported without end.
                warn("shim", &err);
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }

    fn take(&mut self, reply: Reply, asked: Request) {
        match asked.service.as_str() {
            SERVICE_V2 | SERVICE_V3 => match request::parse(&asked.method, &asked.payload) {
                Ok(request) => self.service.handle(reply, request),
                Err(status) => self.server.answer(reply, Err(status)),
            },
            sandbox::SERVICE => {
                let service = &mut self.service;
                self.sandbox
                    .handle(reply, &asked.method, &asked.payload, service);
            }
            service => {
                let status = Status::new(Code::Unimplemented, format!("service {service}"));
                self.server.answer(reply, Err(status));
            }
        }
    }

    fn send_answers(&mut self) {
        while !self.service.answers.is_empty() {
            self.leave_if_told();
            for (reply, answer) in std::mem::take(&mut self.service.answers) {
                if reply.connection == OWN_CONNECTION {
                    self.sandbox
                        .answered(reply.stream, answer, &mut self.service);
                } else {
                    self.server.answer(reply, answer);
                }
            }
        }
    }

    /// Nobody must find this shim any more, from before it says that it leaves: the next container of
    /// that name gets a new one.
    fn leave_if_told(&mut self) {
        if self.leave_by.is_some() || !self.service.is_leaving() {
            return;
        }
        self.leave_by = Some(Instant::now() + FAREWELL_LIMIT);
        self.listener = None;
        if let Some(socket) = self.socket.take()
            && let Err(err) = std::fs::remove_file(socket)
        {
            warn("shim", &err);
        }
    }
}
