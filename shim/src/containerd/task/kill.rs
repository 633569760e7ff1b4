//! Signals.

use rustix::process::{Pid, kill_process};

use super::call::Call;
use super::job::{self, Ended};
use super::life::Phase;
use super::pod::Who;
use super::service::{Purpose, Service, failed, message};
use crate::containerd::proto::Empty;
use crate::containerd::proto::ttrpc::{Code, Status};
use crate::containerd::ttrpc::server::{Answer, Reply};
use crate::sys;

impl Service {
    pub(super) fn kill_container(
        &mut self,
        who: &Who,
        reply: Option<Reply>,
        signal: u32,
        all: bool,
    ) {
        let ended = self.pod.container(&who.container).is_ok_and(|container| {
            container
                .life
                .phase(&None)
                .is_some_and(|phase| phase.exit().is_some())
        });
        if ended && !all {
            self.answer_to(reply, Err(finished()));
            return;
        }
        let call = Call::Kill { signal, all };
        self.call(
            who,
            reply,
            &call,
            job::Streams::Ours(Vec::new()),
            Purpose::Kill,
        );
    }

    /// A process that was not reaped keeps its pid, so that no other can get the signal.
    pub(super) fn kill_exec(&mut self, who: &Who, signal: u32) -> Answer {
        let container = self.pod.container(&who.container)?;
        let ended = container.life.phase(&who.which).and_then(Phase::exit);
        let pid = container
            .process(&who.which)
            .and_then(|process| Pid::from_raw(process.pid));
        let Some(pid) = pid else {
            return Err(Status::new(
                Code::FailedPrecondition,
                "process not created: failed precondition",
            ));
        };
        if ended.is_some() || !self.pids.contains_key(&pid.as_raw_nonzero().get()) {
            return Err(finished());
        }
        let number = i32::try_from(signal).unwrap_or(0);
        let signal = sys::signal(number).ok_or_else(|| {
            Status::new(Code::InvalidArgument, format!("{number} is not a signal"))
        })?;
        match kill_process(pid, signal) {
            Ok(()) => Ok(message(&Empty {})),
            Err(rustix::io::Errno::SRCH) => Err(finished()),
            Err(err) => Err(failed("exec kill error", &std::io::Error::from(err))),
        }
    }
}

fn finished() -> Status {
    Status::new(Code::NotFound, "process already finished: not found")
}

/// The answer to `Kill`. Runtimes say in words only that there is nobody to kill.
pub(super) fn killed(ended: Ended) -> Answer {
    let words = match ended {
        Ended::Well(_) => return Ok(message(&Empty {})),
        Ended::Badly(words) => words,
    };
    let lower = words.to_lowercase();
    let says = |text: &str| lower.contains(text);
    Err(
        if says("process already finished")
            || says("container not running")
            || says("no such process")
        {
            finished()
        } else if says("does not exist") {
            Status::new(Code::NotFound, "no such container: not found")
        } else {
            Status::new(Code::Unknown, format!("unknown error after kill: {words}"))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_failed_kill_have_a_meaning() {
        for (words, code, text) in [
            (
                "os: process already finished",
                Code::NotFound,
                "process already finished: not found",
            ),
            (
                "container not running",
                Code::NotFound,
                "process already finished: not found",
            ),
            (
                "container does not exist",
                Code::NotFound,
                "no such container: not found",
            ),
            (
                "operation not permitted",
                Code::Unknown,
                "unknown error after kill: operation not permitted",
            ),
        ] {
            let status = killed(Ended::Badly(words.into())).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (code as i32, text));
        }
        assert!(killed(Ended::Well(Vec::new())).is_ok());
    }
}
