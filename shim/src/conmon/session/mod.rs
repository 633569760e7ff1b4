//! The loop: waits for whatever happens next, tells [`Life`], does what it says.

mod acts;
mod children;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::process::Pid;
use rustix::termios::{Winsize, tcsetwinsize};

use super::bundle::{Command, Doors, Lines};
use super::call::{self, Ours, Theirs};
use super::cli::{Level, Mode, Options};
use super::daemon::Inherited;
use super::diary::Diary;
use super::ending;
use super::life::{Event, Life};
use super::log::Logs;
use super::notify::Notify;
use super::parent::{Parent, wait_for_start};
use super::token::Token;
use crate::Error;
use crate::error::{At as _, chain};
use crate::supervisor::event_loop::SIGNALS;
use crate::supervisor::oom::Watch;
use crate::supervisor::poller::Poller;
use crate::supervisor::pump::{Left, Pump, Watched};
use crate::supervisor::rest::Rest;
use crate::supervisor::socket;

/// Signals that are passed on to the process.
const PASSED_ON: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];
/// How long the log may take for what an ended process left, and a killed process to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long clients may take for it, once all else is done.
const CLIENTS_LIMIT: Duration = Duration::from_secs(10);

/// What is to be supervised, and how.
#[derive(Debug)]
pub struct Order<'a> {
    /// The options.
    pub options: &'a Options,
    /// What is to be made.
    pub mode: Mode,
    /// Where own messages go.
    pub diary: &'a Diary,
    /// The process has our own standard streams.
    pub passthrough: bool,
    /// See [`super::daemon::outlive_memory`].
    pub oom_score: Option<String>,
}

/// The process, once it exists.
#[derive(Debug)]
struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

/// When something is due, if nothing happens before.
#[derive(Debug, Default)]
struct Deadlines {
    time_limit: Option<Instant>,
    drain: Option<Instant>,
    exit_command: Option<Instant>,
    clients: Option<Instant>,
}

impl Deadlines {
    fn next(&self) -> Option<Instant> {
        let all = [self.time_limit, self.drain, self.exit_command, self.clients];
        all.into_iter().flatten().min()
    }
}

/// Whether `deadline` has passed; then it is no more.
fn is_due(deadline: &mut Option<Instant>) -> bool {
    deadline.take_if(|at| *at <= Instant::now()).is_some()
}

/// The supervisor of one process.
#[derive(Debug)]
pub struct Session<'a> {
    order: Order<'a>,
    bundle: Option<PathBuf>,
    pid_file: PathBuf,
    life: Life,
    poller: Poller<Token>,
    signals: OwnedFd,
    parent: Parent,
    /// Held until the end, see [`Inherited`].
    others: Vec<OwnedFd>,
    doors: Option<Doors>,
    notify: Option<Notify>,
    control_lines: Lines,
    window_lines: Lines,
    theirs: Option<Theirs>,
    ours: Ours,
    runtime: Option<Pid>,
    process: Option<Process>,
    pump: Pump<Logs>,
    left: Left,
    draining: bool,
    drained: bool,
    terminal: Option<OwnedFd>,
    memory: Option<Watch>,
    deadlines: Deadlines,
    exit_command: Option<Pid>,
    rest: Rest,
    /// With which status all is over.
    leaving: Option<i32>,
}

impl<'a> Session<'a> {
    /// Makes everything ready for the runtime.
    ///
    /// # Errors
    /// What the kernel says. The caller has been told then.
    pub fn new(order: Order<'a>, inherited: Inherited, logs: Logs) -> Result<Self, Error> {
        let Inherited { mut parent, others } = inherited;
        match Self::prepare(order, &mut parent, logs) {
            Ok(mut session) => {
                session.parent = parent;
                session.others = others;
                Ok(session)
            }
            Err(err) => {
                let _: Result<(), Error> = parent.tell(-1, Some(&chain(&err)));
                Err(err)
            }
        }
    }

    fn prepare(order: Order<'a>, parent: &mut Parent, logs: Logs) -> Result<Self, Error> {
        let options = order.options;
        let cwd = std::env::current_dir().call("getcwd")?;
        let bundle = match &options.bundle {
            None if !options.exec => Some(cwd.clone()),
            bundle => bundle.clone(),
        };
        let own_pid_file = || {
            let mut name = std::ffi::OsString::from("pidfile-");
            name.push(options.cid.as_deref().unwrap_or_default());
            cwd.join(name)
        };
        let pid_file = options
            .container_pidfile
            .clone()
            .unwrap_or_else(own_pid_file);
        let signals = crate::sys::signalfd(&SIGNALS).call("signalfd")?;
        let poller = Poller::new().call("epoll_create1")?;
        poller
            .add(&signals, Token::Signals, EventFlags::IN)
            .call("epoll_ctl")?;
        let (theirs, ours) = call::streams(options, order.passthrough, bundle.as_deref())?;
        let doors = match &bundle {
            Some(bundle) if !order.passthrough => Some(Doors::open(bundle, options)?),
            _ => None,
        };
        let notify = match (&bundle, &options.sdnotify_socket) {
            (Some(bundle), Some(host)) => Some(Notify::open(bundle, host)?),
            _ => None,
        };
        if let Some(notify) = &notify {
            let watched = poller.add(&notify.socket, Token::Notify, EventFlags::IN);
            watched.call("epoll_ctl")?;
        }
        if doors.is_some() && options.exec_attach {
            parent.tell_attachable()?;
        }
        let protocol = parent.protocol;
        Ok(Self {
            order,
            bundle,
            pid_file,
            life: Life::default(),
            poller,
            signals,
            parent: Parent {
                protocol,
                sync: None,
                attach: None,
                start: None,
            },
            others: Vec::new(),
            doors,
            notify,
            control_lines: Lines::default(),
            window_lines: Lines::default(),
            theirs: Some(theirs),
            ours,
            runtime: None,
            process: None,
            pump: Pump::new([None, None], None, false, logs),
            left: Left::default(),
            draining: false,
            drained: false,
            terminal: None,
            memory: None,
            deadlines: Deadlines::default(),
            exit_command: None,
            rest: Rest::default(),
            leaving: None,
        })
    }

    /// From the runtime's call to the exit command's end. Returns the process's status.
    ///
    /// # Errors
    /// Where epoll itself fails.
    pub fn run(&mut self) -> Result<ExitCode, Error> {
        self.begin()?;
        loop {
            self.pump.settle(&self.poller).call("epoll_ctl")?;
            if let Some(status) = self.is_over() {
                let status = u8::try_from(status & 0xff).unwrap_or(u8::MAX);
                return Ok(ExitCode::from(status));
            }
            let events = self.poller.wait(self.patience()).call("epoll_wait")?;
            self.rest.waited(!events.is_empty());
            for (token, flags) in events {
                self.dispatch(token, flags);
            }
            self.check_time();
        }
    }

    /// The runtime is executed, as soon as the caller lets it.
    fn begin(&mut self) -> Result<(), Error> {
        let waits = matches!(self.order.mode, Mode::Exec { attach: true, .. });
        match self.parent.start.as_ref().filter(|_| waits) {
            Some(pipe) => {
                let watched = self.poller.add(pipe, Token::Start, EventFlags::IN);
                watched.call("epoll_ctl")
            }
            None => {
                self.parent.start = None;
                self.step(Event::StartAllowed);
                Ok(())
            }
        }
    }

    fn is_over(&mut self) -> Option<i32> {
        let status = self.leaving?;
        let busy = self.deadlines.exit_command.is_some() || self.exit_command.is_some();
        if busy {
            return None;
        }
        if self.pump.has_clients() {
            let until = || Instant::now() + CLIENTS_LIMIT;
            let until = *self.deadlines.clients.get_or_insert_with(until);
            if Instant::now() < until {
                return None;
            }
        }
        Some(status)
    }

    /// How long nothing has to be done if nothing happens.
    fn patience(&self) -> Option<Duration> {
        let memory = self.memory.as_ref();
        let memory = memory.and_then(|watch| watch.deadline(Instant::now()));
        let next = self.deadlines.next().into_iter().chain(memory).min();
        let next = next.map(|at| at.saturating_duration_since(Instant::now()));
        let notify = self.notify.as_ref().and_then(Notify::patience);
        let retries = notify.into_iter().chain(self.pump.patience());
        let next = next.into_iter().chain(retries);
        next.chain(self.rest.patience()).min()
    }

    fn dispatch(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Signals => self.hear_signals(),
            Token::Start => {
                if let Some(pipe) = self.parent.start.take() {
                    self.poller.remove(&pipe);
                    self.order.diary.complain(wait_for_start(&pipe));
                    self.step(Event::StartAllowed);
                }
            }
            Token::Process => self.process_ready(),
            Token::Attach => self.admit(),
            Token::Control => self.hear_control(),
            Token::Window => self.hear_window(),
            Token::Memory => self.check_memory(),
            Token::Notify => {
                if let Some(notify) = &mut self.notify {
                    notify.hear();
                }
            }
            Token::Pump(Watched::Output(_) | Watched::Log) if self.draining => {
                self.pump.retry();
                self.drain();
            }
            Token::Pump(Watched::Output(stream)) => self.pump.read_output(stream),
            Token::Pump(Watched::Log) => self.pump.retry(),
            Token::Pump(Watched::Input) => self.pump.input_ready(),
            Token::Pump(Watched::Client(id)) => self.pump.client_ready(id, flags),
        }
    }

    fn check_time(&mut self) {
        if self.pump.patience().is_some() {
            self.pump.retry();
        }
        if let Some(notify) = &mut self.notify {
            notify.retry();
        }
        let memory = self.memory.as_ref();
        if memory.is_some_and(|watch| watch.deadline(Instant::now()).is_some()) {
            self.check_memory();
        }
        if self.draining {
            self.drain();
        }
        if is_due(&mut self.deadlines.time_limit) {
            self.step(Event::TimeUp);
        }
        if is_due(&mut self.deadlines.drain) {
            self.step(Event::DrainExpired);
        }
        if is_due(&mut self.deadlines.exit_command) {
            match ending::exit_command(self.order.options) {
                Ok(child) => self.exit_command = child.map(|child| Pid::from_child(&child)),
                Err(err) => self.order.diary.say(Level::Error, &chain(&err)),
            }
        }
    }

    /// Lets everybody in who knocked.
    fn admit(&mut self) {
        while let Some(doors) = &self.doors
            && let Ok(Some(client)) = socket::accept(&doors.attach)
        {
            self.pump.attach(client);
        }
    }

    fn hear_signals(&mut self) {
        while let Ok(Some(signal)) = crate::sys::next_signal(&self.signals) {
            if PASSED_ON.contains(&signal) {
                self.step(Event::Signal(signal));
            }
        }
        self.reap();
    }

    fn hear_control(&mut self) {
        let Some(doors) = &self.doors else { return };
        let mut commands = Vec::new();
        self.control_lines.read(&doors.control, |line| {
            commands.extend(Command::of_control(line))
        });
        for command in commands {
            self.obey(command);
        }
    }

    fn hear_window(&mut self) {
        let Some(doors) = &self.doors else { return };
        let mut commands = Vec::new();
        self.window_lines.read(&doors.window, |line| {
            commands.extend(Command::of_window(line))
        });
        for command in commands {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command) {
        let done = match command {
            Command::Reopen => self.pump.log().reopen(),
            Command::Resize { rows, columns } => {
                let size = Winsize {
                    ws_row: rows,
                    ws_col: columns,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                let resized = self.terminal.as_ref().map(|fd| tcsetwinsize(fd, size));
                resized.unwrap_or(Ok(())).call("resize the terminal")
            }
        };
        self.order.diary.complain(done);
    }
}
