//! Logical lines to typed instructions.

use super::directive;
use super::flags::{self, Flags};
use super::heredoc::{self, Heredoc};
use super::instruction::*;
use super::lines::{self, Line};
use super::word;
use super::{Dockerfile, INSTRUCTIONS_MAX, Result, Span, Statement, suggest};
use crate::report::Problem;

/// Parses a Dockerfile.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(source: &str) -> Result<Dockerfile> {
    match parse_until_wrong(source)? {
        (file, None) => Ok(file),
        (_, Some(problem)) => Err(problem),
    }
}

/// Parses a Dockerfile up to the first instruction that is wrong, for rules that speak of what
/// stands before it.
///
/// # Errors
/// What is wrong with the file as a whole.
pub fn parse_until_wrong(source: &str) -> Result<(Dockerfile, Option<Box<Problem>>)> {
    let directives = directive::parse(source)?;
    let lines = lines::split(source, &directives)?;
    if let Some(line) = lines.get(INSTRUCTIONS_MAX) {
        let title = format!("more than {INSTRUCTIONS_MAX} instructions");
        return Err(Problem::new(title, line.span.clone(), "one too many").into());
    }
    let parse = |line: &Line| Args::new(line, directives.escape)?.statement();
    let (mut statements, mut problem) = (Vec::with_capacity(lines.len()), None);
    for line in &lines {
        match parse(line) {
            Ok(statement) => statements.push(statement),
            Err(wrong) => {
                problem = Some(wrong);
                break;
            }
        }
    }
    if lines.is_empty() {
        return Err(Problem::new("the file holds no instructions", 0..0, "")
            .help("start with `FROM image`".to_owned())
            .into());
    }
    let empty_continuations = lines
        .into_iter()
        .filter_map(|line| line.empty_continuation)
        .collect();
    let file = Dockerfile {
        directives,
        statements,
        empty_continuations,
    };
    Ok((file, problem))
}

/// One instruction's line, taken apart.
pub(super) struct Args<'a> {
    pub(super) line: &'a Line,
    pub(super) escape: char,
    /// Where the instruction's name stands in the line's text.
    name: Span,
    flags: Vec<flags::Flag>,
    /// Where the arguments start in the line's text.
    pub(super) start: usize,
}

impl<'a> Args<'a> {
    fn new(line: &'a Line, escape: char) -> Result<Self> {
        Self::at(line, escape, 0)
    }

    /// Reads the instruction that starts at `start` of the line: 0, or after ONBUILD.
    fn at(line: &'a Line, escape: char, start: usize) -> Result<Self> {
        let text = &line.text[start..];
        let end = start + text.find(char::is_whitespace).unwrap_or(text.len());
        let arguments = end + (line.text[end..].len() - line.text[end..].trim_start().len());
        let (mut flags, skipped) = flags::take(&line.text[arguments..]);
        for flag in &mut flags {
            flag.range = flag.range.start + arguments..flag.range.end + arguments;
        }
        Ok(Self {
            line,
            escape,
            name: start..end,
            flags,
            start: arguments + skipped,
        })
    }

    fn statement(self) -> Result<Statement> {
        let (span, text) = (
            self.line.span.clone(),
            self.line.text[self.name.start..].to_owned(),
        );
        let comments = self.line.comments.clone();
        Ok(Statement {
            instruction: self.instruction()?,
            span,
            text,
            comments,
        })
    }

    fn instruction(self) -> Result<Instruction> {
        let name = self.line.text[self.name.clone()].to_ascii_uppercase();
        match name.as_str() {
            "ADD" => self.add(),
            "ARG" => self.arg(),
            "CMD" => Ok(Instruction::Cmd(self.without_flags("CMD")?.command()?)),
            "COPY" => self.copy(),
            "ENTRYPOINT" => Ok(Instruction::Entrypoint(
                self.without_flags("ENTRYPOINT")?.command()?,
            )),
            "ENV" => Ok(Instruction::Env(self.without_flags("ENV")?.pairs("ENV")?)),
            "EXPOSE" => Ok(Instruction::Expose(
                self.without_flags("EXPOSE")?.words("EXPOSE")?,
            )),
            "FROM" => self.from(),
            "HEALTHCHECK" => self.healthcheck(),
            "LABEL" => Ok(Instruction::Label(
                self.without_flags("LABEL")?.pairs("LABEL")?,
            )),
            "MAINTAINER" => Ok(Instruction::Maintainer(
                self.without_flags("MAINTAINER")?.whole("MAINTAINER")?,
            )),
            "ONBUILD" => self.onbuild(),
            "RUN" => self.run(),
            "SHELL" => self.shell(),
            "STOPSIGNAL" => Ok(Instruction::StopSignal(
                self.without_flags("STOPSIGNAL")?.whole("STOPSIGNAL")?,
            )),
            "USER" => Ok(Instruction::User(
                self.without_flags("USER")?.whole("USER")?,
            )),
            "VOLUME" => self.volume(),
            "WORKDIR" => Ok(Instruction::Workdir(
                self.without_flags("WORKDIR")?.whole("WORKDIR")?,
            )),
            _ => Err(self.unknown()),
        }
    }

    fn unknown(&self) -> Box<Problem> {
        let name = &self.line.text[self.name.clone()];
        let near = suggest::nearest(name, NAMES).map(|near| format!("did you mean `{near}`?"));
        let shown: String = name.chars().take(40).collect();
        self.problem(
            format!("unknown instruction `{shown}`"),
            "not an instruction",
        )
        .help(near)
        .into()
    }

    /// A problem at the instruction's name.
    pub(super) fn problem(&self, title: impl Into<String>, label: &str) -> Problem {
        Problem::new(title, self.line.source(self.name.clone()), label)
    }

    pub(super) fn flags(
        &self,
        instruction: &'static str,
        known: &'static [&'static str],
    ) -> Result<Flags> {
        let placed = self
            .flags
            .iter()
            .map(|flag| (flag.clone(), self.line.source(flag.range.clone())));
        Flags::new(instruction, known, placed.collect())
    }

    fn without_flags(self, instruction: &'static str) -> Result<Self> {
        self.flags(instruction, &[])?;
        Ok(self)
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.line.text[self.start..]
    }

    pub(super) fn text(&self, range: Span) -> Text {
        Text {
            raw: self.line.text[range.clone()].to_owned(),
            span: self.line.source(range),
        }
    }

    /// The arguments as one value, which must be there.
    pub(super) fn whole(&self, name: &str) -> Result<Text> {
        if self.rest().is_empty() {
            return Err(self
                .problem(format!("{name} needs an argument"), "nothing follows")
                .into());
        }
        Ok(self.text(self.start..self.line.text.len()))
    }

    /// The arguments split at white space, at least one.
    fn words(&self, name: &str) -> Result<Vec<Text>> {
        self.whole(name)?;
        Ok(self.split_words())
    }

    fn split_words(&self) -> Vec<Text> {
        let mut words = Vec::new();
        let mut at = self.start;
        for word in self.rest().split_inclusive(char::is_whitespace) {
            let length = word.trim_end().len();
            if length > 0 {
                words.push(self.text(at..at + length));
            }
            at += word.len();
        }
        words
    }

    /// The arguments as a JSON array of strings, or split at white space.
    fn json_or_words(&self, name: &str) -> Result<Vec<Text>> {
        let whole = self.whole(name)?;
        Ok(match self.strings(&whole.raw)? {
            Some(strings) => strings
                .into_iter()
                .map(|raw| Text {
                    raw,
                    span: whole.span.clone(),
                })
                .collect(),
            None => self.split_words(),
        })
    }

    fn command(&self) -> Result<CommandLine> {
        self.command_in(self.rest())
    }

    fn command_in(&self, text: &str) -> Result<CommandLine> {
        Ok(match self.strings(text)? {
            Some(words) => CommandLine::Exec(words),
            None => CommandLine::Shell(text.to_owned()),
        })
    }

    /// The strings of a JSON array. What is no JSON is no array; an array of other things is a mistake.
    fn strings(&self, text: &str) -> Result<Option<Vec<String>>> {
        let strings = word::json_strings(text);
        if strings.is_none() && word::is_json_array(text) {
            let start = self.line.text.len() - text.trim_start().len();
            let problem = Problem::new(
                "an array of arguments may hold only strings",
                self.line
                    .source(start.min(self.line.text.len())..self.line.text.len()),
                "other values in it",
            );
            return Err(problem
                .help("put each argument in double quotes".to_owned())
                .into());
        }
        Ok(strings)
    }

    fn from(self) -> Result<Instruction> {
        let platform = self.flags("FROM", &["platform"])?.value("platform")?;
        let platform = platform.filter(|platform| !platform.raw.is_empty());
        let words = self.words("FROM")?;
        let (base, name, written) = match words.as_slice() {
            [base] => (base.clone(), None, None),
            [base, keyword, name] if keyword.raw.eq_ignore_ascii_case("as") => (
                base.clone(),
                Some(stage_name(name)?),
                Some((keyword.clone(), name.clone())),
            ),
            [_, other, ..] => {
                let problem = Problem::new(
                    "FROM takes one image",
                    other.span.clone(),
                    "not expected here",
                );
                return Err(problem
                    .help("name a stage with `FROM image AS name`".to_owned())
                    .into());
            }
            [] => {
                return Err(self
                    .problem("FROM needs an argument", "nothing follows")
                    .into());
            }
        };
        Ok(Instruction::From(From {
            base,
            platform,
            name,
            written,
        }))
    }

    fn run(self) -> Result<Instruction> {
        let mut flags = self.flags("RUN", &["mount", "network", "security", "device"])?;
        self.whole("RUN")?;
        let command = match &self.line.heredocs[..] {
            [] => self.command()?,
            _ => CommandLine::Shell(self.rest().to_owned()),
        };
        if command == CommandLine::Exec(Vec::new()) {
            return Err(self
                .problem("RUN needs a command", "the list is empty")
                .into());
        }
        Ok(Instruction::Run(Run {
            command,
            heredocs: self.line.heredocs.clone(),
            mounts: flags.mounts()?,
            network: flags.value("network")?,
            security: flags.value("security")?,
            devices: flags.values("device")?,
        }))
    }

    fn copy(self) -> Result<Instruction> {
        let mut flags = self.flags(
            "COPY",
            &["from", "chown", "chmod", "link", "parents", "exclude"],
        )?;
        let from = flags.value("from")?.filter(|from| !from.raw.is_empty());
        let parents = flags.boolean("parents")?.unwrap_or(false);
        Ok(Instruction::Copy(Copy {
            transfer: self.transfer("COPY", &mut flags)?,
            from,
            parents,
        }))
    }

    fn add(self) -> Result<Instruction> {
        let known = &[
            "chown",
            "chmod",
            "link",
            "exclude",
            "checksum",
            "keep-git-dir",
            "unpack",
        ];
        let mut flags = self.flags("ADD", known)?;
        let checksum = flags.value("checksum")?;
        let keep_git_dir = flags.boolean("keep-git-dir")?;
        let unpack = flags.boolean("unpack")?;
        Ok(Instruction::Add(Add {
            transfer: self.transfer("ADD", &mut flags)?,
            checksum,
            keep_git_dir,
            unpack,
        }))
    }

    fn transfer(&self, name: &str, flags: &mut Flags) -> Result<Transfer> {
        let mut words = self.json_or_words(name)?;
        let destination = words.pop().filter(|_| !words.is_empty()).ok_or_else(|| {
            self.problem(
                format!("{name} needs at least one source and a destination"),
                "too few arguments",
            )
        })?;
        let mut heredocs = self.line.heredocs.iter();
        let mut source = |text: Text| match heredoc::opening(&text.raw, 0..0, self.escape) {
            Some(_) => heredocs
                .next()
                .cloned()
                .map_or(Source::Path(text), Source::Heredoc),
            None => Source::Path(text),
        };
        let sources = words.into_iter().map(&mut source).collect();
        if heredocs.next().is_some() {
            let label = "a heredoc cannot be the destination";
            return Err(Problem::new(
                format!("{name} needs a destination"),
                destination.span,
                label,
            )
            .into());
        }
        Ok(Transfer {
            sources,
            destination,
            chown: flags.value("chown")?,
            chmod: flags.value("chmod")?,
            link: flags.boolean("link")?.unwrap_or(false),
            exclude: flags.values("exclude")?,
        })
    }

    fn volume(self) -> Result<Instruction> {
        let this = self.without_flags("VOLUME")?;
        let paths = this.json_or_words("VOLUME")?;
        if paths.is_empty() || paths.iter().any(|path| path.raw.trim().is_empty()) {
            return Err(this.problem("VOLUME needs a path", "an empty one").into());
        }
        Ok(Instruction::Volume(paths))
    }

    fn shell(self) -> Result<Instruction> {
        let this = self.without_flags("SHELL")?;
        match this.command()? {
            CommandLine::Exec(words) if !words.is_empty() => Ok(Instruction::Shell(words)),
            _ => {
                let problem = this.problem("SHELL needs a JSON array of strings", "not one");
                Err(problem
                    .help("write SHELL [\"/bin/sh\", \"-c\"]".to_owned())
                    .into())
            }
        }
    }

    fn healthcheck(self) -> Result<Instruction> {
        let known = &[
            "interval",
            "timeout",
            "start-period",
            "start-interval",
            "retries",
        ];
        let mut flags = self.flags("HEALTHCHECK", known)?;
        let whole = self.whole("HEALTHCHECK")?;
        let kind = whole.raw.split_whitespace().next().unwrap_or_default();
        let rest = whole.raw[kind.len()..].trim();
        let command = match kind.to_ascii_uppercase().as_str() {
            "NONE" if rest.is_empty() && self.flags.is_empty() => None,
            "NONE" => {
                return Err(self
                    .problem("HEALTHCHECK NONE takes nothing else", "more follows")
                    .into());
            }
            "CMD" => match self.command_in(rest)? {
                CommandLine::Exec(words) if words.is_empty() => {
                    let label = "the list is empty";
                    return Err(self
                        .problem("HEALTHCHECK CMD needs a command", label)
                        .into());
                }
                CommandLine::Shell(line) if line.is_empty() => {
                    let label = "nothing follows";
                    return Err(self
                        .problem("HEALTHCHECK CMD needs a command", label)
                        .into());
                }
                command => Some(command),
            },
            _ => {
                let problem = Problem::new(
                    "HEALTHCHECK takes CMD or NONE",
                    whole.span,
                    "neither of them",
                );
                return Err(problem
                    .help("write HEALTHCHECK CMD command".to_owned())
                    .into());
            }
        };
        Ok(Instruction::Healthcheck(Healthcheck {
            command,
            interval: flags.value("interval")?,
            timeout: flags.value("timeout")?,
            start_period: flags.value("start-period")?,
            start_interval: flags.value("start-interval")?,
            retries: flags.value("retries")?,
        }))
    }

    fn onbuild(self) -> Result<Instruction> {
        self.whole("ONBUILD")?;
        self.flags("ONBUILD", &[])?;
        let inner = Args::at(self.line, self.escape, self.start)?;
        let name = self.line.text[inner.name.clone()].to_ascii_uppercase();
        if matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            return Err(inner
                .problem(
                    format!("{name} cannot be a trigger"),
                    "not allowed after ONBUILD",
                )
                .into());
        }
        let statement = Box::new(inner.statement()?);
        Ok(Instruction::Onbuild(Onbuild {
            text: with_heredocs(self.rest(), &self.line.heredocs),
            statement,
        }))
    }
}

/// A line with the documents it opens, as a parser will read it again.
pub fn with_heredocs(line: &str, heredocs: &[Heredoc]) -> String {
    let bodies = heredocs
        .iter()
        .map(|heredoc| format!("\n{}{}", heredoc.content, heredoc.name));
    std::iter::once(line.to_owned()).chain(bodies).collect()
}

/// Stage names are lower case and start with a letter: a number means a stage's position.
fn stage_name(text: &Text) -> Result<Text> {
    let name = text.raw.to_ascii_lowercase();
    let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
    if !valid {
        let label = "must start with a letter and hold only letters, digits, -, _ and .";
        return Err(Problem::new(
            format!("invalid stage name `{}`", text.raw),
            text.span.clone(),
            label,
        )
        .into());
    }
    Ok(Text {
        raw: name,
        span: text.span.clone(),
    })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
