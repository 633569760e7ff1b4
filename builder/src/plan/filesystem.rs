//! RUN, COPY, ADD and WORKDIR: instructions that become steps.

use super::build::is_proxy;
use super::evaluate::Evaluator;
use super::{Copy, CopySource, Directory, Network, Operation, Origin, Run};
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::instruction::{self, CommandLine, Source, Text, Transfer};
use crate::dockerfile::parse::with_heredocs;
use crate::dockerfile::word::{Lexer, Quotes};
use crate::dockerfile::{Result, Span, Statement};
use crate::modes::ModeChange;
use crate::pattern::ignore::{self, Rules};
use crate::report::Problem;

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
        self.check_security(run.security.as_ref())?;
        let network = self.network(run.network.as_ref())?;
        let (args, script) = self.run_command(run, statement)?;
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
            network,
            mounts,
            script,
        };
        self.step(Operation::Run(Box::new(operation)), created_by, statement);
        Ok(())
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

    fn check_security(&self, text: Option<&Text>) -> Result<()> {
        let Some(text) = text else { return Ok(()) };
        match self.expand(text)?.as_str() {
            "sandbox" => Ok(()),
            "insecure" => Err(unsupported("RUN --security=insecure", &text.span)),
            other => Err(Problem::new(
                format!("unknown security mode `{other}`"),
                text.span.clone(),
                "sandbox or insecure",
            )
            .into()),
        }
    }

    fn network(&self, text: Option<&Text>) -> Result<Network> {
        let Some(text) = text else {
            return Ok(Network::Host);
        };
        match self.expand(text)?.as_str() {
            "default" | "host" => Ok(Network::Host),
            "none" => Ok(Network::None),
            other => Err(Problem::new(
                format!("unknown network `{other}`"),
                text.span.clone(),
                "default, host or none",
            )
            .into()),
        }
    }

    fn proxies(&self) -> Vec<String> {
        let given = self
            .planner
            .options
            .build_args
            .iter()
            .filter(|(name, _)| is_proxy(name));
        given
            .filter(|(name, _)| self.state.variables.get(name).is_none())
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
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
            Some(from) => Origin::Tree(self.planner.source_tree(from, self.index)?),
            None => Origin::Context,
        };
        let operation = self.transfer(&copy.transfer, origin, copy.parents, false)?;
        self.copy_step("COPY", operation, copy.from.as_ref(), statement);
        Ok(())
    }

    /// `ADD`.
    pub(super) fn add(&mut self, add: &instruction::Add, statement: &Statement) -> Result<()> {
        for source in &add.transfer.sources {
            if let Source::Path(text) = source {
                let path = self.expand(text)?;
                if is_remote(&path) {
                    return Err(unsupported("ADD of a URL or git repository", &text.span));
                }
            }
        }
        if let Some(checksum) = &add.checksum {
            return Err(Problem::new(
                "--checksum needs a URL",
                checksum.span.clone(),
                "the sources are local",
            )
            .into());
        }
        if add.keep_git_dir {
            return Err(Problem::new(
                "--keep-git-dir needs a git repository",
                statement.span.clone(),
                "the sources are local",
            )
            .into());
        }
        let operation = self.transfer(
            &add.transfer,
            Origin::Context,
            false,
            add.unpack.unwrap_or(true),
        )?;
        self.copy_step("ADD", operation, None, statement);
        Ok(())
    }

    fn copy_step(
        &mut self,
        name: &str,
        operation: Copy,
        from: Option<&Text>,
        statement: &Statement,
    ) {
        let mut words = vec![name.to_owned()];
        words.extend(from.map(|from| format!("--from={}", from.raw)));
        words.extend(
            operation
                .owner
                .as_ref()
                .map(|owner| format!("--chown={owner}")),
        );
        words.extend(operation.sources.iter().map(CopySource::shown));
        words.push(operation.destination.clone());
        self.step(
            Operation::Copy(Box::new(operation)),
            format!("{} # buildkit", words.join(" ")),
            statement,
        );
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
            .map(|source| self.source(source, parents))
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

    fn source(&self, source: &Source, parents: bool) -> Result<CopySource> {
        match source {
            Source::Path(text) => {
                let path = self.expand(text)?;
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
                let lexer = Lexer {
                    quotes: Quotes::Ignore,
                    ..self.lexer()
                };
                let expand = || {
                    lexer
                        .expand(&heredoc.content)
                        .map_err(|error| Problem::new(error.to_string(), 0..0, "in a heredoc"))
                };
                let content = if heredoc.expand {
                    expand()?
                } else {
                    heredoc.content.clone()
                };
                Ok(CopySource::Inline {
                    name: heredoc.name.clone(),
                    content,
                })
            }
        }
    }
}

impl CopySource {
    /// As histories show it.
    fn shown(&self) -> String {
        match self {
            Self::Path { path, keep: None } => path.trim_start_matches('/').to_owned(),
            Self::Path {
                path,
                keep: Some(keep),
            } => format!("{}/./{keep}", path.trim_start_matches('/')),
            Self::Inline { name, .. } => format!("<<{name}"),
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

fn is_remote(path: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"]
        .iter()
        .any(|scheme| path.starts_with(scheme))
}
