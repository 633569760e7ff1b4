//! What differs between a step's inputs and those of an earlier one: the reasons why it ran.

use super::inputs::{Below, FileInput, Inputs};
use crate::pattern::ignore::Rules;
use std::collections::BTreeSet;
use std::fmt;

/// One thing that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A setting or a variable: its name, before, now.
    Value(String, Option<String>, Option<String>),
    /// A file: its path, and what of it.
    File(String, Change),
    /// The base image: before, now.
    Base(String, String),
    /// The layer that an earlier step made.
    Step(String),
    /// Steps before it were added or taken away.
    Steps,
}

/// What of a file is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It was left out before: by which rule.
    NoLongerIgnored(String),
    /// It is gone.
    Removed,
    /// It is left out now: by which rule.
    Ignored(String),
    /// It is something else: before, now.
    Kind(String, String),
    /// Its content.
    Content,
    /// Its permissions: before, now.
    Mode(u32, u32),
    /// Its owner: before, now.
    Owner(String, String),
    /// An extended attribute: its name.
    Xattr(String),
}

/// What of `now` is not as it was `before`; nothing if both are the same.
///
/// A changed layer below is only named where nothing else is: it explains itself at its own step.
pub fn causes(before: &Inputs, now: &Inputs) -> Vec<Cause> {
    let mut causes = values(before, now);
    causes.extend(files(before, now));
    causes.extend(below(&before.parent, &now.parent));
    causes
}

fn values(before: &Inputs, now: &Inputs) -> Vec<Cause> {
    let names: BTreeSet<&String> = before.values.keys().chain(now.values.keys()).collect();
    let differing = names
        .into_iter()
        .filter(|name| before.values.get(*name) != now.values.get(*name));
    differing
        .map(|name| {
            Cause::Value(
                name.clone(),
                before.values.get(name).cloned(),
                now.values.get(name).cloned(),
            )
        })
        .collect()
}

fn files(before: &Inputs, now: &Inputs) -> Vec<Cause> {
    let paths: BTreeSet<&String> = before.files.keys().chain(now.files.keys()).collect();
    let mut causes = Vec::new();
    for path in paths {
        let changes = match (before.files.get(path), now.files.get(path)) {
            (Some(one), Some(two)) => changes(one, two),
            (None, _) => match ignored(&before.ignored, path) {
                Some(rule) => vec![Change::NoLongerIgnored(rule)],
                None => vec![Change::Added],
            },
            (_, None) => match ignored(&now.ignored, path) {
                Some(rule) => vec![Change::Ignored(rule)],
                None => vec![Change::Removed],
            },
        };
        causes.extend(
            changes
                .into_iter()
                .map(|change| Cause::File(path.clone(), change)),
        );
    }
    causes
}

/// The rule that leaves a path out.
fn ignored(rules: &[String], path: &str) -> Option<String> {
    let rules = Rules::from_patterns(rules.iter().map(String::as_str)).ok()?;
    let rule = rules.deciding(path).filter(|rule| !rule.reincludes)?;
    Some(rule.text.clone())
}

fn changes(before: &FileInput, now: &FileInput) -> Vec<Change> {
    let mut changes = Vec::new();
    if before.kind != now.kind {
        changes.push(Change::Kind(before.kind.clone(), now.kind.clone()));
    } else if before.content != now.content {
        changes.push(Change::Content);
    }
    if before.mode != now.mode {
        changes.push(Change::Mode(before.mode, now.mode));
    }
    if before.owner != now.owner {
        let shown = |owner: Option<(u32, u32)>| {
            owner.map_or_else(|| "none".to_owned(), |(uid, gid)| format!("{uid}:{gid}"))
        };
        changes.push(Change::Owner(shown(before.owner), shown(now.owner)));
    }
    let names: BTreeSet<&String> = before.xattrs.keys().chain(now.xattrs.keys()).collect();
    for name in names {
        if before.xattrs.get(name) != now.xattrs.get(name) {
            changes.push(Change::Xattr(name.clone()));
        }
    }
    changes
}

/// The lowest layer that is another one explains all that lie on it.
fn below(before: &[Below], now: &[Below]) -> Option<Cause> {
    let same = before
        .iter()
        .zip(now)
        .take_while(|(one, two)| one.layer == two.layer)
        .count();
    match (before.get(same), now.get(same)) {
        (None, None) => None,
        (one, two) if is_base(one) || is_base(two) => Some(Cause::Base(base(before), base(now))),
        (Some(one), Some(two)) if one.maker == two.maker => Some(Cause::Step(two.maker.clone())),
        _ => Some(Cause::Steps),
    }
}

fn is_base(layer: Option<&Below>) -> bool {
    layer.is_some_and(|layer| layer.base)
}

/// The base image that layers start from, and its topmost layer.
fn base(layers: &[Below]) -> String {
    layers.iter().rfind(|layer| layer.base).map_or_else(
        || "scratch".to_owned(),
        |layer| format!("{} ({})", layer.maker, layer.layer.0.short()),
    )
}

/// A value that may be long, on one line.
fn shown(value: Option<&String>) -> String {
    const CHARACTERS_MAX: usize = 200;
    let Some(value) = value else {
        return "unset".to_owned();
    };
    let cut: String = value.chars().take(CHARACTERS_MAX).collect();
    if cut.len() < value.len() {
        format!("{cut:?}...")
    } else {
        format!("{cut:?}")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(name, before, now) => write!(
                f,
                "{name}: {} -> {}",
                shown(before.as_ref()),
                shown(now.as_ref())
            ),
            Self::File(path, change) => write!(f, "{path}: {change}"),
            Self::Base(before, now) => write!(f, "the base image: {before} -> {now}"),
            Self::Step(maker) => write!(f, "the files that {maker} made"),
            Self::Steps => f.write_str("other steps before it"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("new"),
            Self::NoLongerIgnored(rule) => {
                write!(f, "no longer left out by the ignore pattern {rule:?}")
            }
            Self::Removed => f.write_str("gone"),
            Self::Ignored(rule) => write!(f, "left out by the ignore pattern {rule:?}"),
            Self::Kind(before, now) => write!(f, "{before} -> {now}"),
            Self::Content => f.write_str("content"),
            Self::Mode(before, now) => write!(f, "mode {before:o} -> {now:o}"),
            Self::Owner(before, now) => write!(f, "owner {before} -> {now}"),
            Self::Xattr(name) => write!(f, "extended attribute {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use teu_store::{DiffId, Digest};

    fn inputs() -> Inputs {
        let file = FileInput {
            kind: "file".to_owned(),
            mode: 0o644,
            content: "1".to_owned(),
            ..FileInput::default()
        };
        Inputs {
            values: [("variable V".to_owned(), "1".to_owned())].into(),
            files: [("d/x".to_owned(), file)].into(),
            parent: vec![
                layer("busybox", true, "b"),
                layer("[s 1/2] COPY", false, "c"),
            ],
            ..Inputs::default()
        }
    }

    fn layer(maker: &str, base: bool, content: &str) -> Below {
        Below {
            layer: DiffId(Digest::of(content.as_bytes())),
            maker: maker.to_owned(),
            base,
        }
    }

    fn file(inputs: &mut Inputs) -> &mut FileInput {
        inputs.files.get_mut("d/x").unwrap()
    }

    #[test]
    fn one_change_has_one_cause() {
        type Edit = fn(&mut Inputs);
        let rows: [(&str, Edit); 10] = [
            ("d/x: mode 644 -> 600", |now| file(now).mode = 0o600),
            ("d/x: content", |now| file(now).content = "2".to_owned()),
            ("d/x: owner none -> 1:2", |now| {
                file(now).owner = Some((1, 2))
            }),
            ("d/x: extended attribute user.k", |now| {
                file(now).xattrs = [("user.k".to_owned(), "v".to_owned())].into();
            }),
            ("d/x: gone", |now| now.files.clear()),
            ("d/x: left out by the ignore pattern \"d\"", |now| {
                now.files.clear();
                now.ignored = vec!["d".to_owned()];
            }),
            ("variable V: \"1\" -> \"2\"", |now| {
                now.values.insert("variable V".to_owned(), "2".to_owned());
            }),
            ("variable W: unset -> \"2\"", |now| {
                now.values.insert("variable W".to_owned(), "2".to_owned());
            }),
            ("the files that [s 1/2] COPY made", |now| {
                now.parent[1] = layer("[s 1/2] COPY", false, "other");
            }),
            ("other steps before it", |now| drop(now.parent.pop())),
        ];
        assert_eq!(causes(&inputs(), &inputs()), []);
        for (shown, change) in rows {
            let mut now = inputs();
            change(&mut now);
            let found: Vec<_> = causes(&inputs(), &now)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, [shown]);
        }
        let mut now = inputs();
        now.parent[0] = layer("alpine", true, "a");
        let found = causes(&inputs(), &now);
        assert!(
            matches!(&found[..], [Cause::Base(before, now)] if before.starts_with("busybox (") && now.starts_with("alpine (")),
            "{found:?}"
        );
    }
}
