//! `--chmod`: octal, or symbolic as chmod(1) has it.

use serde::{Deserialize, Serialize};

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeChange {
    /// These bits, whatever was there.
    Octal(u32),
    /// Clauses such as `u=rwX`, one after the other.
    Symbolic(Vec<Clause>),
}

/// `who` `operator` `permissions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clause {
    /// Whose bits change, as a mask of `0o7777`.
    who: u32,
    operator: char,
    /// `rwxst` for all three classes, cut to `who` when applied.
    bits: u32,
    /// `X`: execute, only for directories and what is executable already.
    conditional_execute: bool,
    /// `u`, `g` or `o` after the operator: copy that class's bits.
    copy_from: Option<char>,
}

impl ModeChange {
    /// Parses `0644`, `755`, `u=rwX,go=rX`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .map(Self::Octal);
        }
        text.split(',')
            .map(clauses)
            .collect::<Option<Vec<_>>>()
            .map(|lists| Self::Symbolic(lists.concat()))
    }

    /// The permission bits that `mode` becomes.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(clauses) => clauses
                .iter()
                .fold(mode & 0o7777, |mode, clause| clause.apply(mode, directory)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let mut bits = self.bits;
        if self.conditional_execute && (directory || mode & 0o111 != 0) {
            bits |= 0o111;
        }
        if let Some(class) = self.copy_from {
            bits |= ((mode >> shift(class)) & 0o7) * 0o111;
        }
        let bits = bits & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !self.who | bits,
        }
    }
}

fn shift(class: char) -> u32 {
    match class {
        'u' => 6,
        'g' => 3,
        _ => 0,
    }
}

/// `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let start = text.find(['+', '-', '='])?;
    let who = text[..start].chars().try_fold(0, |mask, c| match c {
        'u' => Some(mask | 0o4700),
        'g' => Some(mask | 0o2070),
        'o' => Some(mask | 0o1007),
        'a' => Some(0o7777),
        _ => None,
    })?;
    let who = if start == 0 { 0o7777 } else { who };
    let mut list = Vec::new();
    let mut rest = &text[start..];
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..]
            .find(['+', '-', '='])
            .map_or(rest.len(), |end| end + 1);
        list.push(clause(who, operator, &rest[1..end])?);
        rest = &rest[end..];
    }
    Some(list)
}

fn clause(who: u32, operator: char, permissions: &str) -> Option<Clause> {
    let mut clause = Clause {
        who,
        operator,
        bits: 0,
        conditional_execute: false,
        copy_from: None,
    };
    if let "u" | "g" | "o" = permissions {
        clause.copy_from = permissions.chars().next();
        return Some(clause);
    }
    for c in permissions.chars() {
        match c {
            'r' => clause.bits |= 0o444,
            'w' => clause.bits |= 0o222,
            'x' => clause.bits |= 0o111,
            's' => clause.bits |= 0o6000,
            't' => clause.bits |= 0o1000,
            'X' => clause.conditional_execute = true,
            _ => return None,
        }
    }
    Some(clause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_symbolic() {
        let table = [
            ("644", 0o755, false, 0o644),
            ("0755", 0, false, 0o755),
            ("4755", 0, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, false, 0o2755),
            ("+t", 0o755, true, 0o1755),
            ("g=u", 0o640, false, 0o660),
            ("u=rw,g=,o=", 0o777, false, 0o600),
            ("go+r-w", 0o622, false, 0o644),
        ];
        for (text, before, directory, after) in table {
            let change = ModeChange::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                change.apply(before, directory),
                after,
                "{text} on {before:o}"
            );
        }
        for text in ["", "8", "77777", "u", "z=r", "u=q", "644x"] {
            assert_eq!(ModeChange::parse(text), None, "{text}");
        }
    }
}
