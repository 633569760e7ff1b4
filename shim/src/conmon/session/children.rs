//! The session's children: the runtime, the process that it leaves to us, the exit command.

use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open, wait, waitpid};

use super::{Process, Session};
use crate::Error;
use crate::conmon::ending;
use crate::conmon::life::Event;
use crate::error::{At as _, chain};
use crate::supervisor::event_loop::wait_of_raw;
use crate::supervisor::machine::Wait;

impl Session<'_> {
    /// Takes note of children that ended. While the process is not known,
    /// only of the runtime: it leaves us the process, which may end early.
    pub(super) fn reap(&mut self) {
        if let Some(runtime) = self.runtime {
            match waitpid(Some(runtime), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => self.runtime_ended(status),
                _ => return,
            }
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if self
                .process
                .as_ref()
                .is_some_and(|process| process.pid == pid)
            {
                self.process_ended(wait_of_raw(status.as_raw()));
            } else if self.exit_command == Some(pid) {
                self.exit_command = None;
                // Who watches the supervisor hears of a failed exit command.
                let status = status.exit_status().filter(|status| *status != 0);
                self.leaving = status.or(self.leaving);
            }
        }
    }

    pub(super) fn runtime_ended(&mut self, status: WaitStatus) {
        self.runtime = None;
        let event = if status.exit_status() == Some(0) {
            self.take_over().map(Event::Made)
        } else {
            let words = self.ours.words();
            let how = wait_of_raw(status.as_raw());
            Err(Error::Invalid(if words.is_empty() {
                format!("the runtime ended without saying why: {how:?}")
            } else {
                words
            }))
        };
        self.step(event.unwrap_or_else(|err| Event::Refused(chain(&err))));
    }

    /// The runtime has made the process, and left it to us.
    pub(super) fn take_over(&mut self) -> Result<i32, Error> {
        let ours = std::mem::take(&mut self.ours);
        let (mut output, mut input) = (ours.output, ours.input);
        if let Some(console) = ours.console {
            let terminal = console.receive()?;
            let duplicate = || rustix::io::fcntl_dupfd_cloexec(&terminal, 3).call("dup");
            (output[0], input) = (Some(duplicate()?), Some(duplicate()?));
            self.terminal = Some(terminal);
        }
        let text = std::fs::read_to_string(&self.pid_file).at("read", &self.pid_file)?;
        let number = text.trim().parse().ok();
        let pid = number.and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::Invalid(format!("{:?} holds no pid", self.pid_file)))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).call("pidfd_open")?;
        self.process = Some(Process { pid, pidfd });
        let once = self.order.options.stdin && !self.order.options.leave_stdin_open;
        self.pump.open(output, input, once);
        if self.terminal.is_some() {
            self.pump.is_terminal();
        }
        Ok(pid.as_raw_nonzero().get())
    }

    /// Its pidfd is readable: it ended, though it may not be our child.
    pub(super) fn process_ready(&mut self) {
        let Some(process) = &self.process else { return };
        match waitpid(Some(process.pid), WaitOptions::NOHANG) {
            Ok(None) => {}
            Ok(Some((_, status))) => self.process_ended(wait_of_raw(status.as_raw())),
            // Reaped by someone else: only the kernel may remember how it ended.
            Err(_) => {
                let status = crate::sys::exit_status(&process.pidfd);
                self.process_ended(status.map_or(Wait::Unknown, wait_of_raw));
            }
        }
    }

    pub(super) fn process_ended(&mut self, wait: Wait) {
        if let Some(process) = self.process.take() {
            self.poller.remove(&process.pidfd);
        }
        self.check_memory();
        self.step(Event::Ended(wait));
    }

    /// Whether the kernel killed for want of memory. Asked when it says so, for
    /// the cgroup may be gone at the end, and at the end, for it may be late.
    pub(super) fn check_memory(&mut self) {
        if let Some(watch) = &mut self.memory
            && watch.check(Instant::now())
        {
            let written = ending::write_oom(self.order.options, self.bundle.as_deref());
            self.order.diary.complain(written);
        }
    }
}
