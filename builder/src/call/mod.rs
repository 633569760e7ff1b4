//! `--call`: what can be asked about a Dockerfile without building it.

mod lint;
mod location;
mod outline;
mod table;
mod targets;

pub use lint::{checked, print_checked};
pub use outline::{outline_json, outline_text};
pub use targets::{targets_json, targets_text};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// What the rules say: `check`, or `lint`.
    Check,
    /// What the build takes.
    Outline,
    /// Which stages there are.
    Targets,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `method[,format=text|json]`; `None` for a build.
///
/// # Errors
/// What the text should have been.
pub fn parse(text: &str) -> Result<Option<(Call, Form)>, String> {
    let mut fields = text.split(',');
    let call = match fields.next().unwrap_or_default() {
        "build" => None,
        "check" | "lint" | "frontend.lint" => Some(Call::Check),
        "outline" | "frontend.outline" => Some(Call::Outline),
        "targets" | "frontend.targets" => Some(Call::Targets),
        other => {
            return Err(format!(
                "{other:?} is none of build, check, outline, targets"
            ));
        }
    };
    let mut form = Form::Text;
    for field in fields {
        form = match field {
            "format=text" => Form::Text,
            "format=json" => Form::Json,
            other => return Err(format!("{other:?} is none of format=text, format=json")),
        };
    }
    Ok(call.map(|call| (call, form)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read() {
        assert_eq!(parse("build"), Ok(None));
        assert_eq!(
            parse("check,format=json"),
            Ok(Some((Call::Check, Form::Json)))
        );
        assert_eq!(parse("outline"), Ok(Some((Call::Outline, Form::Text))));
        assert!(parse("guess").is_err() && parse("check,format=xml").is_err());
    }
}
