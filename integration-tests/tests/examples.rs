//! The two examples of the README, from Dockerfile to supervised container.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use serde_json::Value;
use std::path::Path;
use teu_integration_tests::{Scene, missing_command, skip_unless};

fn example(name: &str) -> String {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    workspace
        .join("builder/examples")
        .join(name)
        .display()
        .to_string()
}

/// Both back-ends of the store, by the flag that forces one.
const BACKENDS: [&str; 2] = ["erofs", "directory"];

#[test]
fn hello_prints_its_line_and_exits_with_its_status() {
    let scene = Scene::new("hello");
    scene
        .run("teu", ["build", "-t", "hello", &example("hello")])
        .succeeds();
    let line = scene
        .run("teu", ["run", "--rm", "--network", "none", "hello"])
        .succeeds();
    assert!(!line.is_empty() && line.lines().count() == 1, "{line}");
    let _ = scene
        .run("teu", ["run", "--rm", "--network", "none", "hello", "7"])
        .exits(7);
}

#[test]
fn hello_runs_from_either_back_end() {
    for backend in BACKENDS {
        let scene = Scene::new(&format!("hello on the {backend} back-end"));
        let build = [
            "--backend",
            backend,
            "build",
            "-t",
            "hello",
            &example("hello"),
        ];
        scene.run("teu-build", build).succeeds();
        scene
            .run("teu", ["run", "--rm", "--network", "none", "hello"])
            .succeeds();
    }
}

#[test]
fn web_serves_the_page_that_a_step_generated() {
    let scene = Scene::new("web");
    scene
        .run(
            "teu",
            [
                "build",
                "-t",
                "web",
                "--build-arg",
                "GREETING=Good day",
                &example("web"),
            ],
        )
        .succeeds();
    scene
        .run(
            "teu",
            ["run", "-d", "--name", "web", "--network", "host", "web"],
        )
        .succeeds();
    let mut page = String::new();
    scene.wait_until("the server answers", || {
        let answer = scene.run("curl", ["-fsS", "http://127.0.0.1:8080/"]);
        page = answer.stdout;
        answer.status.success()
    });
    assert!(page.contains("Good day"), "{page}");
    let user = scene.run("teu", ["exec", "web", "id", "-u"]).succeeds();
    assert_ne!(user, "0");
    scene.run("teu", ["stop", "web"]).succeeds();
    scene.run("teu", ["rm", "web"]).succeeds();
}

#[test]
fn web_is_reached_through_a_published_port() {
    let scene = Scene::new("web published");
    skip_unless!(
        scene,
        Path::new("/usr/lib/cni/bridge").exists() || Path::new("/opt/cni/bin/bridge").exists(),
        "no CNI plugins (package containernetworking-plugins)"
    );
    skip_unless!(
        scene,
        !missing_command("iptables"),
        "no iptables for published ports"
    );
    scene
        .run("teu", ["build", "-t", "web", &example("web")])
        .succeeds();
    scene
        .run(
            "teu",
            ["run", "-d", "--name", "web", "-p", "8081:8080", "web"],
        )
        .succeeds();
    let address = scene
        .shell("ip -4 -o addr show scope global | awk '{sub(\"/.*\", \"\", $4); print $4; exit}'");
    scene.wait_until("the server answers", || {
        scene
            .run(
                "curl",
                ["-fsS", "-m", "2", &format!("http://{address}:8081/")],
            )
            .status
            .success()
    });
    scene.run("teu", ["rm", "-f", "web"]).succeeds();
    assert_eq!(
        scene.shell("iptables -t nat -S | grep -c 8081 || true"),
        "0"
    );
}

#[test]
fn the_image_configuration_is_what_the_dockerfile_says() {
    let scene = Scene::new("web configuration");
    scene
        .run("teu", ["build", "-t", "web", &example("web")])
        .succeeds();
    let shown: Value =
        serde_json::from_str(&scene.run("teu-store", ["inspect", "web"]).succeeds()).unwrap();
    let text = shown.to_string();
    for part in [
        "8080/tcp",
        "Healthcheck",
        "StopSignal",
        "Volumes",
        "Labels",
        "Entrypoint",
        "WorkingDir",
    ] {
        assert!(text.contains(part), "{part} not in {text}");
    }
}

#[test]
fn the_same_context_gives_the_same_digest() {
    let digest = || {
        let scene = Scene::new("reproducible");
        scene
            .run("teu", ["build", "-q", "-t", "web", &example("web")])
            .succeeds()
    };
    assert_eq!(digest(), digest());
}
