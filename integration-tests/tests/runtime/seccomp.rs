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
pub(super) const AGENT: &str = r#"
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

/// Where the programs below are loaded.
const BASE: u32 = 0x0010_0000;

/// A static 32-bit program that makes /tmp/d by `int 0x80` and exits with the
/// errno.
fn i386_program() -> Vec<u8> {
    let mut code = vec![0xb8, 39, 0, 0, 0]; // mov eax, mkdir
    code.extend([0xbb]); // mov ebx, path
    code.extend((BASE + 0x200).to_le_bytes());
    code.extend([0xb9, 0xc0, 1, 0, 0]); // mov ecx, 0700
    code.extend([0xcd, 0x80]); // int 0x80
    code.extend([0x89, 0xc3, 0xf7, 0xdb]); // mov ebx, eax; neg ebx
    code.extend([0xb8, 1, 0, 0, 0, 0xcd, 0x80]); // exit
    let mut header = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    for word in [1, BASE + 0x100, 52, 0, 0] {
        header.extend(u32::to_le_bytes(word)); // version, entry, program headers, sections, flags
    }
    for half in [52, 32, 1, 0, 0, 0] {
        header.extend(u16::to_le_bytes(half)); // sizes and counts of the headers
    }
    for word in [1, 0, BASE, BASE, 0x300, 0x300, 5, 0x1000] {
        header.extend(u32::to_le_bytes(word)); // load all of it, readable and executable
    }
    program(header, &code)
}

/// A static 64-bit program that does so by the system call of that number.
fn x86_64_program(number: u32) -> Vec<u8> {
    let mut code = vec![0xb8]; // mov eax, number
    code.extend(number.to_le_bytes());
    code.extend([0xbf]); // mov edi, path
    code.extend((BASE + 0x200).to_le_bytes());
    code.extend([0xbe, 0xc0, 1, 0, 0]); // mov esi, 0700
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0x89, 0xc7, 0xf7, 0xdf]); // mov edi, eax; neg edi
    code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // exit
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [u64::from(BASE) + 0x100, 64, 0] {
        header.extend(word.to_le_bytes()); // entry, program headers, sections
    }
    header.extend([0; 4]); // flags
    for half in [64, 56, 1, 0, 0, 0] {
        header.extend(u16::to_le_bytes(half));
    }
    header.extend([1, 0, 0, 0, 5, 0, 0, 0]); // load, readable and executable
    for word in [0, u64::from(BASE), u64::from(BASE), 0x300, 0x300, 0x1000] {
        header.extend(word.to_le_bytes());
    }
    program(header, &code)
}

/// The header, the code at 0x100 and the path at 0x200.
fn program(header: Vec<u8>, code: &[u8]) -> Vec<u8> {
    let mut program = header;
    program.resize(0x100, 0);
    program.extend(code);
    program.resize(0x200, 0);
    program.extend(b"/tmp/d");
    program.resize(0x300, 0);
    program
}

/// What `program` exits with under a profile that refuses `syscall`.
fn exit_under(scene: &Scene, program: &[u8], syscall: &str, architectures: &[Value]) -> i32 {
    use std::os::unix::fs::PermissionsExt;
    let container = Container::new(scene, "c", &["/program"], |config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures,
            "syscalls": [{"names": [syscall], "action": "SCMP_ACT_ERRNO", "errnoRet": 100}],
        });
    });
    let root = container.bundle.join("rootfs");
    let _ = std::fs::remove_dir(root.join("tmp/d")); // the container before may have made it
    let path = root.join("program");
    std::fs::write(&path, program).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    container.run().code()
}

#[test]
fn every_abi_of_the_machine_is_filtered_if_the_profile_names_it_and_else_kills() {
    let scene = Scene::new("seccomp abis");
    skip_unless!(
        scene,
        cfg!(target_arch = "x86_64"),
        "the programs are those of an x86-64 machine"
    );
    let archs = |names: &[&str]| -> Vec<Value> {
        let full = |name| json!(format!("SCMP_ARCH_{name}"));
        names.iter().map(full).collect()
    };
    let exit = |program: &[u8], names: &[&str]| exit_under(&scene, program, "mkdir", &archs(names));
    let (native, x32) = (x86_64_program(83), x86_64_program(0x4000_0000 | 83));
    assert_eq!(exit_under(&scene, &native, "rmdir", &[]), 0);
    assert_eq!(exit(&native, &[]), 100);
    assert_eq!(exit(&native, &["X86_64", "X86", "X32"]), 100);
    assert_eq!(exit(&x32, &["X86_64", "X86", "X32"]), 100);
    assert_eq!(exit(&x32, &["X86_64", "X86"]), 159);
    let compat = i386_program();
    let unrefused = exit_under(&scene, &compat, "rmdir", &archs(&["X86"]));
    skip_unless!(scene, unrefused != 1, "the kernel runs no 32-bit programs");
    assert_eq!(unrefused, 0);
    assert_eq!(exit(&compat, &["X86_64", "X86", "S390X"]), 100);
    assert_eq!(exit(&compat, &["X86_64"]), 159);
}

#[test]
fn architectures_of_other_machines_change_nothing() {
    let scene = Scene::new("seccomp foreign");
    let features = scene.run("teu-runtime", ["features"]).succeeds();
    let features: Value = serde_json::from_str(&features).unwrap();
    let known = features["linux"]["seccomp"]["archs"].clone();
    let container = Container::script(&scene, "c", "mkdir /tmp/d; echo alive", |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": known,
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100}],
        });
    });
    let outcome = container.run().exits(0);
    assert!(outcome.stderr.contains("Network is down"), "{outcome}");
    assert_eq!(outcome.stdout, "alive\n");
}
