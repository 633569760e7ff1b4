//! Files from outside and back: binds, volumes, copies, commits.

use super::Podman;
use teu_integration_tests::Scene;

#[test]
fn podmans_containers_have_files_of_the_host_and_of_volumes() {
    let scene = Scene::new("podman volumes");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    scene.write("shared/file", "from outside\n");
    let folder = scene.path("shared").display().to_string();
    let flags = format!(
        "-v {folder}:/data -v {folder}:/again:ro -v kept:/kept -v /anonymous --read-only \
         --tmpfs /scratch:size=1m,mode=700,noexec"
    );
    let script = "cat /data/file; echo from inside > /data/new; touch /again/no 2>&1; \
                  echo remembered > /kept/file; touch /anonymous/x; touch /no 2>&1; \
                  stat -c %a /scratch; head -c 2000000 /dev/zero > /scratch/large; stat -c %s /scratch/large; \
                  cp /bin/busybox /tmp/true; cp /bin/true /scratch/ 2>/dev/null; /scratch/true 2>/dev/null || echo refused";
    let out = podman.shell(&flags, script).succeeds();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "from outside");
    for (index, name) in [(1, "/again/no"), (2, "/no")] {
        assert!(
            lines[index].contains(name) && lines[index].contains("Read-only"),
            "{out}"
        );
    }
    assert_eq!(lines[3..], ["700", "1048576", "refused"], "{out}");
    let new = std::fs::read_to_string(scene.path("shared/new")).unwrap();
    assert_eq!(new, "from inside\n");

    // Another container, later, and one beside it.
    podman.detached("one", "-v kept:/elsewhere:ro", "exec sleep 1000");
    assert_eq!(
        podman.exec("one", "cat /elsewhere/file").succeeds(),
        "remembered"
    );
    let beside = podman.shell("--volumes-from one", "cat /elsewhere/file");
    assert_eq!(beside.succeeds(), "remembered");
    let _ = podman.say("volume rm kept").fails(2, &["being used"]);
    assert_eq!(podman.say("volume ls -q").succeeds(), "kept");
    podman.say("rm -f -t 0 one").succeeds();
    podman.say("volume rm kept").succeeds();
}

#[test]
fn podman_copies_commits_and_names_what_changed() {
    let scene = Scene::new("podman cp");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    podman.detached("one", "", "exec sleep 1000");
    scene.shell("mkdir -p tree/empty; head -c 100000 /bin/busybox > tree/file; chmod 640 tree/file; ln -s file tree/link");
    let at = |name: &str| scene.path(name).display().to_string();
    let cp = |from: &str, to: &str| podman.call(&["cp", from, to]).succeeds();
    cp(&at("tree"), "one:/tmp/copy");
    let seen = "cd /tmp/copy && stat -c %a file && readlink link && ls -d empty && md5sum < file; \
                echo changed >> file; echo new > /new";
    let sum = scene.shell("md5sum < tree/file");
    assert_eq!(
        podman.exec("one", seen).succeeds(),
        format!("640\nfile\nempty\n{sum}")
    );
    // Also out of one that does not run.
    podman.say("stop -t 0 one").succeeds();
    cp("one:/tmp/copy", &at("back"));
    scene.shell("tail -n 1 back/file | grep -q changed; test -L back/link; test -d back/empty");
    let changes = podman.say("diff one").succeeds();
    assert!(
        changes.contains("A /new") && changes.contains("A /tmp/copy/file"),
        "{changes}"
    );
    let words = [
        "commit",
        "-q",
        "-c",
        "CMD [\"cat\", \"/new\"]",
        "-c",
        "ENV A=committed",
        "one",
        "kept",
    ];
    podman.call(&words).succeeds();
    let run = format!(
        "run --rm --network none --cgroup-parent {} kept",
        scene.cgroup()
    );
    assert_eq!(podman.say(&run).succeeds(), "new");
    let words = [
        &run.split(' ').collect::<Vec<_>>()[..],
        &["sh", "-c", "echo $A"],
    ]
    .concat();
    assert_eq!(podman.call(&words).succeeds(), "committed");
    podman.say("start one").succeeds();
    assert_eq!(podman.exec("one", "cat /new").succeeds(), "new");
    podman.say("rm -f -t 0 one").succeeds();
}
