//! `--format`: how a command prints its records. A table for people, one JSON document a line, or a text of the user's
//! in which `{field}` and `{field.below}` stand for what the JSON has there.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

/// Most names that an error about an unknown field lists, so that it stays one readable line.
const KNOWN_NAMES_MAX: usize = 40;

/// What `--format` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One JSON document a line.
    Json,
    /// One line for each record, as the user wrote it.
    Template(Template),
}

/// A text with fields in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `{path}`; with `?` at its end it may be absent, and is empty then.
    Field {
        path: String,
        optional: bool,
    },
}

/// A text that is no format, or a field that no record has.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum FormatError {
    #[error("{0:?} is not a format: want table, json, or a text with {{field}} in it")]
    Unknown(String),
    #[error("{0:?} is not a format here: want json, or a text with {{field}} in it")]
    NotForRecords(String),
    #[error("the brace at byte {0} is not closed; {{{{ is a brace itself")]
    Unclosed(usize),
    #[error("the closing brace at byte {0} closes nothing; }}}} is a brace itself")]
    Unopened(usize),
    #[error("no field {field:?}: there are {known}")]
    NoField { field: String, known: String },
}

/// A record of a listing: its fields as JSON, and its row in a table.
pub(crate) trait Listed: Serialize {
    /// The head of the table.
    const HEAD: &'static [&'static str];

    /// The row; as many cells as the head has.
    fn cells(&self) -> Vec<String>;
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Format, FormatError> {
        match text {
            "table" => Ok(Format::Table),
            "json" => Ok(Format::Json),
            _ if text.contains('{') => text.parse().map(Format::Template),
            _ => Err(FormatError::Unknown(text.to_owned())),
        }
    }
}

/// A format for records that no table can show.
pub(crate) fn without_table(text: &str) -> Result<Format, FormatError> {
    match text.parse() {
        Ok(Format::Table) | Err(FormatError::Unknown(_)) => {
            Err(FormatError::NotForRecords(text.to_owned()))
        }
        other => other,
    }
}

impl FromStr for Template {
    type Err = FormatError;

    /// `{{` and `}}` are braces, `\t` and `\n` what they are elsewhere: shells hand both on as they stand.
    fn from_str(text: &str) -> Result<Template, FormatError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let at = text.len() - rest.len();
            let (taken, meant) = match rest.as_bytes() {
                [b'{', b'{', ..] => (2, '{'),
                [b'}', b'}', ..] => (2, '}'),
                [b'\\', b't', ..] => (2, '\t'),
                [b'\\', b'n', ..] => (2, '\n'),
                [b'}', ..] => return Err(FormatError::Unopened(at)),
                [b'{', ..] => {
                    let end = rest.find('}').ok_or(FormatError::Unclosed(at))?;
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(field(&rest[1..end]));
                    rest = &rest[end + 1..];
                    continue;
                }
                _ => (c.len_utf8(), c),
            };
            plain.push(meant);
            rest = &rest[taken..];
        }
        pieces.push(Piece::Text(plain));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Template(pieces))
    }
}

fn field(path: &str) -> Piece {
    let (path, optional) = match path.trim().strip_suffix('?') {
        Some(path) => (path, true),
        None => (path.trim(), false),
    };
    Piece::Field {
        path: path.to_owned(),
        optional,
    }
}

impl Template {
    /// The text for `record`. What is no text in JSON is written as JSON is, `null` as nothing.
    pub(crate) fn render(&self, record: &Value) -> Result<String, FormatError> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field { path, optional } => match look_up(record, path) {
                    Ok(value) => push(&mut out, value),
                    Err(_) if *optional => {}
                    Err(known) => {
                        let field = path.clone();
                        return Err(FormatError::NoField { field, known });
                    }
                },
            }
        }
        Ok(out)
    }
}

fn push(out: &mut String, value: &Value) {
    match value {
        Value::Null => {}
        Value::String(text) => out.push_str(text),
        // Writing to a string cannot fail.
        other => write!(out, "{other}").unwrap_or_default(),
    }
}

/// Follows a path of names and numbers of list entries. Names may have dots in them, as labels do: the longest name
/// that is there is taken. Otherwise the names that are there instead.
fn look_up<'v>(value: &'v Value, path: &str) -> Result<&'v Value, String> {
    if path.is_empty() || value.is_null() {
        return Ok(value);
    }
    let ends = path.match_indices('.').map(|(at, _)| at);
    let mut ends: Vec<usize> = ends.chain([path.len()]).collect();
    ends.reverse();
    for end in ends {
        let below = match value {
            Value::Object(fields) => fields.get(&path[..end]),
            Value::Array(list) => path[..end].parse().ok().and_then(|at: usize| list.get(at)),
            _ => None,
        };
        if let Some(below) = below {
            return look_up(below, path.get(end + 1..).unwrap_or(""));
        }
    }
    Err(known(value))
}

fn known(value: &Value) -> String {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            let shown = names[..names.len().min(KNOWN_NAMES_MAX)].join(", ");
            match names.len().checked_sub(KNOWN_NAMES_MAX) {
                Some(more @ 1..) => format!("{shown} and {more} more"),
                _ => shown,
            }
        }
        Value::Array(list) if !list.is_empty() => format!("the entries 0 to {}", list.len() - 1),
        Value::Object(_) | Value::Array(_) => "none, it is empty".to_owned(),
        _ => "none, it is no object".to_owned(),
    }
}

/// Prints a listing. Records are printed as they come, but for a table, whose columns are as wide as their widest cell.
pub(crate) fn print<T: Listed>(
    format: &Format,
    rows: impl IntoIterator<Item = T>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    if *format == Format::Table {
        let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.cells()).collect();
        // All at once: standard output itself writes line by line.
        let mut table = Vec::new();
        write_table(&mut table, T::HEAD, rows)?;
        return Ok(out.write_all(&table)?);
    }
    for row in rows {
        print_one(&mut out, format, &serde_json::to_value(row)?)?;
    }
    Ok(())
}

/// Prints one record; in a table's place as JSON over several lines.
pub(crate) fn print_record(
    format: &Format,
    record: &impl Serialize,
) -> Result<(), Box<dyn std::error::Error>> {
    print_one(
        &mut io::stdout().lock(),
        format,
        &serde_json::to_value(record)?,
    )
}

fn print_one(
    out: &mut impl Write,
    format: &Format,
    record: &Value,
) -> Result<(), Box<dyn std::error::Error>> {
    match format {
        Format::Table => writeln!(out, "{}", serde_json::to_string_pretty(record)?)?,
        Format::Json => writeln!(out, "{record}")?,
        Format::Template(template) => {
            let line = template.render(record)?;
            // What an image says must not steer a terminal; a program gets it as it is.
            let line = match io::stdout().is_terminal() {
                true => visible(&line),
                false => line.into(),
            };
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Control characters as such, but for tabs and ends of lines.
fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| c.is_control() && !matches!(c, '\t' | '\n');
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match hidden(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Writes rows below a head, each column as wide as its widest cell.
fn write_table(out: &mut impl Write, head: &[&str], mut rows: Vec<Vec<String>>) -> io::Result<()> {
    rows.insert(0, head.iter().map(|&name| name.to_owned()).collect());
    let mut widths = vec![0; head.len()];
    for row in &mut rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            if cell.contains(char::is_control) {
                *cell = visible(&cell.replace(['\n', '\t'], " ")).into_owned();
            }
            *width = cell.chars().count().max(*width);
        }
    }
    let mut line = String::new();
    for row in &rows {
        line.clear();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}   ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str) -> Result<String, FormatError> {
        let record = json!({
            "name": "a:1", "size": 7, "labels": {"org.x.title": "T", "plain": "p"},
            "layers": [{"digest": "d0"}, {"digest": "d1"}], "parent": null,
        });
        template.parse::<Template>()?.render(&record)
    }

    #[test]
    fn fields_are_replaced() {
        for (template, text) in [
            ("{name}", "a:1"),
            (r"{name}\t{ size }", "a:1\t7"),
            ("{{{name}}}", "{a:1}"),
            ("{labels.org.x.title}-{labels.plain}", "T-p"),
            ("{layers.1.digest}", "d1"),
            ("{parent}{parent.of}|{absent?}|{labels.x?}", "||"),
            ("{layers}", r#"[{"digest":"d0"},{"digest":"d1"}]"#),
            ("ä{size}ö", "ä7ö"),
        ] {
            assert_eq!(render(template).unwrap(), text, "{template}");
        }
    }

    #[test]
    fn what_is_unknown_is_named_with_what_is_known() {
        for (template, message) in [
            (
                "{nam}",
                "no field \"nam\": there are labels, layers, name, parent, size",
            ),
            (
                "{labels.x}",
                "no field \"labels.x\": there are org.x.title, plain",
            ),
            (
                "{layers.2}",
                "no field \"layers.2\": there are the entries 0 to 1",
            ),
            (
                "{name.x}",
                "no field \"name.x\": there are none, it is no object",
            ),
            (
                "a{name",
                "the brace at byte 1 is not closed; {{ is a brace itself",
            ),
            (
                "a}",
                "the closing brace at byte 1 closes nothing; }} is a brace itself",
            ),
        ] {
            assert_eq!(
                render(template).unwrap_err().to_string(),
                message,
                "{template}"
            );
        }
    }

    #[test]
    fn formats_by_name() {
        assert_eq!("table".parse(), Ok(Format::Table));
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!(matches!("{id}".parse(), Ok(Format::Template(_))));
        assert!("yaml".parse::<Format>().is_err());
        assert!(without_table("table").is_err() && without_table("{").is_err());
        assert_eq!(without_table("json"), Ok(Format::Json));
    }

    #[test]
    fn tables_are_aligned_and_show_control_characters() {
        let mut out = Vec::new();
        let rows = [
            vec!["ä".to_owned(), "1".to_owned()],
            vec!["\u{1b}[2J".to_owned(), String::new()],
        ];
        write_table(&mut out, &["N", "SIZE"], rows.into()).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "N           SIZE\nä           1\n\\u{1b}[2J\n"
        );
    }
}
