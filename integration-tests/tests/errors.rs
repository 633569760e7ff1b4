//! What goes wrong says what, why and what to do, with docker's and runc's exit codes.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use teu_integration_tests::{Scene, binary, missing_command, skip_unless};

/// The arguments, for a shell; none of them has anything to quote.
fn shell_words(command: &Command) -> String {
    let words = command.get_args().map(|word| word.to_str().unwrap());
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn an_image_that_is_nowhere() {
    let scene = Scene::new("nosuch");
    let _ = scene
        .run(
            "teu",
            ["run", "--rm", "--network", "none", "127.0.0.1:9/nosuch"],
        )
        .fails(125, &["nosuch"]);
}

#[test]
fn a_command_that_the_image_lacks() {
    let scene = Scene::new("no such command");
    scene.busybox("busybox");
    let run = |args: &[&str]| {
        let words = ["run", "--rm", "--network", "none", "busybox"];
        scene.run("teu", words.iter().chain(args))
    };
    let _ = run(&["nosuch"]).fails(127, &["nosuch", "executable file not found in $PATH"]);
    let _ = run(&["/no/such"]).fails(127, &["/no/such", "no such file or directory"]);
    let _ = run(&["/etc/passwd"]).fails(126, &["/etc/passwd", "permission denied"]);
    let _ = run(&["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]).exits(143);
}

#[test]
fn a_port_that_is_taken() {
    let scene = Scene::new("port taken");
    skip_unless!(
        scene,
        Path::new("/usr/lib/cni/bridge").exists(),
        "CNI plugins (package containernetworking-plugins) publish ports"
    );
    scene.busybox("busybox");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mapping = format!("{address}:80");
    let _ = scene
        .run("teu", ["run", "--rm", "-p", &mapping, "busybox", "true"])
        .fails(125, &[&address, "Address already in use"]);
    assert_eq!(scene.run("teu", ["ps", "-aq"]).succeeds(), "");
}

#[test]
fn unknown_words_on_the_command_line() {
    let scene = Scene::new("unknown words");
    let programs = [
        "containerd-shim-teu-v2",
        "teu",
        "teu-store",
        "teu-build",
        "teu-runtime",
        "teu-shim",
    ];
    for program in programs {
        let outcome = scene.run(program, ["--frobnicate"]);
        // As conmon does, teu-shim says it on standard output.
        let said = match program {
            "teu-shim" => &outcome.stdout,
            _ => &outcome.stderr,
        };
        assert!(
            !outcome.status.success() && said.contains("frobnicate"),
            "{outcome}"
        );
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    }
    let _ = scene.run("teu", ["rnu"]).fails(125, &["rnu"]);
    let _ = scene.run("teu", ["logs", "nosuch"]).fails(1, &["nosuch"]);
    let _ = scene.run("teu", ["stop", "nosuch"]).fails(1, &["nosuch"]);
    let _ = scene
        .run("teu", ["inspect", "nosuch"])
        .fails(1, &["nosuch", "container", "image"]);
}

#[test]
fn a_typing_mistake_in_a_dockerfile() {
    let scene = Scene::new("typo");
    scene.write("context/Dockerfile", "FROM scratch\nCOPPY a b\n");
    let _ = scene
        .run("teu", ["build", "context"])
        .fails(1, &["Dockerfile", "2", "COPPY", "COPY", "^"]);
    scene.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY --chwon=1 Dockerfile /\n",
    );
    let _ = scene
        .run("teu", ["build", "context"])
        .fails(1, &["chwon", "chown"]);
    let _ = scene
        .run("teu", ["build", "-f", "nosuch", "context"])
        .fails(1, &["nosuch"]);
    let _ = scene
        .run("teu", ["build", "no/such/context"])
        .fails(1, &["no/such/context"]);
}

#[test]
fn a_missing_file_in_copy() {
    let scene = Scene::new("missing source");
    scene.write("context/Dockerfile", "FROM scratch\nCOPY nosuch.txt /\n");
    let _ = scene
        .run("teu", ["build", "context"])
        .fails(1, &["nosuch.txt", "2"]);
}

#[test]
fn a_step_that_fails() {
    let scene = Scene::new("failing step");
    scene.busybox("busybox");
    scene.write(
        "context/Dockerfile",
        "FROM busybox\nRUN echo before the failure; exit 3\n",
    );
    let _ = scene
        .run("teu", ["build", "context"])
        .fails(1, &["exit 3", "before the failure", "3"]);
}

#[test]
fn a_blob_that_was_changed_is_found() {
    let scene = Scene::new("corrupt blob");
    scene.busybox("busybox");
    scene.run("teu-store", ["verify"]).succeeds();
    let blob = scene.shell("find data/store/blobs -type f -size +100k | head -n 1");
    skip_unless!(scene, !blob.is_empty(), "the layer's blob is its tar");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(scene.path(&blob))
        .unwrap();
    file.write_at(b"X", 70_000).unwrap();
    let name = blob.rsplit('/').next().unwrap();
    let _ = scene.run("teu-store", ["verify"]).fails(1, &[name]);
}

#[test]
fn no_permission() {
    let scene = Scene::new("no permission");
    skip_unless!(
        scene,
        !missing_command("setpriv"),
        "setpriv (package util-linux) drops root"
    );
    scene.busybox("busybox");
    scene.shell("chmod 755 . && chmod 700 data");
    let cases: [(&[&str], &str); 4] = [
        (&["images"], ""),
        (&["ps"], "Permission denied"),
        (&["rm", "-f", "x"], "Permission denied"),
        (&["run", "busybox", "true"], "root"),
    ];
    for (words, message) in cases {
        let command = scene.command("teu", words);
        let line = format!(
            "cp {} teu && setpriv --reuid 1000 --regid 1000 --clear-groups ./teu {}",
            command.get_program().display(),
            shell_words(&command)
        );
        let outcome = scene.run("sh", ["-c", &line]);
        assert!(
            !outcome.status.success()
                && !outcome.stderr.contains("panicked")
                && outcome.stderr.contains(message),
            "{outcome}"
        );
    }
}

#[test]
fn output_that_has_no_room() {
    let scene = Scene::new("full output");
    scene.write("context/Dockerfile", "FROM scratch\nCOPPY a b\n");
    for words in [["ps", "-a"], ["build", "context"], ["logs", "nosuch"]] {
        let command = scene.command("teu", words);
        let line = format!(
            "{} {} >/dev/full 2>/dev/full",
            command.get_program().display(),
            shell_words(&command)
        );
        let _ = scene.run("sh", ["-c", &line]).exits(1);
    }
}

#[test]
fn no_space() {
    let scene = Scene::new("no space");
    let root = scene.rootfs("rootfs");
    scene.shell(&format!(
        "tar -C {} -cf image.tar . && mkdir data && mount -t tmpfs -o size=300k tmpfs data",
        root.display()
    ));
    let outcome = scene.run("teu-store", ["import", "image.tar", "busybox"]);
    let images = scene.run("teu-store", ["images", "-q"]);
    scene.shell("umount data");
    let _ = outcome.fails(1, &["No space left on device"]);
    assert_eq!(images.succeeds(), "");
}

#[test]
fn nobody_listens() {
    let scene = Scene::new("full outputs");
    scene.busybox("busybox");
    let root = scene.store();
    for words in [
        "rmi nosuch",
        "images",
        "inspect busybox",
        "export -o x.tar busybox",
        "import busybox.tar other",
    ] {
        let line = format!(
            "{} --root {} {words} >/dev/full 2>/dev/full",
            binary("teu-store").display(),
            root.display()
        );
        let outcome = scene.run("sh", ["-c", &line]);
        assert!(outcome.code() < 100, "{words}: {outcome}");
    }
}
