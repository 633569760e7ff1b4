//! RUN, COPY, ADD and WORKDIR: instructions that become steps.

use super::build::proxies;
use super::evaluate::Evaluator;
use super::stages::given;
use super::{Copy, CopySource, Directory, Entitlement, Network, Operation, Origin, Run};
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::instruction::{self, CommandLine, Source, Text, Transfer};
use crate::dockerfile::parse::with_heredocs;
use crate::dockerfile::word::{Lexer, Quotes};
use crate::dockerfile::{Result, Span, Statement};
use crate::emulation::is_native;
use crate::lint::rules;
use crate::modes::ModeChange;
use crate::pattern::ignore::{self, Rules};
use crate::remote;
use crate::report::Problem;
use teu_store::image::Platform;

/// A command's words, and the script they execute, if it stands in the Dockerfile.
type Command = (Vec<String>, Option<(String, String)>);

/// An instruction that this version parses and does not execute.
pub(super) fn unsupported(what: &str, span: &Span) -> Box<Problem> {
    Box::new(Problem::new(
        format!("{what} is unsupported by this version"),
        span.clone(),
        "cannot be executed",
    ))
}

impl Evaluator<'_, '_> {
    /// `WORKDIR`: relative to the one before; made if it is not there.
    pub(super) fn workdir(&mut self, text: &Text, statement: &Statement) -> Result<()> {
        let path = self.expand(text)?;
        if path.is_empty() {
            return Err(Problem::new("WORKDIR needs a path", text.span.clone(), "empty").into());
        }
        let set_before = std::mem::replace(&mut self.state.workdir_set, true);
        if !set_before && !path.starts_with('/') {
            let detail =
                format!("`{path}` is relative to a WORKDIR of the base image, which may change");
            self.warn(&rules::WORKDIR_RELATIVE_PATH, &text.span, detail);
        }
        let path = clean_absolute(&self.state.config.config.working_dir, &path);
        path.clone_into(&mut self.state.config.config.working_dir);
        let created_by = format!("WORKDIR {path}");
        if path == "/" {
            self.history(created_by);
        } else {
            let owner = self.state.config.config.user.clone();
            self.step(
                Operation::Directory(Directory { path, owner }),
                created_by,
                statement,
            );
        }
        Ok(())
    }

    /// `RUN`.
    pub(super) fn run(&mut self, run: &instruction::Run, statement: &Statement) -> Result<()> {
        if let Some(device) = run.devices.first() {
            return Err(unsupported("RUN --device", &device.span));
        }
        let insecure = self.security(run.security.as_ref())?;
        let network = self.network(run.network.as_ref())?;
        let (args, script) = self.run_command(run, statement)?;
        self.agents = 0;
        let mounts = run
            .mounts
            .iter()
            .map(|mount| self.mount(mount))
            .collect::<Result<Vec<_>>>()?;
        let created_by = format!("RUN {} # buildkit", self.with_arguments(&args));
        let operation = Run {
            args,
            env: self.state.variables.to_strings(),
            arguments: self.state.arguments.clone(),
            proxies: self.proxies(),
            cwd: clean_absolute("/", &self.state.config.config.working_dir),
            user: self.state.config.config.user.clone(),
            hostname: self.hostname()?,
            network,
            insecure,
            emulated: self.emulated(),
            mounts,
            script,
        };
        self.step(Operation::Run(Box::new(operation)), created_by, statement);
        Ok(())
    }

    /// The name that a build argument gives to the machine of the steps.
    fn hostname(&self) -> Result<Option<String>> {
        const ARGUMENT: &str = "BUILDKIT_SANDBOX_HOSTNAME";
        let Some(name) = given(self.planner.options, ARGUMENT) else {
            return Ok(None);
        };
        if is_hostname(name) {
            return Ok(Some(name.to_owned()));
        }
        let title = format!("`{name}` is no name of a machine");
        let label = format!("given by the build argument {ARGUMENT}");
        Err(Problem::new(title, self.current().clone(), label).into())
    }

    /// For what the stage's programs are, unless this machine runs them by itself.
    fn emulated(&self) -> Option<Platform> {
        let platform = &self.state.platform;
        let is_native = is_native(&self.planner.options.build_platform, platform);
        (!is_native).then(|| platform.clone())
    }

    /// What RUN executes. A heredoc alone is the shell's input line by line, or a script of
    /// its own if it starts with `#!`; heredocs after a command are left to the shell.
    fn run_command(&self, run: &instruction::Run, statement: &Statement) -> Result<Command> {
        let line = match &run.command {
            CommandLine::Exec(words) => return Ok((words.clone(), None)),
            CommandLine::Shell(line) => line,
        };
        let alone = |heredoc: &&Heredoc| {
            run.heredocs.len() == 1
                && !line.contains(char::is_whitespace)
                && heredoc.descriptor == 0
        };
        let Some(only) = run.heredocs.first().filter(alone) else {
            return Ok((self.in_shell(&with_heredocs(line, &run.heredocs)), None));
        };
        if !only.content.starts_with("#!") {
            return Ok((self.in_shell(&only.content), None));
        }
        if only.name.contains('/') || only.name.starts_with('.') {
            let title = format!("a script cannot be called `{}`", only.name);
            return Err(Problem::new(
                title,
                statement.span.clone(),
                "choose a word as its delimiter",
            )
            .into());
        }
        Ok((
            self.in_shell(&format!("/dev/pipes/{}", only.name)),
            Some((only.name.clone(), only.content.clone())),
        ))
    }

    /// `RUN --security`: whether the step may do anything.
    fn security(&self, text: Option<&Text>) -> Result<bool> {
        let Some(text) = text else { return Ok(false) };
        match self.expand(text)?.as_str() {
            "sandbox" => Ok(false),
            "insecure" => {
                self.needs(Entitlement::SecurityInsecure, &text.span)?;
                Ok(true)
            }
            other => Err(Problem::new(
                format!("unknown security mode `{other}`"),
                text.span.clone(),
                "sandbox or insecure",
            )
            .into()),
        }
    }

    /// `RUN --network`.
    fn network(&self, text: Option<&Text>) -> Result<Network> {
        let Some(text) = text else {
            return Ok(self.planner.options.network);
        };
        match self.expand(text)?.as_str() {
            "default" => Ok(self.planner.options.network),
            "none" => Ok(Network::None),
            "host" => {
                self.needs(Entitlement::NetworkHost, &text.span)?;
                Ok(Network::Host)
            }
            other => Err(Problem::new(
                format!("unknown network `{other}`"),
                text.span.clone(),
                "default, host or none",
            )
            .into()),
        }
    }

    /// What goes beyond a sandbox is decided by who builds, not by who wrote the file.
    fn needs(&self, entitlement: Entitlement, span: &Span) -> Result<()> {
        if self.planner.options.allow.contains(&entitlement) {
            return Ok(());
        }
        let name = entitlement.name();
        let problem = Problem::new(
            format!("{name} is not allowed"),
            span.clone(),
            "asked for here",
        );
        Err(problem.help(format!("allow it with --allow {name}")).into())
    }

    fn proxies(&self) -> Vec<String> {
        let is_set = |name: &str| self.state.variables.get(name).is_some();
        proxies(&self.planner.options.build_args, is_set)
    }

    /// The command as histories show it: with the declared build arguments in front.
    fn with_arguments(&self, args: &[String]) -> String {
        let shown = self.state.arguments.iter().map(|name| {
            format!(
                "{name}={}",
                self.state.variables.get(name).unwrap_or_default()
            )
        });
        let shown: Vec<String> = shown.collect();
        let count = (!shown.is_empty()).then(|| format!("|{}", shown.len()));
        count
            .into_iter()
            .chain(shown)
            .chain(args.iter().cloned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// `COPY`.
    pub(super) fn copy(&mut self, copy: &instruction::Copy, statement: &Statement) -> Result<()> {
        let origin = match &copy.from {
            Some(from) => self
                .planner
                .source(from, self.index, &self.state.platform)?,
            None => Origin::Context,
        };
        for source in copy.transfer.sources.iter().filter_map(Source::path) {
            let path = self.expand(source)?;
            if remote::is_http(&path) || remote::is_git(&path) {
                let problem = Problem::new(
                    "COPY takes files, no URLs or repositories",
                    source.span.clone(),
                    "not a file",
                );
                return Err(problem.help("use ADD".to_owned()).into());
            }
        }
        let operation = self.transfer(&copy.transfer, origin, copy.parents, false)?;
        self.copy_step("COPY", operation, &copy.transfer, statement)
    }

    /// `ADD`.
    pub(super) fn add(&mut self, add: &instruction::Add, statement: &Statement) -> Result<()> {
        let (remote, local) = self.split_sources(add, statement)?;
        // The local files and the fetched ones are layers of their own; nearly always there is one of both.
        if !local.sources.is_empty() {
            let unpack = add.unpack.unwrap_or(true);
            let operation = self.transfer(&local, Origin::Context, false, unpack)?;
            self.copy_step("ADD", operation, &local, statement)?;
        }
        if !remote.is_empty() {
            let none = Transfer {
                sources: Vec::new(),
                ..add.transfer.clone()
            };
            let unpack = add.unpack.unwrap_or(false);
            let mut operation = self.transfer(&none, Origin::Remote, false, unpack)?;
            operation.sources = remote;
            let shown = Transfer {
                sources: self.remote_texts(add)?,
                ..none
            };
            self.copy_step("ADD", operation, &shown, statement)?;
        }
        Ok(())
    }

    fn copy_step(
        &mut self,
        name: &str,
        operation: Copy,
        transfer: &Transfer,
        statement: &Statement,
    ) -> Result<()> {
        let created_by = self.copied(name, &operation, transfer)?;
        self.step(Operation::Copy(Box::new(operation)), created_by, statement);
        Ok(())
    }

    /// The instruction as histories show it: some flags, then paths, then documents.
    fn copied(&self, name: &str, operation: &Copy, transfer: &Transfer) -> Result<String> {
        let mut words = vec![name.to_owned()];
        if operation.parents {
            words.push("--parents".to_owned());
        }
        for (flag, text) in [("chown", &transfer.chown), ("chmod", &transfer.chmod)] {
            let value = text.as_ref().map(|text| self.expand(text)).transpose()?;
            words.extend(
                value
                    .filter(|value| !value.is_empty())
                    .map(|value| format!("--{flag}={value}")),
            );
        }
        for path in transfer.sources.iter().filter_map(Source::path) {
            words.push(remote::without_password(&self.expand(path)?));
        }
        for source in &transfer.sources {
            if let Source::Heredoc(heredoc) = source {
                words.push(format!("<<{}", heredoc.name));
            }
        }
        words.push(self.expand(&transfer.destination)?);
        Ok(format!("{} # buildkit", words.join(" ")))
    }

    fn transfer(
        &self,
        transfer: &Transfer,
        origin: Origin,
        parents: bool,
        unpack: bool,
    ) -> Result<Copy> {
        let destination = self.expand(&transfer.destination)?;
        let exclude = transfer
            .exclude
            .iter()
            .map(|text| self.exclude(text))
            .collect::<Result<_>>()?;
        let owner = transfer
            .chown
            .as_ref()
            .map(|text| self.expand(text))
            .transpose()?;
        let sources = transfer
            .sources
            .iter()
            .map(|source| self.source(source, parents, origin))
            .collect::<Result<_>>()?;
        Ok(Copy {
            origin,
            sources,
            destination: self.destination(&destination),
            owner: owner.filter(|owner| !owner.is_empty()),
            mode: transfer
                .chmod
                .as_ref()
                .map(|text| self.chmod(text))
                .transpose()?,
            link: transfer.link,
            parents,
            exclude,
            unpack,
        })
    }

    /// Absolute, with the `/` at the end that says "a directory".
    fn destination(&self, text: &str) -> String {
        let mut path = clean_absolute(&self.state.config.config.working_dir, text);
        let directory =
            text.is_empty() || text == "." || text.ends_with('/') || text.ends_with("/.");
        if directory && !path.ends_with('/') {
            path.push('/');
        }
        path
    }

    fn exclude(&self, text: &Text) -> Result<String> {
        let pattern = self.expand(text)?;
        match Rules::from_patterns([pattern.as_str()]) {
            Ok(_) => Ok(pattern),
            Err(_) => Err(Problem::new(
                format!("`{pattern}` is no pattern"),
                text.span.clone(),
                "in this flag",
            )
            .into()),
        }
    }

    fn chmod(&self, text: &Text) -> Result<ModeChange> {
        let value = self.expand(text)?;
        ModeChange::parse(&value).ok_or_else(|| {
            let problem = Problem::new(
                format!("`{value}` is no file mode"),
                text.span.clone(),
                "invalid",
            );
            problem
                .help("write octal digits like 0755, or clauses like u=rwX,go=rX".to_owned())
                .into()
        })
    }

    fn source(&self, source: &Source, parents: bool, origin: Origin) -> Result<CopySource> {
        match source {
            Source::Path(text) => {
                let path = self.expand(text)?;
                if origin == Origin::Context {
                    self.warn_of_ignored(&path, text);
                }
                let pivot = path.split_once("/./").unwrap_or(("", &path));
                Ok(match parents {
                    true => CopySource::Path {
                        path: clean_absolute("/", pivot.0),
                        keep: Some(ignore::clean(&format!("/{}", pivot.1))),
                    },
                    false => CopySource::Path {
                        path: clean_absolute("/", &path),
                        keep: None,
                    },
                })
            }
            Source::Heredoc(heredoc) => {
                // Documents know one escape character, whatever the file's is.
                let lexer = Lexer {
                    escape: '\\',
                    quotes: Quotes::Ignore,
                    ..self.lexer()
                };
                if !heredoc.expand {
                    return Ok(inline(heredoc, heredoc.content.clone()));
                }
                let expansion = lexer.expand_and_tell(&heredoc.content).map_err(|error| {
                    Problem::new(error.to_string(), self.current().clone(), "in its heredoc")
                })?;
                self.warn_of_unset(&expansion.unset, self.current());
                Ok(inline(heredoc, expansion.text))
            }
        }
    }

    fn warn_of_ignored(&self, path: &str, text: &Text) {
        let ignored = &self.planner.options.ignore;
        let path = ignore::clean(&format!("/{path}"));
        if !path.is_empty() && !ignored.reincludes() && ignored.excludes(&path) {
            let detail = format!("`{path}` is excluded by the ignore file");
            self.warn(&rules::COPY_IGNORED_FILE, &text.span, detail);
        }
    }
}

/// What sethostname(2) takes, of the characters that names on networks have.
pub(super) fn is_hostname(name: &str) -> bool {
    const BYTES_MAX: usize = 64;
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    !name.is_empty() && name.len() <= BYTES_MAX && name.chars().all(is_good)
}

fn inline(heredoc: &Heredoc, content: String) -> CopySource {
    CopySource::Inline {
        name: heredoc.name.clone(),
        content,
    }
}

impl Entitlement {
    /// As `--allow` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
        }
    }
}

/// Joins and cleans: no `.`, no `..`, nothing above the root.
pub(super) fn clean_absolute(directory: &str, path: &str) -> String {
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{directory}/{path}")
    };
    format!("/{}", ignore::clean(&joined))
}
