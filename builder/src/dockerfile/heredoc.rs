//! `<<NAME` at the end of a RUN, COPY or ADD line.

use super::lines::Line;
use super::word::{self, Quotes};
use super::{Result, Span};

/// A document inside the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes: the file's name in COPY, the end marker everywhere.
    pub name: String,
    /// The file descriptor before `<<`, normally 0.
    pub descriptor: u32,
    /// Whether variables in it are replaced: the delimiter had no quotes.
    pub expand: bool,
    /// Whether leading tabs were removed: `<<-`.
    pub strip_tabs: bool,
    /// Its lines, line ends included.
    pub content: String,
    /// Where the opening word stands in the logical line.
    pub range: Span,
}

/// Whether a line may open heredocs: RUN, COPY, ADD, also below ONBUILD, and not in JSON form.
pub fn allowed(line: &str) -> bool {
    let mut rest = line.trim_start();
    if !rest.contains("<<") {
        return false;
    }
    loop {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (name, arguments) = (rest[..end].to_ascii_uppercase(), rest[end..].trim_start());
        match name.as_str() {
            "ONBUILD" => rest = arguments,
            "RUN" | "COPY" | "ADD" => {
                return word::json_strings(super::flags::skip(arguments)).is_none();
            }
            _ => return false,
        }
    }
}

/// The heredocs that `line` opens, their content still empty.
///
/// # Errors
/// None today: what does not have the form is an ordinary word.
pub fn find(line: &Line, escape: char) -> Result<Vec<Heredoc>> {
    let words = word::split_raw(&line.text, escape);
    Ok(words
        .into_iter()
        .filter_map(|range| opening(&line.text[range.clone()], range, escape))
        .collect())
}

/// Reads one word as `[fd]<<[-]NAME`.
pub fn opening(text: &str, range: Span, escape: char) -> Option<Heredoc> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (descriptor, rest) = text.split_at(digits);
    let rest = rest.strip_prefix("<<")?;
    let (strip_tabs, quoted) = rest
        .strip_prefix('-')
        .map_or((false, rest), |rest| (true, rest));
    if quoted.is_empty() || quoted.contains('<') {
        return None;
    }
    let name = word::unquote(quoted, escape, Quotes::Remove)?;
    let descriptor = if descriptor.is_empty() {
        0
    } else {
        descriptor.parse().ok()?
    };
    let expand = name == quoted;
    (!name.is_empty()).then_some(Heredoc {
        name,
        descriptor,
        expand,
        strip_tabs,
        content: String::new(),
        range,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_of_all_forms() {
        let open = |text: &str| opening(text, 0..text.len(), '\\');
        assert!(
            open("<<EOF")
                .is_some_and(|h| h.expand && !h.strip_tabs && h.name == "EOF" && h.descriptor == 0)
        );
        assert!(
            open("3<<-\"E F\"")
                .is_some_and(|h| !h.expand && h.strip_tabs && h.name == "E F" && h.descriptor == 3)
        );
        assert!(open("<<'EOF'").is_some_and(|h| !h.expand));
        assert!(open("<<E\\OF").is_some_and(|h| !h.expand && h.name == "EOF"));
        for none in ["<<", "<<<x", "x<<EOF", "<EOF", "<<-", "<<''"] {
            assert!(open(none).is_none(), "{none}");
        }
    }
}
