//! What changes a process, one thing after another: beginning it, and what
//! follows when the runtime has done its part.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::process::{Pid, kill_process};

use super::call::{Call, Making};
use super::job::{self, Ended, Job};
use super::life::{Event, Wish};
use super::pod::{Busy, Process, Stdio, Task, Who};
use super::service::{Purpose, Running, Service, complain, failed, message, number};
use crate::Error;
use crate::containerd::bundle;
use crate::containerd::proto::Empty;
use crate::containerd::proto::events::{TaskCheckpointed, TaskExecAdded, TaskPaused, TaskResumed};
use crate::containerd::proto::options::CheckpointOptions;
use crate::containerd::proto::task::{CheckpointTaskRequest, ExecProcessRequest, StartResponse};
use crate::containerd::proto::ttrpc::{Code, Status};
use crate::containerd::stdio::{Context, Streams};
use crate::containerd::ttrpc::server::{Answer, Reply};
use crate::error::chain;
use crate::sys;

impl Service {
    /// Puts `task` behind what is already to be done to the process, and begins it if that is nothing.
    pub(super) fn submit(&mut self, who: &Who, reply: Option<Reply>, task: Task) {
        if let Some(process) = self.pod.process(who) {
            process.queue.push_back((reply, task));
            self.advance(who);
        }
    }

    /// Begins what is next to be done to the process, until something takes its time.
    pub(super) fn advance(&mut self, who: &Who) {
        while let Some(process) = self.pod.process(who)
            && matches!(process.busy, Busy::Idle)
            && let Some((reply, task)) = process.queue.pop_front()
        {
            if let Err(status) = self.begin(who, reply, task)
                && let Some(reply) = reply
            {
                self.answer(reply, Err(status));
            }
        }
    }

    fn begin(&mut self, who: &Who, reply: Option<Reply>, task: Task) -> Result<(), Status> {
        let empty = || job::Streams::Ours(Vec::new());
        match task {
            Task::Start => self.begin_start(who, reply),
            Task::Delete => self.begin_delete(who, reply),
            Task::Kill { signal, all } if who.which.is_none() => {
                self.kill_container(who, reply, signal, all);
                Ok(())
            }
            Task::Kill { signal, .. } => {
                let answer = self.kill_exec(who, signal);
                self.answer_to(reply, answer);
                Ok(())
            }
            Task::Pause => {
                self.permit(who, Wish::Pause)?;
                self.step(who, Event::Pausing);
                self.call(who, reply, &Call::Pause, empty(), Purpose::Pause);
                Ok(())
            }
            Task::Resume => {
                self.permit(who, Wish::Resume)?;
                self.call(who, reply, &Call::Resume, empty(), Purpose::Resume);
                Ok(())
            }
            Task::Update(resources) => {
                self.permit(who, Wish::Update)?;
                self.call(
                    who,
                    reply,
                    &Call::Update,
                    job::Streams::Ours(resources),
                    Purpose::Update,
                );
                Ok(())
            }
            Task::Checkpoint(asked) => self.begin_checkpoint(who, reply, *asked),
            Task::Exec(asked) => {
                let answer = self.describe(who, *asked);
                self.answer_to(reply, answer);
                Ok(())
            }
            Task::Pids => {
                self.call(who, reply, &Call::Ps, empty(), Purpose::Pids);
                Ok(())
            }
            Task::KillOthers => {
                let call = Call::Kill {
                    signal: libc::SIGKILL as u32,
                    all: true,
                };
                self.call(who, reply, &call, empty(), Purpose::KillOthers);
                Ok(())
            }
            Task::Thaw => {
                self.call(who, reply, &Call::Resume, empty(), Purpose::Thaw);
                Ok(())
            }
        }
    }

    pub(super) fn answer_to(&mut self, reply: Option<Reply>, answer: Answer) {
        if let Some(reply) = reply {
            self.answer(reply, answer);
        }
    }

    pub(super) fn permit(&mut self, who: &Who, wish: Wish) -> Result<(), Status> {
        let container = self.pod.container(&who.container)?;
        container.life.permit(&who.which, wish)
    }

    /// Executes the runtime for `who`. Its end comes to [`Service::called`].
    pub(super) fn call(
        &mut self,
        who: &Who,
        reply: Option<Reply>,
        call: &Call,
        streams: job::Streams,
        purpose: Purpose,
    ) {
        let Some(container) = self.pod.containers.get_mut(&who.container) else {
            return;
        };
        let log = match &who.which {
            None => container.bundle.join("log.json"),
            Some(exec) => bundle::of_exec(&container.bundle, exec, "log.json"),
        };
        let job = Job::start(
            &container.runtime,
            call,
            &container.id,
            &container.bundle,
            log,
            streams,
        );
        if let Some(process) = container.process_mut(&who.which)
            && !matches!(process.busy, Busy::Deleting { .. })
        {
            process.busy = Busy::Calling;
        }
        let who = who.clone();
        match job {
            Ok(job) => {
                self.jobs.insert(
                    job.pid,
                    Running {
                        job,
                        who,
                        reply,
                        purpose,
                    },
                );
            }
            Err(err) => self.called(&who, reply, purpose, Ended::Badly(chain(&err))),
        }
    }

    /// The runtime has ended: does what it was called for.
    pub(super) fn called(
        &mut self,
        who: &Who,
        reply: Option<Reply>,
        purpose: Purpose,
        ended: Ended,
    ) {
        if let Some(process) = self.pod.process(who)
            && matches!(process.busy, Busy::Calling)
        {
            process.busy = Busy::Idle;
        }
        match purpose {
            Purpose::Create => self.created(who, reply, ended),
            Purpose::Restore | Purpose::Start | Purpose::Exec => {
                self.started(who, reply, &purpose, ended)
            }
            Purpose::Delete => self.removed(who, ended),
            Purpose::Pids => {
                let answer = match ended {
                    Ended::Well(output) => self.pids_of(who, &output),
                    Ended::Badly(words) => Err(Status::new(Code::Unknown, words)),
                };
                self.answer_to(reply, answer);
            }
            Purpose::Kill => self.answer_to(reply, killed(ended)),
            Purpose::KillOthers | Purpose::Thaw => {
                if let Ended::Badly(words) = ended {
                    complain(Err(Error::Runtime { message: words }));
                }
            }
            Purpose::Pause | Purpose::Resume | Purpose::Update | Purpose::Checkpoint { .. } => {
                self.changed(who, reply, &purpose, ended);
            }
        }
        self.advance(who);
    }

    fn begin_start(&mut self, who: &Who, reply: Option<Reply>) -> Result<(), Status> {
        self.permit(who, Wish::Start)?;
        if who.which.is_some() {
            self.open_exec(who)?;
        }
        self.step(who, Event::Starting);
        if who.which.is_some() {
            self.open(who, reply);
            return Ok(());
        }
        let Some(container) = self.pod.containers.get_mut(&who.container) else {
            return Ok(());
        };
        let (call, streams, purpose) = match &container.image {
            None => (Call::Start, job::Streams::Ours(Vec::new()), Purpose::Start),
            Some(image) => {
                let (console, streams) = container.init.child_ends();
                let making = Making {
                    console,
                    ..container.making.clone()
                };
                let call = Call::Restore(making, image.clone());
                (call, streams, Purpose::Restore)
            }
        };
        self.call(who, reply, &call, streams, purpose);
        Ok(())
    }

    fn open_exec(&mut self, who: &Who) -> Result<(), Status> {
        let namespace = self.namespace.clone();
        let container = self.pod.container(&who.container)?;
        let (folder, owner) = (Rc::clone(&container.bundle), container.owner);
        let Some((process, exec)) = container.process_mut(&who.which).zip(who.which.as_deref())
        else {
            return Ok(());
        };
        let invalid =
            |err: &dyn std::error::Error| failed("failed to create init process I/O", err);
        let plan = process.stdio.plan().map_err(|err| invalid(&err))?;
        let context = Context {
            id: exec,
            namespace: &namespace,
            bundle: &folder,
            owner,
        };
        process.streams = Some(Streams::open(&plan, &context).map_err(|err| invalid(&err))?);
        Ok(())
    }

    /// Calls the runtime to run an exec, its streams being ready.
    pub(super) fn run_exec(&mut self, who: &Who, reply: Option<Reply>) {
        let Some((container, exec)) = self
            .pod
            .containers
            .get_mut(&who.container)
            .zip(who.which.as_deref())
        else {
            return;
        };
        let folder = Rc::clone(&container.bundle);
        let Some(process) = container.process_mut(&who.which) else {
            return;
        };
        let description = bundle::of_exec(&folder, exec, "process.json");
        let written = bundle::write_private(&description, &process.spec);
        let (console, streams) = process.child_ends();
        let call = Call::Exec {
            process: description,
            console,
            pid_file: bundle::of_exec(&folder, exec, "pid"),
        };
        match written {
            Ok(()) => self.call(who, reply, &call, streams, Purpose::Exec),
            Err(err) => self.called(who, reply, Purpose::Exec, Ended::Badly(chain(&err))),
        }
    }

    fn started(&mut self, who: &Who, reply: Option<Reply>, purpose: &Purpose, ended: Ended) {
        let ended = match ended {
            Ended::Badly(words) => Err(words),
            Ended::Well(_) => match purpose {
                Purpose::Start => Ok(self.pod.process(who).map_or(0, |process| process.pid)),
                Purpose::Restore => self.take_over(who).map_err(|err| chain(&err)),
                _ => self.take_exec(who).map_err(|err| chain(&err)),
            },
        };
        if who.which.is_some() {
            self.clear_exec(who, ended.is_err());
        }
        match ended {
            Ok(pid) => {
                self.step(who, Event::Started);
                self.answer_to(reply, Ok(message(&StartResponse { pid: number(pid) })));
                self.meet_early(who, pid);
            }
            Err(words) => {
                let verb = match purpose {
                    Purpose::Start => "start",
                    Purpose::Restore => "restore",
                    _ => "exec",
                };
                let text = format!("OCI runtime {verb} failed: {words}");
                self.answer_to(reply, Err(Status::new(Code::Unknown, text)));
                self.step(who, Event::NotStarted);
            }
        }
    }

    fn take_exec(&mut self, who: &Who) -> Result<i32, Error> {
        let gone = || Error::Invalid("the container is gone".to_owned());
        let exec = who.which.as_deref().ok_or_else(gone)?;
        let container = self
            .pod
            .containers
            .get_mut(&who.container)
            .ok_or_else(gone)?;
        let pid = bundle::read_pid(&bundle::of_exec(&container.bundle, exec, "pid"))?;
        let process = container.process_mut(&who.which).ok_or_else(gone)?;
        process.pid = pid;
        if let Some(streams) = &mut process.streams {
            streams.started()?;
        }
        self.pids.insert(pid, who.clone());
        Ok(pid)
    }

    /// Removes what an exec's start needed, and its streams where it failed.
    fn clear_exec(&mut self, who: &Who, failed: bool) {
        let Some((container, exec)) = self
            .pod
            .containers
            .get_mut(&who.container)
            .zip(who.which.as_deref())
        else {
            return;
        };
        let folder = Rc::clone(&container.bundle);
        for kind in ["process.json", "log.json", "pid"] {
            let _: std::io::Result<()> = std::fs::remove_file(bundle::of_exec(&folder, exec, kind));
        }
        if let Some(process) = container.process_mut(&who.which) {
            process.spec = Vec::new();
            if failed {
                self.retired.extend(process.streams.take());
            }
        }
    }

    fn kill_container(&mut self, who: &Who, reply: Option<Reply>, signal: u32, all: bool) {
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
    fn kill_exec(&mut self, who: &Who, signal: u32) -> Answer {
        let container = self.pod.container(&who.container)?;
        let ended = container
            .life
            .phase(&who.which)
            .and_then(super::life::Phase::exit);
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

    fn describe(&mut self, who: &Who, asked: ExecProcessRequest) -> Answer {
        let key = self.pod.new_key(Who {
            container: Rc::clone(&who.container),
            which: Some(asked.exec_id.clone()),
        });
        let added = self.add_exec(who, key, asked);
        if added.is_err() {
            self.pod.forget_key(key);
        }
        added
    }

    fn add_exec(&mut self, who: &Who, key: u32, asked: ExecProcessRequest) -> Answer {
        let container = self.pod.container(&who.container)?;
        let exec = asked.exec_id;
        if container.execs.contains_key(&exec) {
            return Err(Status::new(
                Code::AlreadyExists,
                format!("id {exec}: already exists"),
            ));
        }
        container.life.permit(&None, Wish::Exec)?;
        let spec = describe(&asked.spec.unwrap_or_default().value, asked.terminal)?;
        let stdio = Stdio {
            terminal: asked.terminal,
            stdin: asked.stdin,
            stdout: asked.stdout,
            stderr: asked.stderr,
        };
        container.life.add(&exec);
        container.execs.insert(
            exec.clone(),
            Process {
                spec,
                ..Process::new(key, stdio)
            },
        );
        let event = TaskExecAdded {
            container_id: container.id.to_string(),
            exec_id: exec,
        };
        self.publisher
            .publish(&container.bundle, &container.id, &event);
        Ok(message(&Empty {}))
    }

    fn begin_checkpoint(
        &mut self,
        who: &Who,
        reply: Option<Reply>,
        asked: CheckpointTaskRequest,
    ) -> Result<(), Status> {
        self.permit(who, Wish::Checkpoint)?;
        let options = match &asked.options {
            Some(any) => <CheckpointOptions as prost::Message>::decode(&any.value[..])
                .map_err(|err| Status::new(Code::InvalidArgument, format!("options: {err}")))?,
            None => CheckpointOptions::default(),
        };
        let container = self.pod.container(&who.container)?;
        let (work, scratch) = match options.work_path.as_str() {
            "" => {
                let folder = container.bundle.join("work/criu-work");
                (folder.clone(), Some(folder))
            }
            path => (PathBuf::from(path), None),
        };
        let call = Call::Checkpoint {
            path: asked.path.clone(),
            work,
            options,
        };
        let purpose = Purpose::Checkpoint {
            scratch,
            path: asked.path,
        };
        self.call(who, reply, &call, job::Streams::Ours(Vec::new()), purpose);
        Ok(())
    }

    /// The runtime has frozen, thawed, changed or written down the container, or not.
    fn changed(&mut self, who: &Who, reply: Option<Reply>, purpose: &Purpose, ended: Ended) {
        let well = matches!(ended, Ended::Well(_));
        match purpose {
            Purpose::Pause => self.step(who, Event::Paused(well)),
            Purpose::Resume if well => self.step(who, Event::Paused(false)),
            _ => {}
        }
        let Some(container) = self.pod.containers.get(&who.container) else {
            return;
        };
        let id = container.id.to_string();
        let answer = match ended {
            Ended::Badly(words) => Err(Status::new(
                Code::Unknown,
                refused(purpose, &words, &container.bundle),
            )),
            Ended::Well(_) => {
                let (folder, publisher) = (&container.bundle, &mut self.publisher);
                match purpose {
                    Purpose::Pause => publisher.publish(
                        folder,
                        &id,
                        &TaskPaused {
                            container_id: id.clone(),
                        },
                    ),
                    Purpose::Resume => publisher.publish(
                        folder,
                        &id,
                        &TaskResumed {
                            container_id: id.clone(),
                        },
                    ),
                    Purpose::Checkpoint { path, .. } => {
                        let event = TaskCheckpointed {
                            container_id: id.clone(),
                            checkpoint: path.clone(),
                        };
                        publisher.publish(folder, &id, &event);
                    }
                    _ => {}
                }
                Ok(message(&Empty {}))
            }
        };
        if let Purpose::Checkpoint {
            scratch: Some(folder),
            ..
        } = purpose
        {
            let _: std::io::Result<()> = std::fs::remove_dir_all(folder);
        }
        self.answer_to(reply, answer);
    }
}

/// The words for a call of the runtime that failed, as runc's shim puts them.
fn refused(purpose: &Purpose, words: &str, folder: &Path) -> String {
    match purpose {
        Purpose::Pause => format!("OCI runtime pause failed: {words}"),
        Purpose::Resume => format!("OCI runtime resume failed: {words}"),
        Purpose::Checkpoint { scratch, .. } => {
            let log = folder.join("criu-dump.log");
            if let Some(scratch) = scratch {
                let _: std::io::Result<u64> = std::fs::copy(scratch.join("dump.log"), &log);
            }
            format!(
                "{} path= {}",
                words.lines().next().unwrap_or_default(),
                log.display()
            )
        }
        _ => words.to_owned(),
    }
}

/// An exec's description for the runtime: its terminal is asked for beside it.
fn describe(spec: &[u8], terminal: bool) -> Result<Vec<u8>, Status> {
    let invalid = |text: String| Status::new(Code::InvalidArgument, text);
    let mut spec: serde_json::Value = serde_json::from_slice(spec)
        .map_err(|err| invalid(format!("the process's description: {err}")))?;
    let fields = spec
        .as_object_mut()
        .ok_or_else(|| invalid("the process's description is no object".to_owned()))?;
    fields.insert("terminal".to_owned(), terminal.into());
    serde_json::to_vec(&spec).map_err(|err| invalid(err.to_string()))
}

fn finished() -> Status {
    Status::new(Code::NotFound, "process already finished: not found")
}

/// The answer to `Kill`. Runtimes say in words only that there is nobody to kill.
fn killed(ended: Ended) -> Answer {
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

    #[test]
    fn a_description_gets_the_terminal_that_was_asked_for() {
        let spec = describe(br#"{"args":["a"],"terminal":false,"unknown":1}"#, true).unwrap();
        let spec: serde_json::Value = serde_json::from_slice(&spec).unwrap();
        assert_eq!(
            spec,
            serde_json::json!({"args": ["a"], "terminal": true, "unknown": 1})
        );
        assert!(describe(b"[]", false).is_err());
        assert!(describe(b"", false).is_err());
    }
}
