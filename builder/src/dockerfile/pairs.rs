//! `name=value` lists: ARG, ENV and LABEL.

use super::instruction::{Argument, Instruction, Pair};
use super::parse::Args;
use super::{Result, Span, word};
use crate::report::Problem;

impl Args<'_> {
    /// `ARG name[=default]...`.
    pub(super) fn arg(self) -> Result<Instruction> {
        self.flags("ARG", &[])?;
        self.whole("ARG")?;
        let argument = |range: Span| match self.line.text[range.clone()].find('=') {
            Some(0) => Err(Problem::new(
                "ARG needs a name",
                self.line.source(range),
                "nothing before the `=`",
            )
            .into()),
            Some(at) => {
                let at = range.start + at;
                Ok(Argument {
                    name: self.text(range.start..at),
                    default: Some(self.text(at + 1..range.end)),
                })
            }
            None => Ok(Argument {
                name: self.text(range),
                default: None,
            }),
        };
        let arguments = self
            .quoted_words()
            .into_iter()
            .map(argument)
            .collect::<Result<_>>()?;
        Ok(Instruction::Arg(arguments))
    }

    /// The places of the arguments, split at white space outside of quotes.
    fn quoted_words(&self) -> Vec<Span> {
        let shift = |range: Span| range.start + self.start..range.end + self.start;
        word::split_raw(self.rest(), self.escape)
            .into_iter()
            .map(shift)
            .collect()
    }

    /// `name=value...`, or the old form `name value with spaces`.
    pub(super) fn pairs(&self, name: &str) -> Result<Vec<Pair>> {
        self.whole(name)?;
        let words = self.quoted_words();
        let old_form = words
            .first()
            .is_some_and(|first| !self.line.text[first.clone()].contains('='));
        if old_form {
            return Ok(vec![self.old_pair(name, &words)?]);
        }
        words
            .into_iter()
            .map(|range| self.pair(name, range))
            .collect()
    }

    fn pair(&self, name: &str, range: Span) -> Result<Pair> {
        let fail = |label: &str| {
            Problem::new(
                format!("{name} takes name=value pairs"),
                self.line.source(range.clone()),
                label,
            )
        };
        match self.line.text[range.clone()].find('=') {
            Some(0) => Err(fail("nothing before the `=`").into()),
            Some(at) => {
                let at = range.start + at;
                Ok(Pair {
                    name: self.text(range.start..at),
                    value: self.text(at + 1..range.end),
                    legacy: false,
                })
            }
            None => Err(fail("no `=` here")
                .help("put quotes around a value with spaces".to_owned())
                .into()),
        }
    }

    fn old_pair(&self, name: &str, words: &[Span]) -> Result<Pair> {
        let [key, value, ..] = words else {
            return Err(self
                .problem(
                    format!("{name} needs a name and a value"),
                    "too few arguments",
                )
                .into());
        };
        Ok(Pair {
            name: self.text(key.clone()),
            value: self.text(value.start..self.line.text.len()),
            legacy: true,
        })
    }
}
