//! Rules that the text of a Dockerfile decides, whatever the base images are.

use super::rules::{self, Rule};
use super::{Linter, Warning};
use crate::dockerfile::instruction::{From, Text};
use crate::dockerfile::word::{Expansion, Lexer};
use crate::dockerfile::{Dockerfile, Instruction, Span, Statement, suggest};
use crate::environment::Environment;
use std::collections::BTreeSet;
use teu_store::Reference;

/// Names of stages that mean something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// What FROM can see.
#[derive(Debug, Clone)]
pub struct Globals<'a> {
    /// Values as this build has them.
    pub values: &'a Environment,
    /// The same without any build argument.
    pub defaults: &'a Environment,
    /// Names that some ARG before the first FROM declares, with or without a value.
    pub declared: Vec<&'a str>,
}

/// Applies the rules to a file.
pub fn check_file(linter: &Linter, file: &Dockerfile, globals: Globals<'_>) {
    let check = Check {
        linter,
        escape: file.directives.escape,
        globals,
    };
    for span in &file.empty_continuations {
        check.warn(
            &rules::NO_EMPTY_CONTINUATION,
            span,
            span,
            "an empty line stands inside a continued instruction".to_owned(),
        );
    }
    check.casing(&file.statements);
    let mut names = BTreeSet::new();
    for statement in &file.statements {
        check.description(statement);
        match &statement.instruction {
            Instruction::From(from) => {
                check.names(from, statement, &mut names);
                check.base(from, statement);
                check.platform(from, statement);
            }
            Instruction::Maintainer(_) => check.warn(
                &rules::MAINTAINER_DEPRECATED,
                &statement.span,
                &statement.span,
                "MAINTAINER is deprecated: write LABEL org.opencontainers.image.authors="
                    .to_owned(),
            ),
            _ => {}
        }
    }
}

struct Check<'a> {
    linter: &'a Linter,
    escape: char,
    globals: Globals<'a>,
}

impl Check<'_> {
    fn warn(&self, rule: &'static Rule, span: &Span, statement: &Span, detail: String) {
        self.warn_with_help(rule, span, statement, detail, None);
    }

    fn warn_with_help(
        &self,
        rule: &'static Rule,
        span: &Span,
        statement: &Span,
        detail: String,
        help: Option<String>,
    ) {
        self.linter.warn(Warning {
            rule,
            detail,
            span: span.clone(),
            statement: statement.clone(),
            help,
        });
    }

    /// All instructions from the first FROM on are in the case of most of them.
    fn casing(&self, statements: &[Statement]) {
        let is_from = |statement: &Statement| matches!(statement.instruction, Instruction::From(_));
        let first = statements.iter().position(is_from).unwrap_or(0);
        let statements = &statements[first..];
        let lower = |name: &str| name == name.to_lowercase();
        let upper = |name: &str| name == name.to_uppercase();
        let count = |test: &dyn Fn(&str) -> bool| {
            statements
                .iter()
                .filter(|statement| test(statement.name()))
                .count()
        };
        let mostly_lower = count(&lower) > count(&upper);
        for statement in statements {
            let name = statement.name();
            let (fits, wanted) = if mostly_lower {
                (lower(name), "lower")
            } else {
                (upper(name), "upper")
            };
            if !fits {
                let span = statement.span.start..statement.span.start + name.len();
                let detail = format!("`{name}` is not in {wanted} case as most instructions are");
                self.warn(
                    &rules::CONSISTENT_INSTRUCTION_CASING,
                    &span,
                    &statement.span,
                    detail,
                );
            }
        }
    }

    fn names(&self, from: &From, statement: &Statement, names: &mut BTreeSet<String>) {
        let (Some(name), Some((keyword, written))) = (&from.name, &from.written) else {
            return;
        };
        let whole = &statement.span;
        if written.raw != name.raw {
            let detail = format!("the stage name `{}` is not in lower case", written.raw);
            self.warn(&rules::STAGE_NAME_CASING, &written.span, whole, detail);
        }
        let command = statement.name();
        let same = if command == command.to_lowercase() {
            keyword.raw == keyword.raw.to_lowercase()
        } else {
            command != command.to_uppercase() || keyword.raw == keyword.raw.to_uppercase()
        };
        if !same {
            let detail = format!("`{}` is not in the case of `{command}`", keyword.raw);
            self.warn(&rules::FROM_AS_CASING, &keyword.span, whole, detail);
        }
        if RESERVED.contains(&name.raw.as_str()) {
            let detail = format!("the stage name `{}` has a meaning of its own", name.raw);
            self.warn(&rules::RESERVED_STAGE_NAME, &name.span, whole, detail);
        }
        if !names.insert(name.raw.clone()) {
            let detail = format!("another stage is called `{}`, too", name.raw);
            self.warn(&rules::DUPLICATE_STAGE_NAME, &name.span, whole, detail);
        }
    }

    fn base(&self, from: &From, statement: &Statement) {
        if let Some(expansion) = self.expand(&from.base) {
            self.undeclared(&expansion, &from.base, statement);
        }
        let lexer = Lexer::new(self.escape, self.globals.defaults);
        let by_default = lexer.expand(&from.base.raw);
        if by_default.is_ok_and(|name| name.parse::<Reference>().is_err()) {
            let detail = format!(
                "without build arguments `{}` is no name of an image",
                from.base.raw
            );
            self.warn(
                &rules::INVALID_DEFAULT_ARG_IN_FROM,
                &from.base.span,
                &statement.span,
                detail,
            );
        }
    }

    fn platform(&self, from: &From, statement: &Statement) {
        let Some(platform) = &from.platform else {
            return;
        };
        let Some(expansion) = self.expand(platform) else {
            return;
        };
        self.undeclared(&expansion, platform, statement);
        let only_target = expansion.unset.is_empty()
            && expansion.set.iter().eq(["TARGETPLATFORM"])
            && self.globals.values.get("TARGETPLATFORM") == Some(expansion.text.as_str());
        if only_target {
            let detail = format!("--platform={} is the default", platform.raw);
            self.warn(
                &rules::REDUNDANT_TARGET_PLATFORM,
                &platform.span,
                &statement.span,
                detail,
            );
        }
        let constant = expansion.set.is_empty() && expansion.unset.is_empty();
        let name = from.name.as_ref().map_or("", |name| name.raw.as_str());
        let mut parts = expansion.text.split('/').filter(|part| !part.is_empty());
        if constant
            && !parts.clone().take(2).any(|part| name.contains(part))
            && parts.next().is_some()
        {
            let detail = format!("--platform is the constant `{}`", expansion.text);
            self.warn(
                &rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED,
                &platform.span,
                &statement.span,
                detail,
            );
        }
    }

    fn expand(&self, text: &Text) -> Option<Expansion> {
        Lexer::new(self.escape, self.globals.values)
            .expand_and_tell(&text.raw)
            .ok()
    }

    fn undeclared(&self, expansion: &Expansion, text: &Text, statement: &Statement) {
        let declared = &self.globals.declared;
        for name in expansion
            .unset
            .iter()
            .filter(|name| !declared.contains(&name.as_str()))
        {
            let known = self.globals.values.iter().map(|(name, _)| name);
            let near = suggest::nearest(name, known.chain(declared.iter().copied()));
            let detail = format!("`${name}` is declared by no ARG before the first FROM");
            self.warn_with_help(
                &rules::UNDEFINED_ARG_IN_FROM,
                &text.span,
                &statement.span,
                detail,
                near.map(|near| format!("did you mean `${near}`?")),
            );
        }
    }

    /// A comment right above a definition describes it, by its name.
    fn description(&self, statement: &Statement) {
        let (what, names): (&str, Vec<&str>) = match &statement.instruction {
            Instruction::From(from) => (
                "FROM",
                from.name.iter().map(|name| name.raw.as_str()).collect(),
            ),
            Instruction::Arg(arguments) => (
                "ARG",
                arguments
                    .iter()
                    .map(|argument| argument.name.raw.as_str())
                    .collect(),
            ),
            _ => return,
        };
        let (Some(comment), Some(first)) = (statement.comments.last(), names.first()) else {
            return;
        };
        let begins = comment.split(' ').next().unwrap_or_default();
        if !names.contains(&begins) {
            let example = if names.len() > 1 { "<name>" } else { first };
            let detail = format!("the comment above {what} should begin with `# {example} `");
            self.warn_with_help(
                &rules::INVALID_DEFINITION_DESCRIPTION,
                &statement.span,
                &statement.span,
                detail,
                Some("an empty line between them says that it is another comment".to_owned()),
            );
        }
    }
}
