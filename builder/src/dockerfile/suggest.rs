//! "did you mean": the nearest of a few known words.

/// The candidate that `word` was probably meant to be: at most a third of it is mistyped.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(WORD_CHARS_MAX).collect();
    let limit = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                distance(&word, &candidate.to_lowercase().chars().collect::<Vec<_>>()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The same; a word that only begins one of the candidates means that.
pub fn nearest_or_begun<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let begun = |candidate: &&str| !word.is_empty() && candidate.starts_with(word);
    nearest(word, candidates.clone()).or_else(|| candidates.into_iter().find(begun))
}

/// Longest word that is compared, in characters: the cost is quadratic.
const WORD_CHARS_MAX: usize = 64;

/// Insertions, deletions, replacements and swaps of neighbours that turn one into the other
/// (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        let known = ["COPY", "CMD", "RUN", "ENTRYPOINT"];
        assert_eq!(nearest("COPPY", known), Some("COPY"));
        assert_eq!(nearest("cpoy", known), Some("COPY"));
        assert_eq!(nearest("ENTRYPIONT", known), Some("ENTRYPOINT"));
        assert_eq!(nearest("FETCH", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest_or_begun("ENTRY", known), Some("ENTRYPOINT"));
        assert_eq!(nearest_or_begun("", known), None);
    }
}
