//! The loop: waits for whatever happens next, tells the machine, does what it says.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::process::{
    Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, pidfd_send_signal, wait, waitid,
};
use rustix::termios::{Winsize, tcsetwinsize};

use super::control::{Control, Heard};
use super::machine::{Action, Answer, Asker, Event, Machine, Wait};
use super::poller::{Poller, Token};
use super::protocol::Request;
use super::pump::Pump;
use super::rest::Rest;
use super::rootfs::HostMounts;
use super::setup::{self, Made};
use super::{Container, complain, oom, socket};
use crate::container::status::State;
use crate::container::{Exit, Lock, exit};
use crate::error::{At as _, chain};
use crate::{Error, clock, siblings};

/// Taken from a descriptor instead of being delivered: the first to reap, the
/// others so that nothing but SIGKILL ends the supervisor before its container.
pub const SIGNALS: [i32; 7] = [
    libc::SIGCHLD,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// How long output may go on after the process has ended, before it is cut
/// off: whoever holds the pipes then is not of the container's pid namespace,
/// or the disk is still full.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// The supervisor of one container.
#[derive(Debug)]
pub struct Supervisor<'a> {
    container: &'a Container,
    machine: Machine,
    poller: Poller,
    signals: OwnedFd,
    init: Pid,
    /// Gone once the process was reaped.
    pidfd: Option<OwnedFd>,
    pump: Pump,
    control: Control,
    terminal: Option<OwnedFd>,
    oom_counter: Option<std::path::PathBuf>,
    state: State,
    attach_listener: OwnedFd,
    control_listener: OwnedFd,
    host: HostMounts,
    /// Held until the network is down.
    ports: Vec<OwnedFd>,
    drain_until: Option<Instant>,
    lock: Option<Lock>,
    rest: Rest,
    left: bool,
}

impl<'a> Supervisor<'a> {
    /// Takes over a container that was made.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(container: &'a Container, made: Made, signals: OwnedFd) -> Result<Self, Error> {
        let poller = Poller::new().call("epoll_create1")?;
        let watch = |fd: &OwnedFd, token| poller.add(fd, token, EventFlags::IN).call("epoll_ctl");
        watch(&signals, Token::Signals)?;
        watch(&made.pidfd, Token::Init)?;
        watch(&made.attach, Token::AttachListener)?;
        watch(&made.control, Token::ControlListener)?;
        Ok(Self {
            container,
            machine: Machine::new(container.record.remove),
            poller,
            signals,
            init: made.init,
            pidfd: Some(made.pidfd),
            pump: made.pump,
            control: Control::default(),
            terminal: made.terminal,
            oom_counter: made.oom_counter,
            state: made.state,
            attach_listener: made.attach,
            control_listener: made.control,
            host: made.host,
            ports: made.ports,
            drain_until: None,
            lock: None,
            rest: Rest::default(),
            left: false,
        })
    }

    /// Looks after the container until it is gone and everyone attached has got its output.
    ///
    /// # Errors
    /// Where epoll itself fails.
    pub fn run(&mut self, lock: Lock) -> Result<(), Error> {
        self.lock = Some(lock);
        while !self.left || self.pump.has_clients() {
            self.pump.settle(&self.poller).call("epoll_ctl")?;
            if self.left && !self.pump.has_clients() {
                break;
            }
            let events = self.poller.wait(self.patience()).call("epoll_wait")?;
            self.rest.waited(!events.is_empty());
            for (token, flags) in events {
                self.dispatch(token, flags);
            }
            self.check_time();
        }
        Ok(())
    }

    /// How long nothing has to be done if nothing happens.
    fn patience(&self) -> Option<Duration> {
        let drain = self
            .drain_until
            .map(|until| until.saturating_duration_since(Instant::now()));
        let times = drain.into_iter().chain(self.pump.patience());
        times.chain(self.rest.patience()).min()
    }

    fn dispatch(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Signals => self.reap(),
            Token::Init => self.init_ended(),
            Token::AttachListener => {
                if let Ok(Some(fd)) = socket::accept(&self.attach_listener) {
                    self.pump.attach(fd);
                }
            }
            Token::ControlListener => {
                if let Ok(Some(fd)) = socket::accept(&self.control_listener) {
                    complain(self.control.add(fd, &self.poller).call("epoll_ctl"));
                }
            }
            Token::Output(stream) => {
                self.pump.read_output(stream);
                self.check_output();
            }
            Token::Input => self.pump.input_ready(),
            Token::Client(id) => {
                self.pump.client_ready(id, flags);
                self.check_output();
            }
            Token::Log => {
                self.pump.retry();
                self.check_output();
            }
            Token::Control(asker) => self.heard(asker),
        }
    }

    fn check_time(&mut self) {
        if self.pump.patience().is_some() {
            self.pump.retry();
            self.check_output();
        }
        if self
            .drain_until
            .is_some_and(|until| until <= Instant::now())
        {
            self.drain_until = None;
            self.step(Event::DrainExpired);
        }
    }

    /// Output that has ended after its process was all of it.
    fn check_output(&mut self) {
        if self.drain_until.is_some() && !self.pump.is_open() {
            self.finish_output();
        }
    }

    fn finish_output(&mut self) {
        self.drain_until = None;
        let dropped_bytes = self.pump.close_output();
        self.step(Event::OutputClosed { dropped_bytes });
    }

    fn heard(&mut self, asker: Asker) {
        match self.control.hear(asker) {
            Heard::Nothing => {}
            Heard::Gone => self.step(Event::AskerGone(asker)),
            Heard::Nonsense => self
                .control
                .answer(asker, &Answer::Refused("not a request".to_owned())),
            Heard::Request(Request::Start) => self.step(Event::StartAsked(asker)),
            Heard::Request(Request::Wait) => self.step(Event::WaitAsked(asker)),
            Heard::Request(Request::Kill(signal)) => self.step(Event::SignalAsked(asker, signal)),
            Heard::Request(Request::Resize { rows, columns }) => {
                let size = Winsize {
                    ws_row: rows,
                    ws_col: columns,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                let resized = self
                    .terminal
                    .as_ref()
                    .is_some_and(|terminal| tcsetwinsize(terminal, size).is_ok());
                let refused = || Answer::Refused("it has no terminal".to_owned());
                self.control
                    .answer(asker, &if resized { Answer::Done } else { refused() });
            }
        }
    }

    /// Children that the container left to us, and signals that are not for us.
    fn reap(&mut self) {
        while let Ok(Some(_)) = crate::sys::next_signal(&self.signals) {}
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.init {
                self.ended(wait_of(status));
            }
        }
    }

    fn init_ended(&mut self) {
        use std::os::fd::AsFd as _;
        let Some(pidfd) = &self.pidfd else { return };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            Ok(None) => {}
            Ok(Some(status)) => {
                self.ended(match (status.exit_status(), status.terminating_signal()) {
                    (Some(status), _) => Wait::Exited(status),
                    (None, Some(signal)) => Wait::Signaled(signal),
                    (None, None) => Wait::Unknown,
                })
            }
            // Not our child: reaped by someone else, and only the kernel may remember how it ended.
            Err(_) => {
                let wait = crate::sys::exit_status(pidfd).map_or(Wait::Unknown, wait_of_raw);
                self.ended(wait);
            }
        }
    }

    fn ended(&mut self, wait: Wait) {
        if let Some(pidfd) = self.pidfd.take() {
            self.poller.remove(&pidfd);
        }
        let oom = self.oom_counter.as_deref().is_some_and(oom::happened);
        self.pump.end();
        // What the process wrote last may be in the pipes still: only end of file says there is no more.
        let output_open = self.pump.is_open();
        self.step(Event::Exited {
            wait,
            oom,
            at: clock::now(),
            output_open,
        });
    }

    /// Feeds the machine, and what comes of its actions again, until nothing more follows.
    fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.machine.step(event) {
                events.extend(self.act(action));
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start => return Some(self.start()),
            Action::Signal(number) => {
                if let (Some(pidfd), Some(signal)) = (&self.pidfd, crate::sys::signal(number)) {
                    complain(pidfd_send_signal(pidfd, signal).call("pidfd_send_signal"));
                }
            }
            Action::Answer(asker, answer) => self.control.answer(asker, &answer),
            Action::CloseInput => self.pump.close_input(),
            Action::ArmDrain => self.drain_until = Some(Instant::now() + DRAIN_LIMIT),
            Action::CloseOutput => {
                self.drain_until = None;
                return Some(Event::OutputClosed {
                    dropped_bytes: self.pump.close_output(),
                });
            }
            Action::Record(record) => {
                self.record(&record);
                return Some(Event::Recorded);
            }
            Action::Delete => {
                setup::tear_down(self.container, Some(&self.host));
                self.ports.clear();
                self.terminal = None;
                self.lock = None;
                return Some(Event::Deleted);
            }
            Action::Remove => complain(remove(self.container)),
            Action::Leave => {
                // End of file on `ctl` says that everything is done.
                self.control = Control::default();
                self.left = true;
            }
        }
        None
    }

    fn start(&mut self) -> Event {
        let at = clock::now();
        // Whoever finds the container without us knows by this that it may run.
        self.state.starting = true;
        let folder = &self.container.folder;
        let noted = folder.write_json("state.json", &self.state);
        match noted.and_then(|()| self.container.runtime.start(&folder.id)) {
            Ok(()) => {
                self.state.started = Some(at.clone());
                complain(self.container.folder.write_json("state.json", &self.state));
                Event::Started { at }
            }
            Err(err) => Event::StartFailed {
                message: chain(&err),
            },
        }
    }

    fn record(&self, record: &Exit) {
        let folder = &self.container.folder;
        complain(exit::write(record, &folder.exit_space(), &folder.exit()));
    }
}

fn wait_of(status: WaitStatus) -> Wait {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Wait::Exited(status),
        (None, Some(signal)) => Wait::Signaled(signal),
        (None, None) => Wait::Unknown,
    }
}

/// A status as `wait(2)` encodes it.
#[must_use]
pub fn wait_of_raw(status: i32) -> Wait {
    match (status & 0x7f, status >> 8 & 0xff) {
        (0, status) => Wait::Exited(status),
        (signal, _) => Wait::Signaled(signal),
    }
}

/// Removes the container with all that is its own: what `teu rm` does, by executing it.
///
/// # Errors
/// What it said.
pub fn remove(container: &Container) -> Result<(), Error> {
    let program = siblings::find("teu")?;
    let mut command = Command::new(&program);
    crate::sys::before_exec(&mut command, crate::sys::unblock_signals);
    command
        .arg("--root")
        .arg(&container.place.data)
        .arg("--state")
        .arg(&container.place.state);
    command.args(["rm", "--force", "--volumes", container.folder.id.as_str()]);
    command
        .current_dir(Path::new("/"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = command.status().at("execute", &program)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Child {
        program: "teu".to_owned(),
        message: format!("teu rm ended with {status}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_statuses_are_those_of_wait() {
        assert_eq!(wait_of_raw(7 << 8), Wait::Exited(7));
        assert_eq!(wait_of_raw(9), Wait::Signaled(9));
        assert_eq!(
            wait_of_raw(0x80 | 11),
            Wait::Signaled(11),
            "with a core dump"
        );
    }
}
