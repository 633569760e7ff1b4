//! Commands that only look: state, list, ps, features.

use std::io::Write;

use super::args::Args;
use super::{Context, container_id, named};
use crate::cgroup::procs;
use crate::container::status::Report;
use crate::error::Error;
use crate::state::Root;

/// Prints text; a reader that has gone away is no error.
pub(super) fn out(text: &str) -> Result<(), Error> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::at("write", "standard output")),
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|source| Error::Json {
        path: "output".into(),
        source,
    })
}

fn pretty<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string_pretty(value).map_err(|source| Error::Json {
        path: "output".into(),
        source,
    })
}

/// `state`.
pub(super) fn state(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    let report = context
        .root
        .open(&id)
        .and_then(|dir| dir.load())
        .and_then(Report::new);
    out(&format!("{}\n", pretty(&named("state", &id, report)?)?)).map(|()| 0)
}

/// All containers that can be read. One that cannot is named in the log and
/// does not hide the others.
fn reports(root: &Root, context: &Context<'_>) -> Result<Vec<Report>, Error> {
    let mut reports = Vec::new();
    for id in root.ids()? {
        match root
            .open(&id)
            .and_then(|dir| dir.load())
            .and_then(Report::new)
        {
            Ok(report) => reports.push(report),
            // Deleted meanwhile, or not yet written.
            Err(Error::State(_)) => (),
            Err(error) => context
                .log
                .warn(&format!("load container {id}: {}", error.chain())),
        }
    }
    Ok(reports)
}

/// `list`.
pub(super) fn list(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    if context.root_is_given {
        context.root.check()?;
    }
    let reports = reports(&context.root, context)?;
    if args.flag("quiet") {
        let ids = reports.iter().map(|report| format!("{}\n", report.id));
        return out(&ids.collect::<String>()).map(|()| 0);
    }
    match args.value("format").unwrap_or("table") {
        "table" => out(&table(&reports))?,
        // Go writes an empty list of its own making as null.
        "json" if reports.is_empty() => out("null\n")?,
        "json" => out(&format!("{}\n", json(&reports)?))?,
        _ => return Err(Error::Usage("invalid format option".into())),
    }
    Ok(0)
}

fn table(reports: &[Report]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
        .map(str::to_owned)
        .to_vec();
    let row = |report: &Report| {
        vec![
            report.id.clone(),
            report.pid.to_string(),
            report.status.word().to_owned(),
            report.bundle.display().to_string(),
            report.created.clone(),
            report.owner.clone(),
        ]
    };
    columns(
        std::iter::once(head)
            .chain(reports.iter().map(row))
            .collect(),
    )
}

/// Aligns columns as Go's tabwriter does for runc: each at least 12 wide,
/// three blanks between, the last one not padded.
fn columns(rows: Vec<Vec<String>>) -> String {
    const WIDTH_MIN: usize = 12;
    const GAP: usize = 3;
    let width = |column: usize| {
        let longest = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max();
        (longest.unwrap_or(0) + GAP).max(WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths).take(row.len() - 1) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(row.last().map_or("", String::as_str));
        text.push('\n');
    }
    text
}

/// `ps`: the host's ps(1), its lines for the container's processes.
pub(super) fn ps(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    let pids = named("ps", &id, pids(&context.root, &id))?;
    match args.value("format").unwrap_or("table") {
        // Go ends what it encodes with a newline, and writes an empty list as null.
        "json" if pids.is_empty() => out("null\n")?,
        "json" => out(&format!("{}\n", json(&pids)?))?,
        "table" => {
            let options = &args.words[1..];
            let default = ["-ef".to_owned()];
            let options = if options.is_empty() {
                &default[..]
            } else {
                options
            };
            let output = std::process::Command::new("ps")
                .args(options)
                .output()
                .map_err(Error::on("run", "ps"))?;
            if !output.status.success() {
                return Err(Error::State(format!(
                    "ps: {}",
                    String::from_utf8_lossy(&output.stderr).trim_end()
                )));
            }
            out(&lines_of(&String::from_utf8_lossy(&output.stdout), &pids)?)?;
        }
        _ => return Err(Error::Usage("invalid format option".into())),
    }
    Ok(0)
}

fn pids(root: &Root, id: &crate::id::ContainerId) -> Result<Vec<i32>, Error> {
    // Of a container that has ended what is left is shown, as runc does: nothing,
    // or what shared a pid namespace with its init.
    let state = root.open(id)?.load()?;
    Ok(procs::all(&state.cgroups)?
        .into_iter()
        .map(|pid| pid.as_raw_nonzero().get())
        .collect())
}

/// The head of ps's output and the lines whose PID column is one of `pids`.
fn lines_of(output: &str, pids: &[i32]) -> Result<String, Error> {
    let mut lines = output.lines();
    let head = lines.next().unwrap_or("");
    let column = head.split_whitespace().position(|name| name == "PID");
    let column =
        column.ok_or_else(|| Error::State("couldn't find PID field in ps output".into()))?;
    let mut text = format!("{head}\n");
    for line in lines {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|field| field.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

/// `features`.
pub(super) fn features() -> Result<u8, Error> {
    out(&format!("{}\n", pretty(&crate::features::features())?)).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = vec![
            vec!["ID".into(), "PID".into(), "X".into()],
            vec!["a-long-container".into(), "1".into(), "y".into()],
        ];
        assert_eq!(
            columns(rows),
            "ID                 PID         X\na-long-container   1           y\n"
        );
    }

    #[test]
    fn only_the_containers_lines_of_ps_are_shown() {
        let output = "UID PID CMD\nroot 1 init\nroot 22 sh\n";
        assert_eq!(
            lines_of(output, &[22]).unwrap(),
            "UID PID CMD\nroot 22 sh\n"
        );
        assert!(lines_of("nothing\n", &[1]).is_err());
    }
}
