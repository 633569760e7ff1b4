//! Patterns of parameter expansion: `*`, `?` and escapes, in POSIX's sense without classes.

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    One(char),
    Any,
    Star,
}

impl Pattern {
    /// Parses a pattern. `\}` and `\/`, which a substitution needs, stand for the bare character.
    ///
    /// # Errors
    /// The character after a backslash that may not be escaped.
    pub fn parse(text: &str) -> Result<Self, char> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::One(c),
                    other => return Err(other.unwrap_or('\\')),
                },
                c => Token::One(c),
            });
        }
        // A run of stars matches what one does.
        tokens.dedup_by(|a, b| *a == Token::Star && *b == Token::Star);
        Ok(Self(tokens))
    }

    /// `value` without its shortest or longest matching start.
    pub fn trim_start<'a>(&self, value: &'a str, longest: bool) -> &'a str {
        match_length(&self.0, value.chars(), longest).map_or(value, |length| &value[length..])
    }

    /// `value` without its shortest or longest matching end.
    pub fn trim_end<'a>(&self, value: &'a str, longest: bool) -> &'a str {
        let reversed: Vec<_> = self.0.iter().rev().copied().collect();
        match_length(&reversed, value.chars().rev(), longest)
            .map_or(value, |length| &value[..value.len() - length])
    }

    /// `value` with the first match, or all, replaced; `None` when the result exceeds `bytes_max`.
    /// An empty pattern matches nothing.
    pub fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
        bytes_max: usize,
    ) -> Option<String> {
        let mut out = String::new();
        let mut rest = value;
        let mut replaced = false;
        while let Some(c) = rest.chars().next() {
            let length = if replaced && !all {
                None
            } else {
                match_length(&self.0, rest.chars(), true)
            };
            match length.filter(|length| *length > 0) {
                Some(length) => {
                    out.push_str(replacement);
                    rest = &rest[length..];
                    replaced = true;
                }
                None => {
                    out.push(c);
                    rest = &rest[c.len_utf8()..];
                }
            }
            if out.len() > bytes_max {
                return None;
            }
        }
        Some(out)
    }
}

/// Length in bytes of a prefix of `value` that `tokens` match, by stepping the set of
/// reachable positions: linear in value times pattern, whatever the stars.
fn match_length(
    tokens: &[Token],
    value: impl Iterator<Item = char>,
    longest: bool,
) -> Option<usize> {
    let mut reached = vec![false; tokens.len() + 1];
    reached[0] = true;
    skip_stars(tokens, &mut reached);
    let mut found = reached[tokens.len()].then_some(0);
    let mut length = 0;
    for c in value {
        if found.is_some() && !longest {
            break;
        }
        let mut next = vec![false; tokens.len() + 1];
        for (at, token) in tokens.iter().enumerate().filter(|(at, _)| reached[*at]) {
            match token {
                Token::Star => next[at] = true,
                Token::Any => next[at + 1] = true,
                Token::One(one) => next[at + 1] |= *one == c,
            }
        }
        skip_stars(tokens, &mut next);
        reached = next;
        length += c.len_utf8();
        if reached[tokens.len()] {
            found = Some(length);
        }
        if !reached.contains(&true) {
            break;
        }
    }
    found
}

/// A star may match nothing.
fn skip_stars(tokens: &[Token], reached: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if *token == Token::Star && reached[at] {
            reached[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims_and_replaces() {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        assert_eq!(pattern("*.").trim_start("a.b.c", false), "b.c");
        assert_eq!(pattern("*.").trim_start("a.b.c", true), "c");
        assert_eq!(pattern(".*").trim_end("a.b.c", false), "a.b");
        assert_eq!(pattern(".*").trim_end("a.b.c", true), "a");
        assert_eq!(pattern("?é").trim_start("aéb", true), "b");
        assert_eq!(pattern("\\*").trim_start("*a", true), "a");
        assert_eq!(pattern("x").trim_start("abc", true), "abc");
        assert_eq!(
            pattern("a*").replace("banana", "_", false, 99).as_deref(),
            Some("b_")
        );
        assert_eq!(
            pattern("an").replace("banana", "", true, 99).as_deref(),
            Some("ba")
        );
        assert_eq!(
            pattern("").replace("ab", "_", true, 99).as_deref(),
            Some("ab")
        );
        assert_eq!(Pattern::parse("\\x"), Err('x'));
    }

    #[test]
    fn many_stars_take_linear_time() {
        let pattern = Pattern::parse(&"*a".repeat(200)).unwrap();
        let value = "a".repeat(5_000) + "b";
        assert_eq!(pattern.trim_start(&value, true), "b");
    }
}
