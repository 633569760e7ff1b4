//! How processes end and how they are deleted, and what the lives of
//! containers ask to be done on the way.

use std::rc::Rc;
use std::time::Instant;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::call::Call;
use super::job::{self, Ended};
use super::life::{Action, Event, Exit, Phase, Wish};
use super::pod::{Busy, Container, Process, Task, Who};
use super::service::{Purpose, Running, Service, complain, ended, failed, message, number};
use crate::Error;
use crate::containerd::proto::Timestamp;
use crate::containerd::proto::events::{TaskDelete, TaskExecStarted, TaskExit, TaskOom, TaskStart};
use crate::containerd::proto::task::DeleteResponse;
use crate::containerd::proto::ttrpc::{Code, Status};
use crate::containerd::record::{self, Record};
use crate::containerd::rootfs;
use crate::containerd::stdio::{Readiness, Streams};
use crate::containerd::ttrpc::server::Reply;
use crate::error::chain;

impl Process {
    /// Whether nothing is waited for but the runtime or a wish.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.busy, Busy::Idle | Busy::Calling)
    }
}

impl Service {
    /// A child ended, with `status` as wait(2) encodes it.
    pub fn reaped(&mut self, pid: i32, status: i32) {
        if let Some(Running {
            job,
            who,
            reply,
            purpose,
        }) = self.jobs.remove(&pid)
        {
            self.called(&who, reply, purpose, job.ended(status));
            if !self.is_making() {
                self.early.clear();
            }
            return;
        }
        let exit = Exit {
            status: exit_status(status),
            at: Timestamp::now(),
        };
        if let Some(who) = self.pids.remove(&pid) {
            self.exited(&who, exit);
        } else if self.is_making() && self.early.len() < EARLY_MAX {
            self.early.insert(pid, exit);
        }
    }

    /// Whether the runtime makes a process whose pid is not known yet.
    fn is_making(&self) -> bool {
        let mut jobs = self.jobs.values();
        jobs.any(|running| running.purpose.makes_processes())
    }

    /// The runtime has said whose `pid` is; the process may have ended already.
    pub(super) fn meet_early(&mut self, who: &Who, pid: i32) {
        // Pids come again: the exit may be of an orphan that had this one before.
        if let Some(exit) = self.early.remove(&pid)
            && !is_own_child(pid)
        {
            self.pids.remove(&pid);
            self.exited(who, exit);
        }
    }

    fn exited(&mut self, who: &Who, exit: Exit) {
        // dockerd takes an OOM kill for the reason of an exit only if it hears of it before.
        self.check_oom(who);
        self.step(who, Event::Ended(exit));
    }

    pub(super) fn check_oom(&mut self, who: &Who) {
        let Some(container) = self.pod.containers.get_mut(&who.container) else {
            return;
        };
        if container
            .oom
            .as_mut()
            .is_some_and(|watch| watch.check(Instant::now()))
        {
            let event = TaskOom {
                container_id: container.id.to_string(),
            };
            self.publisher
                .publish(&container.bundle, &container.id, &event);
        }
    }

    /// Tells the container's life what happened, and does what follows.
    pub(super) fn step(&mut self, who: &Who, event: Event) {
        let Some(container) = self.pod.containers.get_mut(&who.container) else {
            return;
        };
        let actions = container.life.step(&who.which, event);
        // The first process's end may have waited for this.
        let init = container.init.key;
        self.attention.touch(init);
        self.touch(who);
        for action in actions {
            self.act(&who.container, action);
        }
    }

    fn act(&mut self, id: &Rc<str>, action: Action) {
        let init = Who {
            container: Rc::clone(id),
            which: None,
        };
        match action {
            Action::KillOthers => self.submit(&init, None, Task::KillOthers),
            Action::Thaw => self.submit(&init, None, Task::Thaw),
            Action::AnswerWaiters(which) => self.answer_waiters(&Who { which, ..init }),
            Action::PublishStart(_) | Action::Record(_) | Action::PublishExit(..) => {
                if let Some(container) = self.pod.containers.get_mut(id) {
                    tell(container, &mut self.publisher, action);
                }
            }
        }
    }

    fn answer_waiters(&mut self, who: &Who) {
        let Some(container) = self.pod.containers.get_mut(&who.container) else {
            return;
        };
        let exit = container.life.phase(&who.which).and_then(Phase::exit);
        let waiters = container
            .process_mut(&who.which)
            .map(|process| std::mem::take(&mut process.waiters));
        for reply in waiters.unwrap_or_default() {
            let answer = exit
                .map(ended)
                .ok_or_else(|| Status::new(Code::Unknown, "the process was not started"));
            self.answer(reply, answer);
        }
    }

    /// A process is about to be made whose streams may have to get ready before.
    pub(super) fn open(&mut self, who: &Who, reply: Option<Reply>) {
        if let Some(process) = self.pod.process(who) {
            process.busy = Busy::Opening(reply);
            self.attention.touch(process.key);
            self.look_again(who);
        }
    }

    /// Goes on with what waited for the process's streams, or for its end.
    pub(super) fn look_again(&mut self, who: &Who) {
        let Some(process) = self.pod.process(who) else {
            return;
        };
        match process.busy {
            Busy::Idle | Busy::Calling => {}
            Busy::Opening(reply) => {
                let readiness = process.streams.as_ref().map(Streams::readiness);
                match readiness.unwrap_or(Readiness::Ready) {
                    Readiness::Waiting => {}
                    Readiness::Ready => {
                        process.busy = Busy::Idle;
                        self.run(who, reply);
                    }
                    Readiness::Failed(err) => {
                        process.busy = Busy::Idle;
                        self.not_opened(who, reply, &err);
                    }
                }
            }
            Busy::Deleting { reply, removed } => {
                let drained = process
                    .streams
                    .as_ref()
                    .is_none_or(|streams| streams.is_finished());
                if removed && drained && self.has_no_process(who) {
                    self.delete(who, reply);
                }
            }
        }
    }

    /// Calls the runtime for a process whose streams are ready.
    fn run(&mut self, who: &Who, reply: Option<Reply>) {
        if who.which.is_some() {
            self.run_exec(who, reply);
        } else {
            self.make(who, reply);
        }
    }

    fn not_opened(&mut self, who: &Who, reply: Option<Reply>, err: &Error) {
        let status = failed("failed to create init process I/O", err);
        if who.which.is_none() {
            self.abandon(who, reply, status.message);
            return;
        }
        if let Some(process) = self.pod.process(who) {
            let streams = process.streams.take();
            self.retired.extend(streams);
        }
        self.answer_to(reply, Err(status));
        self.step(who, Event::NotStarted);
        self.advance(who);
    }

    pub(super) fn begin_delete(&mut self, who: &Who, reply: Option<Reply>) -> Result<(), Status> {
        self.permit(who, Wish::Delete)?;
        if let Some(process) = self.pod.process(who) {
            process.busy = Busy::Deleting {
                reply,
                removed: who.which.is_some(),
            };
            if let Some(streams) = &mut process.streams {
                streams.finish(Instant::now());
            }
        }
        if who.which.is_some() {
            self.look_again(who);
        } else {
            let call = Call::Delete { force: false };
            self.call(
                who,
                None,
                &call,
                job::Streams::Ours(Vec::new()),
                Purpose::Delete,
            );
        }
        Ok(())
    }

    /// The runtime has removed the container, or not. One that is not there was removed before,
    /// as by a checkpoint.
    pub(super) fn removed(&mut self, who: &Who, ended: Ended) {
        let Some(process) = self.pod.process(who) else {
            return;
        };
        let Busy::Deleting { reply, .. } = process.busy else {
            return;
        };
        match ended {
            Ended::Badly(words) if !words.contains("does not exist") => {
                process.busy = Busy::Idle;
                let text = format!("failed to delete task: {words}");
                self.answer_to(reply, Err(Status::new(Code::Unknown, text)));
            }
            _ => {
                process.busy = Busy::Deleting {
                    reply,
                    removed: true,
                };
                self.look_again(who);
            }
        }
    }

    /// Whether the process has ended, or never was. One that the runtime killed ends in a moment.
    fn has_no_process(&mut self, who: &Who) -> bool {
        let Some(container) = self.pod.containers.get(&who.container) else {
            return true;
        };
        let pid = container
            .process(&who.which)
            .map_or(0, |process| process.pid);
        pid == 0
            || container
                .life
                .phase(&who.which)
                .is_none_or(|phase| phase.exit().is_some() || phase == Phase::Failed)
    }

    /// Removes what is left of a process and tells so.
    fn delete(&mut self, who: &Who, reply: Option<Reply>) {
        let Some(container) = self.pod.containers.get_mut(&who.container) else {
            return;
        };
        let exit = container.life.phase(&who.which).and_then(Phase::exit);
        let pid = container
            .process(&who.which)
            .map_or(0, |process| process.pid);
        let (exit_status, exited_at) =
            (exit.map_or(0, |exit| exit.status), exit.map(|exit| exit.at));
        let answer = message(&DeleteResponse {
            pid: number(pid),
            exit_status,
            exited_at,
        });
        if let Some(exec) = &who.which {
            container.life.remove(exec);
            if let Some(process) = container.execs.remove(exec) {
                self.retire_process(process);
            }
            self.answer_to(reply, Ok(answer));
            return;
        }
        let unmounted = rootfs::unmount_all(&container.bundle.join("rootfs"));
        let event = TaskDelete {
            container_id: container.id.to_string(),
            pid: number(pid),
            exit_status,
            exited_at,
            id: String::new(),
        };
        self.publisher
            .publish(&container.bundle, &container.id, &event);
        if let Some(container) = self.pod.containers.remove(&who.container) {
            self.retire(container);
        }
        let answer = unmounted.map(|()| answer).map_err(|err| {
            Status::new(
                Code::Unknown,
                format!("failed rootfs umount: {}", chain(&err)),
            )
        });
        self.answer_to(reply, answer);
    }

    /// A container is gone.
    pub(super) fn retire(&mut self, container: Container) {
        self.retire_process(container.init);
        for process in container.execs.into_values() {
            self.retire_process(process);
        }
    }

    fn retire_process(&mut self, process: Process) {
        self.pod.forget_key(process.key);
        self.attention.forget(process.key);
        self.pids.remove(&process.pid);
        self.retired.extend(process.streams);
        let gone = || {
            Err(Status::new(
                Code::NotFound,
                "container not created: not found",
            ))
        };
        let queued = process.queue.into_iter().filter_map(|(reply, _)| reply);
        for reply in process.waiters.into_iter().chain(queued) {
            self.answer(reply, gone());
        }
    }
}

impl Purpose {
    /// Whether a process comes of it whose pid is not known before it ends.
    fn makes_processes(&self) -> bool {
        matches!(self, Self::Create | Self::Restore | Self::Exec)
    }
}

/// Most ends of children remembered that are nobody's yet. While the runtime makes one process after
/// another, orphans of containers add to them.
const EARLY_MAX: usize = 4096;

/// Whether `pid` is a child of ours that lives, or waits to be reaped.
fn is_own_child(pid: i32) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Pid::from_raw(pid).is_some_and(|pid| waitid(WaitId::Pid(pid), options).is_ok())
}

/// Publishes, or writes down.
fn tell(
    container: &mut Container,
    publisher: &mut crate::containerd::events::publisher::Publisher,
    action: Action,
) {
    let container_id = container.id.to_string();
    let pid_of = |which| {
        container
            .process(which)
            .map_or(0, |process| number(process.pid))
    };
    match action {
        Action::PublishStart(None) => {
            let event = TaskStart {
                container_id,
                pid: pid_of(&None),
            };
            publisher.publish(&container.bundle, &container.id, &event);
        }
        Action::PublishStart(Some(exec_id)) => {
            let which = Some(exec_id.clone());
            let event = TaskExecStarted {
                container_id,
                exec_id,
                pid: pid_of(&which),
            };
            publisher.publish(&container.bundle, &container.id, &event);
        }
        Action::PublishExit(which, exit) => {
            let event = TaskExit {
                pid: pid_of(&which),
                id: which.unwrap_or_else(|| container_id.clone()),
                container_id,
                exit_status: exit.status,
                exited_at: Some(exit.at),
            };
            publisher.publish(&container.bundle, &container.id, &event);
        }
        Action::Record(exit) => {
            let record = container
                .record
                .get_or_insert_with(|| Record::of(container.init.pid));
            record.exit = Some(record::Ended {
                status: exit.status,
                seconds: exit.at.seconds,
                nanos: exit.at.nanos,
            });
            complain(record.write(&container.bundle));
        }
        Action::AnswerWaiters(_) | Action::KillOthers | Action::Thaw => {}
    }
}

/// A status as containerd counts: 128 and the signal's number for who was killed.
#[must_use]
pub fn exit_status(status: i32) -> u32 {
    match status & 0x7f {
        0 => (status >> 8 & 0xff).unsigned_abs(),
        signal => 128 + signal.unsigned_abs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_containerds() {
        assert_eq!(exit_status(7 << 8), 7);
        assert_eq!(exit_status(9), 137);
        assert_eq!(exit_status(0x80 | 11), 139, "with a core dump");
    }
}
