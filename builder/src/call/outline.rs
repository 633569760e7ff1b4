//! `--call outline`.

use super::location::{base64, json_of};
use super::table::table;
use crate::plan::{Known, Outline};
use serde_json::{Map, Value, json};

/// What a build takes, in tables.
pub fn outline_text(outline: &Outline) -> String {
    let mut out = String::new();
    let name = outline.name.clone();
    if name.is_some() || outline.description.is_some() {
        let mut rows = vec![vec![
            "TARGET:".to_owned(),
            name.unwrap_or_else(|| "(default)".to_owned()),
        ]];
        if let Some(description) = &outline.description {
            rows.push(vec!["DESCRIPTION:".to_owned(), description.clone()]);
        }
        out.push_str(&table(&rows, 1));
        out.push('\n');
    }
    let argument = |known: &Known| {
        vec![
            known.name.clone(),
            known.value.clone().unwrap_or_default(),
            known.description.clone().unwrap_or_default(),
        ]
    };
    let needed = |known: &Known| {
        let required = if known.required { "true" } else { "" };
        vec![known.name.clone(), required.to_owned()]
    };
    section(
        &mut out,
        &["BUILD ARG", "VALUE", "DESCRIPTION"],
        &outline.arguments,
        argument,
    );
    section(&mut out, &["SECRET", "REQUIRED"], &outline.secrets, needed);
    section(&mut out, &["SSH", "REQUIRED"], &outline.ssh, needed);
    out
}

fn section(out: &mut String, head: &[&str], list: &[Known], row: impl Fn(&Known) -> Vec<String>) {
    if list.is_empty() {
        return;
    }
    let head = head.iter().map(|word| (*word).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(list.iter().map(row)).collect();
    out.push_str(&table(&rows, 3));
    out.push('\n');
}

/// The same as BuildKit's `outline` subrequest answers.
pub fn outline_json(outline: &Outline, source: &str) -> Value {
    let mut value = Map::new();
    let mut set = |name: &str, text: &Option<String>| {
        if let Some(text) = text {
            value.insert(name.to_owned(), json!(text));
        }
    };
    set("name", &outline.name);
    set("description", &outline.description);
    for (name, list) in [
        ("args", &outline.arguments),
        ("secrets", &outline.secrets),
        ("ssh", &outline.ssh),
    ] {
        if !list.is_empty() {
            let list: Vec<Value> = list.iter().map(|known| known_json(known, source)).collect();
            value.insert(name.to_owned(), list.into());
        }
    }
    value.insert("sources".to_owned(), json!([base64(source)]));
    value.into()
}

fn known_json(known: &Known, source: &str) -> Value {
    let mut value = json!({ "name": known.name });
    if let Some(text) = &known.description {
        value["description"] = json!(text);
    }
    if let Some(text) = &known.value {
        value["value"] = json!(text);
    }
    if known.required {
        value["required"] = json!(true);
    }
    value["location"] = json_of(source, &known.statement);
    value
}
