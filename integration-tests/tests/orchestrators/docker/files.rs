//! Files from outside and back: binds, volumes, copies, commits.

use super::Docker;
use crate::Shim;
use teu_integration_tests::Scene;

#[test]
fn folders_of_the_host() {
    let scene = Scene::new("docker binds");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let folder = scene.path("shared").display().to_string();
    scene.write("shared/file", "from outside\n");
    let bind = format!("-v {folder}:/data");
    let script = "cat /data/file; echo from inside > /data/new";
    assert_eq!(docker.shell(&bind, script).succeeds(), "from outside");
    assert_eq!(
        std::fs::read_to_string(scene.path("shared/new")).unwrap(),
        "from inside\n"
    );
    let script = "touch /data/no 2>&1; cat /data/file";
    let out = docker.shell(&format!("{bind}:ro"), script).succeeds();
    assert!(
        out.contains("Read-only file system") && out.ends_with("from outside"),
        "{out}"
    );
    // A file, over one of the image's.
    let bind = format!("-v {folder}/file:/etc/passwd:ro");
    assert_eq!(
        docker.shell(&bind, "cat /etc/passwd").succeeds(),
        "from outside"
    );
    // What is mounted below the folder later is seen where that was asked for.
    scene.shell("mount --bind shared shared; mount --make-shared shared; mkdir shared/later");
    for (propagation, seen) in [("rslave", "mounted"), ("rprivate", "")] {
        let flags =
            format!("--mount type=bind,src={folder},dst=/data,bind-propagation={propagation}");
        docker.detached(propagation, &flags, super::LOOP);
        scene.shell("mount -t tmpfs scene shared/later; echo mounted > shared/later/file");
        let out = docker.script(
            &format!("exec {propagation}"),
            "cat /data/later/file 2>/dev/null || true",
        );
        scene.shell("umount shared/later");
        assert_eq!(out.succeeds(), seen, "{propagation}");
        docker.line(&format!("rm -f {propagation}")).succeeds();
    }
    scene.shell("umount shared");
}

#[test]
fn temporary_file_systems_and_read_only_roots() {
    let scene = Scene::new("docker tmpfs");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let flags = "--read-only --tmpfs /scratch:size=1m,mode=700,uid=5,noexec --tmpfs /run";
    let script = "stat -c '%a %u' /scratch; cp /bin/busybox /run/program; /run/program true || echo refused; \
                  head -c 2000000 /dev/zero > /scratch/large || true; stat -c %s /scratch/large; \
                  touch /new 2>&1; grep -c noexec.*size=1024k /proc/mounts";
    let out = docker.shell(flags, script);
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines[0], "700 5", "{out}");
    assert!(
        lines.contains(&"refused") && lines.contains(&"1048576"),
        "{out}"
    );
    assert!(out.stdout.contains("/new: Read-only file system"), "{out}");
    assert_eq!(lines.last(), Some(&"1"), "{out}");
    docker
        .shell(
            "--tmpfs /scratch:exec",
            "cp /bin/busybox /scratch/true && /scratch/true",
        )
        .succeeds();
}

#[test]
fn volumes_outlive_containers() {
    let scene = Scene::new("docker volumes");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    docker.line("volume create kept").succeeds();
    docker
        .shell("-v kept:/data", "echo remembered > /data/file")
        .succeeds();
    let read = docker.shell("-v kept:/elsewhere:ro", "cat /elsewhere/file");
    assert_eq!(read.succeeds(), "remembered");
    // A new volume begins with what the image has there.
    docker
        .shell("-v filled:/home", "ls -d /home/app")
        .succeeds();
    assert_eq!(
        docker.shell("-v filled:/data", "ls /data").succeeds(),
        "app"
    );
    // Two containers at once see the same, by each other's names too.
    docker.detached("first", "-v kept:/data", super::LOOP);
    docker.detached("second", "--volumes-from first", super::LOOP);
    docker
        .script("exec first", "echo changed > /data/file")
        .succeeds();
    let read = docker.line("exec second cat /data/file");
    assert_eq!(read.succeeds(), "changed");
    let _ = docker
        .line("volume rm kept")
        .fails(1, &["volume is in use"]);
    docker.line("rm -f first second").succeeds();
    // Those without a name go with their container.
    docker
        .shell("-v /anonymous", "touch /anonymous/x")
        .succeeds();
    let left = docker.line("volume ls -q").succeeds();
    assert_eq!(left, "filled\nkept");
    docker.line("volume rm kept filled").succeeds();
}

#[test]
fn copies_and_commits() {
    let scene = Scene::new("docker cp");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    docker.detached("one", "", super::LOOP);
    scene.shell("mkdir -p tree/empty; head -c 100000 /bin/busybox > tree/file; chmod 640 tree/file; ln -s file tree/link");
    docker.line("cp tree one:/tmp/copy").succeeds();
    let seen = "cd /tmp/copy && stat -c %a file && readlink link && ls -d empty && md5sum < file";
    let sum = scene.shell("md5sum < tree/file");
    assert_eq!(
        docker.script("exec one", seen).succeeds(),
        format!("640\nfile\nempty\n{sum}")
    );
    docker
        .script(
            "exec one",
            "echo changed >> /tmp/copy/file; echo new > /new",
        )
        .succeeds();
    docker.line("stop -t 0 one").succeeds();
    // Also out of one that does not run, and as an archive.
    docker.line("cp one:/tmp/copy back").succeeds();
    scene.shell("tail -n 1 back/file | grep -q changed; test -L back/link; test -d back/empty");
    let archive = docker.spawn(&["cp", "one:/new", "-"]).output().unwrap();
    scene.write("new.tar", archive.stdout);
    assert_eq!(scene.shell("tar -xOf new.tar new"), "new");
    let changes = docker.line("diff one").succeeds();
    assert!(
        changes.contains("A /new") && changes.contains("A /tmp/copy/file"),
        "{changes}"
    );
    let words = [
        "commit",
        "-c",
        "CMD cat /new",
        "-c",
        "ENV A=committed",
        "one",
        "kept",
    ];
    docker.call(&words).succeeds();
    let run = "run --rm --network none kept";
    assert_eq!(docker.line(run).succeeds(), "new");
    assert_eq!(
        docker
            .script(run, "echo $A; tail -n 1 /tmp/copy/file | tail -c 8")
            .succeeds(),
        "committed\nchanged"
    );
    docker.line("start one").succeeds();
    assert_eq!(docker.line("exec one cat /new").succeeds(), "new");
}
