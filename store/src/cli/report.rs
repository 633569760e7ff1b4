//! `history`, `diff`, `layers`, `df`: questions about images.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use teu_store::{Difference, DifferenceKind, ImageUsage, SharedLayer, Step, Store, Usage};

use super::format::{self, Format, Listed};
use super::{Outcome, people_bytes};

/// Longest command that `history` shows in a table, in characters; --format and --full show all of it.
const COMMAND_CHARS_MAX: usize = 60;

/// Show how an image came to be, the latest step first
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Name or id of an image of the store
    image: String,
    /// Show commands whole
    #[arg(long)]
    full: bool,
    /// How to print: table, json for a line each, or a text with fields in it such as '{created_by}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

#[derive(Debug, Serialize)]
struct StepRow {
    #[serde(flatten)]
    step: Step,
    #[serde(skip)]
    full: bool,
}

impl Listed for StepRow {
    const HEAD: &'static [&'static str] = &["LAYER", "CREATED", "SIZE", "CREATED BY"];

    fn cells(&self) -> Vec<String> {
        let step = &self.step;
        let command = step.created_by.clone().unwrap_or_default();
        let shown = match command.char_indices().nth(COMMAND_CHARS_MAX) {
            Some((end, _)) if !self.full => format!("{}…", &command[..end]),
            _ => command,
        };
        vec![
            step.layer.map_or("-".into(), |layer| layer.0.short()),
            step.created.clone().unwrap_or_else(|| "-".into()),
            people_bytes(step.size),
            shown,
        ]
    }
}

impl History {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let steps = store.find_image(&self.image)?.history();
        let full = self.full;
        let rows = steps.into_iter().map(|step| StepRow { step, full });
        format::print(&self.format, rows)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Show which paths of two images differ: + added, ~ changed, - removed
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Name or id of an image of the store
    before: String,
    /// Name or id of the image to compare it with
    after: String,
    /// Report paths that differ in nothing but their time, too
    #[arg(long)]
    times: bool,
    /// Exit with 1 when there are differences
    #[arg(long)]
    exit_code: bool,
    /// How to print: table, json for a line each, or a text with fields in it such as '{change} {path}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

impl Listed for Difference {
    const HEAD: &'static [&'static str] = &["", "SIZE", "BEFORE", "PATH", "DIFFERS"];

    fn cells(&self) -> Vec<String> {
        let sign = match self.change {
            DifferenceKind::Added => "+",
            DifferenceKind::Changed => "~",
            DifferenceKind::Removed => "-",
        };
        let size = |size: Option<u64>| size.map(people_bytes).unwrap_or_default();
        let slash = if self.kind == "directory" && self.path != "/" {
            "/"
        } else {
            ""
        };
        vec![
            sign.to_owned(),
            size(self.after),
            size(self.before),
            format!("{}{slash}", self.path),
            self.differs.join(", "),
        ]
    }
}

impl Diff {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let (before, after) = (
            store.find_image(&self.before)?,
            store.find_image(&self.after)?,
        );
        let differences = store.diff(&before, &after, self.times)?;
        let code = match self.exit_code && !differences.is_empty() {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        };
        format::print(&self.format, differences)?;
        Ok(code)
    }
}

/// Show which images share which layers, as a tree with the lowest layers at its root
#[derive(Debug, Args)]
pub(crate) struct Layers {
    /// How to print: table, json for a line each, or a text with fields in it such as '{layer} {size}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

#[derive(Debug, Serialize)]
struct LayerRow {
    #[serde(flatten)]
    layer: SharedLayer,
    #[serde(skip)]
    tree: String,
}

impl Listed for LayerRow {
    const HEAD: &'static [&'static str] = &["LAYER", "SIZE", "USED BY", "IMAGES"];

    fn cells(&self) -> Vec<String> {
        let names = self.layer.top_of.iter().map(teu_store::Reference::familiar);
        vec![
            format!("{}{}", self.tree, self.layer.layer.0.short()),
            self.layer.size.map_or("-".into(), people_bytes),
            self.layer.used_by.to_string(),
            names.collect::<Vec<_>>().join(", "),
        ]
    }
}

impl Layers {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        format::print(&self.format, with_trees(store.shared_layers()?))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Draws the lines of the tree. A straight line of layers is not indented: nothing branches there.
fn with_trees(layers: Vec<SharedLayer>) -> Vec<LayerRow> {
    // For each depth: whether it is a branch of several, and whether more of them follow.
    let mut lines: Vec<(bool, bool)> = Vec::new();
    let mut rows: Vec<LayerRow> = Vec::new();
    for layer in layers {
        let is_branch = layer.has_sibling || lines.len() > layer.depth;
        lines.truncate(layer.depth);
        let mut tree = String::new();
        for (branch, more) in &lines {
            tree.push_str(match (branch, more) {
                (true, true) => "│ ",
                (true, false) => "  ",
                (false, _) => "",
            });
        }
        if is_branch {
            tree.push_str(if layer.has_sibling {
                "├─"
            } else {
                "└─"
            });
        }
        lines.push((is_branch, layer.has_sibling));
        rows.push(LayerRow { layer, tree });
    }
    rows
}

/// Show what takes room in the store, and how much of it `gc` would free
#[derive(Debug, Args)]
pub(crate) struct Df {
    /// Show what each image takes, and what of it no other image shares
    #[arg(short = 'v', long)]
    images: bool,
    /// How to print: table, json for a line each, or a text with fields in it such as '{kind} {size}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

impl Listed for Usage {
    const HEAD: &'static [&'static str] = &["KIND", "FILES", "SIZE", "FREED BY GC"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.to_owned(),
            self.files.to_string(),
            people_bytes(self.size),
            people_bytes(self.garbage),
        ]
    }
}

impl Listed for ImageUsage {
    const HEAD: &'static [&'static str] = &["IMAGE", "UPDATED", "IN USE", "SIZE", "UNIQUE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.familiar(),
            self.updated.clone(),
            if self.in_use { "yes" } else { "no" }.to_owned(),
            people_bytes(self.size),
            people_bytes(self.unique),
        ]
    }
}

impl Df {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        if self.images {
            format::print(&self.format, store.image_usage()?)?;
        } else {
            format::print(&self.format, store.usage()?)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use teu_store::{DiffId, Digest};

    #[test]
    fn trees_branch_where_layers_do() {
        let layer = |depth, has_sibling| SharedLayer {
            chain: String::new(),
            layer: DiffId(Digest::of(b"")),
            depth,
            has_sibling,
            size: None,
            top_of: vec![],
            used_by: 1,
        };
        let rows = with_trees(vec![
            layer(0, true),
            layer(1, true),
            layer(2, false),
            layer(1, false),
            layer(2, false),
            layer(0, false),
            layer(1, false),
        ]);
        let trees: Vec<&str> = rows.iter().map(|row| row.tree.as_str()).collect();
        assert_eq!(trees, ["├─", "│ ├─", "│ │ ", "│ └─", "│   ", "└─", "  "]);
    }
}
