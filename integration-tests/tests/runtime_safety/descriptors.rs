//! Descriptors and binaries that a container must not get hold of.

use serde_json::json;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use teu_integration_tests::{missing_command, skip_unless};

use super::{Attack, Container, all_powerful, push};

/// Executions against a container that watches for them: `TEU_EXECS`, or 60.
fn execs() -> usize {
    std::env::var("TEU_EXECS").map_or(60, |text| text.parse().unwrap())
}

/// A program inside that looks below /proc of every other process: for directories
/// of the host that lead out, and for a binary that it can write to.
const GRABBER: &str = "
while :; do
  for p in /proc/[0-9]*; do
    [ $p = /proc/1 ] && continue
    for f in $p/fd/*; do
      t=$(readlink $f 2>/dev/null) || continue
      case $t in */state/runtime*|*/bundle*|*teu-runtime*|*/rootfs*) echo grabbed $t >> /found;; esac
    done
    l=$(readlink $p/exe 2>/dev/null) || continue
    case $l in *teu-runtime*|*memfd*) { : >> $p/exe; } 2>/dev/null && echo wrote $l >> /found;; esac
  done
done";

/// Root as docker has it: without CAP_SYS_PTRACE, to which the kernel shows all.
fn usual(config: &mut serde_json::Value) {
    let usual = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_SYS_CHROOT",
        "CAP_AUDIT_WRITE"
    ]);
    config["process"]["capabilities"] =
        json!({"bounding": usual, "effective": usual, "permitted": usual});
}

fn found(container: &Container<'_>) -> String {
    std::fs::read_to_string(container.root("found")).unwrap_or_default()
}

/// R4, R5, R46: whoever enters a container is looked at there by root with
/// CAP_SYS_PTRACE (CVE-2016-9962, CVE-2019-5736).
#[test]
fn r04_r05_r46_an_entering_process_shows_nothing() {
    let attack = Attack::new("R4 R5 R46");
    let container = attack.container(GRABBER, all_powerful);
    container.leave(&["run", "--detach"]);
    for _ in 0..execs() {
        container.exec(&[], &["/bin/true"]).succeeds();
    }
    // The container's own /proc/self/exe as a program: the runtime's, if it were.
    let _ = container.exec(&[], &["/proc/self/exe"]);
    assert_eq!(found(&container), "");
}

/// R5: the program of the container is the runtime's own file (CVE-2019-5736).
#[test]
fn r05_the_program_is_proc_self_exe() {
    let attack = Attack::new("R5");
    let container = attack.container("", |config| {
        config["process"]["args"] = json!(["/entry"]);
        all_powerful(config);
    });
    let entry = container.root("entry");
    std::fs::write(&entry, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&entry, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for _ in 0..5 {
        let _ = container.run();
    }
    let container = attack.container("", |config| {
        config["process"]["args"] = json!(["/proc/self/exe", "--version"]);
        all_powerful(config);
    });
    let _ = container.run();
}

/// R46: a sibling in the same pid namespace, root with docker's usual capabilities,
/// watches while containers are created: their first process shows it nothing.
#[test]
fn r46_a_sibling_sees_no_descriptor_of_the_host() {
    let attack = Attack::new("R46");
    let watcher = attack.container(GRABBER, usual);
    watcher.leave(&["run", "--detach"]);
    let state = watcher.call(&["state"], &[]).succeeds();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let namespace = format!("/proc/{}/ns/pid", state["pid"]);
    let bundle = attack.scene.bundle("sibling", &["/bin/true"], |config| {
        for entry in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if entry["type"] == "pid" {
                entry["path"] = json!(namespace);
            }
        }
    });
    let id = format!("{}-sibling", attack.scene.mark());
    for _ in 0..execs() {
        let words = ["run", "-b", bundle.to_str().unwrap(), &id];
        attack.scene.run("teu-runtime", words).succeeds();
    }
    assert_eq!(found(&watcher), "");
}

/// R14: the program has its three streams and nothing more (CVE-2024-21626),
/// whatever the caller has open.
#[test]
fn r14_no_descriptor_is_inherited() {
    let attack = Attack::new("R14 descriptors");
    let script = "ls -l /proc/self/fd | grep -c -- '->'; cat <&7";
    let container = attack.container(script, |_| {});
    let line = |verb: &str, rest: &str| {
        let command = attack.scene.command("teu-runtime", Vec::<&str>::new());
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_str().unwrap())
            .collect();
        let program = command.get_program().to_str().unwrap();
        let sentinel = attack.sentinel();
        format!(
            "exec 7<{0}/secret 8<{0} 9</; {program} {1} {verb} {2} {rest}",
            sentinel.display(),
            words.join(" "),
            container.id
        )
    };
    let run = format!("run -b {}", container.bundle.display());
    let outcome = attack.scene.run("sh", ["-c", &line(&run, "")]);
    assert_eq!(outcome.stdout.trim(), "3", "{outcome}");
    let sleeper = attack.container("sleep 1000", |_| {});
    sleeper.leave(&["run", "--detach"]);
    std::fs::write(sleeper.root("script"), script).unwrap();
    let outcome = attack.scene.run("sh", ["-c", &line("exec", "sh /script")]);
    assert_eq!(outcome.stdout.trim(), "3", "{outcome}");
}

/// R21: the standard streams are those that were given, with their owner
/// (CVE-2026-88265).
#[test]
fn r21_streams_are_not_reopened() {
    let attack = Attack::new("R21");
    let script = "for n in 0 1 2; do stat -L -c '%i %u' /proc/self/fd/$n; done";
    let user = json!({"uid": 1000, "gid": 1000});
    let container = attack.container(script, |config| {
        super::unmounted(config, "/dev");
        config["process"]["user"] = user;
    });
    // A bound file of the host, to which the image's /dev/null is a link.
    let target = attack.scene.write("target", "");
    container.link("dev/null", "/bound");
    std::fs::write(container.root("bound"), "").unwrap();
    let _ = container.run_or_refuse();
    assert_eq!(std::fs::read(target).unwrap(), b"");
    let container = attack.container(script, |config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    let (ours, theirs) = UnixStream::pair().unwrap();
    let inode = rustix::fs::fstat(&theirs).unwrap().st_ino;
    let output = attack.scene.path("output");
    let file = std::fs::File::create(&output).unwrap();
    let mut command = container.command(&["run"]);
    command
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    assert!(command.status().unwrap().success());
    drop(ours);
    let out = std::fs::read_to_string(&output).unwrap();
    let of_file = rustix::fs::stat(&output).unwrap();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(
        lines[0].split(' ').next(),
        Some(inode.to_string().as_str()),
        "{out}"
    );
    let file = format!("{} {}", of_file.st_ino, of_file.st_uid);
    assert_eq!(lines[1..], [file.as_str(), file.as_str()], "{out}");
    assert_eq!(of_file.st_uid, 0);
}

/// R40: `ps` executes nothing of the container's (CVE-2022-1227).
#[test]
fn r40_ps_executes_nothing_of_the_container() {
    let attack = Attack::new("R40");
    let container = attack.container("sleep 1000", |config| {
        config["process"]["env"] = json!(["PATH=/trojan:/bin"]);
    });
    for program in ["ps", "nsenter", "sh", "runc"] {
        for folder in ["trojan", "bin", "usr/bin"] {
            if program == "sh" && folder == "bin" {
                continue;
            }
            let path = container.root(&format!("{folder}/{program}"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, "#!/bin/sh\ntouch /ran\n").unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .unwrap();
        }
    }
    container.leave(&["run", "--detach"]);
    container.call(&["ps"], &[]).succeeds();
    container.call(&["ps", "--format", "json"], &[]).succeeds();
    assert!(!container.root("ran").exists());
}

/// R46: sockets named by the environment or the image lead nowhere: the path of
/// NOTIFY_SOCKET is the host's, whatever the root holds.
#[test]
fn r46_the_notify_socket_is_not_followed_into_the_root() {
    let attack = Attack::new("R46 notify");
    let container = attack.container("true", |config| {
        push(
            config,
            "mounts",
            json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs"}),
        );
    });
    container.link("run/notify", attack.sentinel().join("made"));
    let mut command: Command = container.command(&["run"]);
    command.env("NOTIFY_SOCKET", attack.scene.path("nobody-listens"));
    let _ = command.status().unwrap();
}

/// R4: `ptrace` of the entering process fails for root with docker's usual
/// capabilities (one with CAP_SYS_PTRACE over our own user namespace may, says the
/// kernel). Needs a C compiler for a static program that tries.
#[test]
fn r04_an_entering_process_cannot_be_traced() {
    let attack = Attack::new("R4 ptrace");
    skip_unless!(
        attack.scene,
        !missing_command("gcc"),
        "gcc makes the tracer"
    );
    let source = r#"
#include <stdio.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
int main(void) {
  for (;;) {
    DIR *d = opendir("/proc"); struct dirent *e;
    while (d && (e = readdir(d))) {
      int pid = atoi(e->d_name); char path[64], link[256]; ssize_t n;
      if (pid < 2 || pid == getpid()) continue;
      snprintf(path, sizeof path, "/proc/%d/exe", pid);
      n = readlink(path, link, sizeof link - 1);
      if (n > 0) { link[n] = 0; if (strstr(link, "busybox")) continue; }
      if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
        n = readlink(path, link, sizeof link - 1); if (n < 0) n = 0; link[n] = 0;
        /* Without a name it is a program of the container's that ends. */
        if (n && !strstr(link, "busybox")) { int f = open("/found", O_CREAT|O_WRONLY|O_APPEND, 0644);
          dprintf(f, "traced %d %s\n", pid, link); close(f); }
        int st; ptrace(PTRACE_INTERRUPT, pid, 0, 0); waitpid(pid, &st, __WALL);
        ptrace(PTRACE_DETACH, pid, 0, 0);
      }
    }
    if (d) closedir(d);
  }
}"#;
    attack.scene.write("tracer.c", source);
    let container = attack.container("", |config| {
        config["process"]["args"] = json!(["/tracer"]);
        usual(config);
    });
    attack.scene.shell(&format!(
        "gcc -O1 -static -o {} tracer.c",
        container.root("tracer").display()
    ));
    container.leave(&["run", "--detach"]);
    for _ in 0..execs() {
        container.exec(&[], &["/bin/true"]).succeeds();
    }
    assert_eq!(found(&container), "");
}
