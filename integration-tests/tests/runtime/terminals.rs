//! Terminals and their sockets.

use super::Container;
use serde_json::json;
use teu_integration_tests::{Scene, skip_unless};

#[test]
fn a_terminal_comes_over_the_console_socket() {
    let scene = Scene::new("console");
    let container = Container::script(&scene, "c", "tty; stty size; echo done", |config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 10, "width": 110});
    });
    let receiver = r#"
import array, os, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(sys.argv[1]); server.listen(1); print("listening", flush=True)
peer, _ = server.accept()
_, control, _, _ = peer.recvmsg(4096, socket.CMSG_SPACE(4))
master = array.array("i", control[0][2][:4])[0]
out = b""
while True:
    try: part = os.read(master, 4096)
    except OSError: break
    if not part: break
    out += part
sys.stdout.write(repr(out.decode()))
"#;
    skip_unless!(
        scene,
        !teu_integration_tests::missing_command("python3"),
        "python3 receives the terminal"
    );
    let socket = scene.path("console.sock");
    let script = scene.write("receive.py", receiver);
    let line = format!(
        "python3 {} {socket} > got & receiver=$!; while [ ! -S {socket} ]; do sleep 0.01; done; {} --console-socket {socket}; {} ; wait $receiver; cat got",
        script.display(),
        container.line("create"),
        container
            .line("start")
            .replace(&format!(" -b {}", container.bundle.display()), ""),
        socket = socket.display(),
    );
    let out = scene.shell(&line);
    assert!(
        // With carriage returns: a terminal as it is born.
        out.contains(r"/dev/pts/0\r\n10 110\r\ndone\r\n"),
        "{out}"
    );
}

#[test]
fn a_terminal_needs_a_socket_when_detached() {
    let scene = Scene::new("console missing");
    let container = Container::script(&scene, "c", "true", |config| {
        config["process"]["terminal"] = json!(true)
    });
    let outcome = container.call(&["create", "-b", container.bundle.to_str().unwrap()], &[]);
    let _ = outcome.fails(1, &["console"]);
}
