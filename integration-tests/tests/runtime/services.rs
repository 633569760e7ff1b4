//! Containers that are services: their readiness is told to their manager.

use super::Container;
use serde_json::json;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use teu_integration_tests::Scene;

/// The service manager's socket.
fn manager(scene: &Scene) -> UnixDatagram {
    let manager = UnixDatagram::bind(scene.path("manager")).unwrap();
    // Longer than any answer takes; only a hang ends it.
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    manager
}

fn heard(manager: &UnixDatagram) -> String {
    let mut message = [0; 256];
    // A descriptor that comes along is closed at once: that is the answer to it.
    let length = manager.recv(&mut message).unwrap();
    String::from_utf8_lossy(&message[..length]).into_owned()
}

/// A service that says that it is ready, and goes on. What busybox can write
/// to a socket is a system log: after its first line comes our message.
fn service<'a>(scene: &'a Scene, id: &str) -> Container<'a> {
    let script = "ln -s $NOTIFY_SOCKET /dev/log; logger 'up\nREADY=1\n'; exec sleep 1000";
    let script = script.replace("\\n", "\n");
    Container::script(scene, id, &script, |config| {
        config["root"]["readonly"] = json!(false);
    })
}

/// Starts a verb in the background, with the manager's socket.
fn background(scene: &Scene, line: &str) {
    let manager = scene.path("manager");
    let log = scene.path("log");
    let line = format!(
        "NOTIFY_SOCKET={} {line} >/dev/null 2>{} </dev/null &",
        manager.display(),
        log.display()
    );
    scene.run("sh", ["-c", line.as_str()]).succeeds();
}

/// The manager hears that the service is ready, whom to watch, and a barrier.
fn hears_that_it_is_ready(manager: &UnixDatagram) -> String {
    assert_eq!(heard(manager), "READY=1\n");
    let watched = heard(manager);
    assert_eq!(heard(manager), "BARRIER=1");
    watched
}

#[test]
fn a_manager_hears_that_a_started_container_is_ready() {
    let scene = Scene::new("readiness");
    let manager = manager(&scene);
    let run = service(&scene, "run");
    background(&scene, &run.line("run --detach"));
    let watched = hears_that_it_is_ready(&manager);
    assert_eq!(watched, format!("MAINPID={}\n", run.state()["pid"]));
    let created = service(&scene, "created");
    let line = created.line("create");
    let created_by = format!(
        "NOTIFY_SOCKET={} {line} >/dev/null 2>&1",
        scene.path("manager").display()
    );
    scene.run("sh", ["-c", created_by.as_str()]).succeeds();
    let start = line.split(" create ").next().unwrap();
    background(&scene, &format!("{start} start {}", created.id));
    let watched = hears_that_it_is_ready(&manager);
    assert_eq!(watched, format!("MAINPID={}\n", created.state()["pid"]));
    for container in [run, created] {
        container.call(&["delete", "--force"], &[]).succeeds();
    }
    manager.set_nonblocking(true).unwrap();
    assert_eq!(
        manager.recv(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn a_container_that_ends_unready_is_not_waited_for() {
    let scene = Scene::new("never ready");
    let manager = manager(&scene);
    let container = Container::new(&scene, "c", &["/bin/true"], |config| {
        config["root"]["readonly"] = json!(false);
    });
    let line = container.line("run");
    let line = format!("NOTIFY_SOCKET={} {line}", scene.path("manager").display());
    scene.run("sh", ["-c", line.as_str()]).succeeds();
    manager.set_nonblocking(true).unwrap();
    assert_eq!(
        manager.recv(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}
