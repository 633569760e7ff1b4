//! The syntax of command lines that GLib's option parser reads, so that what
//! conmon's callers write is understood word for word: `--name value`,
//! `--name=value`, `-n value`, flags together (`-it`), `--` ends the options,
//! and words that are no options are passed over.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Flag,
    /// A word.
    Text,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Long,
}

/// One option that a program knows.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its long name, without dashes.
    pub name: &'static str,
    /// Its short name.
    pub short: Option<u8>,
    /// What it takes.
    pub kind: Kind,
    /// What it does, for people; empty: it is not shown.
    pub help: &'static str,
}

/// What was given with an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// It was named.
    Flag,
    /// A word.
    Text(OsString),
    /// A number.
    Number(i64),
}

/// What a command line asks.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// The help text.
    Help,
    /// These options, in their order.
    Options(Vec<(&'static str, Value)>),
}

/// A command line that is not understood. The words are GLib's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOption {
    /// No such option.
    #[error("Unknown option {0}")]
    Unknown(String),
    /// The word that it takes is not there.
    #[error("Missing argument for {0}")]
    Missing(String),
    /// The word is not a number.
    #[error("Cannot parse integer value “{1}” for {0}")]
    NotANumber(String, String),
    /// Two options of one word take the next one.
    #[error("Error parsing option {0}")]
    Ambiguous(String),
    /// The number is too large or too small.
    #[error("Integer value “{1}” for {0} out of range")]
    OutOfRange(String, String),
}

/// Reads a command line, without the program's own name.
///
/// # Errors
/// The first thing that is not understood.
pub fn parse(
    entries: &'static [Entry],
    arguments: impl Iterator<Item = OsString>,
) -> Result<Asked, BadOption> {
    let mut arguments = arguments;
    let mut found = Vec::new();
    while let Some(word) = arguments.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            break;
        }
        if let Some(long) = bytes.strip_prefix(b"--") {
            if long == b"help" || long == b"help-all" {
                return Ok(Asked::Help);
            }
            found.push(parse_long(entries, long, &mut arguments)?);
        } else if bytes.len() > 1 && bytes[0] == b'-' {
            if bytes == b"-h" || bytes == b"-?" {
                return Ok(Asked::Help);
            }
            parse_short(entries, &word, &mut arguments, &mut found)?;
        }
    }
    Ok(Asked::Options(found))
}

fn parse_long(
    entries: &'static [Entry],
    word: &[u8],
    arguments: &mut impl Iterator<Item = OsString>,
) -> Result<(&'static str, Value), BadOption> {
    let mut parts = word.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    let attached = parts.next();
    let shown = format!("--{}", String::from_utf8_lossy(name));
    let unknown = || BadOption::Unknown(format!("--{}", String::from_utf8_lossy(word)));
    let entry = entries.iter().find(|entry| entry.name.as_bytes() == name);
    let entry = entry.ok_or_else(unknown)?;
    if entry.kind == Kind::Flag {
        return Ok((entry.name, Value::Flag)); // a word attached to a flag says nothing, as with GLib
    }
    let text = match attached {
        Some(text) => OsString::from_vec(text.to_vec()),
        None => arguments
            .next()
            .ok_or_else(|| BadOption::Missing(shown.clone()))?,
    };
    Ok((entry.name, value(entry.kind, &shown, text)?))
}

/// A word of short names. One of them may take the next word.
fn parse_short(
    entries: &'static [Entry],
    word: &OsStr,
    arguments: &mut impl Iterator<Item = OsString>,
    found: &mut Vec<(&'static str, Value)>,
) -> Result<(), BadOption> {
    let mut taken = false;
    for short in &word.as_bytes()[1..] {
        let entry = entries.iter().find(|entry| entry.short == Some(*short));
        let unknown = || BadOption::Unknown(word.to_string_lossy().into_owned());
        let entry = entry.ok_or_else(unknown)?;
        if entry.kind == Kind::Flag {
            found.push((entry.name, Value::Flag));
            continue;
        }
        let shown = format!("-{}", char::from(*short));
        if std::mem::replace(&mut taken, true) {
            return Err(BadOption::Ambiguous(shown));
        }
        let text = arguments.next();
        let text = text.ok_or_else(|| BadOption::Missing(shown.clone()))?;
        found.push((entry.name, value(entry.kind, &shown, text)?));
    }
    Ok(())
}

fn value(kind: Kind, shown: &str, text: OsString) -> Result<Value, BadOption> {
    let (least, most) = match kind {
        Kind::Flag => return Ok(Value::Flag),
        Kind::Text => return Ok(Value::Text(text)),
        Kind::Int => (i64::from(i32::MIN), i64::from(i32::MAX)),
        Kind::Long => (i64::MIN, i64::MAX),
    };
    let words = text.to_string_lossy().into_owned();
    let number =
        number(&words).ok_or_else(|| BadOption::NotANumber(shown.to_owned(), words.clone()))?;
    i64::try_from(number)
        .ok()
        .filter(|number| (least..=most).contains(number))
        .map(Value::Number)
        .ok_or_else(|| BadOption::OutOfRange(shown.to_owned(), words))
}

/// A number as `strtol(3)` reads it with base 0: decimal, `0x` hexadecimal, `0` octal.
/// What is far out of every range comes as the largest number.
fn number(text: &str) -> Option<i128> {
    let text = text.trim_start();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.strip_prefix("0x") {
        Some(rest) => (16, rest),
        None if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        None => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return None;
    }
    let number = i128::from_str_radix(digits, base).unwrap_or(i128::MAX);
    Some(if negative { -number } else { number })
}

/// The help text.
#[must_use]
pub fn help(program: &str, entries: &[Entry]) -> String {
    let mut text = format!(
        "Usage:\n  {program} [OPTION…] - conmon utility\n\nHelp Options:\n  -h, --help{}Show help options\n\nApplication Options:\n",
        " ".repeat(19)
    );
    for entry in entries.iter().filter(|entry| !entry.help.is_empty()) {
        let short = entry
            .short
            .map(|short| format!("-{}, ", char::from(short)))
            .unwrap_or_default();
        let names = format!("{short}--{}", entry.name);
        text.push_str(&format!("  {names:<29}{}\n", entry.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRIES: &[Entry] = &[
        Entry {
            name: "cid",
            short: Some(b'c'),
            kind: Kind::Text,
            help: "the container",
        },
        Entry {
            name: "terminal",
            short: Some(b't'),
            kind: Kind::Flag,
            help: "",
        },
        Entry {
            name: "stdin",
            short: Some(b'i'),
            kind: Kind::Flag,
            help: "",
        },
        Entry {
            name: "timeout",
            short: Some(b'T'),
            kind: Kind::Int,
            help: "",
        },
        Entry {
            name: "size",
            short: None,
            kind: Kind::Long,
            help: "",
        },
    ];

    fn read(line: &str) -> Result<Vec<(&'static str, Value)>, String> {
        let words = line.split(' ').filter(|word| !word.is_empty());
        match parse(ENTRIES, words.map(OsString::from)) {
            Ok(Asked::Options(options)) => Ok(options),
            Ok(Asked::Help) => Err("help".to_owned()),
            Err(bad) => Err(bad.to_string()),
        }
    }

    fn text(word: &str) -> Value {
        Value::Text(word.into())
    }

    #[test]
    fn options_in_every_form() {
        for line in ["--cid x", "--cid=x", "-c x", "other --cid=x more"] {
            assert_eq!(read(line), Ok(vec![("cid", text("x"))]), "{line}");
        }
        assert_eq!(
            read("-tic x"),
            Ok(vec![
                ("terminal", Value::Flag),
                ("stdin", Value::Flag),
                ("cid", text("x"))
            ])
        );
        assert_eq!(
            read("-ct x"),
            Ok(vec![("cid", text("x")), ("terminal", Value::Flag)])
        );
        assert_eq!(read("--terminal=yes"), Ok(vec![("terminal", Value::Flag)]));
        assert_eq!(
            read("--cid=a --cid=b=c --cid="),
            Ok(vec![
                ("cid", text("a")),
                ("cid", text("b=c")),
                ("cid", text(""))
            ])
        );
        assert_eq!(read("--cid -c"), Ok(vec![("cid", text("-c"))]));
        assert_eq!(read("-- --cid x"), Ok(vec![]));
        assert_eq!(read("- -t"), Ok(vec![("terminal", Value::Flag)]));
        assert_eq!(read("-t --help"), Err("help".into()));
    }

    #[test]
    fn numbers_are_those_of_strtol() {
        for (word, number) in [
            ("5", 5),
            ("-3", -3),
            ("0x10", 16),
            ("010", 8),
            ("0", 0),
            ("+7", 7),
            ("2147483647", 2_147_483_647),
        ] {
            assert_eq!(
                read(&format!("-T {word}")),
                Ok(vec![("timeout", Value::Number(number))]),
                "{word}"
            );
        }
        assert_eq!(
            read("--size 2147483648"),
            Ok(vec![("size", Value::Number(2_147_483_648))])
        );
    }

    #[test]
    fn what_is_not_understood_is_named_as_glib_does() {
        for (line, words) in [
            ("--bogus", "Unknown option --bogus"),
            ("--c x", "Unknown option --c"),
            ("-z", "Unknown option -z"),
            ("-cx", "Missing argument for -c"),
            ("-cx y", "Unknown option -cx"),
            ("-cT x 5", "Error parsing option -T"),
            ("-t=3", "Unknown option -t=3"),
            ("--cid", "Missing argument for --cid"),
            ("-ti -c", "Missing argument for -c"),
            ("-T abc", "Cannot parse integer value “abc” for -T"),
            ("--size=10k", "Cannot parse integer value “10k” for --size"),
            ("--timeout=", "Cannot parse integer value “” for --timeout"),
            (
                "--timeout 99999999999",
                "Integer value “99999999999” for --timeout out of range",
            ),
            (
                "--size 99999999999999999999",
                "Integer value “99999999999999999999” for --size out of range",
            ),
        ] {
            assert_eq!(read(line), Err(words.to_owned()), "{line}");
        }
    }

    #[test]
    fn help_names_what_is_shown() {
        let text = help("conmon", ENTRIES);
        assert!(
            text.contains("  -c, --cid                    the container\n"),
            "{text}"
        );
        assert!(!text.contains("--size"));
    }
}
