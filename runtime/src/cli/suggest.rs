//! What was probably meant by a word that does not exist.

/// The candidate that is so near to `word` that it was probably meant.
pub(crate) fn closest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // In a short word two mistakes change too much.
    let mistakes_max = if word.len() < 5 { 1 } else { 2 };
    candidates
        .map(|candidate| (distance(word.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(distance, _)| *distance <= mistakes_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters to insert, remove, replace or swap with their neighbour
/// (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(letter != other);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == b[j - 1] && a[i - 1] == *other {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_are_seen_through() {
        let words = ["create", "start", "ps", "pause", "detach", "pid-file"];
        for (typed, meant) in [
            ("craete", Some("create")),
            ("strat", Some("start")),
            ("detatch", Some("detach")),
            ("pidfile", Some("pid-file")),
            ("sp", Some("ps")),
            ("frobnicate", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(closest(typed, words.into_iter()), meant, "{typed}");
        }
    }
}
