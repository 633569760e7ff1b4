//! The task service, both names of it, by the crate's client.

use std::path::PathBuf;

use super::client::{
    LIMIT_NANOSECONDS, Shim, ask, code_of, connect, context, create_request, exec,
};
use containerd_shim_protos::api::{
    ConnectRequest, CreateTaskRequest, DeleteRequest, KillRequest, PidsRequest, StartRequest,
    StateRequest, StateResponse, Status, WaitRequest,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{EnumOrUnknown, Message as _, MessageField};
use containerd_shim_protos::ttrpc::{self, Code};
use containerd_shim_protos::{Client, TaskClient};
use teu_integration_tests::Scene;

#[test]
fn a_whole_life() {
    let scene = Scene::new("shim life");
    let shim = Shim::start(&scene, "one", &["sh", "-c", "echo said; exec sleep 1000"]);
    let client = connect(&shim.address);
    let created = client
        .create(context(), &create_request(&scene, "one"))
        .unwrap();
    assert!(created.pid > 0);
    let state = |exec: &str| -> StateResponse {
        client
            .state(context(), &ask!(StateRequest, "one", exec))
            .unwrap()
    };
    assert_eq!(state("").status, EnumOrUnknown::new(Status::CREATED));
    assert_eq!(
        client
            .start(context(), &ask!(StartRequest, "one"))
            .unwrap()
            .pid,
        created.pid
    );
    assert_eq!(
        (state("").status, state("").pid),
        (EnumOrUnknown::new(Status::RUNNING), created.pid)
    );
    let connected = client
        .connect(context(), &ask!(ConnectRequest, "one"))
        .unwrap();
    assert!(connected.shim_pid > 0 && connected.task_pid == created.pid);

    an_exec(&scene, &client);
    let pid = std::fs::read_to_string(scene.path("one/init.pid")).unwrap();
    assert_eq!(pid.trim(), created.pid.to_string());
    let said = || std::fs::read_to_string(scene.path("out")).unwrap();
    scene.wait_until("it has said so", || said() == "said\n");
    let pids = client.pids(context(), &ask!(PidsRequest, "one")).unwrap();
    assert_eq!(
        pids.processes
            .iter()
            .map(|process| process.pid)
            .collect::<Vec<_>>(),
        [created.pid]
    );
    let kill = KillRequest {
        signal: 9,
        ..ask!(KillRequest, "one")
    };
    client.kill(context(), &kill).unwrap();
    assert_eq!(
        client
            .wait(context(), &ask!(WaitRequest, "one"))
            .unwrap()
            .exit_status,
        137
    );
    assert_eq!(state("").status, EnumOrUnknown::new(Status::STOPPED));
    let deleted = client
        .delete(context(), &ask!(DeleteRequest, "one"))
        .unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (created.pid, 137));
    assert!(deleted.exited_at.seconds > 0);
    shim.wait_for(&[
        "create",
        "start",
        "exec-added",
        "exec-started",
        "exit",
        "exit",
        "delete",
    ]);
    shim.end("one");
}

/// Called `init`, which must not be confused with the container's first process.
fn an_exec(scene: &Scene, client: &TaskClient) {
    client
        .exec(
            context(),
            &exec(scene, "init", &["sh", "-c", "echo $0; exit 4"]),
        )
        .unwrap();
    let started = client
        .start(context(), &ask!(StartRequest, "one", "init"))
        .unwrap();
    let waited = client
        .wait(context(), &ask!(WaitRequest, "one", "init"))
        .unwrap();
    assert_eq!(waited.exit_status, 4);
    let deleted = client
        .delete(context(), &ask!(DeleteRequest, "one", "init"))
        .unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (started.pid, 4));
    assert_eq!(
        std::fs::read_to_string(scene.path("exec-out")).unwrap(),
        "sh\n"
    );
}

#[test]
fn what_cannot_be_done_is_said_with_a_code() {
    let scene = Scene::new("shim codes");
    let shim = Shim::start(&scene, "one", &["sleep", "1000"]);
    let client = connect(&shim.address);
    let missing = code_of(client.start(context(), &ask!(StartRequest, "one")));
    assert_eq!(
        missing,
        (
            Code::NOT_FOUND,
            "container not created: not found".to_owned()
        )
    );
    client
        .create(context(), &create_request(&scene, "one"))
        .unwrap();
    let (code, _) = code_of(client.create(context(), &create_request(&scene, "one")));
    assert_eq!(code, Code::ALREADY_EXISTS);
    let (code, _) = code_of(client.state(context(), &ask!(StateRequest, "one", "nosuch")));
    assert_eq!(code, Code::NOT_FOUND);
    client
        .exec(context(), &exec(&scene, "e", &["true"]))
        .unwrap();
    let (code, _) = code_of(client.exec(context(), &exec(&scene, "e", &["true"])));
    assert_eq!(code, Code::ALREADY_EXISTS);
    let (code, _) = code_of(client.exec(context(), &exec(&scene, "../e", &["true"])));
    assert_eq!(code, Code::INVALID_ARGUMENT);
    let (code, _) = code_of(client.kill(
        context(),
        &KillRequest {
            signal: 9,
            ..ask!(KillRequest, "one", "e")
        },
    ));
    assert_eq!(code, Code::FAILED_PRECONDITION);
    client
        .delete(context(), &ask!(DeleteRequest, "one"))
        .unwrap();
    shim.end("one");
}

#[test]
fn what_does_not_fit_the_state_is_said_in_known_words() {
    let scene = Scene::new("shim words");
    let shim = Shim::start(&scene, "one", &["sleep", "1000"]);
    let client = connect(&shim.address);
    client
        .create(context(), &create_request(&scene, "one"))
        .unwrap();
    client
        .exec(context(), &exec(&scene, "e", &["true"]))
        .unwrap();
    client.start(context(), &ask!(StartRequest, "one")).unwrap();
    let words = code_of(client.delete(context(), &ask!(DeleteRequest, "one")));
    assert_eq!(
        words,
        (Code::UNKNOWN, "cannot delete a running process".to_owned())
    );
    client
        .exec(context(), &exec(&scene, "bad", &["/nosuch"]))
        .unwrap();
    let (code, text) = code_of(client.start(context(), &ask!(StartRequest, "one", "bad")));
    assert!(
        code == Code::UNKNOWN && text.starts_with("OCI runtime exec failed: "),
        "{text}"
    );
    assert!(text.contains("no such file or directory"), "{text}");
    client
        .kill(
            context(),
            &KillRequest {
                signal: 9,
                ..ask!(KillRequest, "one")
            },
        )
        .unwrap();
    client.wait(context(), &ask!(WaitRequest, "one")).unwrap();
    let words = code_of(client.kill(
        context(),
        &KillRequest {
            signal: 9,
            ..ask!(KillRequest, "one")
        },
    ));
    assert_eq!(
        words,
        (
            Code::NOT_FOUND,
            "process already finished: not found".to_owned()
        )
    );
    let (code, _) = code_of(client.start(context(), &ask!(StartRequest, "one", "e")));
    assert_eq!(code, Code::FAILED_PRECONDITION);
    client
        .delete(context(), &ask!(DeleteRequest, "one"))
        .unwrap();
    shim.end("one");
}

#[test]
fn the_third_version_has_the_same_messages() {
    let scene = Scene::new("shim v3");
    let shim = Shim::start(&scene, "one", &["sh", "-c", "exit 5"]);
    let client = Client::connect(&shim.address).unwrap();
    let call = |service: &str, method: &str, payload: Vec<u8>| {
        let mut request = ttrpc::Request::new();
        request.service = service.to_owned();
        request.method = method.to_owned();
        request.payload = payload;
        request.timeout_nano = LIMIT_NANOSECONDS;
        client.request(request)
    };
    let v3 = |method: &str, payload: Vec<u8>| {
        call("containerd.task.v3.Task", method, payload)
            .unwrap()
            .payload
    };
    v3(
        "Create",
        create_request(&scene, "one").write_to_bytes().unwrap(),
    );
    let one = b"\x0a\x03one".to_vec();
    v3("Start", one.clone());
    assert_eq!(v3("Wait", one.clone())[..2], *b"\x08\x05");
    v3("Delete", one.clone());
    for (service, method) in [
        ("containerd.task.v3.Task", "Events"),
        ("containerd.task.v4.Task", "State"),
        ("", ""),
    ] {
        assert_eq!(
            code_of(call(service, method, one.clone())).0,
            Code::UNIMPLEMENTED,
            "{service} {method}"
        );
    }
    shim.end("one");
}

#[test]
fn a_program_that_ends_at_once_is_told_in_order() {
    let scene = Scene::new("shim short");
    let shim = Shim::start(&scene, "one", &["true"]);
    let client = connect(&shim.address);
    let mut expected = Vec::new();
    for round in 0..20 {
        client
            .create(context(), &create_request(&scene, "one"))
            .unwrap();
        client.start(context(), &ask!(StartRequest, "one")).unwrap();
        assert_eq!(
            client
                .wait(context(), &ask!(WaitRequest, "one"))
                .unwrap()
                .exit_status,
            0,
            "round {round}"
        );
        client
            .delete(context(), &ask!(DeleteRequest, "one"))
            .unwrap();
        expected.extend(["create", "start", "exit", "delete"]);
    }
    shim.wait_for(&expected);
    shim.end("one");
}

#[test]
fn a_container_that_was_never_started_is_deleted_with_its_true_status() {
    let scene = Scene::new("shim created");
    let shim = Shim::start(&scene, "one", &["true"]);
    let client = connect(&shim.address);
    client
        .create(context(), &create_request(&scene, "one"))
        .unwrap();
    let deleted = client
        .delete(context(), &ask!(DeleteRequest, "one"))
        .unwrap();
    assert_eq!(deleted.exit_status, 137);
    let left: Vec<PathBuf> = std::fs::read_dir(scene.path("runc/tests"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    shim.wait_for(&["create", "exit", "delete"]);
    shim.end("one");
}

#[test]
fn options_may_come_as_cri_passes_them_on() {
    let scene = Scene::new("shim toml");
    let shim = Shim::start(&scene, "one", &["true"]);
    let client = connect(&shim.address);
    let create = |table: &str| {
        let mut value = vec![0x1a, u8::try_from(table.len()).unwrap()]; // field 3, bytes
        value.extend(table.as_bytes());
        let options = Any {
            type_url: "runtimeoptions.v1.Options".to_owned(),
            value,
            ..Any::default()
        };
        let request = CreateTaskRequest {
            options: MessageField::some(options),
            ..create_request(&scene, "one")
        };
        client.create(context(), &request)
    };
    let (code, text) = code_of(create("Rooot = \"/x\"\n"));
    assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
    assert!(
        text.starts_with("options: Rooot is not one of BinaryName, "),
        "{text}"
    );
    let root = scene.path("elsewhere");
    create(&format!("Root = {root:?}\nSystemdCgroup = false\n")).unwrap();
    assert!(root.join("tests/one").exists());
    client
        .delete(context(), &ask!(DeleteRequest, "one"))
        .unwrap();
    shim.end("one");
}
