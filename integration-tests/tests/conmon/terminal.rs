//! A container with a terminal, which a real runtime makes and hands over.

use super::doors::Client;
use super::post::{ID, Post, output, same};
use serde_json::json;
use std::io::Write as _;
use teu_integration_tests::{Outcome, Scene, binary};

/// A monitor's place whose containers are real.
struct Real<'a, 'b> {
    post: &'a Post<'b>,
    root: String,
}

impl<'a, 'b> Real<'a, 'b> {
    fn new(post: &'a Post<'b>, script: &str) -> Self {
        let runtime = binary("teu-runtime").display().to_string();
        let root = post.path("state").display().to_string();
        let line = format!("#!/bin/sh\nexec {runtime} --root {root} \"$@\"\n");
        post.write("runtime", line);
        let name = post.home.file_name().unwrap().to_str().unwrap();
        let place = format!("{}/{name}", post.scene.cgroup());
        let bundle = format!("{name}/bundle");
        post.scene.bundle(&bundle, &["sh", "-c", script], |config| {
            config["process"]["terminal"] = json!(true);
            config["linux"]["cgroupsPath"] = json!(place);
        });
        Self { post, root }
    }

    fn runtime(&self, words: &[&str]) -> Outcome {
        let runtime = binary("teu-runtime").display().to_string();
        let own = [&runtime, "--root", &self.root];
        self.post.scene.run("env", [&own, words].concat())
    }

    fn tell(&self, door: &str, line: &str) {
        let path = self.post.path("bundle").join(door);
        let file = std::fs::File::options().write(true).open(path);
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
}

#[test]
fn a_terminal_has_a_size_and_ends_lines_as_terminals_do() {
    let scene = Scene::new("conmon's terminal");
    let said_and_status = same(&scene, |post| {
        let size = "read x; stty size";
        let script = format!("stty -echo; tty; {size}; {size}; echo err >&2; exit 3");
        let real = Real::new(post, &script);
        post.start("-t -i -l @/log").succeeds();
        post.wait_for("sync", "data");
        real.runtime(&["start", ID]).succeeds();
        post.wait_for("log", "/dev/");
        let client = Client::connect(&post.path("bundle/attach"));
        for (rows, columns) in [(30, 100), (41, 91)] {
            real.tell("ctl", &format!("1 {rows} {columns}\n"));
            // Typed before it is heard of, the line would show the size that was before.
            std::thread::sleep(std::time::Duration::from_millis(200));
            client.type_in("\n");
            post.wait_for("log", &format!("{rows} {columns}"));
        }
        post.wait();
        real.runtime(&["delete", ID]).succeeds();
        let said = output(&[post.path("log")], "stdout");
        (String::from_utf8(said).unwrap(), post.read("persist/exit"))
    });
    // One stream, whose lines end in carriage return and newline.
    let said = "/dev/pts/0\r\n30 100\r\n41 91\r\nerr\r\n";
    assert_eq!(said_and_status, (said.to_owned(), "3".to_owned()));
}

#[test]
fn an_exec_session_has_a_terminal_of_its_own() {
    let scene = Scene::new("conmon's exec terminal");
    let seen = same(&scene, |post| {
        let real = Real::new(post, "sleep 1000");
        let running = format!("bundle={}", post.path("bundle").display());
        let bundle = running.strip_prefix("bundle=").unwrap();
        let config = std::fs::read_to_string(post.path("bundle/config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        config["process"]["terminal"] = json!(false);
        teu_integration_tests::fixture::write_config(bundle.as_ref(), &config);
        real.runtime(&["run", "--detach", "--bundle", bundle, ID])
            .succeeds();
        let mut process = config["process"].clone();
        process["terminal"] = json!(true);
        process["args"] = json!(["sh", "-c", "tty; exit 6"]);
        post.write("spec", process.to_string());
        post.start("-e -t --exec-process-spec @/spec -l @/log")
            .succeeds();
        post.wait();
        real.runtime(&["delete", "--force", ID]).succeeds();
        let said = output(&[post.path("log")], "stdout");
        (post.plain(&post.read("sync")), said)
    });
    assert_eq!(seen.0, "{\"data\": PID}\n{\"data\": 6}\n");
    assert_eq!(seen.1, b"/dev/pts/0\r\n");
}
