//! `containerd-shim-teu-v2` without containerd: the tests start it and call it themselves.

pub mod messages;
pub mod ttrpc;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::{Value, json};

use crate::Scene;
use messages::{
    Any, BootstrapParams, BootstrapResult, ConnectResponse, CreateRequest, DeleteResponse, Empty,
    ExecRequest, Extension, KillRequest, Mount, Options, PidResponse, ProcessRequest,
    ShutdownRequest, Status, WaitResponse,
};
use ttrpc::{Call, Client, Events};

const SERVICE: &str = "containerd.task.v2.Task";
/// The name under which an OCI process travels.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Where a process's streams go: addresses as containerd writes them.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Standard input.
    pub stdin: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Streams {
    /// With standard output at an address, and nothing else.
    #[must_use]
    pub fn to(stdout: impl ToString) -> Self {
        Self {
            stdout: stdout.to_string(),
            ..Self::default()
        }
    }
}

/// A running shim of one container, with what it says to containerd.
///
/// It is to be left by [`Shim::leave`]; a scene that ends otherwise finds it left behind.
#[derive(Debug)]
pub struct Shim<'a> {
    scene: &'a Scene,
    /// The container's id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Where the shim listens.
    pub socket: PathBuf,
    /// What it told containerd.
    pub events: Events,
    /// What `Create` is told of the runtime.
    pub options: Options,
    client: Client,
    own_mounts: Vec<Mount>,
}

impl<'a> Shim<'a> {
    /// Starts a shim, as containerd 2.3 does, for a bundle that runs `args` in busybox.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(
        scene: &'a Scene,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let bundle = scene.bundle(id, args, change);
        Self::start_at(scene, id, bundle)
    }

    /// The same for a bundle that is there.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_at(scene: &'a Scene, id: &str, bundle: PathBuf) -> Self {
        let containerd = scene.path(format!("{id}.events"));
        let events = Events::listen(&containerd).expect("listen for events");
        let options = Options {
            binary_name: crate::binary("teu-runtime").display().to_string(),
            root: scene.path("runtime").display().to_string(),
            ..Options::default()
        };
        let address = containerd.display().to_string();
        let params = BootstrapParams {
            instance_id: id.into(),
            namespace: "default".into(),
            ttrpc_address: address.clone(),
            grpc_address: address.clone(),
            extensions: vec![Extension {
                value: Some(any_options(&options)),
            }],
            socket_dir: scene.path("s").display().to_string(),
        };
        let words = [
            "-namespace",
            "default",
            "-address",
            &address,
            "-id",
            id,
            "start",
        ];
        let mut command = scene.command("containerd-shim-teu-v2", words);
        command
            .current_dir(&bundle)
            .env("TTRPC_ADDRESS", &address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("start the shim");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(&params.encode_to_vec())
            .expect("speak to the shim");
        drop(stdin);
        let out = child.wait_with_output().expect("wait for the shim's start");
        assert!(out.status.success(), "start of the shim: {out:?}");
        let result = BootstrapResult::decode(&out.stdout[..]).expect("the shim's answer");
        let socket = PathBuf::from(result.address.trim_start_matches("unix://"));
        let client = Client::connect(&socket).expect("connect to the shim");
        Self {
            scene,
            id: id.into(),
            bundle,
            socket,
            events,
            options,
            client,
            own_mounts: Vec::new(),
        }
    }

    /// Mounts that `Create` asks for.
    pub fn mounts(&mut self, mounts: Vec<Mount>) {
        self.own_mounts = mounts;
    }

    /// Another connection.
    ///
    /// # Panics
    /// When the shim does not listen.
    #[must_use]
    pub fn connect(&self) -> Client {
        Client::connect(&self.socket).expect("connect to the shim")
    }

    /// Sends a call of the task service.
    ///
    /// # Panics
    /// When the connection is lost.
    pub fn send(&mut self, method: &str, message: &impl Message) -> Call {
        let sent = self.client.send(SERVICE, method, message);
        sent.unwrap_or_else(|error| panic!("call {method}: {error}"))
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// The shim's.
    ///
    /// # Panics
    /// When the connection is lost, or the answer takes too long.
    pub fn receive<M: Message + Default>(&mut self, call: Call) -> Result<M, Status> {
        let received = self.client.receive(call);
        received.unwrap_or_else(|error| panic!("wait for an answer: {error}"))
    }

    /// Calls the task service.
    ///
    /// # Errors
    /// The shim's.
    ///
    /// # Panics
    /// When the connection is lost, or the answer takes too long.
    pub fn call<M: Message + Default>(
        &mut self,
        method: &str,
        message: &impl Message,
    ) -> Result<M, Status> {
        let call = self.send(method, message);
        self.receive(call)
    }

    fn whom(&self, exec: &str) -> ProcessRequest {
        ProcessRequest {
            id: self.id.clone(),
            exec_id: exec.into(),
        }
    }

    /// Makes the container.
    ///
    /// # Errors
    /// The shim's.
    pub fn create(&mut self, streams: &Streams) -> Result<u32, Status> {
        let request = CreateRequest {
            id: self.id.clone(),
            bundle: self.bundle.display().to_string(),
            rootfs: self.own_mounts.clone(),
            terminal: streams.terminal,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            options: Some(any_options(&self.options)),
        };
        let answer: PidResponse = self.call("Create", &request)?;
        Ok(answer.pid)
    }

    /// Describes another process of the container: a busybox command line.
    ///
    /// # Errors
    /// The shim's.
    pub fn exec(&mut self, exec: &str, args: &[&str], streams: &Streams) -> Result<(), Status> {
        let process = json!({
            "terminal": streams.terminal, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
            "env": ["PATH=/bin"],
        });
        let request = ExecRequest {
            id: self.id.clone(),
            exec_id: exec.into(),
            terminal: streams.terminal,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            spec: Some(Any {
                type_url: PROCESS_TYPE.into(),
                value: process.to_string().into_bytes(),
            }),
        };
        self.call::<Empty>("Exec", &request).map(|_| ())
    }

    /// Starts the container's program, or with a name another process.
    ///
    /// # Errors
    /// The shim's.
    pub fn start_process(&mut self, exec: &str) -> Result<u32, Status> {
        let answer: PidResponse = self.call("Start", &self.whom(exec))?;
        Ok(answer.pid)
    }

    /// Waits for the end of a process; its status.
    ///
    /// # Errors
    /// The shim's.
    pub fn wait(&mut self, exec: &str) -> Result<u32, Status> {
        let answer: WaitResponse = self.call("Wait", &self.whom(exec))?;
        Ok(answer.exit_status)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The shim's.
    pub fn kill(&mut self, exec: &str, signal: u32) -> Result<(), Status> {
        let request = KillRequest {
            id: self.id.clone(),
            exec_id: exec.into(),
            signal,
            all: false,
        };
        self.call::<Empty>("Kill", &request).map(|_| ())
    }

    /// Forgets a process.
    ///
    /// # Errors
    /// The shim's.
    pub fn delete(&mut self, exec: &str) -> Result<DeleteResponse, Status> {
        let whom = self.whom(exec);
        self.call("Delete", &whom)
    }

    /// The pid of the shim.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn pid(&mut self) -> u32 {
        let answer: Result<ConnectResponse, _> = self.call("Connect", &self.whom(""));
        answer.expect("connect").shim_pid
    }

    /// The pids of the shim and of the keeper above it.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn pids(&mut self) -> Vec<u32> {
        let pid = self.pid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next();
        let parent = parent.and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok());
        let is_keeper = |parent: &u32| {
            let line = std::fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
            line.ends_with(b"\0keep\0")
        };
        [pid].into_iter().chain(parent.filter(is_keeper)).collect()
    }

    /// Kills what runs, deletes the container and lets the shim go.
    ///
    /// # Panics
    /// When it does not.
    pub fn leave(mut self) {
        let pid = self.pid();
        let _ = self.kill("", 9);
        let _ = self.wait("");
        let _ = self.delete("");
        self.shut_down(pid);
    }

    /// Lets the shim, whose container was deleted, go.
    ///
    /// # Panics
    /// When it does not, or when the runtime still knows a container.
    pub fn shut_down(mut self, pid: u32) {
        let request = ShutdownRequest {
            id: self.id.clone(),
            now: false,
        };
        let _ = self.call::<Empty>("Shutdown", &request);
        self.scene.wait_until("the shim has gone", || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !state.contains("containerd-shim") || state.contains(") Z ")
        });
        assert!(!self.socket.exists(), "the socket is left behind");
        let known = std::fs::read_dir(self.scene.path("runtime/default"));
        let known: Vec<_> = known.into_iter().flatten().flatten().collect();
        assert!(known.is_empty(), "left behind: {known:?}");
    }
}

fn any_options(options: &Options) -> Any {
    Any {
        type_url: "containerd.runc.v1.Options".into(),
        value: options.encode_to_vec(),
    }
}

/// What a process costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Resident memory, KiB.
    pub rss: u64,
    /// The same, shared pages counted in parts, KiB.
    pub pss: u64,
    /// What would be free without it, KiB.
    pub private: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

impl Cost {
    /// Of a process at this moment; all zero when it is gone.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let text = std::fs::read_to_string(folder.join("smaps_rollup")).unwrap_or_default();
        let sum = |names: &[&str]| {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            let lines = lines.filter(|(name, _)| names.contains(name));
            lines
                .filter_map(|(_, value)| value.trim().trim_end_matches(" kB").parse::<u64>().ok())
                .sum()
        };
        Self {
            rss: sum(&["Rss"]),
            pss: sum(&["Pss"]),
            private: sum(&["Private_Clean", "Private_Dirty"]),
            descriptors: std::fs::read_dir(folder.join("fd")).map_or(0, Iterator::count),
        }
    }
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rss: self.rss + other.rss,
            pss: self.pss + other.pss,
            private: self.private + other.private,
            descriptors: self.descriptors + other.descriptors,
        }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            rss,
            pss,
            private,
            descriptors,
        } = self;
        write!(
            f,
            "RSS {rss} KiB, PSS {pss} KiB, private {private} KiB, {descriptors} descriptors"
        )
    }
}

/// A fifo in a folder.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn fifo(path: PathBuf) -> PathBuf {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("make a fifo");
    path
}

/// A reader of a fifo that does not wait, neither for writers nor for bytes.
///
/// # Panics
/// When it cannot be opened.
#[must_use]
pub fn open_reader(path: &Path) -> std::fs::File {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    open(path, flags, Mode::empty())
        .expect("open a fifo")
        .into()
}

/// Reads a fifo to its end, or until `limit` has passed, at most so many bytes
/// a second.
///
/// # Panics
/// When it cannot be read.
pub fn drain(reader: &mut std::fs::File, limit: Duration, bytes_per_second: u64) -> Vec<u8> {
    use std::io::Read as _;
    let begin = Instant::now();
    let (mut all, mut block) = (Vec::new(), vec![0; 64 << 10]);
    while begin.elapsed() < limit {
        let due = begin.elapsed().as_secs_f64() * bytes_per_second as f64;
        if all.len() as f64 > due {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        match reader.read(&mut block) {
            // Before the first writer this is no end.
            Ok(0) if all.is_empty() => std::thread::sleep(Duration::from_millis(1)),
            Ok(0) => break,
            Ok(len) => all.extend_from_slice(&block[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("read a fifo: {error}"),
        }
    }
    all
}
