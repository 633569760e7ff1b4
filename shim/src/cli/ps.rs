//! `teu ps`

mod filter;

use std::time::{Duration, SystemTime};

use serde_json::json;

use self::filter::Filter;
use crate::Error;
use crate::container::record::{Network, Port};
use crate::container::status::{Status, observe};
use crate::container::{Exit, Folder, Place, Record};
use crate::error::warn;

/// Longest command shown, in characters.
const COMMAND_CHARS_MAX: usize = 24;
/// Columns of the table.
const HEADER: [&str; 7] = [
    "CONTAINER ID",
    "IMAGE",
    "COMMAND",
    "CREATED",
    "STATUS",
    "PORTS",
    "NAME",
];

/// `teu ps`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Those too that do not run
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Those only that fit: id=, name=, image=, status=, exited=; several of one kind, any of them
    #[arg(short, long, value_name = "KIND=VALUE")]
    filter: Vec<Filter>,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// A table, or a JSON object a line
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Lists the containers, the newest first.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<u8, Error> {
    let mut found = Vec::new();
    for folder in Folder::list(place)? {
        match folder
            .record()
            .and_then(|record| Ok((record, observe(&folder)?)))
        {
            Ok(pair) => found.push(pair),
            Err(_) if !folder.path.exists() => {} // removed meanwhile
            Err(source) => warn(
                "teu",
                &Error::Broken {
                    id: folder.id.short().to_owned(),
                    source: Box::new(source),
                },
            ),
        }
    }
    // Who asks for those that ended wants to see them.
    let all = arguments.all || arguments.filter.iter().any(Filter::asks_for_ended);
    found.retain(|(record, status)| {
        (all || status.is_live()) && filter::fits(&arguments.filter, record, status)
    });
    found.sort_by(|(one, _), (two, _)| two.created.cmp(&one.created));
    if arguments.quiet {
        for (record, _) in &found {
            super::show(id(record, arguments.no_trunc))?;
        }
    } else if arguments.format == "json" {
        for (record, status) in &found {
            super::show(&object(record, status).to_string())?;
        }
    } else {
        let rows: Vec<_> = found
            .iter()
            .map(|(record, status)| row(record, status, SystemTime::now(), arguments.no_trunc))
            .collect();
        super::show(&table(&rows))?;
    }
    Ok(0)
}

fn object(record: &Record, status: &Status) -> serde_json::Value {
    let (exit_status, finished) = match status {
        Status::Exited(exit) => (exit.status, Some(&exit.finished)),
        _ => (None, None),
    };
    json!({
        "id": record.id, "name": record.name, "image": record.image, "command": record.command,
        "created": record.created, "status": status.word(), "exit_status": exit_status, "finished": finished,
        "ports": ports(record),
    })
}

fn id(record: &Record, whole: bool) -> &str {
    if whole {
        record.id.as_str()
    } else {
        record.id.short()
    }
}

fn row(record: &Record, status: &Status, now: SystemTime, whole: bool) -> [String; 7] {
    // Control characters would steer the reader's terminal.
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let command: String = record.command.join(" ").chars().map(printable).collect();
    let command = if !whole && command.chars().count() > COMMAND_CHARS_MAX {
        command
            .chars()
            .take(COMMAND_CHARS_MAX - 3)
            .chain("...".chars())
            .collect()
    } else {
        command
    };
    [
        id(record, whole).to_owned(),
        record.image.clone(),
        command,
        format!("{} ago", since(&record.created, now)),
        describe(status, now),
        ports(record).join(", "),
        record.name.to_string(),
    ]
}

fn describe(status: &Status, now: SystemTime) -> String {
    match status {
        Status::Running => "running".to_owned(),
        Status::Exited(Exit {
            started: None,
            error: Some(_),
            ..
        }) => "never started".to_owned(),
        Status::Exited(Exit {
            status,
            oom,
            finished,
            ..
        }) => {
            let status = status.map_or("unknown".to_owned(), |status| status.to_string());
            let oom = if *oom { ", out of memory" } else { "" };
            format!("exited ({status}{oom}) {} ago", since(finished, now))
        }
        Status::Unsupervised(_) => "running, unsupervised".to_owned(),
        Status::Lost => "lost (exit status unknown)".to_owned(),
        other => other.word().to_owned(),
    }
}

fn ports(record: &Record) -> Vec<String> {
    let Network::Bridge { ports } = &record.network else {
        return Vec::new();
    };
    let show = |port: &Port| {
        let ip = port
            .host_ip
            .as_ref()
            .map_or(String::new(), |ip| format!("{ip}:"));
        format!(
            "{ip}{}->{}/{}",
            port.host_port, port.container_port, port.protocol
        )
    };
    ports.iter().map(show).collect()
}

/// How long ago, in one unit.
fn since(time: &str, now: SystemTime) -> String {
    let time = time
        .parse::<jiff::Timestamp>()
        .map_or(now, SystemTime::from);
    age(now.duration_since(time).unwrap_or_default())
}

fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    let (size, unit) = units
        .into_iter()
        .find(|(size, _)| seconds >= *size)
        .unwrap_or((1, "second"));
    let number = seconds / size;
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

fn table(rows: &[[String; 7]]) -> String {
    let header = HEADER.map(str::to_owned);
    let rows: Vec<&[String; 7]> = std::iter::once(&header).chain(rows).collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |row: &&[String; 7]| {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "1 minute"),
            (7_200, "2 hours"),
            (90_000, "1 day"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let row = ["a", "bb", "c", "d", "e", "", "name"].map(str::to_owned);
        let text = table(&[row]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("NAME"), lines[1].find("name"));
    }

    #[test]
    fn what_nobody_saw_is_shown_as_unknown() {
        let exit = Exit {
            finished: crate::clock::now(),
            ..Exit::default()
        };
        assert!(describe(&Status::Exited(exit), SystemTime::now()).starts_with("exited (unknown)"));
        assert_eq!(
            describe(&Status::Lost, SystemTime::now()),
            "lost (exit status unknown)"
        );
    }
}
