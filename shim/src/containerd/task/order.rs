//! What changes a process, one thing after another: beginning it, and what
//! follows when the runtime has done its part.

use std::path::{Path, PathBuf};

use super::call::Call;
use super::job::{self, Ended, Job};
use super::kill::killed;
use super::life::{Event, Wish};
use super::pod::{Busy, Task, Who};
use super::service::{Purpose, Running, Service, complain, message};
use crate::Error;
use crate::containerd::bundle;
use crate::containerd::proto::Empty;
use crate::containerd::proto::events::{TaskCheckpointed, TaskPaused, TaskResumed};
use crate::containerd::proto::options::CheckpointOptions;
use crate::containerd::proto::task::CheckpointTaskRequest;
use crate::containerd::proto::ttrpc::{Code, Status};
use crate::containerd::ttrpc::server::{Answer, Reply};
use crate::error::chain;

impl Service {
    /// Puts `task` behind what is already to be done to the process, and begins it if that is nothing.
    pub(super) fn submit(&mut self, who: &Who, reply: Option<Reply>, task: Task) {
        if let Some(process) = self.pod.process(who) {
            self.attention.touch(process.key);
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
        self.touch(who);
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
