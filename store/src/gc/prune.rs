//! Which names of images are to go, by age and by the room they take. The choice is a pure value, so that it can be
//! shown before it is carried out; what then has no name is `gc`'s.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use super::kept::Kept;
use super::usage::Files;
use crate::error::Error;
use crate::reference::Reference;
use crate::store::Store;

/// What may go. Images that a container uses stay whatever it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunePolicy {
    /// Only names that were last given (pulled, built, tagged) before this.
    pub before: Option<Timestamp>,
    /// Only as many, oldest first, as it takes until all images together have no more bytes on disk than this.
    pub keep_bytes: Option<u64>,
    /// Only names that match one of these, in which `*` stands for any text; none means all.
    pub names: Vec<String>,
}

/// A name that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The name.
    pub name: Reference,
    /// When it was last given here; RFC 3339.
    pub updated: String,
    /// Bytes on disk that nothing else needs when it and those before it are gone.
    pub frees: u64,
}

/// A name with all that belongs to it.
struct Candidate {
    name: Reference,
    updated: String,
    in_use: bool,
    files: Files,
}

impl Store {
    /// The names that `policy` takes away, oldest first. Removes nothing.
    pub fn prune_plan(&self, policy: &PrunePolicy) -> Result<Vec<Pruned>, Error> {
        let in_use = self.manifests_in_use()?;
        let mut candidates = Vec::new();
        for record in self.list_refs()? {
            let mut digests = Kept::default();
            let known = self.keep_all_of(&record.target.digest, &mut digests);
            if self.unless_gone(&record, known)?.is_none() {
                continue;
            }
            candidates.push(Candidate {
                in_use: in_use.iter().any(|manifest| digests.contains(manifest)),
                files: self.files_of(&digests)?,
                name: record.name,
                updated: record.updated,
            });
        }
        Ok(choose(candidates, policy))
    }

    /// Takes the names of a plan away; their content stays until [`Store::gc`]. A name that was given anew
    /// meanwhile stays.
    pub fn prune(&self, plan: &[Pruned]) -> Result<Vec<Reference>, Error> {
        let mut gone = Vec::new();
        for pruned in plan {
            let is_same = self
                .get_ref(&pruned.name)?
                .is_some_and(|record| record.updated == pruned.updated);
            if is_same && self.remove_ref(&pruned.name)? {
                gone.push(pruned.name.clone());
            }
        }
        Ok(gone)
    }
}

fn choose(mut candidates: Vec<Candidate>, policy: &PrunePolicy) -> Vec<Pruned> {
    // What cannot be read as a time was given by nobody we know: it counts as oldest.
    let time = |candidate: &Candidate| candidate.updated.parse::<Timestamp>().ok();
    candidates.sort_by_key(time);
    let mut users: HashMap<(u64, u64), usize> = HashMap::new();
    let mut total = 0;
    for candidate in &candidates {
        for (file, bytes) in &candidate.files {
            let users = users.entry(*file).or_default();
            total += if *users == 0 { *bytes } else { 0 };
            *users += 1;
        }
    }
    let mut gone = Vec::new();
    for candidate in candidates {
        if policy.keep_bytes.is_some_and(|keep| total <= keep) {
            break;
        }
        let is_young = policy
            .before
            .is_some_and(|before| time(&candidate).is_some_and(|time| time >= before));
        if candidate.in_use || is_young || !is_named(&candidate.name, &policy.names) {
            continue;
        }
        let mut frees = 0;
        for (file, bytes) in &candidate.files {
            if let Some(users) = users.get_mut(file) {
                *users -= 1;
                frees += if *users == 0 { *bytes } else { 0 };
            }
        }
        total -= frees;
        gone.push(Pruned {
            name: candidate.name,
            updated: candidate.updated,
            frees,
        });
    }
    gone
}

fn is_named(name: &Reference, patterns: &[String]) -> bool {
    let fits = |pattern: &String| {
        matches(pattern, &name.to_string()) || matches(pattern, &name.familiar())
    };
    patterns.is_empty() || patterns.iter().any(fits)
}

/// Whether `text` is like `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, day: u32, files: &[(u64, u64)]) -> Candidate {
        Candidate {
            name: name.parse().unwrap(),
            updated: format!("2026-01-{day:02}T00:00:00Z"),
            in_use: name == "used",
            files: files
                .iter()
                .map(|(inode, bytes)| ((0, *inode), *bytes))
                .collect(),
        }
    }

    fn chosen(policy: &PrunePolicy) -> Vec<(String, u64)> {
        let candidates = vec![
            candidate("new", 9, &[(1, 100), (4, 7)]),
            candidate("used", 1, &[(5, 1)]),
            candidate("old", 2, &[(1, 100), (2, 10)]),
            candidate("older", 1, &[(2, 10), (3, 5)]),
        ];
        let chosen = choose(candidates, policy);
        let chosen = chosen.into_iter();
        chosen
            .map(|pruned| (pruned.name.familiar_name(), pruned.frees))
            .collect()
    }

    #[test]
    fn policies() {
        let names = |list: &[(&str, u64)]| -> Vec<(String, u64)> {
            list.iter()
                .map(|(name, n)| ((*name).to_owned(), *n))
                .collect()
        };
        let any = PrunePolicy::default();
        assert_eq!(
            chosen(&any),
            names(&[("older", 5), ("old", 10), ("new", 107)])
        );
        let before = Some("2026-01-03T00:00:00Z".parse().unwrap());
        let old = PrunePolicy {
            before,
            ..any.clone()
        };
        assert_eq!(chosen(&old), names(&[("older", 5), ("old", 10)]));
        let small = PrunePolicy {
            keep_bytes: Some(118),
            ..any.clone()
        };
        assert_eq!(chosen(&small), names(&[("older", 5)]));
        let named = PrunePolicy {
            names: vec!["o*r".into(), "docker.io/*/new:latest".into()],
            ..any
        };
        assert_eq!(chosen(&named), names(&[("new", 7)]));
    }

    #[test]
    fn patterns() {
        for (pattern, text, is) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*b*c", "axbyc", true),
            ("a*b*c", "axc", false),
            ("*", "", true),
            ("", "", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }
}
