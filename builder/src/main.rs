//! `teu-build`: builds an image from a Dockerfile.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use teu_builder::build::{BuildError, chain};
use teu_builder::call::{self, Call, Form};
use teu_builder::cancel::Cancel;
use teu_builder::cli::{BuildTask, Cli, PlanFormat, ReportFormat, Task};
use teu_builder::isolation::{self, Entered, Isolation, NoIsolation, doctor};
use teu_builder::output::{Sent, metadata};
use teu_builder::prepare::{Prepared, Source};
use teu_builder::progress::Progress;
use teu_builder::report::Problem;
use teu_builder::{explain, leftovers, signals};
use teu_store::Store;

/// What a shell adds to the number of the signal that ended a program.
const INTERRUPTED_BY: u8 = 128;

fn main() -> ExitCode {
    // Before the first child is started: the helpers of a user namespace are.
    if let Err(error) = signals::hear_of_children() {
        return fail(&error);
    }
    if let Some(code) = as_helper() {
        return code;
    }
    let mut cli = Cli::read(std::env::args_os());
    if let Some((format, store, runtime)) = cli.asks_doctor() {
        return diagnose(format, &store, &runtime);
    }
    let task = match enter(&mut cli) {
        Ok(entered) => cli.task(entered),
        Err(error) => return fail(&error),
    };
    let task = match task {
        Ok(task) => task,
        Err(error) => return fail(&error),
    };
    let (task, plan_format) = match task {
        Task::Build(task) => (task, None),
        Task::Plan(task, format) => (task, Some(format)),
        Task::Why {
            store,
            step,
            context,
        } => return why(&store, &step, &context),
        Task::Cache { store, command } => {
            return match command.run(&store, &mut std::io::stdout()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            };
        }
    };
    let cancel = Arc::new(Cancel::default());
    if let Err(error) = signals::cancel_on_signals(&cancel) {
        return fail(&error);
    }
    let prepared = match task.request.open(&cancel) {
        Ok(prepared) => prepared,
        Err(_) if cancel.is_interrupted() => return interrupted(&cancel),
        Err(error) => return fail(&error),
    };
    let source = &prepared.source;
    let result = match task.call {
        Some(call) => answer(&task, call, &prepared),
        None => match plan_format {
            Some(format) => plan(&task, &prepared, format),
            None => run(&task, &prepared, &cancel),
        },
    };
    match result {
        Ok(code) => code,
        Err(Stop::Build(BuildError::Problem(problem))) => show(&problem, source),
        Err(Stop::Build(BuildError::Step {
            problem,
            place,
            output,
        })) => {
            show_output(&place, &output);
            show(&problem, source)
        }
        Err(Stop::Build(BuildError::Interrupted)) => interrupted(&cancel),
        Err(Stop::Build(error)) => fail(&error),
        Err(Stop::Output(error)) => fail(&error),
    }
}

/// Enters the isolation of this run. Before any thread is made: it holds for all of them.
fn enter(cli: &mut Cli) -> Result<Entered, NoIsolation> {
    let runtime = cli.runtime();
    leftovers::end_abandoned(cli.settle(), &runtime);
    match isolation::enter() {
        // Whoever only looks sees what can be seen without.
        Err(_) if !cli.needs_isolation() => Ok(Entered {
            isolation: Isolation::Root,
            shares_procfs: false,
        }),
        entered => entered,
    }
}

/// What this program does where it was started by itself.
fn as_helper() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match arguments.first()?.as_str() {
        isolation::MAP_IDS => Some(isolation::helper(&arguments[1..])),
        isolation::PROBE => Some(isolation::probe(&arguments[1..])),
        _ => None,
    }
}

/// Prints which isolation builds have here.
fn diagnose(format: ReportFormat, store: &Path, runtime: &Path) -> ExitCode {
    let report = doctor::examine(store, runtime);
    let text = match format {
        ReportFormat::Text => report.text(),
        ReportFormat::Json => format!("{:#}\n", report.json()),
    };
    match write!(std::io::stdout(), "{text}") {
        Ok(()) if report.is_well() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

enum Stop {
    Build(BuildError),
    Output(OutputError),
}

/// The result could not be handed over.
#[derive(Debug, thiserror::Error)]
#[error("write the {what} to {place}")]
struct OutputError {
    what: &'static str,
    place: String,
    source: std::io::Error,
}

fn unwritten(what: &'static str, place: impl Into<String>) -> impl FnOnce(std::io::Error) -> Stop {
    let place = place.into();
    move |source| {
        Stop::Output(OutputError {
            what,
            place,
            source,
        })
    }
}

/// Prints what was asked about the Dockerfile.
fn answer(
    task: &BuildTask,
    (call, form): (Call, Form),
    prepared: &Prepared,
) -> Result<ExitCode, Stop> {
    let progress = Progress::new(task.style);
    let (request, source) = (&task.request, &prepared.source);
    let json =
        |value: serde_json::Value| serde_json::to_string_pretty(&value).unwrap_or_default() + "\n";
    let (text, clean) = match call {
        Call::Check => {
            let checked = request.check(prepared, &progress).map_err(Stop::Build)?;
            call::print_checked(&checked, &source.name, &source.text, form)
        }
        Call::Outline => {
            let plan = request.plan(prepared, &progress).map_err(Stop::Build)?;
            let text = match form {
                Form::Text => call::outline_text(&plan.outline),
                Form::Json => json(call::outline_json(&plan.outline, &source.text)),
            };
            (text, true)
        }
        Call::Targets => {
            let file = request.parse(source).map_err(Stop::Build)?;
            let text = match form {
                Form::Text => call::targets_text(&file),
                Form::Json => json(call::targets_json(&file, &source.text)),
            };
            (text, true)
        }
    };
    write!(std::io::stdout(), "{text}").map_err(unwritten("answer", "standard output"))?;
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn interrupted(cancel: &Cancel) -> ExitCode {
    say("teu-build: interrupted");
    ExitCode::from(INTERRUPTED_BY + cancel.signal())
}

fn plan(task: &BuildTask, prepared: &Prepared, format: PlanFormat) -> Result<ExitCode, Stop> {
    let progress = Progress::new(task.style);
    let plan = task
        .request
        .plan(prepared, &progress)
        .map_err(Stop::Build)?;
    let text = match format {
        PlanFormat::Dot => plan.to_dot().trim_end().to_owned(),
        PlanFormat::Json => serde_json::to_string_pretty(&plan)
            .map_err(|error| unwritten("plan", "standard output")(error.into()))?,
    };
    writeln!(std::io::stdout(), "{text}").map_err(unwritten("plan", "standard output"))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints why a step of the last build ran.
fn why(store: &Store, step: &str, context: &Path) -> ExitCode {
    match explain::why(store, step, context) {
        Ok(text) => match write!(std::io::stdout(), "{text}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => fail(&error),
    }
}

fn run(task: &BuildTask, prepared: &Prepared, cancel: &Cancel) -> Result<ExitCode, Stop> {
    let progress = Progress::new(task.style);
    progress.note(&format!("isolation: {}", task.request.settings.isolation));
    let result = task.request.build(prepared, &progress, cancel);
    if task.explain {
        let shown = explain::last_build(&task.request.store, prepared.context_path());
        shown.iter().flat_map(|text| text.lines()).for_each(say);
    }
    deliver(task, &result.map_err(Stop::Build)?)
}

/// Says what was made: the image's id, or the index's digest.
fn deliver(task: &BuildTask, sent: &Sent) -> Result<ExitCode, Stop> {
    if let Some(path) = &task.metadata_file {
        let text = format!("{:#}\n", metadata(sent, &task.request.names));
        std::fs::write(path, text).map_err(unwritten("metadata", path.display().to_string()))?;
    }
    let Some(id) = sent.id() else {
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(path) = &task.iidfile {
        std::fs::write(path, id.to_string())
            .map_err(unwritten("image id", path.display().to_string()))?;
    }
    if task.request.outputs.takes_stdout() {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(std::io::stdout(), "{id}").map_err(unwritten("image id", "standard output"))?;
    Ok(ExitCode::SUCCESS)
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    say(&format!("teu-build: {}", chain(error)));
    ExitCode::FAILURE
}

fn show(problem: &Problem, source: &Source) -> ExitCode {
    say(&problem.render(&source.name, &source.text, std::io::stderr().is_terminal()));
    ExitCode::FAILURE
}

fn show_output(place: &str, output: &[String]) {
    if output.is_empty() {
        return;
    }
    say(&format!("------ last lines of [{place}]"));
    output.iter().for_each(|line| say(line));
    say("------");
}

/// A line on standard error. That nobody reads it, or that it has no room, must not hide how the build went.
fn say(line: &str) {
    let _: std::io::Result<()> = writeln!(std::io::stderr(), "{line}");
}
