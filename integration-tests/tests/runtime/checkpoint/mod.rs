//! What `checkpoint` and `restore` tell CRIU, and what they do at its news: with
//! a criu of the test's own, so that it needs neither a kernel that CRIU can
//! work on, nor CRIU.

mod edited;
mod edited_mounts;
mod foreign;
mod hostile;
mod image;
mod outside;
mod privileges;
mod real;
mod requests;
mod restores;
mod users;

use super::Container;
use serde_json::Value;
use std::path::PathBuf;
use teu_integration_tests::command::{TIME_LIMIT, run_limited};
use teu_integration_tests::{Outcome, Scene};

/// A folder with a `criu` that is found first.
struct Fake<'a> {
    scene: &'a Scene,
    folder: PathBuf,
}

impl<'a> Fake<'a> {
    fn new(scene: &'a Scene, behaviour: &Value) -> Self {
        let script = scene.write("criu-bin/criu", include_str!("fake-criu.py"));
        scene.shell(&format!("chmod +x {}", script.display()));
        let folder = scene.path("criu-bin");
        let fake = Self { scene, folder };
        fake.behaves(behaviour);
        fake
    }

    fn behaves(&self, behaviour: &Value) {
        self.scene
            .write("criu-bin/behaviour.json", behaviour.to_string());
        let _ = std::fs::remove_file(self.folder.join("requests.json"));
    }

    fn call(&self, words: &[&str]) -> Outcome {
        let mut command = self.scene.command("teu-runtime", words);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.folder.display()));
        run_limited(command, b"", TIME_LIMIT)
    }

    fn checkpoint(&self, container: &Container<'_>, flags: &[&str]) -> Outcome {
        let mut words = vec!["checkpoint"];
        words.extend_from_slice(flags);
        words.push(&container.id);
        self.call(&words)
    }

    fn restore(&self, container: &Container<'_>, flags: &[&str]) -> Outcome {
        let bundle = container.bundle.to_str().unwrap();
        let mut words = vec!["restore", "-b", bundle];
        words.extend_from_slice(flags);
        words.push(&container.id);
        self.call(&words)
    }

    /// All requests that are no question about version or features, and all
    /// acknowledgements.
    fn requests(&self) -> Vec<Value> {
        std::fs::read_to_string(self.folder.join("requests.json"))
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The options of the last dump or restore.
    fn options(&self) -> Value {
        let all = self.requests();
        let last = all.iter().rfind(|request| !request["opts"].is_null());
        last.expect("a request was made")["opts"].clone()
    }

    /// What a restore finds beside the images.
    fn images(&self, streams: &Value) -> String {
        self.scene
            .write("images/descriptors.json", streams.to_string());
        self.scene.path("images").to_str().unwrap().to_owned()
    }
}

fn no_python() -> bool {
    let line = ["-c", "import ctypes, json, socket"];
    std::process::Command::new("python3")
        .args(line)
        .output()
        .map_or(true, |output| !output.status.success())
}

/// A scene with a running container and a criu, unless python3 is missing.
macro_rules! scene_with_fake {
    ($scene:ident, $fake:ident, $name:literal, $behaviour:tt) => {
        let $scene = Scene::new($name);
        skip_unless!(
            $scene,
            !no_python(),
            "the criu of this test is a python3 program"
        );
        let $fake = Fake::new(&$scene, &json!($behaviour));
    };
}

const SLEEP: &str = "exec sleep 1000";

use scene_with_fake;
