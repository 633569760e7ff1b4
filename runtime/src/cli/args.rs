//! Reading flags and words of a command line after [`super::table`].

use lexopt::{Arg, Parser};

use super::table::{CommandSpec, FlagSpec};
use crate::error::Error;

/// Flags and words of one command line.
#[derive(Debug, Default)]
pub(crate) struct Args {
    flags: Vec<(&'static str, String)>,
    /// Arguments that are not flags.
    pub words: Vec<String>,
}

impl Args {
    /// Whether a switch is on; the last one counts.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value != "false")
    }

    /// The last value of a flag.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.flags
            .iter()
            .rev()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a flag.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        self.flags
            .iter()
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// A number, where the flag is given.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                Error::Usage(format!(
                    "invalid value for {name}: {text:?} is not a number in range"
                ))
            })
        };
        self.value(name).map(parse).transpose()
    }
}

fn usage(error: &lexopt::Error) -> Error {
    Error::Usage(error.to_string())
}

fn take(
    parser: &mut Parser,
    known: &'static [FlagSpec],
    arg: &Found,
    into: &mut Args,
) -> Result<(), Error> {
    let matches = |flag: &&FlagSpec| match arg {
        // Go's flags take one dash for long names as well as two.
        Found::Short(letter) => flag.short == Some(*letter),
        Found::Long(name) => flag.name == name,
    };
    let flag = known
        .iter()
        .find(matches)
        .ok_or_else(|| undefined(arg, known))?;
    let text = |value: std::ffi::OsString| {
        value
            .into_string()
            .map_err(|value| Error::Usage(format!("{value:?} is not UTF-8")))
    };
    let value = match flag.value {
        Some(_) => text(parser.value().map_err(|error| usage(&error))?)?,
        None => match parser.optional_value().map(text).transpose()? {
            None => "true".into(),
            Some(value) if ["true", "1", "t"].contains(&value.as_str()) => "true".into(),
            Some(value) if ["false", "0", "f"].contains(&value.as_str()) => "false".into(),
            Some(value) => {
                return Err(Error::Usage(format!(
                    "invalid boolean value {value:?} for flag --{}",
                    flag.name
                )));
            }
        },
    };
    into.flags.push((flag.name, value));
    Ok(())
}

/// The error of a flag that does not exist here.
fn undefined(arg: &Found, known: &[FlagSpec]) -> Error {
    let name = match arg {
        Found::Short(_) => None,
        Found::Long(name) => super::suggest::closest(name, known.iter().map(|flag| flag.name)),
    };
    let meant = name.map_or_else(String::new, |name| format!(", did you mean --{name}?"));
    Error::Usage(format!("flag provided but not defined: {arg}{meant}"))
}

/// A flag as written.
enum Found {
    Short(char),
    Long(String),
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Found::Short(letter) => write!(f, "-{letter}"),
            Found::Long(name) => write!(f, "--{name}"),
        }
    }
}

enum Next {
    Flag(Found),
    Word(String),
    End,
}

fn next(parser: &mut Parser) -> Result<Next, Error> {
    Ok(match parser.next().map_err(|error| usage(&error))? {
        None => Next::End,
        Some(Arg::Short(letter)) => Next::Flag(Found::Short(letter)),
        Some(Arg::Long(name)) => Next::Flag(Found::Long(name.to_owned())),
        Some(Arg::Value(value)) => Next::Word(
            value
                .into_string()
                .map_err(|value| Error::Usage(format!("{value:?} is not UTF-8")))?,
        ),
    })
}

/// Takes flags up to the first word, which is returned.
pub(crate) fn parse_until_value(
    parser: &mut Parser,
    known: &'static [FlagSpec],
    into: &mut Args,
) -> Result<Option<String>, Error> {
    loop {
        match next(parser)? {
            Next::End => return Ok(None),
            Next::Word(word) => return Ok(Some(word)),
            Next::Flag(flag) => take(parser, known, &flag, into)?,
        }
    }
}

/// Parses what follows a command. Flags may stand before and after the id;
/// where a command line of another program follows, all of it is words.
pub(crate) fn parse_command(parser: &mut Parser, spec: &CommandSpec) -> Result<Args, Error> {
    let mut args = Args::default();
    let open_ended = spec.words.1 == usize::MAX;
    loop {
        match next(parser)? {
            Next::End => break,
            Next::Flag(flag)
                if spec.name == "ps"
                    && args.words.len() == 1
                    && !matches!(&flag, Found::Long(name) if name == "format") =>
            {
                args.words.push(flag.to_string());
                rest(parser, &mut args)?;
                break;
            }
            Next::Flag(flag) => take(parser, spec.flags, &flag, &mut args)?,
            Next::Word(word) => {
                args.words.push(word);
                if open_ended && args.words.len() == 2 {
                    rest(parser, &mut args)?;
                    break;
                }
            }
        }
    }
    if !args.flag("help") && !(spec.words.0..=spec.words.1).contains(&args.words.len()) {
        return Err(Error::Usage(miscounted(spec, args.words.len())));
    }
    Ok(args)
}

/// What is wrong with a number of arguments, in runc's words.
fn miscounted(spec: &CommandSpec, count: usize) -> String {
    let (fewest, most) = spec.words;
    let (demand, number) = match (fewest == most, count < fewest) {
        (true, _) => ("exactly", fewest),
        (false, true) => ("a minimum of", fewest),
        (false, false) => ("a maximum of", most),
    };
    format!(
        "{}: {:?} requires {demand} {number} argument(s)",
        crate::called::program(),
        spec.name
    )
}

fn rest(parser: &mut Parser, args: &mut Args) -> Result<(), Error> {
    for word in parser.raw_args().map_err(|error| usage(&error))? {
        args.words.push(
            word.into_string()
                .map_err(|word| Error::Usage(format!("{word:?} is not UTF-8")))?,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::table::COMMANDS;
    use super::*;

    fn parse(command: &str, line: &str) -> Result<Args, Error> {
        let spec = COMMANDS.iter().find(|spec| spec.name == command).unwrap();
        parse_command(&mut Parser::from_args(line.split_whitespace()), spec)
    }

    #[test]
    fn flags_stand_before_or_after_the_id() {
        for line in [
            "--bundle /b web",
            "web --bundle /b",
            "web -b=/b",
            "-b /b web",
        ] {
            let args = parse("create", line).unwrap();
            assert_eq!(
                (args.value("bundle"), args.words[0].as_str()),
                (Some("/b"), "web"),
                "{line}"
            );
        }
    }

    #[test]
    fn the_command_of_exec_keeps_its_flags() {
        let args = parse("exec", "-e A=1 --env B=2 web ls -la --help").unwrap();
        assert_eq!(args.words, ["web", "ls", "-la", "--help"]);
        assert_eq!(args.values("env"), ["A=1", "B=2"]);
        assert!(!args.flag("help"));
    }

    #[test]
    fn options_of_ps_are_passed_on() {
        assert_eq!(parse("ps", "web -e -x").unwrap().words, ["web", "-e", "-x"]);
        assert_eq!(
            parse("ps", "web --format json").unwrap().value("format"),
            Some("json")
        );
    }

    #[test]
    fn mistakes_are_named() {
        for line in ["", "a b", "--nonsense a", "--preserve-fds"] {
            assert!(parse("create", line).is_err(), "{line}");
        }
        assert!(!parse("run", "--detach=false x").unwrap().flag("detach"));
    }
}
