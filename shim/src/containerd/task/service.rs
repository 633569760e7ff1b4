//! Answers the task service's calls: at once where it can, else when the
//! runtime's call that was made for it has ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use prost::Message;

use super::attention::Attention;
use super::job::Job;
use super::life::{Exit, Wish};
use super::pod::{Container, Pod, Task, Who};
use super::request::Request;
use crate::containerd::Token;
use crate::containerd::events::publisher::Publisher;
use crate::containerd::proto::options::ProcessDetails;
use crate::containerd::proto::task::{
    ConnectResponse, PidsResponse, ProcessInfo, ProcessRequest, StateResponse, StatsResponse,
    WaitResponse,
};
use crate::containerd::proto::ttrpc::{Code, Status};
use crate::containerd::proto::{Any, Empty};
use crate::containerd::stats::Metrics;
use crate::containerd::stdio::{Part, Streams};
use crate::containerd::ttrpc::server::{Answer, Reply};
use crate::error::{chain, warn};
use crate::supervisor::poller::Poller;
use rustix::event::epoll::EventFlags;

/// What a call of the runtime is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Create,
    Restore,
    Start,
    Exec,
    Kill,
    Pause,
    Resume,
    Update,
    Checkpoint {
        /// The folder that CRIU works in, to be removed.
        scratch: Option<PathBuf>,
        path: String,
    },
    Pids,
    KillOthers,
    Thaw,
    Delete,
}

/// A call of the runtime that is under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) job: Job,
    pub(super) who: Who,
    pub(super) reply: Option<Reply>,
    pub(super) purpose: Purpose,
}

/// The task service of one pod.
#[derive(Debug)]
pub struct Service {
    /// containerd's namespace.
    pub(super) namespace: String,
    /// What executes containers whose options name no program.
    pub(super) default_runtime: PathBuf,
    pub(super) pod: Pod,
    /// Events on their way.
    pub publisher: Publisher,
    pub(super) jobs: BTreeMap<i32, Running>,
    /// Whose the pids are.
    pub(super) pids: BTreeMap<i32, Who>,
    /// Children that ended while the runtime had not yet said whose they are.
    pub(super) early: BTreeMap<i32, Exit>,
    /// Answers to be sent.
    pub answers: Vec<(Reply, Answer)>,
    /// Which processes are to be looked at.
    pub(super) attention: Attention,
    /// Streams that the poller must forget.
    pub(super) retired: Vec<Streams>,
    /// It was told to leave: nothing new begins.
    pub(super) leaving: bool,
}

impl Service {
    /// One without containers.
    #[must_use]
    pub fn new(namespace: &str, default_runtime: PathBuf, publisher: Publisher) -> Self {
        Self {
            namespace: namespace.to_owned(),
            default_runtime,
            pod: Pod::default(),
            publisher,
            jobs: BTreeMap::new(),
            pids: BTreeMap::new(),
            early: BTreeMap::new(),
            answers: Vec::new(),
            attention: Attention::default(),
            retired: Vec::new(),
            leaving: false,
        }
    }

    /// Whether it was told to leave and has nothing left to look after.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving && self.pod.containers.is_empty()
    }

    /// Takes a call. Its answer is put to [`Service::answers`], now or later.
    pub fn handle(&mut self, reply: Reply, request: Request) {
        if request.is_a_clients() {
            self.publisher.hear_client(std::time::Instant::now());
        }
        match request {
            Request::State(asked) => self.reply(reply, |service| service.state(&asked)),
            Request::Create(asked) => self.create(reply, asked),
            Request::Start(asked) => self.order(reply, &asked.id, &asked.exec_id, Task::Start),
            Request::Delete(asked) => self.order(reply, &asked.id, &asked.exec_id, Task::Delete),
            Request::Pids(asked) => self.order(reply, &asked.id, "", Task::Pids),
            Request::Pause(asked) => self.order(reply, &asked.id, "", Task::Pause),
            Request::Resume(asked) => self.order(reply, &asked.id, "", Task::Resume),
            Request::Checkpoint(asked) => {
                let id = asked.id.clone();
                self.order(reply, &id, "", Task::Checkpoint(Box::new(asked)));
            }
            Request::Kill(asked) => {
                let task = Task::Kill {
                    signal: asked.signal,
                    all: asked.all,
                };
                self.order(reply, &asked.id, &asked.exec_id, task);
            }
            Request::Exec(asked) => {
                let id = asked.id.clone();
                self.order(reply, &id, "", Task::Exec(Box::new(asked)));
            }
            Request::Update(asked) => {
                let resources = asked.resources.unwrap_or_default().value;
                self.order(reply, &asked.id, "", Task::Update(resources));
            }
            Request::ResizePty(asked) => self.reply(reply, |service| {
                let (who, container) = service.pod.find(&asked.id, &asked.exec_id)?;
                container.life.permit(&who.which, Wish::Resize)?;
                let process = container.process(&who.which);
                if let Some(streams) = process.and_then(|process| process.streams.as_ref()) {
                    let resized = streams.resize(asked.width, asked.height);
                    resized.map_err(|err| failed("resize the terminal", &err))?;
                }
                Ok(message(&Empty {}))
            }),
            Request::CloseIo(asked) => self.reply(reply, |service| {
                let (who, _) = service.pod.find(&asked.id, &asked.exec_id)?;
                service.close_input(&who)
            }),
            Request::Wait(asked) => self.wait(reply, &asked),
            Request::Stats(asked) => self.reply(reply, |service| service.stats(&asked.id)),
            Request::Connect(asked) => self.reply(reply, |service| {
                let task_pid = service
                    .pod
                    .container(&asked.id)
                    .map_or(0, |container| container.init.pid);
                Ok(message(&ConnectResponse {
                    shim_pid: std::process::id(),
                    task_pid: number(task_pid),
                    version: String::new(),
                }))
            }),
            Request::Shutdown(_) => {
                self.leaving = self.pod.containers.is_empty();
                self.answer(reply, Ok(message(&Empty {})));
            }
        }
    }

    /// Nobody reads the answers of `connection` any more.
    pub fn forget(&mut self, connection: u32) {
        for container in self.pod.containers.values_mut() {
            for process in container.processes_mut() {
                process
                    .waiters
                    .retain(|reply| reply.connection != connection);
            }
        }
    }

    pub(super) fn answer(&mut self, reply: Reply, answer: Answer) {
        self.answers.push((reply, answer));
    }

    fn reply(&mut self, reply: Reply, work: impl FnOnce(&mut Self) -> Answer) {
        let answer = work(self);
        self.answer(reply, answer);
    }

    /// Puts `task` behind what is already to be done to the process.
    fn order(&mut self, reply: Reply, id: &str, exec: &str, task: Task) {
        match self.pod.find(id, exec) {
            Ok((who, _)) => self.submit(&who, Some(reply), task),
            Err(status) => self.answer(reply, Err(status)),
        }
    }

    fn state(&mut self, asked: &ProcessRequest) -> Answer {
        let (who, container) = self.pod.find(&asked.id, &asked.exec_id)?;
        let phase = container.life.phase(&who.which);
        let frozen = container.life.phase(&None).filter(|phase| {
            use crate::containerd::proto::task::Status::{Paused, Pausing};
            matches!(phase.status(), Paused | Pausing)
        });
        let bundle = container.bundle.display().to_string();
        let (Some(process), Some(phase)) = (container.process(&who.which), phase) else {
            return Err(Status::new(Code::NotFound, "no such process: not found"));
        };
        let exit = phase.exit();
        Ok(message(&StateResponse {
            id: who.which.clone().unwrap_or_else(|| asked.id.clone()),
            bundle,
            pid: number(process.pid),
            status: frozen.filter(|_| exit.is_none()).unwrap_or(phase).status() as i32,
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.at),
            exec_id: asked.exec_id.clone(),
        }))
    }

    fn wait(&mut self, reply: Reply, asked: &ProcessRequest) {
        let found = self
            .pod
            .find(&asked.id, &asked.exec_id)
            .map(|(who, container)| {
                let exit = container
                    .life
                    .phase(&who.which)
                    .and_then(super::life::Phase::exit);
                if exit.is_none()
                    && let Some(process) = container.process_mut(&who.which)
                {
                    process.waiters.push(reply);
                }
                exit
            });
        match found {
            Ok(None) => {}
            Ok(Some(exit)) => self.answer(reply, Ok(ended(exit))),
            Err(status) => self.answer(reply, Err(status)),
        }
    }

    fn close_input(&mut self, who: &Who) -> Answer {
        self.touch(who);
        if let Some(streams) = self
            .pod
            .process(who)
            .and_then(|process| process.streams.as_mut())
        {
            streams
                .close_stdin()
                .map_err(|err| failed("close stdin", &err))?;
        }
        Ok(message(&Empty {}))
    }

    fn stats(&mut self, id: &str) -> Answer {
        let container = self.pod.container(id)?;
        let metrics = container.cgroups.as_ref().and_then(Metrics::read);
        let metrics = metrics
            .ok_or_else(|| Status::new(Code::NotFound, "cgroup does not exist: not found"))?;
        Ok(message(&StatsResponse {
            stats: Some(metrics.to_any()),
        }))
    }

    /// The answer to `Pids` from what the runtime printed.
    pub(super) fn pids_of(&mut self, who: &Who, output: &[u8]) -> Answer {
        let pids: Option<Vec<u32>> = serde_json::from_slice(output).map_err(|err| {
            Status::new(Code::Unknown, format!("the runtime's list of pids: {err}"))
        })?;
        let exec_of = |pid: u32| {
            let pid = i32::try_from(pid).ok()?;
            let whose = self.pids.get(&pid);
            let whose = whose.filter(|whose| whose.container == who.container);
            whose?.which.clone()
        };
        let info = |pid| ProcessInfo {
            pid,
            info: exec_of(pid).map(|exec_id| Any::of(&ProcessDetails { exec_id })),
        };
        Ok(message(&PidsResponse {
            processes: pids.unwrap_or_default().into_iter().map(info).collect(),
        }))
    }

    /// Some stream is ready.
    pub fn stream_ready(&mut self, key: u32, part: Part) {
        if let Some(streams) = self.pod.streams(key) {
            streams.ready(part);
            self.attention.touch(key);
        }
    }

    /// Something happened to a process: it is looked at, and the poller is told, before the next wait.
    pub(super) fn touch(&mut self, who: &Who) {
        if let Some(process) = self.pod.process(who) {
            self.attention.touch(process.key);
        }
    }

    /// The OOM killer may have struck in the container whose first process has `key`.
    pub fn oom_ready(&mut self, key: u32) {
        if let Some(who) = self.pod.who(key).cloned() {
            self.check_oom(&who);
        }
    }

    /// When [`Service::tick`] is to be called even if nothing happens.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let watches = self.pod.containers.values();
        let watches = watches.filter_map(|container| container.oom.as_ref());
        let oom = watches.filter_map(|watch| watch.deadline(now));
        let others = [self.attention.deadline(now), self.publisher.deadline()];
        oom.chain(others.into_iter().flatten()).min()
    }

    /// Does what it is time for, and what readiness of streams has made possible.
    pub fn tick(&mut self, now: Instant) {
        self.publisher.expire(now);
        let is_thirsty = |container: &&mut Container| {
            let watch = container.oom.as_ref();
            watch.is_some_and(|watch| watch.deadline(now).is_some())
        };
        let thirsty = self.pod.containers.values_mut().filter(is_thirsty);
        let thirsty: Vec<u32> = thirsty.map(|container| container.init.key).collect();
        for key in thirsty {
            self.oom_ready(key);
        }
        for key in self.attention.expire(now) {
            if let Some(streams) = self.pod.streams(key) {
                streams.expire(now);
            }
        }
        while let Some(key) = self.attention.look() {
            let who = self.pod.who(key).cloned();
            if let Some(who) = who
                && self
                    .pod
                    .process(&who)
                    .is_some_and(|process| !process.is_settled())
            {
                self.look_again(&who);
            }
        }
    }

    /// Tells the poller what is waited for.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn settle(&mut self, poller: &Poller<Token>, now: Instant) -> std::io::Result<()> {
        for mut streams in self.retired.drain(..) {
            streams.unwatch(poller);
        }
        for container in self.pod.containers.values_mut() {
            if let Some(watch) = &container.oom
                && !container.oom_watched
            {
                poller.add(watch, Token::Oom(container.init.key), EventFlags::IN)?;
                container.oom_watched = true;
            }
        }
        for key in self.attention.settle() {
            let Some(streams) = self.pod.streams(key) else {
                self.attention.set_deadline(key, None);
                continue;
            };
            let was_finished = streams.is_finished();
            streams.settle(poller, |part| Token::Stdio(key, part))?;
            let deadline = streams.deadline();
            if streams.is_finished() && !was_finished {
                self.attention.touch(key);
            }
            self.attention.set_deadline(key, deadline);
        }
        self.publisher.settle(
            now,
            |fd| poller.add(fd, Token::Publisher, EventFlags::IN),
            |fd, flags| poller.modify(fd, Token::Publisher, flags),
        )
    }
}

/// A message's bytes.
pub(super) fn message(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// How a process ended, as `Wait` answers it.
pub(super) fn ended(exit: Exit) -> Vec<u8> {
    message(&WaitResponse {
        exit_status: exit.status,
        exited_at: Some(exit.at),
    })
}

/// A pid as containerd numbers it.
pub(super) fn number(pid: i32) -> u32 {
    u32::try_from(pid).unwrap_or(0)
}

/// An error of ours as an answer.
pub(super) fn failed(what: &str, err: &dyn std::error::Error) -> Status {
    Status::new(Code::Unknown, format!("{what}: {}", chain(err)))
}

/// Writes an error down that must not stop what follows.
pub(super) fn complain<E: std::error::Error>(result: Result<(), E>) {
    if let Err(err) = result {
        warn("shim", &err);
    }
}
