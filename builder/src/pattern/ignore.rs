//! .dockerignore and `--exclude`: moby's pattern semantics.
//!
//! Patterns are rooted at the context (not as in .gitignore): `x` matches only at the top,
//! `**/x` at any depth. A rule that matches a directory matches what is below. Of all rules
//! that match, the last one counts; `!` makes a rule re-include.

use super::glob::{BadPattern, Token as GlobToken, class};

/// Most rules in one file. Each is tried on every path of the context.
pub const RULES_MAX: usize = 10_000;

/// An ordered list of rules.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    reincludes: bool,
}

/// One line of an ignore file.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The line as written, without white space around it.
    pub text: String,
    /// Its number, from 1.
    pub line: usize,
    /// It starts with `!`: what it matches is included again.
    pub reincludes: bool,
    tokens: Vec<Token>,
    /// Literal characters at both ends: most paths fail there, at the cost of a comparison.
    head: String,
    tail: String,
}

/// A rule's text that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: invalid pattern {text:?}")]
pub struct BadRule {
    /// Number of the line, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

/// Which rules matched a directory: its children need not ask again.
#[derive(Debug, Clone, Default)]
pub struct Matched(Vec<bool>);

#[derive(Debug, Clone)]
enum Token {
    Glob(GlobToken),
    /// `**` at the end or inside an element: anything, `/` too.
    Deep,
    /// `**/`: any number of directories, or none. Always followed by [`Token::Inside`].
    Directories,
    /// Within those directories; left only by a `/`.
    Inside,
}

impl Rules {
    /// Reads an ignore file.
    ///
    /// # Errors
    /// The first line that is no pattern, or one line more than [`RULES_MAX`].
    pub fn parse(text: &str) -> Result<Self, BadRule> {
        let text = text.trim_start_matches('\u{feff}');
        let mut rules = Self::default();
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if !line.starts_with('#') && !trimmed.is_empty() {
                rules.add(trimmed, index + 1)?;
            }
        }
        Ok(rules)
    }

    /// Makes rules of single patterns, as `--exclude` gives them.
    ///
    /// # Errors
    /// The first that is no pattern; its "line" is its number.
    pub fn from_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, BadRule> {
        let mut rules = Self::default();
        for (index, pattern) in patterns.into_iter().enumerate() {
            rules.add(pattern.trim(), index + 1)?;
        }
        Ok(rules)
    }

    fn add(&mut self, text: &str, line: usize) -> Result<(), BadRule> {
        let bad = || BadRule {
            line,
            text: text.to_owned(),
        };
        let (reincludes, pattern) = text
            .strip_prefix('!')
            .map_or((false, text), |rest| (true, rest.trim()));
        let pattern = clean(pattern);
        if pattern.is_empty() && reincludes || self.rules.len() >= RULES_MAX {
            return Err(bad());
        }
        let tokens = tokens(&pattern).map_err(|BadPattern| bad())?;
        let literal = |token: &Token| match token {
            Token::Glob(GlobToken::One(c)) => Some(*c),
            _ => None,
        };
        let head = tokens.iter().map_while(literal).collect();
        let tail: Vec<char> = tokens.iter().rev().map_while(literal).collect();
        let tail = tail.into_iter().rev().collect();
        self.reincludes |= reincludes;
        self.rules.push(Rule {
            text: text.to_owned(),
            line,
            reincludes,
            tokens,
            head,
            tail,
        });
        Ok(())
    }

    /// Whether some rule starts with `!`.
    pub fn reincludes(&self) -> bool {
        self.reincludes
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules as they are written.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.text.as_str())
    }

    /// The rule that decides about `path` (relative, `/` between elements), parents considered.
    /// The path is excluded if that rule is not a re-including one.
    pub fn deciding(&self, path: &str) -> Option<&Rule> {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        let names: Vec<&str> = parents.chain([path]).collect();
        self.rules
            .iter()
            .rev()
            .find(|rule| names.iter().any(|name| rule.matches(name)))
    }

    /// Whether `path` is excluded.
    pub fn excludes(&self, path: &str) -> bool {
        self.deciding(path).is_some_and(|rule| !rule.reincludes)
    }

    /// Whether `path`, whose parent matched `above`, is excluded: the walk's quick form.
    pub fn excludes_below(&self, above: &Matched, path: &str) -> bool {
        let matched = |(index, rule): &(usize, &Rule)| {
            above.0.get(*index) == Some(&true) || rule.matches(path)
        };
        self.rules
            .iter()
            .enumerate()
            .rev()
            .find(matched)
            .is_some_and(|(_, rule)| !rule.reincludes)
    }

    /// Which rules match the directory `path`, whose parent matched `above`.
    pub fn enter(&self, above: &Matched, path: &str) -> Matched {
        let hit =
            |(index, rule): (usize, &Rule)| above.0.get(index) == Some(&true) || rule.matches(path);
        Matched(self.rules.iter().enumerate().map(hit).collect())
    }

    /// Whether something below the excluded directory `path` might be included again.
    pub fn may_reinclude_below(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let reaches = |rule: &Rule| rule.head.starts_with(&below) || below.starts_with(&rule.head);
        self.reincludes
            && self
                .rules
                .iter()
                .any(|rule| rule.reincludes && reaches(rule))
    }
}

impl Rule {
    /// Whether the pattern matches the whole of `path`.
    fn matches(&self, path: &str) -> bool {
        path.starts_with(&self.head) && path.ends_with(&self.tail) && self.matches_slowly(path)
    }

    /// Steps the set of reachable token positions over the path.
    fn matches_slowly(&self, path: &str) -> bool {
        let mut reached = vec![false; self.tokens.len() + 1];
        reached[0] = true;
        self.skip(&mut reached);
        for c in path.chars() {
            let mut next = vec![false; reached.len()];
            for (at, token) in self
                .tokens
                .iter()
                .enumerate()
                .filter(|(at, _)| reached[*at])
            {
                match token {
                    Token::Glob(GlobToken::Star) => next[at] |= c != '/',
                    Token::Glob(GlobToken::Any) => next[at + 1] |= c != '/',
                    Token::Glob(one) => next[at + 1] |= one.matches(c),
                    Token::Deep => next[at] = true,
                    Token::Directories => {}
                    Token::Inside => {
                        next[at] = true;
                        next[at + 1] |= c == '/';
                    }
                }
            }
            self.skip(&mut next);
            reached = next;
            if !reached.contains(&true) {
                return false;
            }
        }
        reached[self.tokens.len()]
    }

    /// Follows what may match nothing.
    fn skip(&self, reached: &mut [bool]) {
        for (at, token) in self
            .tokens
            .iter()
            .enumerate()
            .filter(|(at, _)| *at < self.tokens.len())
        {
            if !reached[at] {
                continue;
            }
            match token {
                Token::Glob(GlobToken::Star) | Token::Deep => reached[at + 1] = true,
                Token::Directories => {
                    reached[at + 1] = true;
                    reached[at + 2] = true;
                }
                Token::Glob(_) | Token::Inside => {}
            }
        }
    }
}

/// Go's `filepath.Clean` without a leading `/`: no empty, `.` or resolvable `..` elements.
pub fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for element in path
        .split('/')
        .filter(|element| !element.is_empty() && *element != ".")
    {
        match (element, kept.last()) {
            ("..", Some(last)) if *last != ".." => drop(kept.pop()),
            ("..", None) if path.starts_with('/') => {}
            _ => kept.push(element),
        }
    }
    kept.join("/")
}

fn tokens(pattern: &str) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                while chars.next_if_eq(&'*').is_some() {}
                chars.next_if_eq(&'/');
                match chars.peek() {
                    None => tokens.push(Token::Deep),
                    Some(_) => tokens.extend([Token::Directories, Token::Inside]),
                }
            }
            '*' => tokens.push(Token::Glob(GlobToken::Star)),
            '?' => tokens.push(Token::Glob(GlobToken::Any)),
            '[' => tokens.push(Token::Glob(class(&mut chars)?)),
            '\\' => tokens.push(Token::Glob(GlobToken::One(chars.next().ok_or(BadPattern)?))),
            c => tokens.push(Token::Glob(GlobToken::One(c))),
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(rules: &str, path: &str) -> bool {
        Rules::parse(rules).unwrap().excludes(path)
    }

    #[test]
    fn moby_rules() {
        let table = [
            ("node_modules", "node_modules/a/b", true),
            ("node_modules", "sub/node_modules", false),
            ("**/node_modules", "sub/node_modules/x", true),
            ("**/node_modules", "node_modules", true),
            ("*.log", "a.log", true),
            ("*.log", "d/a.log", false),
            ("**/*.log", "d/e/a.log", true),
            ("d/**", "d/x/y", true),
            ("d/**", "d", false),
            ("**", "a/b", true),
            ("/a/./b/../c/", "a/c", true),
            ("*/temp*", "x/temporary", true),
            ("*/*/temp*", "x/temp", false),
            ("temp?", "tempa", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("# c\n#x\n \n", "#x", false),
            ("*\n!keep", "keep/x", false),
            ("*\n!keep", "other", true),
            ("d\n!d/**/*.go", "d/s/z.go", false),
            ("d\n!d/**/*.go", "d/y.js", true),
            ("!a\na", "a", true),
            (
                "*.md\n!README*.md\nREADME-secret.md",
                "README-secret.md",
                true,
            ),
            ("[ab].c", "b.c", true),
            ("\\*x", "*x", true),
            ("\u{feff}a", "a", true),
        ];
        for (rules, path, fits) in table {
            assert_eq!(excluded(rules, path), fits, "{rules:?} {path}");
        }
    }

    #[test]
    fn the_walk_gives_the_same_answers() {
        let rules = Rules::parse("d\n!d/**/*.go\n**/t*\n!x/tt").unwrap();
        for path in ["d", "d/y.js", "d/s/z.go", "x/tt", "x/tt/a", "tx/q/r", "a"] {
            let mut above = Matched::default();
            for (at, _) in path.match_indices('/') {
                above = rules.enter(&above, &path[..at]);
            }
            assert_eq!(
                rules.excludes_below(&above, path),
                rules.excludes(path),
                "{path}"
            );
        }
        assert!(rules.may_reinclude_below("d"));
        assert!(!rules.may_reinclude_below("other"));
    }

    #[test]
    fn bad_rules_name_their_line() {
        assert_eq!(Rules::parse("a\n[").unwrap_err().line, 2);
        assert_eq!(Rules::parse("!").unwrap_err().line, 1);
    }

    #[test]
    fn deciding_rule_is_named() {
        let rules = Rules::parse("a\n\n*.txt\n").unwrap();
        assert_eq!(rules.deciding("x.txt").map(|rule| rule.line), Some(3));
    }
}
