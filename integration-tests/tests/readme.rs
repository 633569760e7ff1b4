//! The README's tour does what it says, typed as it stands there.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::path::Path;
use teu_integration_tests::{Scene, binary, readme::block, skip_unless};

/// Our programs under their names, but in the scene's folders.
fn wrappers(scene: &Scene) {
    for program in ["teu", "teu-store", "teu-runtime"] {
        let command = scene.command(program, Vec::<&str>::new());
        let words = command.get_args().map(|word| word.to_str().unwrap());
        let line = words.collect::<Vec<_>>().join(" ");
        scene.write(
            format!("bin/{program}"),
            format!(
                "#!/bin/sh\nexec {} {line} \"$@\"\n",
                binary(program).display()
            ),
        );
    }
    scene.shell("chmod +x bin/*");
}

#[test]
fn the_tour() {
    let scene = Scene::new("tour");
    skip_unless!(
        scene,
        Path::new("/usr/lib/cni/bridge").exists(),
        "no CNI plugins (package containernetworking-plugins)"
    );
    wrappers(&scene);
    let script = |line: &str| format!("PATH=$PWD/bin:$PATH\n{}", block(line));
    scene.shell(&script("mkdir hello && cp /bin/busybox hello/"));
    // As a person waits between two lines: until the server listens. No terminal here.
    let run = script("teu ps")
        .replace(
            "curl ",
            "curl --retry 20 --retry-connrefused --retry-delay 1 -fsS ",
        )
        .replace("exec -it web sh", "exec -i web sh </dev/null");
    let out = scene.shell(&run);
    assert!(out.contains("built at"), "{out}");
    // What needs other machines, or never ends, is left out.
    let moved = script("teu pull debian:bookworm");
    let here = ["PATH=", "teu-store export", "teu-store unpack"];
    let lines = moved
        .lines()
        .filter(|line| here.iter().any(|start| line.starts_with(start)));
    let lines: Vec<_> = lines
        .map(|line| line.split(" && ").next().unwrap())
        .collect();
    assert_eq!(lines.len(), here.len(), "{moved}");
    scene.shell(&lines.join("\n"));
    assert!(scene.path("hello.tar").exists() && scene.path("bundle/config.json").exists());
}
