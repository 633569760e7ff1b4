//! What people read when something goes wrong: a hundred failures, each provoked
//! and compared with `failures/golden.txt`, line by line.
//!
//! When messages were changed on purpose:
//! `TEU_GOLDEN=write cargo test -p teu-integration-tests --test runtime failures`
//! writes the file anew; read its difference (`git diff`) before it is committed.

use super::cgroup_v1;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use teu_integration_tests::{Scene, fixture, needs_root, skipped};

mod cases;
mod configurations;

use cases::{COMMAND_LINES, Case};
use configurations::CONFIGURATIONS;

/// Files of the root file system that something is wrong with.
const FILES: &str = r#"
cd bundle/rootfs
mkdir -p odd noexec
printf '#!/no/such/sh\necho\n' >odd/no-interpreter
printf '#!/bin/sh\r\necho\r\n' >odd/crlf
printf '#!/etc/passwd\n' >odd/bad-interpreter
printf '#!/odd/foreign\n' >odd/foreign-interpreter
printf 'echo hello\n' >odd/text
printf '\0\1\2' >odd/data
: >odd/empty
printf '\177ELF' >odd/cut-off
cp /bin/true odd/dynamic
head -c 18 bin/busybox >odd/foreign && printf '\267\0' >>odd/foreign && tail -c +21 bin/busybox | head -c 4000 >>odd/foreign
ln -s /no/where odd/dangling
chmod 755 odd/*-* odd/crlf odd/text odd/data odd/empty odd/foreign odd/dynamic
cp bin/busybox odd/private && chmod 700 odd/private
cp bin/busybox odd/not-executable && chmod 644 odd/not-executable
cd ../..
printf '{"args": ["true"], "cwd": "tmp", "user": {"uid": 0, "gid": 0}}' >process-cwd.json
printf '{"args": "true"}' >process-type.json
printf '{"memory": {"limit": "much"}}' >resources-type.json
printf '{' >resources-cut.json
mkdir -p spec state/runtime/torn && : >spec/config.json && : >a-file
printf '{"version":1,' >state/runtime/torn/state.json
"#;

/// All cases share one bundle, whose config.json is written anew for each, and
/// containers in every state.
struct Stage {
    scene: Scene,
    bundle: PathBuf,
    config: Value,
}

impl Stage {
    fn new() -> Stage {
        let scene = Scene::new("failures");
        let bundle = scene.bundle("bundle", &["/bin/true"], |_| {});
        scene.shell(FILES);
        let mut config = fixture::minimal_config(&["/bin/true"]);
        // No container of these may be in another's cgroup.
        config["linux"]["cgroupsPath"] = json!(format!("{}/case", scene.cgroup()));
        let stage = Stage {
            scene,
            bundle,
            config,
        };
        for (name, args, verb) in [
            ("running", "[\"/bin/sleep\",\"1000\"]", "run -d"),
            ("paused", "[\"/bin/sleep\",\"1000\"]", "run -d"),
            ("stopped", "[\"/bin/true\"]", "create"),
            ("created", "[\"/bin/sleep\",\"1000\"]", "create"),
        ] {
            let path = format!("\"{}/{name}\"", stage.scene.cgroup());
            stage.configure(&[("/process/args", args), ("/linux/cgroupsPath", &path)]);
            stage.runtime(&format!(
                "{verb} -b {} {} >{name}.out 2>&1",
                stage.bundle.display(),
                stage.id(name)
            ));
        }
        stage.runtime(&format!("start {}", stage.id("stopped")));
        let stopped = format!("state {}", stage.id("stopped"));
        stage.scene.wait_until("the end of a container", || {
            stage.runtime(&stopped).contains("\"stopped\"")
        });
        stage.runtime(&format!("pause {}", stage.id("paused")));
        stage
    }

    /// Runs a command line of the runtime that must succeed.
    fn runtime(&self, line: &str) -> String {
        let command = self.scene.command("teu-runtime", Vec::<&str>::new());
        let root = self.scene.path("state/runtime");
        let program = command.get_program().to_string_lossy().into_owned();
        self.scene
            .shell(&format!("{program} --root {} {line}", root.display()))
    }

    fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.scene.mark())
    }

    fn configure(&self, changes: &[(&str, &str)]) {
        let mut config = self.config.clone();
        for (pointer, text) in changes {
            change(&mut config, pointer, text);
        }
        // Pretty: that places have lines.
        let text = serde_json::to_string_pretty(&config).unwrap();
        std::fs::write(self.bundle.join("config.json"), text).unwrap();
    }

    /// Provokes one failure and tells all that was seen of it.
    fn provoke(&self, case: &Case) -> String {
        self.configure(case.config);
        if let [("", text)] = case.config {
            std::fs::write(self.bundle.join("config.json"), text).unwrap();
        }
        let log = self.scene.path("log");
        let _ = std::fs::remove_file(&log);
        let words = case.line.split_whitespace().map(|word| {
            let word = word.replace("BUNDLE", self.bundle.to_str().unwrap());
            ["running", "paused", "stopped", "created", "case"]
                .iter()
                .fold(word, |word, name| {
                    word.replace(&format!("@{name}"), &self.id(name))
                })
                .replace("EMPTY", "")
        });
        let logged = ["--log", log.to_str().unwrap(), "--log-format", "json"];
        let words: Vec<String> = logged.map(str::to_owned).into_iter().chain(words).collect();
        let outcome = self.scene.run("teu-runtime", &words);
        let mut text = String::new();
        for (pointer, value) in case
            .config
            .iter()
            .filter(|(pointer, _)| !pointer.is_empty())
        {
            let value = if value.is_empty() { "removed" } else { value };
            let _ = writeln!(text, "config {pointer} = {value}");
        }
        let _ = writeln!(text, "$ teu-runtime {}", case.line);
        let _ = writeln!(text, "exit {}", outcome.code());
        let last = outcome.stderr.lines().last().unwrap_or("");
        let _ = writeln!(text, "stderr {}", self.without_names(last));
        let logged = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = writeln!(text, "log {}", self.without_names(&facts(&logged)));
        let _ = self.scene.run(
            "teu-runtime",
            ["delete", "--force", self.id("case").as_str()],
        );
        text
    }

    /// Names of this scene, of its folders and of times give way to what they are.
    fn without_names(&self, text: &str) -> String {
        let scene = self.scene.path("");
        let scene = scene.to_str().unwrap().trim_end_matches('/');
        let mark = self.scene.mark();
        let text = text
            .replace(self.bundle.to_str().unwrap(), "BUNDLE")
            .replace(scene, "SCENE")
            .replace(&format!("{mark}-"), "@")
            .replace(mark, "CGROUP");
        match text.split_once("time=\"") {
            Some((before, after)) => {
                let rest = after.split_once('"').map_or("", |(_, rest)| rest);
                format!("{before}time=TIME{rest}")
            }
            None => text,
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for name in ["running", "paused", "stopped", "created", "torn"] {
            let id = if name == "torn" {
                name.to_owned()
            } else {
                self.id(name)
            };
            let _ = self
                .scene
                .run("teu-runtime", ["delete", "--force", id.as_str()]);
        }
    }
}

/// Sets, appends to (`/-`) or removes (empty text) what a pointer names.
fn change(config: &mut Value, pointer: &str, text: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return;
    };
    let parent = config
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("no {parent} in the configuration"));
    let value = || serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    match parent {
        Value::Array(items) if name == "-" => items.push(value()),
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value(),
        Value::Object(fields) if text.is_empty() => drop(fields.remove(name)),
        Value::Object(fields) => drop(fields.insert(name.into(), value())),
        other => panic!("{pointer}: {other} has no parts"),
    }
}

/// What the last line of a log in JSON holds beside runc's fields.
fn facts(log: &str) -> String {
    let Some(Ok(Value::Object(line))) = log.lines().last().map(serde_json::from_str) else {
        return "none".into();
    };
    assert_eq!(line["level"], "error", "{log}");
    assert!(line["msg"].is_string() && line["time"].is_string(), "{log}");
    ["step", "object", "errno", "pointer"]
        .iter()
        .filter_map(|name| Some(format!("{name}={}", line.get(*name)?)))
        .collect::<Vec<_>>()
        .join(" ")
}

fn golden_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtime/failures/golden.txt")
}

/// The blocks of the golden file by their names.
fn golden() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(golden_file()).unwrap_or_default();
    text.split("\n== ")
        .skip(1)
        .filter_map(|block| {
            let (name, body) = block.split_once('\n')?;
            Some((name.to_owned(), format!("{}\n", body.trim_end())))
        })
        .collect()
}

/// The lines that differ, as a person compares them.
fn difference(name: &str, expected: &str, seen: &str) -> String {
    let mut text = format!("== {name}\n");
    for line in seen.lines().chain(expected.lines()) {
        let (was, is) = (
            expected.lines().any(|other| other == line),
            seen.lines().any(|other| other == line),
        );
        match (was, is) {
            (true, true) => (),
            (true, false) => drop(writeln!(text, "- {line}")),
            (false, _) => drop(writeln!(text, "+ {line}")),
        }
    }
    text
}

#[test]
fn failures_say_what_to_do() {
    if std::env::var_os("TEU_RUNTIME").is_some() {
        return skipped("failures", "the messages are those of our runtime");
    }
    let stage = Stage::new();
    needs_root!(stage.scene, "the table is root's");
    let known = golden();
    let mut whole = String::from(
        "Provoked failures and what is seen of them: exit code, last line of standard\n\
         error, and the fields of the log in JSON. Written by the test (its first lines\n\
         say how); never by hand.\n",
    );
    let mut differences = String::new();
    for case in CONFIGURATIONS.iter().chain(COMMAND_LINES) {
        let expected = known.get(case.name).cloned().unwrap_or_default();
        let seen = match (case.only)() {
            true => stage.provoke(case),
            false => expected.clone(),
        };
        assert!(!seen.contains("panicked"), "{seen}");
        if seen != expected {
            differences.push_str(&difference(case.name, &expected, &seen));
        }
        let _ = write!(whole, "\n== {}\n{seen}", case.name);
    }
    if std::env::var("TEU_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::write(golden_file(), whole).unwrap();
        return;
    }
    assert!(
        differences.is_empty(),
        "failures are not told as in {} (- expected, + seen); where that is meant, \
         run the test with TEU_GOLDEN=write:\n{differences}",
        golden_file().display()
    );
}
