//! What is fed with noise: by the targets of `builder/fuzz` (`make fuzz`), and by the test here, which changes the corpus
//! at random for a moment. What must hold is in the functions: no panic, no hang, and two ways to one answer agree.

use crate::call::{outline_json, targets_json};
use crate::dockerfile;
use crate::dockerfile::word::Lexer;
use crate::environment::Environment;
use crate::modes::ModeChange;
use crate::pattern::glob::Glob;
use crate::pattern::ignore::{Matched, Rules};
use crate::pattern::shell::Pattern;
use crate::plan::{self, Image, Images, Options};
use crate::remote::{git_source, http_source, without_passwords};
use teu_store::image::{ImageConfig, Platform};

/// Longest result of a replacement, bytes.
const REPLACED_BYTES_MAX: usize = 1 << 20;

/// Every name is an image of nothing.
struct Anything;

impl Images for Anything {
    fn image(
        &mut self,
        name: &str,
        platform: &Platform,
    ) -> Result<Image, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Image {
            name: name.to_owned(),
            platform: platform.clone(),
            layers: Vec::new(),
            config: ImageConfig::default(),
        })
    }
}

/// A Dockerfile: what is wrong with it can be shown in its lines; its plan can be printed.
pub fn dockerfile(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else {
        return;
    };
    let file = match dockerfile::parse(source) {
        Ok(file) => file,
        Err(problem) => return drop(problem.render("Dockerfile", source, true)),
    };
    let options = Options {
        build_args: vec![("V".to_owned(), "given".to_owned())],
        ..Options::default()
    };
    let _ = targets_json(&file, source);
    let checked = plan::check(&file, &options, &mut Anything);
    for warning in &checked.warnings {
        let _ = warning
            .problem()
            .render_warning("Dockerfile", source, false);
    }
    match plan::plan(&file, &options, &mut Anything) {
        Ok(plan) => drop((plan.to_dot(), outline_json(&plan.outline, source))),
        Err(problem) => drop(problem.render("Dockerfile", source, false)),
    }
}

/// Patterns and words, a blank line, and what they are tried on.
pub fn patterns(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (patterns, tried) = text.split_once("\n\n").unwrap_or((text, ""));
    if let Ok(rules) = Rules::parse(patterns) {
        tried.lines().for_each(|path| ignored(&rules, path));
    }
    let variables = Environment::from_strings(["A=a/b/c", "B=", "_x=\u{e9}"]);
    for word in text.lines() {
        for escape in ['\\', '`'] {
            let lexer = Lexer::new(escape, &variables);
            let _ = lexer.expand_words(word);
            let told = lexer.expand_and_tell(word).map(|told| told.text);
            assert_eq!(lexer.expand(word).ok(), told.ok());
        }
        if let Some(change) = ModeChange::parse(word) {
            assert!(change.apply(0o644, false) <= 0o7777);
        }
        let _ = (git_source(word), http_source(word), without_passwords(word));
        let (globs, shell) = (Glob::parse(word), Pattern::parse(word));
        for value in tried.lines() {
            let _ = globs.as_ref().map(|glob| glob.matches(value));
            if let Ok(pattern) = &shell {
                trimmed(pattern, value);
            }
        }
    }
}

/// The walk asks level by level, messages ask about a whole path.
fn ignored(rules: &Rules, path: &str) {
    let mut above = Matched::default();
    for (at, _) in path.match_indices('/') {
        above = rules.enter(&above, &path[..at]);
    }
    assert_eq!(rules.excludes_below(&above, path), rules.excludes(path));
}

fn trimmed(pattern: &Pattern, value: &str) {
    for longest in [false, true] {
        assert!(value.ends_with(pattern.trim_start(value, longest)));
        assert!(value.starts_with(pattern.trim_end(value, longest)));
        let _ = pattern.replace(value, "r", longest, REPLACED_BYTES_MAX);
    }
    assert!(pattern.trim_start(value, true).len() <= pattern.trim_start(value, false).len());
}

#[cfg(test)]
#[path = "../../store/fuzz/feed.rs"]
mod feed;

#[cfg(test)]
mod tests {
    use super::feed::feed;

    #[test]
    fn dockerfiles() {
        feed("dockerfile", 1, super::dockerfile);
    }

    #[test]
    fn patterns() {
        feed("patterns", 1, super::patterns);
    }
}
