//! A full Debian base, whose packages come over the network (`make test-net`).
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::path::Path;
use std::time::Duration;
use teu_integration_tests::{Scene, missing_command, skip_unless};

const DOCKERFILE: &str = r#"FROM debian:bookworm
RUN apt-get update && apt-get install -y --no-install-recommends python3
WORKDIR /srv
RUN echo "made in a RUN step" > index.html
EXPOSE 8000
STOPSIGNAL SIGINT
CMD ["python3", "-m", "http.server", "8000"]
"#;

/// Time for a base, an installation of packages and their layer.
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn a_python_service_on_debian_is_built_run_requested_and_stopped() {
    let scene = Scene::on_host_network("debian");
    skip_unless!(
        scene,
        !missing_command("mmdebstrap"),
        "mmdebstrap makes the base"
    );
    let sources = "/etc/apt/sources.list.d/debian.sources";
    let sources = if Path::new(sources).exists() {
        sources
    } else {
        "/etc/apt/sources.list"
    };
    let made = scene.run_within(
        LIMIT,
        "mmdebstrap",
        [
            "--quiet",
            "--variant=minbase",
            "bookworm",
            "base.tar",
            sources,
        ],
    );
    skip_unless!(
        scene,
        made.status.success(),
        "no Debian base: {}",
        made.stderr.lines().last().unwrap_or("?")
    );
    scene
        .run("teu-store", ["import", "base.tar", "debian:bookworm"])
        .succeeds();

    scene.write("app/Dockerfile", DOCKERFILE);
    scene
        .run_within(LIMIT, "teu", ["build", "-t", "service", "app"])
        .succeeds();

    scene
        .run(
            "teu",
            [
                "run",
                "-d",
                "--name",
                "service",
                "--network",
                "host",
                "service",
            ],
        )
        .succeeds();
    let mut page = String::new();
    scene.wait_until("the service answers", || {
        let answer = scene.run("curl", ["-fsS", "http://127.0.0.1:8000/"]);
        page = answer.stdout;
        answer.status.success()
    });
    assert_eq!(page, "made in a RUN step\n");
    scene.run("teu", ["stop", "service"]).succeeds();
    let log = scene.run("teu", ["logs", "service"]);
    assert!(
        format!("{}{}", log.stdout, log.stderr).contains("GET / HTTP/1.1"),
        "{log}"
    );
    scene.run("teu", ["rm", "service"]).succeeds();
}
