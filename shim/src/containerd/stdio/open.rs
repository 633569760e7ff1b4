//! Opening what a plan names.

use std::fs::{DirBuilder, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{Gid, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};

use super::fifo;
use super::flow::{Flow, Method};
use super::logger::Logger;
use super::plan::{Output, Plan};
use super::{Child, Context, Owner, Streams};
use crate::Error;
use crate::error::At as _;
use crate::runtime::Stdio3;
use crate::supervisor::terminal::{Console, set_nonblocking};

/// Where output goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// To whoever reads there.
    Reader(OwnedFd),
    /// To the end of a file.
    File(OwnedFd),
}

impl Sink {
    /// What takes everything.
    pub(super) fn null() -> Result<Self, Error> {
        Ok(Self::File(null().at("open", Path::new(NULL))?))
    }

    /// Opens it; `None` where nobody wants the output, or a program takes it.
    fn open(output: &Output) -> Result<Option<Self>, Error> {
        Ok(Some(match output {
            Output::Null | Output::Logger(_) => return Ok(None),
            Output::Path(path) if fifo::is_fifo_at(path).at("open", path)? => {
                Self::Reader(fifo::open(path).at("open", path)?)
            }
            Output::Path(path) => Self::File(append(path, false).at("open", path)?),
            Output::File(path) => {
                if let Some(folder) = path.parent() {
                    let mut folders = DirBuilder::new();
                    let made = folders.recursive(true).mode(0o755).create(folder);
                    made.at("make", folder)?;
                }
                Self::File(append(path, true).at("open", path)?)
            }
        }))
    }

    /// From `source` to here; `method` where both ends allow it.
    pub(super) fn into_flow(self, source: OwnedFd, method: Method) -> Flow {
        match self {
            Self::Reader(sink) => Flow::new(source, sink, method),
            Self::File(sink) => Flow::to_file(source, sink),
        }
    }
}

/// Opens a log file. What is no file must not keep us waiting, or become our terminal.
fn append(path: &Path, create: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .append(true)
        .create(create)
        .mode(0o644)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    Ok(file.into())
}

const NULL: &str = "/dev/null";

/// What takes everything.
pub(super) fn null() -> io::Result<OwnedFd> {
    Ok(File::options().write(true).open(NULL)?.into())
}

/// Three pipes, but for the streams that nobody wants.
pub(super) fn pipes(plan: &Plan, context: &Context<'_>) -> Result<Streams, Error> {
    let (logger, ends) = match &plan.stdout {
        Output::Logger(program) => {
            let (logger, ends) = Logger::start(program, context)?;
            (Some(logger), Some(ends))
        }
        Output::Null | Output::Path(_) | Output::File(_) => (None, None),
    };
    let (stdin, child_in) = input(plan, context.owner)?;
    let ((stdout, child_out), (stderr, child_err)) = match ends {
        Some([out, err]) => ((None, out.into()), (None, err.into())),
        None => (
            output(&plan.stdout, context.owner)?,
            output(&plan.stderr, context.owner)?,
        ),
    };
    let child = Child::Pipes(Some(Stdio3 {
        stdin: child_in,
        stdout: child_out,
        stderr: child_err,
    }));
    let mut streams = Streams::new(child, logger);
    streams.stdin = stdin;
    streams.outputs = [stdout, stderr];
    Ok(streams)
}

/// A terminal; its output also goes to a logger by a pipe.
pub(super) fn terminal(plan: &Plan, context: &Context<'_>) -> Result<Streams, Error> {
    let (logger, output) = match &plan.stdout {
        Output::Logger(program) => {
            let (logger, [out, _err]) = Logger::start(program, context)?;
            set_nonblocking(&out)?;
            (Some(logger), Some(Sink::Reader(out)))
        }
        Output::Null | Output::Path(_) | Output::File(_) => (None, Sink::open(&plan.stdout)?),
    };
    let input = match &plan.stdin {
        Some(path) => Some(fifo::open(path).at("open", path)?),
        None => None,
    };
    let console = Console::listen(context.bundle, &console_name(context.id))?;
    let path = console.path();
    let child = Child::Terminal {
        console,
        path,
        input,
        output,
    };
    Ok(Streams::new(child, logger))
}

/// Of one length for ids of any length and with any characters: the path of a
/// socket may have 107 bytes. Processes that start at the same time differ.
fn console_name(id: &str) -> String {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    format!("console-{:016x}", hasher.finish())
}

fn input(plan: &Plan, owner: Owner) -> Result<(Option<Flow>, Stdio), Error> {
    let Some(path) = &plan.stdin else {
        return Ok((None, Stdio::null()));
    };
    let source = fifo::open(path).at("open", path)?;
    let (read, write) = pipe(owner)?;
    set_nonblocking(&write)?;
    Ok((
        Some(Flow::new(source, write, Method::Splice)),
        Stdio::from(read),
    ))
}

fn output(output: &Output, owner: Owner) -> Result<(Option<Flow>, Stdio), Error> {
    let Some(sink) = Sink::open(output)? else {
        return Ok((None, Stdio::null()));
    };
    let (read, write) = pipe(owner)?;
    set_nonblocking(&read)?;
    Ok((Some(sink.into_flow(read, Method::Splice)), write.into()))
}

/// A pipe: the reading end and the writing end, both blocking.
fn pipe(owner: Owner) -> Result<(OwnedFd, OwnedFd), Error> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).call("pipe2")?;
    if owner != Owner::default() {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::fchown(&read, Some(uid), Some(gid)).call("change the owner of a pipe")?;
    }
    Ok((read, write))
}
