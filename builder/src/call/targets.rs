//! `--call targets`.

use super::location::{base64, json_of};
use super::table::table;
use crate::dockerfile::instruction::From;
use crate::dockerfile::{Dockerfile, Instruction, Statement};
use crate::plan;
use serde_json::{Value, json};

/// A stage, its FROM and what the comment above it says.
fn stages(file: &Dockerfile) -> Vec<(&From, &Statement, Option<String>)> {
    let mut found = Vec::new();
    for statement in &file.statements {
        if let Instruction::From(from) = &statement.instruction {
            let name = from.name.as_ref();
            let told = name.and_then(|name| plan::description(&statement.comments, &name.raw));
            found.push((from, statement, told));
        }
    }
    found
}

/// The stages, in a table.
pub fn targets_text(file: &Dockerfile) -> String {
    let stages = stages(file);
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for (index, (from, _, told)) in stages.iter().enumerate() {
        let name = from.name.as_ref().map_or("", |name| name.raw.as_str());
        let name = match (name, index + 1 == stages.len()) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push(vec![name, told.clone().unwrap_or_default()]);
    }
    table(&rows, 3)
}

/// The same as BuildKit's `targets` subrequest answers.
pub fn targets_json(file: &Dockerfile, source: &str) -> Value {
    let stages = stages(file);
    let last = stages.len();
    let target =
        |(index, (from, statement, told)): (usize, &(&From, &Statement, Option<String>))| {
            let mut value = json!({ "base": from.base.raw });
            if let Some(name) = &from.name {
                value["name"] = json!(name.raw);
            }
            if index + 1 == last {
                value["default"] = json!(true);
            }
            if let Some(told) = told {
                value["description"] = json!(told);
            }
            if let Some(platform) = &from.platform {
                value["platform"] = json!(platform.raw);
            }
            value["location"] = json_of(source, &statement.span);
            value
        };
    let targets: Vec<Value> = stages.iter().enumerate().map(target).collect();
    json!({ "targets": targets, "sources": [base64(source)] })
}
