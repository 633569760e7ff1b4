//! docker-compose: services that are built, share a volume and speak over a network.

use super::Docker;
use crate::Shim;
use teu_integration_tests::{Outcome, Scene, missing_command, skip_unless};

const FILE: &str = r#"
version: "3.7"
services:
  web:
    build: {context: web, network: none}
    image: scene-web
    networks: [inner]
    volumes: ["data:/data"]
    environment: {GREETING: served}
    healthcheck: {test: [CMD, test, -e, /data/index.html], interval: 100ms}
  client:
    image: busybox
    depends_on: [web]
    networks: [inner]
    volumes: ["data:/data:ro"]
    command: [sh, -c, "until wget -qO /tmp/page http://web:8080/ 2>/dev/null; do sleep 0.1; done; echo read $$(cat /tmp/page); exec sleep 1000"]
networks: {inner: {}}
volumes: {data: {}}
"#;
const DOCKERFILE: &str = "FROM busybox\nRUN mkdir /data && echo of the image > /data/built\n\
    CMD [\"sh\", \"-c\", \"echo $GREETING > /data/index.html; exec httpd -f -p 8080 -h /data\"]\n";

#[test]
fn two_services_with_a_network_and_a_volume() {
    let scene = Scene::new("docker-compose");
    skip_unless!(
        scene,
        !missing_command("docker-compose"),
        "no docker-compose"
    );
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    scene.write("compose.yml", FILE);
    scene.write("web/Dockerfile", DOCKERFILE);
    let compose = |line: &str| -> Outcome {
        let own = docker.own_words();
        let own = own[..2].iter().map(String::as_str);
        let name = ["docker-compose", "-p", "scene", "-f", "compose.yml"];
        let words = own.chain(name).chain(line.split(' '));
        scene.run("env", words.collect::<Vec<_>>())
    };
    compose("up -d --build").succeeds();
    // Their names have other signs between the parts in compose's second version.
    let [client, web] = ["client", "web"].map(|service| {
        let filter = format!("label=com.docker.compose.service={service}");
        docker.call(&["ps", "-q", "--filter", &filter]).succeeds()
    });
    scene.wait_until("the one reads what the other serves", || {
        docker.line(&format!("logs {client}")).stdout == "read served\n"
    });
    scene.wait_until("it is healthy", || {
        docker.inspect(&web, "State.Health.Status") == "healthy"
    });
    assert_eq!(
        compose("exec -T client cat /data/built").succeeds(),
        "of the image"
    );
    let logs = compose("logs --no-color client").succeeds();
    assert!(logs.contains("read served"), "{logs}");
    // One more of a service has the same name on the network, and its own address.
    compose("up -d --scale web=2").succeeds();
    let addresses = "exec -T client nslookup web 127.0.0.11";
    scene.wait_until("both are found", || {
        let out = compose(addresses).stdout;
        out.lines()
            .filter(|line| line.starts_with("Address") && !line.contains("127.0.0.11"))
            .count()
            == 2
    });
    compose("restart -t 0 web").succeeds();
    compose("stop -t 0").succeeds();
    assert_eq!(docker.line("ps -q").succeeds(), "");
    compose("down -v -t 0").succeeds();
    assert_eq!(docker.line("ps -aq").succeeds(), "");
    assert_eq!(docker.line("volume ls -q").succeeds(), "");
    let networks = docker.line("network ls -q --filter type=custom");
    assert_eq!(networks.succeeds(), "");
}
