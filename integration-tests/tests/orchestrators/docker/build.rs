//! Builds whose steps our runtime executes.

use super::Docker;
use crate::{Shim, under_both_shims};
use teu_integration_tests::Scene;

under_both_shims! { builds_through_the_runtime }

fn builds_through_the_runtime(shim: Shim) {
    let scene = Scene::new(&format!("docker build {shim:?}"));
    let Some(docker) = Docker::new(&scene, shim) else {
        return;
    };
    scene.write(
        "context/Dockerfile",
        "FROM busybox\nRUN echo built > /x\nUSER 1000\nRUN test $(id -u) = 1000\nCMD [\"cat\", \"/x\"]\n",
    );
    // The classic builder asks for the default runtime, BuildKit for `runc` in PATH.
    for kit in ["0", "1"] {
        let words = "build -q --network none --no-cache -t built context".split(' ');
        let words: Vec<&str> = words.collect();
        docker
            .call_with(&format!("DOCKER_BUILDKIT={kit}"), &words)
            .succeeds();
        let run = "run --rm --network none built";
        assert_eq!(docker.line(run).succeeds(), "built");
    }
}

#[test]
fn a_step_that_fails_fails_the_build() {
    let scene = Scene::new("docker build fails");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    scene.write("context/file", "of the context\n");
    scene.write(
        "context/Dockerfile",
        "FROM busybox AS first\nARG WORD\nCOPY --chown=1000 file /file\n\
         RUN test $(stat -c %u /file) = 1000 && echo $WORD > /word\n\
         FROM busybox\nCOPY --from=first /word /word\nWORKDIR /home/app\nUSER app\n\
         RUN test $PWD = /home/app && ! touch /root/x\nRUN echo not yet; exit 42\n",
    );
    let words = "build --network none --build-arg WORD=hello -t built context";
    let words: Vec<&str> = words.split(' ').collect();
    for kit in ["0", "1"] {
        let out = docker.call_with(&format!("DOCKER_BUILDKIT={kit}"), &words);
        assert_ne!(out.code(), 0, "{out}");
        let text = format!("{}{}", out.stdout, out.stderr);
        assert!(text.contains("not yet") && text.contains("42"), "{out}");
    }
}
