//! System calls refused, compared and killed.

use super::Container;
use serde_json::{Value, json};
use teu_integration_tests::{Scene, skip_unless};

#[test]
fn seccomp_refuses_with_the_chosen_error() {
    let scene = Scene::new("seccomp");
    let container = Container::script(
        &scene,
        "c",
        "mkdir /tmp/d; chmod 700 /tmp; echo alive",
        |config| {
            config["root"]["readonly"] = json!(false);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "syscalls": [
                    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100},
                    {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"},
                ],
            });
        },
    );
    let outcome = container.run().exits(0);
    assert!(outcome.stderr.contains("Network is down"), "{outcome}");
    assert!(
        outcome.stderr.contains("Operation not permitted"),
        "{outcome}"
    );
    assert_eq!(outcome.stdout, "alive\n");
}

#[test]
fn seccomp_compares_arguments_and_kills() {
    let scene = Scene::new("seccomp arguments");
    let container = Container::script(
        &scene,
        "c",
        "kill -CONT 1 && echo allowed; kill -USR1 1; echo not reached",
        |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}],
            });
        },
    );
    let outcome = container.run().exits(159);
    assert_eq!(outcome.stdout, "allowed\n");
}

/// An agent that takes listeners, writes down what came with them, and answers
/// every call with ENOMEDIUM.
const AGENT: &str = r#"
import array, fcntl, os, socket, struct, sys, threading
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(sys.argv[1]); server.listen(4)
def serve(listener):
    while True:
        request = bytearray(80)
        try: fcntl.ioctl(listener, 0xc0502100, request)
        except OSError: return
        number = struct.unpack_from("Q", request)[0]
        answer = bytearray(struct.pack("QqiI", number, 0, -123, 0))
        try: fcntl.ioctl(listener, 0xc0182101, answer)
        except OSError: pass
while True:
    peer, _ = server.accept()
    text, control, _, _ = peer.recvmsg(65536, socket.CMSG_SPACE(4))
    listener = array.array("i", control[0][2][:4])[0]
    with open(sys.argv[2], "a") as record: record.write(text.decode() + "\n")
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
"#;

#[test]
fn an_agent_decides_on_calls_of_run_and_exec() {
    let scene = Scene::new("seccomp agent");
    skip_unless!(
        scene,
        !teu_integration_tests::missing_command("python3"),
        "python3 is the agent"
    );
    let (socket, record) = (scene.path("agent.sock"), scene.path("record"));
    let script = scene.write("agent.py", AGENT);
    let mut agent = scene
        .command("python3", [&script, &socket, &record])
        .spawn()
        .unwrap();
    scene.wait_until("the agent listens", || socket.exists());
    for no_new_privileges in [true, false] {
        let name = format!("c-{no_new_privileges}");
        let container = Container::script(&scene, &name, "sleep 1000", |config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "data",
                "syscalls": [{"names": ["mkdir", "mkdirat", "fcntl"], "action": "SCMP_ACT_NOTIFY"}],
            });
        });
        container.run_detached();
        let outcome = container.exec("mkdir /dev/shm/x");
        assert!(outcome.stderr.contains("No medium found"), "{outcome}");
        let text = std::fs::read_to_string(&record).unwrap();
        let told: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let [.., run, exec] = &told[..] else {
            panic!("two listeners are missing: {text}");
        };
        assert_eq!(run["fds"], json!(["seccompFd"]));
        assert_eq!(run["metadata"], "data");
        assert_eq!(run["pid"], container.state()["pid"]);
        assert_eq!(run["state"]["id"], container.id.as_str());
        assert_ne!(exec["pid"], run["pid"]);
        assert_eq!(exec["state"]["status"], "running");
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn an_agent_that_is_missing_is_named() {
    let scene = Scene::new("seccomp without agent");
    for (path, syscall, words) in [
        ("/no/agent", "mkdir", "failed to connect with seccomp agent"),
        ("@abstract", "mkdir", "failed to connect with seccomp agent"),
        ("", "mkdir", "listenerPath"),
        (
            "/no/agent",
            "write",
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
    ] {
        let container = Container::script(&scene, "c", "true", |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
                "syscalls": [{"names": [syscall], "action": "SCMP_ACT_NOTIFY"}],
            });
        });
        let _ = container.run().fails(1, &[words]);
    }
}
