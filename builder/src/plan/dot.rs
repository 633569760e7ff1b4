//! A plan as a graph in the DOT language of Graphviz.

use super::{Origin, Plan, Step, Tree};
use std::fmt::Write;

/// Most characters of an instruction that a node shows.
const LABEL_CHARACTERS_MAX: usize = 60;

impl Plan {
    /// The plan as a directed graph: whole lines lead to what a step changes, dashed ones to
    /// what it only reads.
    pub fn to_dot(&self) -> String {
        let mut text = String::from("digraph plan {\n  rankdir=BT;\n  node [shape=box];\n");
        let mut line = |written: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = text.write_fmt(written);
        };
        for (index, image) in self.images.iter().enumerate() {
            let name = quoted(&image.name);
            line(format_args!(
                "  image{index} [label={name} shape=cylinder];\n"
            ));
        }
        for (index, step) in self.steps.iter().enumerate() {
            let label = quoted(&label(step));
            line(format_args!("  step{index} [label={label}];\n"));
            if let Some(parent) = node(step.parent) {
                line(format_args!("  step{index} -> {parent};\n"));
            }
            for input in step.inputs() {
                if let Some(input) = node(input) {
                    line(format_args!("  step{index} -> {input} [style=dashed];\n"));
                }
            }
            if step.reads_context() {
                line(format_args!("  step{index} -> context [style=dashed];\n"));
            }
        }
        if self.steps.iter().any(Step::reads_context) {
            line(format_args!("  context [shape=folder];\n"));
        }
        for (index, target) in self.results.iter().enumerate() {
            let name = match self.results.len() {
                1 => "result".to_owned(),
                _ => format!("result{index}"),
            };
            if let Some(tree) = node(target.tree) {
                let label = match self.results.len() {
                    1 => String::new(),
                    _ => format!("label={} ", quoted(&target.platform.to_string())),
                };
                line(format_args!(
                    "  {name} [{label}shape=ellipse];\n  {name} -> {tree};\n"
                ));
            }
        }
        text.push_str("}\n");
        text
    }
}

impl Step {
    /// Whether it copies or mounts files of the context.
    fn reads_context(&self) -> bool {
        match &self.operation {
            super::Operation::Copy(copy) => copy.origin == Origin::Context,
            super::Operation::Run(run) => run.mounts.iter().any(|mount| {
                matches!(
                    mount.kind,
                    super::MountKind::Bind {
                        origin: Origin::Context,
                        ..
                    }
                )
            }),
            super::Operation::Directory(_) => false,
        }
    }
}

fn node(tree: Tree) -> Option<String> {
    match tree {
        Tree::Empty => None,
        Tree::Image(index) => Some(format!("image{index}")),
        Tree::Step(index) => Some(format!("step{index}")),
    }
}

fn label(step: &Step) -> String {
    let words: Vec<&str> = step.text.split_whitespace().collect();
    let text: String = words.join(" ").chars().take(LABEL_CHARACTERS_MAX).collect();
    format!("{}\n{text}", step.place)
}

/// A string in quotes; only the quote and the backslash mean something in them.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", escaped.replace('\n', "\\n"))
}
