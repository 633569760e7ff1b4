//! Parser directives: `# name=value` comments before anything else.

use super::instruction::Text;
use super::{Result, Span};
use crate::report::Problem;

/// What the directives at the top of a Dockerfile say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// Continues lines and quotes single characters: `\` or `` ` ``.
    pub escape: char,
    /// The front end image that the author asked for. Front ends are never fetched:
    /// what the published ones add to the language is built in.
    pub syntax: Option<Text>,
    /// The configuration of lint checks, kept as written.
    pub check: Option<Text>,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            escape: '\\',
            syntax: None,
            check: None,
        }
    }
}

/// Reads the directives of `source`, which end at the first line that is none.
///
/// # Errors
/// A directive given twice, or an escape character other than the two.
pub fn parse(source: &str) -> Result<Directives> {
    let mut found = Directives::default();
    let mut escape_seen = false;
    let mut start = byte_order_mark(source);
    for line in source[start..].split_inclusive('\n') {
        let span = start..start + line.trim_end().len();
        start += line.len();
        let Some((name, value)) = split(line) else {
            break;
        };
        let twice = match name.as_str() {
            "escape" => {
                found.escape = escape(value, &span)?;
                std::mem::replace(&mut escape_seen, true)
            }
            "syntax" => found.syntax.replace(text(value, &span)).is_some(),
            "check" => found.check.replace(text(value, &span)).is_some(),
            _ => break,
        };
        if twice {
            return Err(Problem::new(
                format!("the directive `{name}` stands twice"),
                span,
                "second time here",
            )
            .into());
        }
    }
    Ok(found)
}

/// Length of a UTF-8 byte order mark at the start of `source`, which some editors write.
pub fn byte_order_mark(source: &str) -> usize {
    if source.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    }
}

/// Splits `# name = value`; `None` for any other line.
fn split(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric());
    (valid && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}

fn text(value: &str, span: &Span) -> Text {
    Text {
        raw: value.to_owned(),
        span: span.clone(),
    }
}

fn escape(value: &str, span: &Span) -> Result<char> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        _ => Err(Problem::new(
            format!("invalid escape character `{value}`"),
            span.clone(),
            "must be \\ or `",
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_end_at_the_first_other_line() {
        let found =
            parse("\u{feff}# escape=`\n#syntax = docker/dockerfile:1 \n\n# check=skip=all\n")
                .unwrap();
        assert_eq!(found.escape, '`');
        let syntax = found.syntax.map(|text| text.raw);
        assert_eq!(syntax.as_deref(), Some("docker/dockerfile:1"));
        assert_eq!(found.check, None);
        assert_eq!(
            parse("# unknown=1\n# escape=`\n").unwrap(),
            Directives::default()
        );
        assert_eq!(
            parse("FROM a\n# escape=`\n").unwrap(),
            Directives::default()
        );
    }

    #[test]
    fn directives_are_checked() {
        assert!(parse("# escape=x\n").is_err());
        assert!(parse("# escape=`\n# escape=`\n").is_err());
        assert!(parse("# syntax=a\n# syntax=b\n").is_err());
    }
}
