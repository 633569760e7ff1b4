//! A client of the shim, and who takes its events, both by the crate containerd-shim-protos.

use std::sync::{Arc, Mutex};

use super::{Start, options, socket, wait_until_gone};
use containerd_shim_protos::api::{
    ConnectRequest, CreateTaskRequest, Empty, ExecProcessRequest, ForwardRequest, ShutdownRequest,
};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::{self, Code, context::Context};
use containerd_shim_protos::{Client, Events, TaskClient, create_events};
use teu_integration_tests::Scene;

/// Longest time a call may take.
pub(crate) const LIMIT_NANOSECONDS: i64 = 20_000_000_000;

pub(crate) fn context() -> Context {
    ttrpc::context::with_timeout(LIMIT_NANOSECONDS)
}

pub(crate) fn connect(address: &str) -> TaskClient {
    TaskClient::new(Client::connect(address).unwrap())
}

/// Takes events as containerd does.
#[derive(Default)]
struct Received(Mutex<Vec<String>>);

impl Events for Received {
    fn forward(&self, _: &ttrpc::TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let envelope = request.envelope;
        assert_eq!(envelope.namespace, "tests");
        assert!(envelope.timestamp.seconds > 0);
        let name = envelope.event.type_url.clone();
        assert!(name.starts_with("containerd.events.Task"), "{name}");
        self.0.lock().unwrap().push(envelope.topic.clone());
        Ok(Empty::new())
    }
}

/// A shim with a container's bundle, and who takes its events.
pub(crate) struct Shim<'a> {
    scene: &'a Scene,
    pub(crate) address: String,
    pid: u32,
    received: Arc<Received>,
    server: ttrpc::Server,
}

impl<'a> Shim<'a> {
    pub(crate) fn start(scene: &'a Scene, id: &str, program: &[&str]) -> Self {
        scene.bundle(id, program, |_| {});
        let received = Arc::new(Received::default());
        let at = format!("unix://{}", scene.path("containerd.sock.ttrpc").display());
        let service = create_events(Arc::clone(&received) as Arc<dyn Events + Send + Sync>);
        let mut server = ttrpc::Server::new()
            .bind(&at)
            .unwrap()
            .register_service(service);
        server.start().unwrap();
        let address = String::from_utf8(Start::new(id, b"").run(scene)).unwrap();
        let asked = connect(&address).connect(context(), &ConnectRequest::default());
        Self {
            scene,
            pid: asked.unwrap().shim_pid,
            address,
            received,
            server,
        }
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.received.0.lock().unwrap().clone()
    }

    /// Waits for these topics, and no others.
    pub(crate) fn wait_for(&self, topics: &[&str]) {
        let expected: Vec<String> = topics
            .iter()
            .map(|topic| format!("/tasks/{topic}"))
            .collect();
        self.scene
            .wait_until(&format!("{expected:?}, not {:?}", self.events()), || {
                self.events() == expected
            });
    }

    /// It leaves.
    pub(crate) fn end(self, id: &str) {
        let request = ShutdownRequest {
            id: id.to_owned(),
            ..ShutdownRequest::default()
        };
        // Its end may be seen before its answer.
        let _ = connect(&self.address).shutdown(context(), &request);
        self.end_of_itself();
    }

    /// It was told to leave before.
    pub(crate) fn end_of_itself(mut self) {
        wait_until_gone(self.scene, &socket(&self.address));
        // It may have events to deliver still.
        let stat = format!("/proc/{}/stat", self.pid);
        self.scene.wait_until("the shim is gone", || {
            std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
        });
        self.server = std::mem::take(&mut self.server).stop_listen();
        self.server.disconnect();
    }
}

pub(crate) fn create_request(scene: &Scene, id: &str) -> CreateTaskRequest {
    CreateTaskRequest {
        id: id.to_owned(),
        bundle: scene.path(id).display().to_string(),
        options: MessageField::some(options(scene)),
        stdout: format!("file://{}", scene.path("out").display()),
        ..CreateTaskRequest::default()
    }
}

pub(crate) fn code_of<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (Code, String) {
    match result.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message),
        other => panic!("{other:?}"),
    }
}

/// A message with an id and an exec id.
macro_rules! ask {
    ($kind:ident, $id:expr) => {
        $kind {
            id: $id.to_owned(),
            ..$kind::default()
        }
    };
    ($kind:ident, $id:expr, $exec:expr) => {
        $kind {
            id: $id.to_owned(),
            exec_id: $exec.to_owned(),
            ..$kind::default()
        }
    };
}
pub(crate) use ask;

pub(crate) fn exec(scene: &Scene, exec: &str, args: &[&str]) -> ExecProcessRequest {
    let mut config = teu_integration_tests::fixture::minimal_config(args);
    ExecProcessRequest {
        id: "one".to_owned(),
        exec_id: exec.to_owned(),
        stdout: format!("file://{}", scene.path("exec-out").display()),
        spec: MessageField::some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: config["process"].take().to_string().into_bytes(),
            ..Any::default()
        }),
        ..ExecProcessRequest::default()
    }
}
