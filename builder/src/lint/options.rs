//! `# check=skip=Rule,Rule;error=true;experimental=Rule`, or the same in the build argument
//! `BUILDKIT_DOCKERFILE_CHECK`.

use super::rules::{self, Rule};
use crate::dockerfile::suggest;

/// Which rules are applied, and what their violation means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    skip: Names,
    experimental: Names,
    /// A violation fails the build.
    pub error: bool,
}

/// Some rules.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    All,
    These(Vec<String>),
}

impl Default for Names {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

/// An option of the check directive that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no check option{hint}")]
pub struct BadOption {
    text: String,
    /// What was probably meant.
    hint: String,
}

impl Options {
    /// Reads the value of the directive.
    ///
    /// # Errors
    /// [`BadOption`].
    pub fn parse(text: &str) -> Result<Self, BadOption> {
        let mut options = Self::default();
        for part in text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (name, value) = part.split_once('=').ok_or_else(|| bad(part))?;
            let value = value.trim();
            match name.trim() {
                "skip" => options.skip = Names::parse(value),
                "experimental" => options.experimental = Names::parse(value),
                "error" => options.error = boolean(value).ok_or_else(|| bad(part))?,
                _ => return Err(bad(part)),
            }
        }
        Ok(options)
    }

    /// Whether a rule is applied.
    pub fn applies(&self, rule: &Rule) -> bool {
        if rule.experimental {
            self.experimental.contains(rule.name)
        } else {
            !self.skip.contains(rule.name)
        }
    }

    /// Names in the options that are no rules, and what was probably meant.
    pub fn unknown(&self) -> Vec<(String, Option<&'static str>)> {
        let known = || rules::ALL.iter().map(|rule| rule.name);
        [&self.skip, &self.experimental]
            .into_iter()
            .filter_map(|names| match names {
                Names::All => None,
                Names::These(names) => Some(names),
            })
            .flatten()
            .filter(|name| !known().any(|rule| rule == *name))
            .map(|name| (name.clone(), suggest::nearest(name, known())))
            .collect()
    }
}

impl Names {
    fn parse(text: &str) -> Self {
        if text == "all" {
            return Self::All;
        }
        let names = text.split(',').map(str::trim);
        Self::These(
            names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.iter().any(|own| own == name),
        }
    }
}

fn bad(text: &str) -> BadOption {
    let name = text.split('=').next().unwrap_or_default().trim();
    let near = suggest::nearest(name, ["skip", "error", "experimental"]);
    BadOption {
        text: text.to_owned(),
        hint: near
            .filter(|near| *near != name)
            .map(|near| format!(" (did you mean `{near}`?)"))
            .unwrap_or_default(),
    }
}

/// Go's `strconv.ParseBool`.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = Options::parse("skip=StageNameCasing, FromAsCasing;error=true").unwrap();
        assert!(options.error);
        assert!(!options.applies(&rules::FROM_AS_CASING));
        assert!(options.applies(&rules::UNDEFINED_VAR));
        assert!(!options.applies(&rules::COPY_IGNORED_FILE));
        let options = Options::parse("skip=all;experimental=CopyIgnoredFile").unwrap();
        assert!(!options.applies(&rules::UNDEFINED_VAR));
        assert!(options.applies(&rules::COPY_IGNORED_FILE));
        assert!(!options.applies(&rules::INVALID_DEFINITION_DESCRIPTION));
        assert!(
            Options::parse("experimental=all")
                .unwrap()
                .applies(&rules::COPY_IGNORED_FILE)
        );
        assert_eq!(Options::parse("").unwrap(), Options::default());
        for bad in ["skip", "skp=all", "error=maybe"] {
            assert!(Options::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Options::parse("skip=StageNameCasin").unwrap().unknown(),
            [("StageNameCasin".to_owned(), Some("StageNameCasing"))]
        );
    }
}
