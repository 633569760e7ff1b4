//! Small contexts and what becomes of them: `contexts.txt`, a block each.
//!
//! `== name`, then what is special (`-- args`, `-- ignore`, `-- bom`, `-- crlf`), the Dockerfile, and what is
//! expected: the image's files, its configuration, or the words of the error.

use crate::{build, files, standard_context};
use serde_json::Value;
use teu_integration_tests::Scene;

const BLOCKS: &str = include_str!("contexts.txt");

#[derive(Default)]
struct Block<'a> {
    name: &'a str,
    arguments: Vec<&'a str>,
    ignore: Option<String>,
    mark: bool,
    carriage_returns: bool,
    dockerfile: Vec<&'a str>,
    kind: &'a str,
    expected: Vec<&'a str>,
}

fn parse(text: &str) -> Block<'_> {
    let mut lines = text.lines();
    let mut block = Block {
        name: lines.next().unwrap_or_default(),
        ..Block::default()
    };
    for line in lines {
        match (line.strip_prefix("-- "), block.kind) {
            (Some(mark), "" | "Dockerfile") => {
                let (word, rest) = mark.split_once(' ').unwrap_or((mark, ""));
                match word {
                    "args" => block.arguments = rest.split(' ').collect(),
                    "ignore" => block.ignore = Some(rest.replace("\\n", "\n")),
                    "bom" => block.mark = true,
                    "crlf" => block.carriage_returns = true,
                    kind => block.kind = kind,
                }
            }
            (_, "Dockerfile") => block.dockerfile.push(line),
            _ => block.expected.push(line),
        }
    }
    block
}

/// The configuration, a line a field, without what every image has.
fn config(scene: &Scene) -> Vec<String> {
    let text = scene.run("teu-store", ["inspect", "result"]).succeeds();
    let value: Value = serde_json::from_str(&text).unwrap();
    let fields = value[0]["config"]["config"].as_object().unwrap().clone();
    let mut lines = Vec::new();
    for (name, mut value) in fields {
        if name == "Env" {
            let list = value.as_array_mut().unwrap();
            list.retain(|variable| !variable.as_str().unwrap().starts_with("PATH="));
            if list.is_empty() {
                continue;
            }
        }
        if name != "WorkingDir" || value != "/" {
            lines.push(format!("{name} {value}"));
        }
    }
    lines.sort();
    lines
}

#[test]
fn every_context_gives_what_it_should() {
    let scene = Scene::new("contexts");
    standard_context(&scene);
    scene.shell("mv context template");
    let blocks: Vec<Block<'_>> = BLOCKS.split("== ").skip(1).map(parse).collect();
    assert!(blocks.len() >= 150, "{} contexts", blocks.len());
    let mut wrong = Vec::new();
    for block in &blocks {
        scene.shell("rm -rf context; cp -a template context");
        let mut text = block.dockerfile.join("\n") + "\n";
        if block.carriage_returns {
            text = text.replace('\n', "\r\n");
        }
        if block.mark {
            text.insert(0, '\u{feff}');
        }
        if let Some(ignore) = &block.ignore {
            scene.write("context/.dockerignore", ignore);
        }
        let outcome = build(&scene, &text, &block.arguments);
        let found = match (block.kind, outcome.status.success()) {
            ("error", false) => {
                assert!(!outcome.stderr.contains("panicked"), "{outcome}");
                let said = |line: &&&str| outcome.stderr.contains(**line);
                block
                    .expected
                    .iter()
                    .filter(said)
                    .map(ToString::to_string)
                    .collect()
            }
            ("image", true) => files(&scene),
            ("config", true) => config(&scene),
            _ => vec![format!("{outcome}")],
        };
        if found != block.expected {
            wrong.push(format!(
                "{}: {found:#?} instead of {:#?}",
                block.name, block.expected
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
