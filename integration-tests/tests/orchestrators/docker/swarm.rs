//! A swarm of one: services scaled and updated. Its routing mesh and virtual addresses need the
//! kernel's IP_VS, which not every machine has: services are found by their tasks' addresses
//! (`dnsrr`), and ports are the host's.

use super::Docker;
use crate::Shim;
use teu_integration_tests::{Scene, missing_command, skip_unless};

#[test]
fn a_service_is_scaled_and_updated() {
    let scene = Scene::new("docker swarm");
    skip_unless!(scene, !missing_command("dockerd"), "no dockerd");
    let docker = Docker::start(&scene, Shim::Ours, false);
    docker
        .line("swarm init --advertise-addr 127.0.0.1")
        .succeeds();
    docker
        .line("network create -d overlay --attachable inner")
        .succeeds();
    let words = "service create -q -d --no-resolve-image --name web --endpoint-mode dnsrr --network inner \
                 --replicas 2 --limit-memory 64m --stop-signal KILL --restart-delay 100ms --env WORD=first \
                 --update-parallelism 0 --update-monitor 100ms --rollback-parallelism 0 --rollback-monitor 100ms busybox";
    docker.script(words, SERVE).succeeds();
    let running = |count: usize| {
        let what = format!("{count} tasks run");
        scene.wait_until(&what, || tasks(&docker).len() == count);
    };
    running(2);
    docker.line("service scale -d web=3").succeeds();
    running(3);
    // Found by name from a container on the same network: three addresses, one word.
    let client = "run -d --name client --network inner busybox";
    docker.script(client, super::LOOP).succeeds();
    let addresses = || {
        let out = docker
            .line("exec client nslookup tasks.web 127.0.0.11")
            .stdout;
        let lines = out
            .lines()
            .filter(|line| line.starts_with("Address") && !line.contains("127.0.0.11"));
        lines.count()
    };
    scene.wait_until("three addresses are known", || addresses() == 3);
    let word = || {
        docker
            .line("exec client wget -qO- http://web:8080/")
            .stdout
            .trim()
            .to_owned()
    };
    scene.wait_until("it answers", || word() == "first");

    replaced_and_updated(&docker);
    scene.wait_until("the new ones answer", || word() == "second");
    docker.line("service rollback -q -d web").succeeds();
    scene.wait_until("it answers as before", || word() == "first");

    ports_of_the_host(&docker);
    docker.line("service rm web door").succeeds();
    docker.line("rm -f client").succeeds();
    scene.wait_until("no task is left", || {
        docker.line("ps -aq").succeeds().is_empty()
    });
    docker.line("network rm inner").succeeds();
    docker.line("swarm leave --force").succeeds();
}

/// A task that dies is replaced; an update replaces all.
fn replaced_and_updated(docker: &Docker<'_>) {
    let victim = tasks(docker).remove(0);
    docker.line(&format!("kill {victim}")).succeeds();
    docker.scene.wait_until("another takes its place", || {
        let now = tasks(docker);
        now.len() == 3 && !now.contains(&victim)
    });
    let before = tasks(docker);
    docker
        .line(
            "service update -q -d --no-resolve-image --env-add WORD=second --limit-memory 32m web",
        )
        .succeeds();
    docker.scene.wait_until("all are new", || {
        let now = tasks(docker);
        now.len() == 3 && now.iter().all(|id| !before.contains(id))
    });
    for id in tasks(docker) {
        assert_eq!(
            crate::cgroup_file(
                docker.pid(&id),
                "memory",
                "memory.limit_in_bytes",
                "memory.max"
            ),
            "33554432"
        );
    }
}

/// Serves `$WORD`.
const SERVE: &str =
    "mkdir -p /tmp/w; echo $WORD > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w";

/// The running containers of the service `web`.
fn tasks(docker: &Docker<'_>) -> Vec<String> {
    let list = "ps -q --no-trunc --filter label=com.docker.swarm.service.name=web";
    let list = docker.line(list).succeeds();
    list.lines().map(str::to_owned).collect()
}

/// A service's port on the host itself; here that is the scene.
fn ports_of_the_host(docker: &Docker<'_>) {
    let words = "service create -q -d --no-resolve-image --name door --stop-signal KILL --env WORD=door --network inner \
                 --endpoint-mode dnsrr --publish mode=host,published=18080,target=8080 busybox";
    docker.script(words, SERVE).succeeds();
    docker.scene.wait_until("the port answers", || {
        let words = ["-s", "http://127.0.0.1:18080/"];
        docker.scene.run("curl", words).stdout == "door\n"
    });
}
