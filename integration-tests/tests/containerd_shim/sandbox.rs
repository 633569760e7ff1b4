//! The sandbox service, by the crate's client.

use super::client::{Shim, ask, connect, context, create_request};
use containerd_shim_protos::Client;
use containerd_shim_protos::api::{DeleteRequest, KillRequest, StartRequest, WaitRequest};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, PingRequest, PlatformRequest, SandboxMetricsRequest,
    SandboxStatusRequest, ShutdownSandboxRequest, StartSandboxRequest, StopSandboxRequest,
    WaitSandboxRequest,
};
use containerd_shim_protos::sandbox_sync::SandboxClient;
use teu_integration_tests::Scene;

/// A message with the sandbox's id.
macro_rules! of {
    ($kind:ident) => {
        $kind {
            sandbox_id: "pod".to_owned(),
            ..$kind::default()
        }
    };
}

#[test]
fn a_sandbox_and_a_container_in_it() {
    let scene = Scene::new("shim sandbox");
    let shim = Shim::start(&scene, "pod", &["sleep", "1000"]);
    let sandbox = SandboxClient::new(Client::connect(&shim.address).unwrap());
    assert!(
        sandbox.ping_sandbox(context(), &of!(PingRequest)).is_err(),
        "there is none yet"
    );
    let create = CreateSandboxRequest {
        bundle_path: scene.path("pod").display().to_string(),
        options: MessageField::some(super::options(&scene)),
        ..of!(CreateSandboxRequest)
    };
    sandbox.create_sandbox(context(), &create).unwrap();
    let started = sandbox
        .start_sandbox(context(), &of!(StartSandboxRequest))
        .unwrap();
    assert!(started.pid > 0 && started.created_at.seconds > 0);
    sandbox.ping_sandbox(context(), &of!(PingRequest)).unwrap();
    let platform = sandbox
        .platform(context(), &of!(PlatformRequest))
        .unwrap()
        .platform;
    assert_eq!(platform.os, "linux");
    let status = || {
        sandbox
            .sandbox_status(context(), &of!(SandboxStatusRequest))
            .unwrap()
    };
    assert_eq!(
        (status().state.as_str(), status().pid),
        ("SANDBOX_READY", started.pid)
    );
    let metrics = sandbox
        .sandbox_metrics(context(), &of!(SandboxMetricsRequest))
        .unwrap()
        .metrics;
    assert!(
        metrics.data.type_url.starts_with("io.containerd.cgroups.v"),
        "{metrics:?}"
    );

    a_member(&scene, &shim.address);
    let stop = StopSandboxRequest {
        timeout_secs: 1,
        ..of!(StopSandboxRequest)
    };
    sandbox.stop_sandbox(context(), &stop).unwrap();
    let waited = sandbox
        .wait_sandbox(context(), &of!(WaitSandboxRequest))
        .unwrap();
    assert_eq!(
        waited.exit_status, 137,
        "its first process heeds no SIGTERM"
    );
    assert_eq!(status().state, "SANDBOX_NOTREADY");
    sandbox
        .shutdown_sandbox(context(), &of!(ShutdownSandboxRequest))
        .unwrap();
    shim.end_of_itself();
}

fn a_member(scene: &Scene, address: &str) {
    // A container of the pod needs no `start` of its own.
    scene.bundle("member", &["sleep", "1000"], |_| {});
    let client = connect(address);
    client
        .create(context(), &create_request(scene, "member"))
        .unwrap();
    client
        .start(context(), &ask!(StartRequest, "member"))
        .unwrap();
    client
        .kill(
            context(),
            &KillRequest {
                signal: 9,
                ..ask!(KillRequest, "member")
            },
        )
        .unwrap();
    assert_eq!(
        client
            .wait(context(), &ask!(WaitRequest, "member"))
            .unwrap()
            .exit_status,
        137
    );
    client
        .delete(context(), &ask!(DeleteRequest, "member"))
        .unwrap();
}
