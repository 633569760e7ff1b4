//! containerd-shim-teu-v2 alone: what it says when it is started, and what it answers
//! to a client that others wrote (the crate containerd-shim-protos).
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use teu_integration_tests::Scene;

mod bootstrap;
mod client;
mod containerd2;
mod hostile;
mod sandbox;
mod task;

/// What `start` is given on standard input, and beside it.
struct Start<'a> {
    id: &'a str,
    input: &'a [u8],
    environment: &'a [(&'a str, &'a str)],
}

impl<'a> Start<'a> {
    fn new(id: &'a str, input: &'a [u8]) -> Self {
        Self {
            id,
            input,
            environment: &[],
        }
    }

    /// Executes it in the bundle called as the container, as containerd does; its standard output.
    fn run(&self, scene: &Scene) -> Vec<u8> {
        let command = self.command(scene, "start");
        finish(command, self.input)
    }

    fn command(&self, scene: &Scene, action: &str) -> std::process::Command {
        let address = scene.path("containerd.sock").display().to_string();
        let words = [
            "-namespace",
            "tests",
            "-address",
            &address,
            "-publish-binary",
            "/bin/false",
            "-id",
            self.id,
            action,
        ];
        let mut command = scene.command("containerd-shim-teu-v2", words);
        command.current_dir(scene.path(self.id));
        command.env("TTRPC_ADDRESS", scene.path("containerd.sock.ttrpc"));
        command.envs(self.environment.iter().copied());
        command
    }
}

/// Runs `command` with this input; its output, which is all that it says.
fn finish(mut command: std::process::Command, input: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    let out = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success() && errors.is_empty(),
        "{command:?}: {errors}"
    );
    out.stdout
}

/// `containerd.runc.v1.Options { root }`: what the runtime knows stays in the scene.
fn options(scene: &Scene) -> Any {
    let root = scene.path("runc").display().to_string();
    let mut value = vec![0x3a, u8::try_from(root.len()).unwrap()]; // field 7, a string
    value.extend(root.as_bytes());
    Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value,
        ..Any::default()
    }
}

/// The socket of an address.
fn socket(address: &str) -> PathBuf {
    PathBuf::from(address.strip_prefix("unix://").unwrap())
}

/// Tells the shim at `address` to leave, and waits until its socket is gone.
fn shut_down(scene: &Scene, address: &str, id: &str) {
    use containerd_shim_protos::api::ShutdownRequest;
    let client = client::connect(address);
    let request = ShutdownRequest {
        id: id.to_owned(),
        ..ShutdownRequest::default()
    };
    client.shutdown(client::context(), &request).unwrap();
    wait_until_gone(scene, &socket(address));
}

fn wait_until_gone(scene: &Scene, socket: &Path) {
    scene.wait_until("the socket is gone", || !socket.exists());
}
