//! What the session does when [`Life`](crate::conmon::life::Life) says so.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::process::{kill_process, pidfd_send_signal};

use super::{DRAIN_LIMIT, Order, Session};
use crate::Error;
use crate::conmon::cli::Level;
use crate::conmon::life::{Action, Event};
use crate::conmon::token::Token;
use crate::conmon::{call, daemon, ending};
use crate::error::{At as _, chain};
use crate::supervisor::cgroups::Cgroups;
use crate::supervisor::oom::Watch;

impl Session<'_> {
    /// Feeds the machine, and what comes of its actions again, until nothing more follows.
    pub(super) fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.life.step(event) {
                events.extend(self.act(action));
            }
        }
    }

    pub(super) fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Make => return self.make(),
            Action::TellMade(pid) => {
                let watched = self.watch(pid);
                self.order.diary.complain(watched);
            }
            Action::TellRefused(words) => {
                self.order.diary.say(Level::Error, &words);
                let told = self.parent.tell(-1, Some(&words));
                self.order.diary.complain(told);
                self.close_doors();
            }
            Action::SignalRuntime(number) => {
                if let (Some(pid), Some(signal)) = (self.runtime, crate::sys::signal(number)) {
                    self.order
                        .diary
                        .complain(kill_process(pid, signal).call("kill"));
                }
            }
            Action::Signal(number) => {
                if let (Some(process), Some(signal)) = (&self.process, crate::sys::signal(number)) {
                    let sent = pidfd_send_signal(&process.pidfd, signal);
                    self.order.diary.complain(sent.call("pidfd_send_signal"));
                }
            }
            Action::Kill => {
                if let Some(process) = &self.process {
                    ending::kill_group(process.pid);
                }
            }
            Action::ArmDrain => self.deadlines.drain = Some(Instant::now() + DRAIN_LIMIT),
            Action::Drain => {
                // Who knocked before the end gets all that was not yet read.
                self.admit();
                self.pump.close_input();
                self.pump.end();
                self.draining = true;
                return self.try_drain();
            }
            Action::Record(status, message) => self.record(status, message),
            Action::Leave(status) => {
                self.others.clear();
                self.leaving = Some(status);
                let delay = u64::try_from(self.order.options.exit_delay).unwrap_or(0);
                let at = Instant::now() + Duration::from_secs(delay);
                let command = &self.order.options.exit_command;
                self.deadlines.exit_command = command.as_ref().map(|_| at);
            }
        }
        None
    }

    pub(super) fn make(&mut self) -> Option<Event> {
        let Order { options, mode, .. } = &self.order;
        let console = self.ours.console.as_ref().map(|console| console.path());
        let bundle = self.bundle.as_deref().unwrap_or(Path::new(""));
        let words = call::arguments(options, mode, bundle, &self.pid_file, console.as_deref());
        let line = words.join(std::ffi::OsStr::new(" "));
        let line = format!("calling runtime args: {}", line.to_string_lossy());
        self.order.diary.say(Level::Debug, &line);
        let runtime = options.runtime.as_deref().unwrap_or_default();
        let theirs = self.theirs.take()?;
        let score = self.order.oom_score.clone();
        let made = call::execute(runtime, &words, theirs, options.replace_listen_pid, score);
        if self.order.passthrough {
            self.order.diary.complain(daemon::leave_streams());
        }
        match made {
            Ok(pid) => {
                self.runtime = Some(pid);
                None
            }
            Err(err) => Some(Event::Refused(chain(&err))),
        }
    }

    /// Tells the caller that the process exists, and watches all that may happen to it.
    pub(super) fn watch(&mut self, pid: i32) -> Result<(), Error> {
        if self.parent.protocol.tells_pid() {
            let told = self.parent.tell(pid, None);
            self.order.diary.complain(told);
        }
        if !self.order.options.exec {
            self.parent.sync = None;
            self.watch_memory(pid);
        }
        let seconds = u64::try_from(self.order.options.timeout).unwrap_or(0);
        if seconds > 0 {
            let limit = Instant::now() + Duration::from_secs(seconds);
            self.deadlines.time_limit = Some(limit);
        }
        let watch = |fd: &OwnedFd, token| {
            let watched = self.poller.add(fd, token, EventFlags::IN);
            watched.call("epoll_ctl")
        };
        if let Some(process) = &self.process {
            watch(&process.pidfd, Token::Process)?;
        }
        if let Some(doors) = &self.doors {
            watch(&doors.attach, Token::Attach)?;
            watch(&doors.control, Token::Control)?;
            watch(&doors.window, Token::Window)?;
        }
        Ok(())
    }

    fn watch_memory(&mut self, pid: i32) {
        let watch = Cgroups::of(pid).map_or(Ok(None), |cgroups| Watch::new(&cgroups));
        let watch = watch.and_then(|watch| {
            if let Some(watch) = &watch {
                self.poller.add(watch, Token::Memory, EventFlags::IN)?;
            }
            Ok(watch)
        });
        match watch {
            Ok(watch) => self.memory = watch,
            Err(err) => {
                let words = format!("out-of-memory kills will not be seen: {err}");
                self.order.diary.say(Level::Warning, &words);
            }
        }
    }

    pub(super) fn drain(&mut self) {
        if let Some(event) = self.try_drain() {
            self.step(event);
        }
    }

    pub(super) fn try_drain(&mut self) -> Option<Event> {
        if !self.pump.drain(&mut self.left) {
            return None;
        }
        self.draining = false;
        self.drained = true;
        self.deadlines.drain = None;
        Some(Event::Drained)
    }

    pub(super) fn record(&mut self, status: i32, message: Option<&'static str>) {
        self.draining = false;
        let lost = if self.drained {
            self.pump.leave_output()
        } else {
            self.pump.close_output()
        };
        if lost > 0 {
            let words = format!("{lost} bytes of output could not be logged");
            self.order.diary.say(Level::Warning, &words);
        }
        // Published ports are free for who acts on what is said next. (Leaving closes them in any case.)
        self.others.clear();
        let settled = self.pump.settle(&self.poller).call("epoll_ctl");
        self.order.diary.complain(settled);
        let written = ending::write_status(self.order.options, status);
        self.order.diary.complain(written);
        if self.order.options.exec {
            let told = self.parent.tell(status, message);
            self.order.diary.complain(told);
        }
        self.close_doors();
        self.terminal = None;
    }

    pub(super) fn close_doors(&mut self) {
        self.parent.sync = None;
        if let Some(doors) = self.doors.take() {
            doors.close();
        }
    }
}
