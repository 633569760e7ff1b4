//! Words: quotes, escapes and variables, as BuildKit's shell lexer reads them.
//!
//! `$v ${v} ${v:-w} ${v-w} ${v:+w} ${v+w} ${v:?w} ${v?w} ${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/r} ${v//p/r}`,
//! nested; single quotes take everything as it is, double quotes keep `$` alive.

use super::Span;
use crate::environment::Environment;
use crate::pattern::shell;
use std::collections::BTreeSet;

/// Longest result of one expansion, in bytes. `ARG B=$A$A` repeated doubles a value each time.
pub const EXPANSION_BYTES_MAX: usize = 1024 * 1024;

/// Deepest nesting of `${a:-${b:-...}}`. People write two or three.
const NESTING_MAX: usize = 64;

/// Why a word has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordError {
    /// A quote without its partner.
    #[error("the {0} quote is not closed")]
    OpenQuote(&'static str),
    /// `${` without `}`, or `${a/b` without `/`.
    #[error("`{0}` is missing in the substitution")]
    Missing(char),
    /// `${}` or `${:x}`.
    #[error("bad substitution")]
    BadSubstitution,
    /// An operator that is none of the list above.
    #[error("unsupported modifier `{0}` in substitution")]
    Modifier(String),
    /// `${name:?message}`, and `name` is not set.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What its author wants people to read.
        message: String,
    },
    /// A pattern with an escape that means nothing.
    #[error("invalid escape `\\{0}` in the pattern")]
    Pattern(char),
    /// More than [`EXPANSION_BYTES_MAX`].
    #[error("the expansion is longer than {EXPANSION_BYTES_MAX} bytes")]
    TooLong,
    /// Nested deeper than people write.
    #[error("substitutions are nested more than {NESTING_MAX} deep")]
    TooDeep,
}

/// What happens to quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotes {
    /// They group and vanish.
    Remove,
    /// They group and stay: a word on its way to a second reading.
    Keep,
    /// They are ordinary characters: heredoc bodies.
    Ignore,
}

/// Reads words with one set of variables.
#[derive(Debug, Clone, Copy)]
pub struct Lexer<'a> {
    /// The escape character of the file.
    pub escape: char,
    /// What happens to quotes.
    pub quotes: Quotes,
    /// Leaves `$unset` as it is instead of replacing it with nothing.
    pub keep_unset: bool,
    /// The variables.
    pub variables: &'a Environment,
}

impl<'a> Lexer<'a> {
    /// A lexer that removes quotes and replaces every variable.
    pub fn new(escape: char, variables: &'a Environment) -> Self {
        Self {
            escape,
            quotes: Quotes::Remove,
            keep_unset: false,
            variables,
        }
    }

    /// The value of `word`; white space in it is kept.
    ///
    /// # Errors
    /// Whatever [`WordError`] lists.
    pub fn expand(&self, word: &str) -> Result<String, WordError> {
        Ok(self.read(word)?.text)
    }

    /// The value of `word`, and which variables it named.
    ///
    /// # Errors
    /// Whatever [`WordError`] lists.
    pub fn expand_and_tell(&self, word: &str) -> Result<Expansion, WordError> {
        let mut reader = self.reader(word);
        let text = reader.until(None, false)?.text;
        Ok(Expansion {
            text,
            set: reader.set,
            unset: reader.unset,
        })
    }

    /// The value of `word` split at white space outside of quotes, after the replacement.
    ///
    /// # Errors
    /// Whatever [`WordError`] lists.
    pub fn expand_words(&self, word: &str) -> Result<Vec<String>, WordError> {
        Ok(self.read(word)?.words())
    }

    fn read(&self, word: &str) -> Result<Output, WordError> {
        self.reader(word).until(None, false)
    }

    fn reader<'b>(&'b self, word: &'b str) -> Reader<'b> {
        Reader {
            lexer: self,
            rest: word,
            depth: 0,
            set: BTreeSet::new(),
            unset: BTreeSet::new(),
        }
    }
}

/// A word's value and what it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expansion {
    /// The value.
    pub text: String,
    /// Variables that were asked for and have a value.
    pub set: BTreeSet<String>,
    /// Variables that have none and no default in the word: `$name` and `${name}`.
    pub unset: BTreeSet<String>,
}

/// Text in the making: whole, and as words.
#[derive(Default)]
struct Output {
    text: String,
    words: Vec<String>,
    word: String,
    in_word: bool,
}

impl Output {
    /// A character that separates words if it is white space.
    fn plain(&mut self, c: char) {
        self.text.push(c);
        self.split(c);
    }

    /// A character that is part of a word, whatever it is.
    fn quoted(&mut self, c: char) {
        self.text.push(c);
        self.word.push(c);
        self.in_word = true;
    }

    fn split(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
            self.in_word = true;
        } else if self.in_word && !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
            self.in_word = false;
        }
    }

    /// A variable's value, which is split like plain text.
    fn value(&mut self, text: &str) {
        self.text.push_str(text);
        text.chars().for_each(|c| self.split(c));
    }

    /// What stood between quotes.
    fn quoted_text(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
        self.in_word = true;
    }

    fn words(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Reader<'a> {
    lexer: &'a Lexer<'a>,
    rest: &'a str,
    depth: usize,
    set: BTreeSet<String>,
    unset: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Reads up to `stop` (consumed) or the end. `raw_escapes` keeps escape characters,
    /// for patterns that read them again.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<Output, WordError> {
        let mut out = Output::default();
        let quotes = self.lexer.quotes != Quotes::Ignore;
        while let Some(c) = self.peek() {
            if out.text.len() > EXPANSION_BYTES_MAX {
                return Err(WordError::TooLong);
            }
            match c {
                c if Some(c) == stop => {
                    self.next();
                    return Ok(out);
                }
                '\'' if quotes => out.quoted_text(&self.single_quoted()?),
                '"' if quotes => out.quoted_text(&self.double_quoted(raw_escapes)?),
                '$' => out.value(&self.dollar()?),
                c if c == self.lexer.escape => {
                    self.next();
                    if raw_escapes {
                        out.quoted(c);
                    }
                    if let Some(escaped) = self.next() {
                        out.quoted(escaped);
                    }
                }
                c => {
                    self.next();
                    out.plain(c);
                }
            }
        }
        match stop {
            Some(stop) => Err(WordError::Missing(stop)),
            None if out.text.len() > EXPANSION_BYTES_MAX => Err(WordError::TooLong),
            None => Ok(out),
        }
    }

    fn single_quoted(&mut self) -> Result<String, WordError> {
        let body = &self.rest[1..];
        let length = body.find('\'').ok_or(WordError::OpenQuote("single"))?;
        self.rest = &body[length + 1..];
        Ok(self.keep_quotes('\'', &body[..length]))
    }

    fn double_quoted(&mut self, raw_escapes: bool) -> Result<String, WordError> {
        self.next();
        let mut text = String::new();
        loop {
            if text.len() > EXPANSION_BYTES_MAX {
                return Err(WordError::TooLong);
            }
            match self.peek().ok_or(WordError::OpenQuote("double"))? {
                '"' => {
                    self.next();
                    return Ok(self.keep_quotes('"', &text));
                }
                '$' => text.push_str(&self.dollar()?),
                c => {
                    self.next();
                    if raw_escapes && c == self.lexer.escape {
                        text.push(c);
                    }
                    text.push(self.escaped_in_quotes(c).unwrap_or(c));
                }
            }
        }
    }

    /// Inside double quotes the escape character escapes only `"`, `$` and itself.
    fn escaped_in_quotes(&mut self, c: char) -> Option<char> {
        if c != self.lexer.escape {
            return None;
        }
        let next = self
            .peek()
            .filter(|next| matches!(next, '"' | '$') || *next == self.lexer.escape)?;
        self.next();
        Some(next)
    }

    fn keep_quotes(&self, quote: char, text: &str) -> String {
        if self.lexer.quotes == Quotes::Keep {
            format!("{quote}{text}{quote}")
        } else {
            text.to_owned()
        }
    }

    fn dollar(&mut self) -> Result<String, WordError> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            let value = self.variable(name);
            self.miss(name, value);
            return Ok(match value {
                Some(value) => value.to_owned(),
                None if self.lexer.keep_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(WordError::TooDeep);
        }
        let whole = self.rest;
        self.next();
        let value = self.braces()?;
        self.depth -= 1;
        // An unset variable that shall stay is given back as it was written.
        Ok(value.unwrap_or_else(|| format!("${}", &whole[..whole.len() - self.rest.len()])))
    }

    /// After `${`: the value, or `None` for "leave it as it is".
    fn braces(&mut self) -> Result<Option<String>, WordError> {
        match self.peek() {
            None => return Err(WordError::Missing('}')),
            Some('{' | '}' | ':') => return Err(WordError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let value = self.variable(name);
        let keep = self.lexer.keep_unset && value.is_none();
        let result = match self.next() {
            Some('}') => {
                self.miss(name, value);
                value.unwrap_or_default().to_owned()
            }
            Some(':') => {
                let operator = self.next().unwrap_or_default();
                self.operator(
                    name,
                    value.filter(|value| !value.is_empty()),
                    value.is_some(),
                    operator,
                    ":",
                )?
            }
            Some('/') => self.replace(value.unwrap_or_default())?,
            Some(operator) => self.operator(name, value, false, operator, "")?,
            None => return Err(WordError::Missing('}')),
        };
        Ok((!keep).then_some(result))
    }

    /// `value` is what counts as set: with `colon` an empty one does not.
    fn operator(
        &mut self,
        name: &str,
        value: Option<&str>,
        empty: bool,
        operator: char,
        colon: &str,
    ) -> Result<String, WordError> {
        if !matches!(operator, '-' | '+' | '?' | '#' | '%') {
            return Err(WordError::Modifier(format!("{colon}{operator}")));
        }
        let trims = matches!(operator, '#' | '%');
        if trims && !colon.is_empty() {
            return Err(WordError::Modifier(format!("{colon}{operator}")));
        }
        let word = self.until(Some('}'), trims)?.text;
        match operator {
            '-' => Ok(value.map_or(word, str::to_owned)),
            '+' => Ok(if value.is_some() { word } else { String::new() }),
            '?' => value
                .map(str::to_owned)
                .ok_or_else(|| required(name, word, empty)),
            _ => trim(value.unwrap_or_default(), operator, &word),
        }
    }

    fn replace(&mut self, value: &str) -> Result<String, WordError> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.until(Some('/'), true)?.text;
        let replacement = self.until(Some('}'), true)?.text;
        let pattern = shell::Pattern::parse(&pattern).map_err(WordError::Pattern)?;
        let replaced = pattern.replace(value, &replacement, all, EXPANSION_BYTES_MAX);
        replaced.ok_or(WordError::TooLong)
    }

    /// A variable's value; notes that it was asked for.
    fn variable(&mut self, name: &str) -> Option<&'a str> {
        let value = self.lexer.variables.get(name)?;
        self.set.insert(name.to_owned());
        Some(value)
    }

    /// Notes a variable that has no value where one was expected.
    fn miss(&mut self, name: &str, value: Option<&str>) {
        if value.is_none() {
            self.unset.insert(name.to_owned());
        }
    }

    /// A variable's name; digits or one special character otherwise; may be empty.
    fn name(&mut self) -> &'a str {
        let first = self.peek().unwrap_or_default();
        let length = if first.is_ascii_digit() {
            self.rest.len()
                - self
                    .rest
                    .trim_start_matches(|c: char| c.is_ascii_digit())
                    .len()
        } else if "@*#?-$!".contains(first) {
            first.len_utf8()
        } else {
            self.rest.len()
                - self
                    .rest
                    .trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
                    .len()
        };
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest;
        name
    }
}

fn required(name: &str, word: String, empty: bool) -> WordError {
    let default = if empty {
        "must not be empty"
    } else {
        "must be set"
    };
    let message = if word.is_empty() {
        default.to_owned()
    } else {
        word
    };
    WordError::Required {
        name: name.to_owned(),
        message,
    }
}

/// `#` and `##` from the front, `%` and `%%` from the end; doubled takes the longest match.
fn trim(value: &str, operator: char, word: &str) -> Result<String, WordError> {
    let (longest, pattern) = word
        .strip_prefix(operator)
        .map_or((false, word), |rest| (true, rest));
    let pattern = shell::Pattern::parse(pattern).map_err(WordError::Pattern)?;
    let kept = if operator == '#' {
        pattern.trim_start(value, longest)
    } else {
        pattern.trim_end(value, longest)
    };
    Ok(kept.to_owned())
}

/// Removes quotes and escapes from text without variables; `None` when a quote stays open.
pub fn unquote(text: &str, escape: char, quotes: Quotes) -> Option<String> {
    let none = Environment::default();
    Lexer {
        escape,
        quotes,
        keep_unset: true,
        variables: &none,
    }
    .expand(text)
    .ok()
}

/// The places of the words of `text`, split at white space outside of quotes.
pub fn split_raw(text: &str, escape: char) -> Vec<Span> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(start.take().map(|start| start..at));
            continue;
        }
        start.get_or_insert(at);
        match quote {
            // Single quotes know no escapes.
            Some('\'') if c == '\'' => quote = None,
            Some('\'') => {}
            _ if c == escape => drop(chars.next()),
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None => {}
        }
    }
    words.extend(start.map(|start| start..text.len()));
    words
}

/// Whether `text` is a JSON array, of whatever.
pub fn is_json_array(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('[') && serde_json::from_str::<Vec<serde_json::Value>>(text).is_ok()
}

/// Reads a JSON array of strings, the exec form; `None` for anything else, which is then shell form.
pub fn json_strings(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

#[cfg(test)]
#[path = "word_tests.rs"]
mod tests;
