//! Containers and processes, as far as they are more than their [`Life`].

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::call::{Image, Making, Runtime};
use super::job;
use super::life::{Life, Phase, Which};
use crate::containerd::proto::options::Options;
use crate::containerd::proto::task::{
    CheckpointTaskRequest, CreateTaskRequest, ExecProcessRequest,
};
use crate::containerd::proto::ttrpc::{Code, Status};
use crate::containerd::record::Record;
use crate::containerd::stdio::{BadAddress, Owner, Plan, Streams};
use crate::containerd::ttrpc::server::Reply;
use crate::supervisor::cgroups::Cgroups;
use crate::supervisor::oom::Watch;

/// A process of a container of this pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The container's id.
    pub container: Rc<str>,
    /// Which of its processes.
    pub which: Which,
}

/// Names of files, fifos and loggers that a process's streams lead to, as they were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Standard input.
    pub stdin: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Stdio {
    /// What they mean.
    ///
    /// # Errors
    /// A name that means nothing.
    pub fn plan(&self) -> Result<Plan, BadAddress> {
        Plan::parse(self.terminal, &self.stdin, &self.stdout, &self.stderr)
    }
}

/// Calls that change a process: one at a time, in the order they came.
#[derive(Debug)]
pub enum Task {
    /// Run it.
    Start,
    /// Remove it.
    Delete,
    /// Send it, or all of the container, a signal.
    Kill {
        /// Its number.
        signal: u32,
        /// Whether to all.
        all: bool,
    },
    /// Freeze the container.
    Pause,
    /// Let it go on.
    Resume,
    /// Change its limits: JSON.
    Update(Vec<u8>),
    /// Write it down.
    Checkpoint(Box<CheckpointTaskRequest>),
    /// Describe a further process.
    Exec(Box<ExecProcessRequest>),
    /// List its pids.
    Pids,
    /// Its first process ended, and others live on.
    KillOthers,
    /// It ended while it was frozen.
    Thaw,
}

/// What a busy process is busy with.
#[derive(Debug, Default)]
pub enum Busy {
    /// Nothing.
    #[default]
    Idle,
    /// A logger must say that it is ready, before the runtime is called.
    Opening(Option<Reply>),
    /// The runtime works.
    Calling,
    /// The runtime removes it, and its output is delivered.
    Deleting {
        /// Who asked.
        reply: Option<Reply>,
        /// Whether the runtime is done.
        removed: bool,
    },
}

/// A process.
#[derive(Debug)]
pub struct Process {
    /// Its number, for the poller.
    pub key: u32,
    /// Its pid, 0 as long as there is none.
    pub pid: i32,
    /// Where its streams lead.
    pub stdio: Stdio,
    /// Its streams, from before it is made until it is deleted.
    pub streams: Option<Streams>,
    /// Who waits for its end.
    pub waiters: Vec<Reply>,
    /// What is done to it now.
    pub busy: Busy,
    /// What is to be done after that.
    pub queue: VecDeque<(Option<Reply>, Task)>,
    /// Its description, of an exec that was not started.
    pub spec: Vec<u8>,
}

impl Process {
    /// One that has no pid yet.
    #[must_use]
    pub fn new(key: u32, stdio: Stdio) -> Self {
        Self {
            key,
            pid: 0,
            stdio,
            streams: None,
            waiters: Vec::new(),
            busy: Busy::Idle,
            queue: VecDeque::new(),
            spec: Vec::new(),
        }
    }

    /// What the runtime is to give to the process: the socket for its terminal,
    /// or its streams. To be asked once.
    pub fn child_ends(&mut self) -> (Option<PathBuf>, job::Streams) {
        match &mut self.streams {
            None => (None, job::Streams::Ours(Vec::new())),
            Some(streams) => match streams.console_socket().map(Path::to_owned) {
                // The runtime's own words are not for the terminal.
                Some(console) => (Some(console), job::Streams::Ours(Vec::new())),
                None => (None, job::Streams::Container(streams.child_ends())),
            },
        }
    }
}

/// A container.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: Rc<str>,
    /// Its folder.
    pub bundle: Rc<Path>,
    /// What executes it.
    pub runtime: Runtime,
    /// How its first process is made.
    pub making: Making,
    /// What it is restored from, if not made anew.
    pub image: Option<Image>,
    /// Of its pipes.
    pub owner: Owner,
    /// What its processes are doing.
    pub life: Life,
    /// Its first process.
    pub init: Process,
    /// All others.
    pub execs: BTreeMap<String, Process>,
    /// Where it is counted.
    pub cgroups: Option<Cgroups>,
    /// Hears of the OOM killer.
    pub oom: Option<Watch>,
    /// Whether the poller watches that.
    pub oom_watched: bool,
    /// What the bundle says of its first process.
    pub record: Option<Record>,
    /// Who asked for it, until it is made.
    pub request: Option<(Option<Reply>, Box<CreateTaskRequest>)>,
}

impl Container {
    /// One that is to be made as `request` says.
    #[must_use]
    pub fn new(
        request: &CreateTaskRequest,
        options: &Options,
        runtime: Runtime,
        key: u32,
        shares_pids: bool,
    ) -> Self {
        let bundle: Rc<Path> = Path::new(&request.bundle).into();
        let work = match options.criu_work_path.as_str() {
            "" => bundle.join("work"),
            path => path.into(),
        };
        let stdio = Stdio {
            terminal: request.terminal,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
        };
        Self {
            id: request.id.as_str().into(),
            runtime,
            making: Making {
                bundle: bundle.to_path_buf(),
                console: None,
                no_pivot: options.no_pivot_root,
                no_new_keyring: options.no_new_keyring,
            },
            image: (!request.checkpoint.is_empty()).then(|| Image {
                path: request.checkpoint.clone(),
                parent: request.parent_checkpoint.clone(),
                work,
            }),
            owner: Owner {
                uid: options.io_uid,
                gid: options.io_gid,
            },
            bundle,
            life: Life::new(shares_pids),
            init: Process::new(key, stdio),
            execs: BTreeMap::new(),
            cgroups: None,
            oom: None,
            oom_watched: false,
            record: None,
            request: None,
        }
    }

    /// One of its processes.
    #[must_use]
    pub fn process(&self, which: &Which) -> Option<&Process> {
        match which {
            None => Some(&self.init),
            Some(exec) => self.execs.get(exec),
        }
    }

    /// One of its processes.
    pub fn process_mut(&mut self, which: &Which) -> Option<&mut Process> {
        match which {
            None => Some(&mut self.init),
            Some(exec) => self.execs.get_mut(exec),
        }
    }

    /// All of its processes.
    pub fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        std::iter::once(&mut self.init).chain(self.execs.values_mut())
    }
}

/// All containers of this shim, by their ids.
#[derive(Debug, Default)]
pub struct Pod {
    /// Also those that are being made, which do not exist for clients yet.
    pub containers: BTreeMap<Rc<str>, Container>,
    /// Whose the keys are.
    keys: BTreeMap<u32, Who>,
    last_key: u32,
}

impl Pod {
    /// A container that was made.
    ///
    /// # Errors
    /// NotFound, in the words of runc's shim.
    pub fn container(&mut self, id: &str) -> Result<&mut Container, Status> {
        let is_made =
            |container: &&mut Container| container.life.phase(&None) != Some(Phase::Creating);
        self.containers
            .get_mut(id)
            .filter(is_made)
            .ok_or_else(|| Status::new(Code::NotFound, "container not created: not found"))
    }

    /// A process of a container that was made, and that container.
    ///
    /// # Errors
    /// NotFound, in the words of runc's shim.
    pub fn find(&mut self, id: &str, exec: &str) -> Result<(Who, &mut Container), Status> {
        let container = self.container(id)?;
        let which = (!exec.is_empty()).then(|| exec.to_owned());
        if container.process(&which).is_none() {
            return Err(Status::new(
                Code::NotFound,
                format!("process does not exist {exec}: not found"),
            ));
        }
        let who = Who {
            container: Rc::clone(&container.id),
            which,
        };
        Ok((who, container))
    }

    /// A process, made or not.
    pub fn process(&mut self, who: &Who) -> Option<&mut Process> {
        self.containers
            .get_mut(&who.container)?
            .process_mut(&who.which)
    }

    /// The streams of the process with this key.
    pub fn streams(&mut self, key: u32) -> Option<&mut Streams> {
        let who = self.keys.get(&key)?;
        let container = self.containers.get_mut(&who.container)?;
        container.process_mut(&who.which)?.streams.as_mut()
    }

    /// A key for a process.
    pub fn new_key(&mut self, who: Who) -> u32 {
        loop {
            self.last_key = self.last_key.wrapping_add(1);
            if !self.keys.contains_key(&self.last_key) {
                self.keys.insert(self.last_key, who);
                return self.last_key;
            }
        }
    }

    /// The process is gone.
    pub fn forget_key(&mut self, key: u32) {
        self.keys.remove(&key);
    }

    /// Whose a key is.
    #[must_use]
    pub fn who(&self, key: u32) -> Option<&Who> {
        self.keys.get(&key)
    }
}
