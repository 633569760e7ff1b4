//! The sandbox service, which containerd 2 may ask a shim of version 3 for: a
//! sandbox is a container like others, whose end is the pod's.
//!
//! Each call becomes one or several of the task service, whose answers come
//! back to [`Sandbox::answered`]. These are the nine methods of
//! `containerd.runtime.sandbox.v1.Sandbox` up to containerd 2.3; messages for an
//! `UpdateSandbox` are declared beside them, but no method takes them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message as _;

use super::flags::is_name;
use super::proto::sandbox::{
    CreateSandboxRequest, PlatformResponse, SandboxMetricsResponse, SandboxRequest,
    SandboxStatusRequest, SandboxStatusResponse, StartSandboxResponse, StopSandboxRequest,
};
use super::proto::task::{
    ContainerRequest, CreateTaskRequest, KillRequest, ProcessRequest, ShutdownRequest,
    StartResponse, StateResponse, StatsResponse, Status as TaskStatus,
};
use super::proto::ttrpc::{Code, Status};
use super::proto::{Empty, Metric, Platform, Timestamp};
use super::task::request::{Request, decode};
use super::task::service::Service;
use super::ttrpc::server::{Answer, Reply};

/// The connection of calls that are made here; the server's own begin with 1.
pub const OWN_CONNECTION: u32 = 0;

/// What a call of the task service was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Create(String),
    Start,
    Stop,
    Wait,
    Status,
    Metrics,
    /// `ShutdownSandbox`: the process ends,
    End,
    /// the container is removed,
    Remove,
    /// the shim leaves.
    Leave,
    /// Its answer is of no interest.
    Kill,
}

/// The sandbox of this shim, if it has one.
#[derive(Debug, Default)]
pub struct Sandbox {
    id: Option<String>,
    created_at: Option<Timestamp>,
    calls: BTreeMap<u32, (Option<Reply>, Step)>,
    last: u32,
    /// When `StopSandbox` is no longer polite.
    kill_by: Option<Instant>,
}

impl Sandbox {
    /// Takes a call. Its answer is put to [`Service::answers`], now or later.
    pub fn handle(&mut self, reply: Reply, method: &str, payload: &[u8], service: &mut Service) {
        if let Err(status) = self.begin(reply, method, payload, service) {
            service.answers.push((reply, Err(status)));
        }
    }

    fn begin(
        &mut self,
        reply: Reply,
        method: &str,
        payload: &[u8],
        service: &mut Service,
    ) -> Result<(), Status> {
        match method {
            "CreateSandbox" => self.create(reply, decode(payload)?, service),
            "StopSandbox" => self.stop(reply, &decode(payload)?, service),
            "SandboxStatus" => {
                let asked: SandboxStatusRequest = decode(payload)?;
                let request = Request::State(self.process(&asked.sandbox_id)?);
                self.call(Some(reply), Step::Status, request, service);
                Ok(())
            }
            "StartSandbox" | "Platform" | "WaitSandbox" | "PingSandbox" | "ShutdownSandbox"
            | "SandboxMetrics" => {
                let asked: SandboxRequest = decode(payload)?;
                let process = self.process(&asked.sandbox_id)?;
                self.simple(reply, method, process, service);
                Ok(())
            }
            _ => Err(Status::new(Code::Unimplemented, format!("method {method}"))),
        }
    }

    /// The calls whose message names the sandbox and no more.
    fn simple(
        &mut self,
        reply: Reply,
        method: &str,
        process: ProcessRequest,
        service: &mut Service,
    ) {
        let answer = |answer: Vec<u8>| (reply, Ok(answer));
        match method {
            "StartSandbox" => self.call(Some(reply), Step::Start, Request::Start(process), service),
            "WaitSandbox" => self.call(Some(reply), Step::Wait, Request::Wait(process), service),
            "SandboxMetrics" => {
                let container = ContainerRequest { id: process.id };
                self.call(
                    Some(reply),
                    Step::Metrics,
                    Request::Stats(container),
                    service,
                );
            }
            "ShutdownSandbox" => {
                self.call(
                    Some(reply),
                    Step::End,
                    Request::Wait(process.clone()),
                    service,
                );
                self.kill(&process.id, libc::SIGKILL, service);
            }
            "Platform" => service.answers.push(answer(platform().encode_to_vec())),
            _ => service.answers.push(answer(Empty {}.encode_to_vec())),
        }
    }

    fn create(
        &mut self,
        reply: Reply,
        asked: CreateSandboxRequest,
        service: &mut Service,
    ) -> Result<(), Status> {
        let id = asked.sandbox_id;
        if let Some(own) = &self.id {
            return Err(Status::new(
                Code::AlreadyExists,
                format!("sandbox {own}: already exists"),
            ));
        }
        if !is_name(&id) {
            return Err(Status::new(
                Code::InvalidArgument,
                format!("{id:?} is not a name"),
            ));
        }
        if !Path::new(&asked.bundle_path).join("config.json").is_file() {
            let text = "the sandbox has no config.json: a pod's own process is described there: failed precondition";
            return Err(Status::new(Code::FailedPrecondition, text));
        }
        let request = CreateTaskRequest {
            id: id.clone(),
            bundle: asked.bundle_path,
            rootfs: asked.rootfs,
            options: asked
                .options
                .filter(super::proto::Any::is::<super::proto::options::Options>),
            ..CreateTaskRequest::default()
        };
        self.call(
            Some(reply),
            Step::Create(id),
            Request::Create(Box::new(request)),
            service,
        );
        Ok(())
    }

    fn stop(
        &mut self,
        reply: Reply,
        asked: &StopSandboxRequest,
        service: &mut Service,
    ) -> Result<(), Status> {
        let process = self.process(&asked.sandbox_id)?;
        let id = process.id.clone();
        self.call(Some(reply), Step::Stop, Request::Wait(process), service);
        if asked.timeout_secs == 0 {
            self.kill(&id, libc::SIGKILL, service);
        } else {
            self.kill_by =
                Some(Instant::now() + Duration::from_secs(u64::from(asked.timeout_secs)));
            self.kill(&id, libc::SIGTERM, service);
        }
        Ok(())
    }

    /// When [`Sandbox::tick`] is to be called even if nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.kill_by
    }

    /// Does what it is time for.
    pub fn tick(&mut self, now: Instant, service: &mut Service) {
        if self.kill_by.is_some_and(|by| by <= now) {
            self.kill_by = None;
            if let Some(id) = self.id.clone() {
                self.kill(&id, libc::SIGKILL, service);
            }
        }
    }

    fn kill(&mut self, id: &str, signal: i32, service: &mut Service) {
        let request = KillRequest {
            id: id.to_owned(),
            signal: signal.unsigned_abs(),
            ..KillRequest::default()
        };
        self.call(None, Step::Kill, Request::Kill(request), service);
    }

    fn call(&mut self, reply: Option<Reply>, step: Step, request: Request, service: &mut Service) {
        self.last = self.last.wrapping_add(1);
        self.calls.insert(self.last, (reply, step));
        let own = Reply {
            connection: OWN_CONNECTION,
            stream: self.last,
        };
        service.handle(own, request);
    }

    /// The first process of the sandbox called `id`.
    fn process(&self, id: &str) -> Result<ProcessRequest, Status> {
        if self.id.as_deref() != Some(id) {
            return Err(Status::new(
                Code::NotFound,
                format!("sandbox {id}: not found"),
            ));
        }
        Ok(ProcessRequest {
            id: id.to_owned(),
            exec_id: String::new(),
        })
    }

    /// The task service has answered a call that was made here.
    pub fn answered(&mut self, call: u32, answer: Answer, service: &mut Service) {
        let Some((Some(reply), step)) = self.calls.remove(&call) else {
            return;
        };
        match self.next(&step, answer) {
            Ok(Next::Answer(message)) => service.answers.push((reply, Ok(message))),
            Ok(Next::Call(step, request)) => self.call(Some(reply), step, request, service),
            Err(status) => service.answers.push((reply, Err(status))),
        }
    }

    fn next(&mut self, step: &Step, answer: Answer) -> Result<Next, Status> {
        let message = answer?;
        let empty = || Next::Answer(Empty {}.encode_to_vec());
        let id = self.id.clone().unwrap_or_default();
        Ok(match step {
            Step::Create(id) => {
                self.id = Some(id.clone());
                self.created_at = Some(Timestamp::now());
                empty()
            }
            Step::Start => {
                let started: StartResponse = decode(&message)?;
                Next::Answer(
                    StartSandboxResponse {
                        pid: started.pid,
                        created_at: self.created_at,
                    }
                    .encode_to_vec(),
                )
            }
            // The two messages have the same fields.
            Step::Wait => Next::Answer(message),
            Step::Status => Next::Answer(self.status(decode(&message)?).encode_to_vec()),
            Step::Metrics => Next::Answer(metrics(id, decode(&message)?).encode_to_vec()),
            Step::Stop | Step::Kill => {
                self.kill_by = None;
                empty()
            }
            Step::End => Next::Call(
                Step::Remove,
                Request::Delete(ProcessRequest {
                    id,
                    exec_id: String::new(),
                }),
            ),
            Step::Remove => {
                self.id = None;
                Next::Call(
                    Step::Leave,
                    Request::Shutdown(ShutdownRequest { id, now: false }),
                )
            }
            Step::Leave => empty(),
        })
    }

    fn status(&self, state: StateResponse) -> SandboxStatusResponse {
        let is_ready = state.status != TaskStatus::Stopped as i32;
        SandboxStatusResponse {
            sandbox_id: state.id,
            pid: state.pid,
            // As CRI calls them, which is what containerd compares with.
            state: if is_ready {
                "SANDBOX_READY"
            } else {
                "SANDBOX_NOTREADY"
            }
            .to_owned(),
            info: BTreeMap::new(),
            created_at: self.created_at,
            exited_at: state.exited_at,
            extra: None,
        }
    }
}

/// What follows an answer.
enum Next {
    Answer(Vec<u8>),
    Call(Step, Request),
}

fn metrics(id: String, stats: StatsResponse) -> SandboxMetricsResponse {
    SandboxMetricsResponse {
        metrics: Some(Metric {
            timestamp: Some(Timestamp::now()),
            id,
            data: stats.stats,
        }),
    }
}

/// What this program runs on, in Go's words.
fn platform() -> PlatformResponse {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "x86" => ("386", ""),
        "aarch64" => ("arm64", "v8"),
        "arm" => ("arm", "v7"),
        "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", ""),
        "loongarch64" => ("loong64", ""),
        other => (other, ""),
    };
    PlatformResponse {
        platform: Some(Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::events::publisher::Publisher;

    const CLIENT: Reply = Reply {
        connection: 1,
        stream: 1,
    };

    fn ask(
        sandbox: &mut Sandbox,
        service: &mut Service,
        method: &str,
        message: &impl prost::Message,
    ) -> Answer {
        sandbox.handle(CLIENT, method, &message.encode_to_vec(), service);
        service.answers.pop().unwrap().1
    }

    #[test]
    fn calls_for_another_sandbox_are_refused() {
        let mut service = Service::new("n", "/nosuch".into(), Publisher::new("/nosuch", "n"));
        let mut sandbox = Sandbox::default();
        let asked = SandboxRequest {
            sandbox_id: "pod".into(),
        };
        for method in [
            "StartSandbox",
            "PingSandbox",
            "WaitSandbox",
            "ShutdownSandbox",
        ] {
            let status = ask(&mut sandbox, &mut service, method, &asked).unwrap_err();
            assert_eq!(status.code, Code::NotFound as i32, "{method}");
        }
        let status = ask(&mut sandbox, &mut service, "UpdateSandbox", &asked).unwrap_err();
        assert_eq!(status.code, Code::Unimplemented as i32);
        let bare = CreateSandboxRequest {
            sandbox_id: "pod".into(),
            bundle_path: "/nosuch".into(),
            ..Default::default()
        };
        let status = ask(&mut sandbox, &mut service, "CreateSandbox", &bare).unwrap_err();
        assert_eq!(status.code, Code::FailedPrecondition as i32);
    }

    #[test]
    fn a_known_sandbox_answers_what_needs_no_process() {
        let mut service = Service::new("n", "/nosuch".into(), Publisher::new("/nosuch", "n"));
        let mut sandbox = Sandbox {
            id: Some("pod".into()),
            ..Sandbox::default()
        };
        let asked = SandboxRequest {
            sandbox_id: "pod".into(),
        };
        assert_eq!(
            ask(&mut sandbox, &mut service, "PingSandbox", &asked).unwrap(),
            b""
        );
        let platform: PlatformResponse =
            decode(&ask(&mut sandbox, &mut service, "Platform", &asked).unwrap()).unwrap();
        assert_eq!(platform.platform.unwrap().os, "linux");
    }
}
