//! `--call check`.

use super::Form;
use super::location::{excerpt, json_of, source_of};
use crate::lint::Warning;
use crate::plan::Checked;
use serde_json::{Value, json};
use std::fmt::Write;

/// What the rules say, as buildx writes it; whether it is nothing.
pub fn print_checked(checked: &Checked, name: &str, source: &str, form: Form) -> (String, bool) {
    let clean = checked.warnings.is_empty() && checked.error.is_none();
    if form == Form::Json {
        let text = serde_json::to_string_pretty(&self::checked(checked, name, source));
        return (text.unwrap_or_default() + "\n", clean);
    }
    let mut out = match checked.warnings.len() {
        0 if clean => "Check complete, no warnings found.\n".to_owned(),
        0 => String::new(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for warning in &checked.warnings {
        write_warning(&mut out, warning, name, source);
    }
    if let Some(error) = &checked.error {
        if !checked.warnings.is_empty() {
            out.push('\n');
        }
        let _ = writeln!(out, "ERROR: {error}");
        out.push_str(&excerpt(name, source, &error.span));
    }
    (out, clean)
}

fn write_warning(out: &mut String, warning: &Warning, name: &str, source: &str) {
    let rule = warning.rule;
    let _ = write!(out, "\nWARNING: {}", rule.name);
    if let Some(url) = rule.url() {
        let _ = write!(out, " - {url}");
    }
    let _ = writeln!(out, "\n{}", detail(warning));
    out.push_str(&excerpt(name, source, &warning.statement));
}

/// What is wrong, with what was probably meant.
fn detail(warning: &Warning) -> String {
    match &warning.help {
        Some(help) => format!("{} ({help})", warning.detail),
        None => warning.detail.clone(),
    }
}

/// The same as BuildKit's `lint` subrequest answers.
pub fn checked(checked: &Checked, name: &str, source: &str) -> Value {
    let warning = |warning: &Warning| {
        let mut value = json!({
            "ruleName": warning.rule.name,
            "description": warning.rule.description,
            "detail": detail(warning),
            "location": json_of(source, &warning.statement),
        });
        if let Some(url) = warning.rule.url() {
            value["url"] = json!(url);
        }
        value
    };
    let warnings: Vec<Value> = checked.warnings.iter().map(warning).collect();
    let mut value = json!({ "warnings": warnings, "sources": [source_of(name, source)] });
    if let Some(error) = &checked.error {
        value["buildError"] = json!({
            "message": error.to_string(),
            "location": json_of(source, &error.span),
        });
    }
    value
}
