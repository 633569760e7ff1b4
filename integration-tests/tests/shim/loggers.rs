//! Programs of the host that take a container's output.

use std::time::{Duration, Instant};

use super::{quote, sleeping};
use teu_integration_tests::Scene;
use teu_integration_tests::shim::{Shim, Streams};

/// Reads both streams into files of the scene; says that it is ready by a byte.
fn logger(scene: &Scene, scheme: &str) -> Streams {
    let script = format!(
        "cd {}; cat <&3 >out.log & cat <&4 >err.log & env >env; printf x >&5; exec 5>&-; wait",
        scene.path("").display()
    );
    let address = format!("{scheme}:///bin/sh?-c={}", quote(&script));
    Streams {
        stderr: address.clone(),
        ..Streams::to(address)
    }
}

fn read(scene: &Scene, name: &str) -> Vec<u8> {
    std::fs::read(scene.path(name)).unwrap_or_default()
}

#[test]
fn loggers_get_everything_and_know_whose_it_is() {
    let scene = Scene::new("shim: logger");
    let mut bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    bytes.extend(vec![b'x'; 8 << 20]);
    let script = ["sh", "-c", "cat /data; echo error >&2"];
    let bundle = scene.bundle("logged", &script, |_| {});
    std::fs::write(bundle.join("rootfs/data"), &bytes).unwrap();
    let mut shim = Shim::start_at(&scene, "logged", bundle);
    let pid = shim.pid();
    for scheme in ["binary", "binary-v2"] {
        shim.create(&logger(&scene, scheme)).unwrap();
        shim.start_process("").unwrap();
        assert_eq!(shim.wait(""), Ok(0));
        // The logger has ended when this has.
        shim.delete("").unwrap();
        assert!(read(&scene, "out.log") == bytes, "{scheme}");
        assert_eq!(read(&scene, "err.log"), b"error\n");
        let env = String::from_utf8(read(&scene, "env")).unwrap();
        assert!(env.contains("CONTAINER_ID=logged\n"), "{env}");
        assert!(env.contains("CONTAINER_NAMESPACE=default\n"), "{env}");
    }
    shim.shut_down(pid);
}

#[test]
fn an_exec_and_a_terminal_have_loggers_too() {
    let scene = Scene::new("shim: loggers of execs");
    let mut shim = sleeping(&scene, "execs");
    let mut streams = logger(&scene, "binary-v2");
    shim.exec(
        "plain",
        &["sh", "-c", "echo plain; echo error >&2"],
        &streams,
    )
    .unwrap();
    shim.start_process("plain").unwrap();
    assert_eq!(shim.wait("plain"), Ok(0));
    shim.delete("plain").unwrap();
    assert_eq!(
        (read(&scene, "out.log"), read(&scene, "err.log")),
        (b"plain\n".to_vec(), b"error\n".to_vec())
    );
    let env = String::from_utf8(read(&scene, "env")).unwrap();
    assert!(env.contains("CONTAINER_ID=plain\n"), "{env}");
    streams.terminal = true;
    shim.exec("tty", &["sh", "-c", "echo terminal"], &streams)
        .unwrap();
    shim.start_process("tty").unwrap();
    assert_eq!(shim.wait("tty"), Ok(0));
    shim.delete("tty").unwrap();
    assert_eq!(read(&scene, "out.log"), b"terminal\r\n");
    shim.leave();
}

#[test]
fn a_logger_that_fails_fails_the_container() {
    let scene = Scene::new("shim: failing logger");
    let mut shim = Shim::start(&scene, "failing", &["true"], |_| {});
    let pid = shim.pid();
    let absent = shim
        .create(&Streams::to("binary:///absent/logger"))
        .unwrap_err();
    assert!(absent.message.contains("/absent/logger"), "{absent:?}");
    let silent = shim
        .create(&Streams::to("binary-v2:///bin/true"))
        .unwrap_err();
    assert!(
        silent.message.contains("ended before it was ready"),
        "{silent:?}"
    );
    let unknown = shim.create(&Streams::to("gopher:///x")).unwrap_err();
    assert!(
        unknown.message.contains("unknown scheme \"gopher\""),
        "{unknown:?}"
    );
    // And then it can be made.
    shim.create(&Streams::default()).unwrap();
    shim.start_process("").unwrap();
    assert_eq!(shim.wait(""), Ok(0));
    shim.delete("").unwrap();
    shim.shut_down(pid);
}

/// A logger that does not end with the output is asked to, and then made to.
#[test]
fn a_logger_does_not_outlive_its_container() {
    let scene = Scene::new("shim: stubborn logger");
    let mut shim = Shim::start(&scene, "stubborn", &["true"], |_| {});
    let pid = shim.pid();
    let script = "trap '' TERM; printf x >&5; while :; do sleep 0.1; done";
    shim.create(&Streams::to(format!(
        "binary-v2:///bin/sh?-c={}",
        quote(script)
    )))
    .unwrap();
    shim.start_process("").unwrap();
    assert_eq!(shim.wait(""), Ok(0));
    let begin = Instant::now();
    shim.delete("").unwrap();
    let took = begin.elapsed();
    let seconds = Duration::from_secs;
    assert!((seconds(10)..seconds(16)).contains(&took), "{took:?}");
    shim.shut_down(pid);
}
