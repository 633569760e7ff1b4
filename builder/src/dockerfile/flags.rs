//! `--name[=value]` between an instruction and its arguments.

use super::instruction::{Mount, Text};
use super::{Result, Span, suggest};
use crate::report::Problem;

/// One flag. Quotes are gone, variables are not yet replaced.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The name without dashes.
    pub name: String,
    /// What stands after `=`.
    pub value: Option<String>,
    /// Its bytes in the logical line's text.
    pub range: Span,
}

/// Splits the flags off `text`; what follows them starts at the returned offset.
pub fn take(text: &str) -> (Vec<Flag>, usize) {
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        let start = at + (text[at..].len() - text[at..].trim_start().len());
        if !text[start..].starts_with("--") {
            return (flags, start);
        }
        let (word, length) = unquoted_word(&text[start..]);
        at = start + length;
        if word == "--" {
            return (
                flags,
                at + (text[at..].len() - text[at..].trim_start().len()),
            );
        }
        let (name, value) = word[2..]
            .split_once('=')
            .map_or((&word[2..], None), |(name, value)| (name, Some(value)));
        flags.push(Flag {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            range: start..at,
        });
    }
}

/// What follows the flags of `text`.
pub fn skip(text: &str) -> &str {
    &text[take(text).1..]
}

/// Reads one word, removing quotes and backslashes; flags know no other escape character.
fn unquoted_word(text: &str) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if quote.is_none() && c.is_whitespace() => return (word, at),
            '\\' => word.extend(chars.next().map(|(_, escaped)| escaped)),
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            c => word.push(c),
        }
    }
    (word, text.len())
}

/// The flags of one instruction, taken out one by one; what remains is unknown.
#[derive(Debug)]
pub struct Flags {
    instruction: &'static str,
    known: &'static [&'static str],
    flags: Vec<(Flag, Span)>,
}

impl Flags {
    /// Checks that each flag is one of `known`, and that only `mount`, `exclude` and `device` repeat.
    ///
    /// # Errors
    /// An unknown or repeated flag.
    pub fn new(
        instruction: &'static str,
        known: &'static [&'static str],
        flags: Vec<(Flag, Span)>,
    ) -> Result<Self> {
        for (index, (flag, span)) in flags.iter().enumerate() {
            if !known.contains(&flag.name.as_str()) {
                let near = suggest::nearest(&flag.name, known.iter().copied());
                let help = near
                    .map(|near| format!("did you mean `--{near}`?"))
                    .unwrap_or_else(|| known_flags(instruction, known));
                let title = format!("unknown flag `--{}` for {instruction}", flag.name);
                return Err(Problem::new(title, span.clone(), "unknown flag")
                    .help(help)
                    .into());
            }
            let repeats = ["mount", "exclude", "device"].contains(&flag.name.as_str());
            if !repeats
                && flags[..index]
                    .iter()
                    .any(|(earlier, _)| earlier.name == flag.name)
            {
                let title = format!("the flag `--{}` stands twice", flag.name);
                return Err(Problem::new(title, span.clone(), "second time here").into());
            }
        }
        Ok(Self {
            instruction,
            known,
            flags,
        })
    }

    /// The value of a flag that needs one.
    ///
    /// # Errors
    /// The flag stands without `=value`.
    pub fn value(&mut self, name: &str) -> Result<Option<Text>> {
        Ok(self.values(name)?.pop())
    }

    /// All values of a flag that may repeat.
    ///
    /// # Errors
    /// The flag stands without `=value`.
    pub fn values(&mut self, name: &str) -> Result<Vec<Text>> {
        debug_assert!(
            self.known.contains(&name),
            "{} has no --{name}",
            self.instruction
        );
        let mut values = Vec::new();
        for (flag, span) in self.flags.iter().filter(|(flag, _)| flag.name == name) {
            let Some(value) = &flag.value else {
                let title = format!("the flag `--{name}` needs a value");
                return Err(
                    Problem::new(title, span.clone(), format!("write --{name}=VALUE")).into(),
                );
            };
            values.push(Text {
                raw: value.clone(),
                span: span.clone(),
            });
        }
        Ok(values)
    }

    /// The value of a flag that may stand alone and then means `true`.
    ///
    /// # Errors
    /// A value other than `true` and `false`.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>> {
        let Some((flag, span)) = self.flags.iter().find(|(flag, _)| flag.name == name) else {
            return Ok(None);
        };
        match flag.value.as_deref() {
            None | Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => {
                let title = format!("invalid value `{other}` for `--{name}`");
                Err(Problem::new(title, span.clone(), "must be true or false").into())
            }
        }
    }

    /// The `--mount` flags, their keys checked.
    ///
    /// # Errors
    /// An unknown key, or a key without its value.
    pub fn mounts(&mut self) -> Result<Vec<Mount>> {
        self.values("mount")?
            .into_iter()
            .map(|text| mount(&text))
            .collect()
    }
}

fn known_flags(instruction: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return format!("{instruction} has no flags");
    }
    let list: Vec<_> = known.iter().map(|name| format!("--{name}")).collect();
    format!("{instruction} knows {}", list.join(", "))
}

/// The keys that any type of mount knows. A `true` key may stand alone.
const MOUNT_KEYS: [(&str, bool); 20] = [
    ("type", false),
    ("from", false),
    ("source", false),
    ("src", false),
    ("target", false),
    ("dst", false),
    ("destination", false),
    ("ro", true),
    ("readonly", true),
    ("rw", true),
    ("readwrite", true),
    ("id", false),
    ("sharing", false),
    ("required", true),
    ("size", false),
    ("mode", false),
    ("uid", false),
    ("gid", false),
    ("env", false),
    ("name", false),
];

fn mount(text: &Text) -> Result<Mount> {
    let mut fields = Vec::new();
    for field in split_csv(&text.raw) {
        let (key, value) = field
            .split_once('=')
            .map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let key = key.to_ascii_lowercase();
        let fail = |title: String| Problem::new(title, text.span.clone(), "in this mount");
        let Some((_, alone)) = MOUNT_KEYS.iter().find(|(known, _)| *known == key) else {
            let near = suggest::nearest(&key, MOUNT_KEYS.iter().map(|(known, _)| *known));
            let help = near.map(|near| format!("did you mean `{near}`?"));
            return Err(fail(format!("unknown option `{key}` of --mount"))
                .help(help)
                .into());
        };
        if value.is_none() && !alone {
            return Err(fail(format!("the option `{key}` of --mount needs a value")).into());
        }
        fields.push((key, value.map(str::to_owned)));
    }
    Ok(Mount {
        fields,
        span: text.span.clone(),
    })
}

/// Splits one CSV record: a field in double quotes may hold commas, `""` in it is a quote.
fn split_csv(text: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_at_the_first_other_word() {
        let (flags, rest) = take("--from=a --chown='x y' --link  src --not dst");
        let names: Vec<_> = flags
            .iter()
            .map(|flag| (flag.name.as_str(), flag.value.as_deref()))
            .collect();
        assert_eq!(
            names,
            [("from", Some("a")), ("chown", Some("x y")), ("link", None)]
        );
        assert_eq!(
            &"--from=a --chown='x y' --link  src --not dst"[rest..],
            "src --not dst"
        );
        assert_eq!(skip("-- --x"), "--x");
        assert_eq!(skip("-x"), "-x");
    }

    #[test]
    fn csv_fields() {
        assert_eq!(split_csv("a=1,\"b=2,3\",c"), ["a=1", "b=2,3", "c"]);
        assert_eq!(split_csv("\"a\"\"b\""), ["a\"b"]);
        assert_eq!(split_csv(""), [""]);
    }
}
