//! `--trace FILE`: the steps of the runtime and of init, with their times.

use super::Container;
use std::path::Path;
use teu_integration_tests::Scene;

/// The lines of a trace: microseconds, who, what.
fn read(file: &Path) -> Vec<(u64, String, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<_> = text.lines().skip(2).map(parse).collect();
    assert!(text.starts_with("# teu-runtime "), "{text}");
    assert!(lines.len() >= 2, "{text}");
    let ordered = lines.windows(2).all(|pair| pair[0].0 <= pair[1].0);
    assert!(ordered, "times go back: {text}");
    lines
}

fn parse(line: &str) -> (u64, String, String) {
    let mut words = line.split_whitespace();
    let mut word = || {
        words
            .next()
            .unwrap_or_else(|| panic!("short line {line:?}"))
    };
    let micros = word().parse().unwrap();
    let _took: u64 = word().parse().unwrap();
    let who = word().to_owned();
    (micros, who, words.collect::<Vec<_>>().join(" "))
}

/// Asserts that these steps occur, in this order.
fn in_order(lines: &[(u64, String, String)], steps: &[(&str, &str)]) {
    let mut rest = lines.iter();
    for (who, step) in steps {
        assert!(
            rest.any(|(_, process, text)| process == who && text.starts_with(step)),
            "no {step:?} of {who} after the steps before it in {lines:#?}"
        );
    }
}

fn traced(container: &Container, name: &str, words: &[&str]) -> Vec<(u64, String, String)> {
    let file = container.scene.path(name);
    let mut all = vec!["--trace", file.to_str().unwrap()];
    all.extend(words);
    let line = container.scene.command("teu-runtime", &all);
    // A created container keeps its streams: they must not be the test's.
    let words: Vec<_> = [line.get_program()]
        .into_iter()
        .chain(line.get_args())
        .map(|word| word.to_str().unwrap().to_owned())
        .collect();
    let line = format!("{} >/dev/null 2>&1", words.join(" "));
    let _ = container.scene.run("sh", ["-c", &line]).exits(0);
    read(&file)
}

const CREATE: [(&str, &str); 8] = [
    ("runtime", "begin"),
    ("runtime", "read and check config.json"),
    ("runtime", "make the cgroups"),
    ("runtime", "clone init"),
    ("init", "be let begin"),
    ("init", "mount proc on \"/proc\""),
    ("init", "mask paths"),
    ("init", "take on ids"),
];

#[test]
fn the_steps_of_create_and_start_are_told() {
    let scene = Scene::new("trace");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |config| {
        config["hooks"] = serde_json::json!({"startContainer": [{"path": "/bin/true"}]});
    });
    let bundle = container.bundle.to_str().unwrap();
    let create = traced(
        &container,
        "create",
        &["create", "-b", bundle, &container.id],
    );
    in_order(&create, &CREATE);
    in_order(&create, &[("runtime", "record that"), ("runtime", "end")]);
    let start = traced(&container, "start", &["start", &container.id]);
    in_order(
        &start,
        &[
            ("runtime", "find the container"),
            ("init", "be let start"),
            ("init", "run the startContainer hooks"),
            ("init", "execute \"/bin/sleep\""),
            ("runtime", "see init become its program"),
            ("runtime", "end"),
        ],
    );
    let exec = traced(&container, "exec", &["exec", &container.id, "/bin/true"]);
    in_order(
        &exec,
        &[
            ("runtime", "clone the process"),
            ("process", "enter the namespaces"),
            ("process", "execute \"/bin/true\""),
            ("runtime", "see the process become"),
        ],
    );
}

#[test]
fn a_container_that_was_created_without_a_trace_tells_its_start() {
    let scene = Scene::new("trace of start");
    let container = Container::new(&scene, "c", &["/bin/true"], |_| {});
    container.create();
    let start = traced(&container, "start", &["start", &container.id]);
    in_order(&start, &[("init", "be let start"), ("init", "execute")]);
}

#[test]
fn run_and_failures_are_traced() {
    let scene = Scene::new("trace of run");
    let container = Container::new(&scene, "c", &["/bin/true"], |config| {
        // Other clocks must not disturb the order.
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(serde_json::json!({"type": "time"}));
        config["linux"]["timeOffsets"] = serde_json::json!({"monotonic": {"secs": 7777}});
    });
    let bundle = container.bundle.to_str().unwrap();
    let run = traced(&container, "run", &["run", "-b", bundle, &container.id]);
    in_order(&run, &CREATE);
    in_order(&run, &[("init", "execute"), ("runtime", "end")]);
    let file = scene.path("failed");
    let words = [
        "--trace",
        file.to_str().unwrap(),
        "run",
        "-b",
        "/no/such",
        "x",
    ];
    let _ = scene.run("teu-runtime", words).exits(1);
    in_order(&read(&file), &[("runtime", "fail: run x: open")]);
    let words = ["--trace", "/no/such/file", "run", "-b", bundle, "x"];
    let _ = scene
        .run("teu-runtime", words)
        .fails(1, &["trace file", "/no/such/file"]);
}
