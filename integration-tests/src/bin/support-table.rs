//! Prints what a runtime supports, by executing a probe for each row.
//!
//! `support-table` prints the README's table, `support-table --write` puts it
//! there, `support-table --runtime /usr/sbin/runc` asks another runtime and prints
//! a line a row with what it said, which shows whether the probes ask rightly.

use std::path::PathBuf;
use std::process::ExitCode;
use teu_integration_tests::readme;
use teu_integration_tests::support::{
    Found, Stage, own_cells, probe_all, rows, table, table_of, with_table,
};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => print!("{}", made().1),
        ["--write"] => {
            let (text, table) = made();
            if let Err(error) = std::fs::write(readme::path(), with_table(&text, &table)) {
                eprintln!("support-table: write README.md: {error}");
                return ExitCode::FAILURE;
            }
        }
        ["--runtime", path] => ask(Some(PathBuf::from(path)), ""),
        ["--only", part] => ask(None, part),
        _ => {
            eprintln!("usage: support-table [--write | --runtime PATH | --only TEXT]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The README as it is, and the table as it should be.
fn made() -> (String, String) {
    let text = std::fs::read_to_string(readme::path()).unwrap_or_default();
    let found = probe_all();
    for (row, found) in &found {
        if let Found::No(why) = found {
            eprintln!("no: {}: {}: {}", row.area, row.name, why.trim());
        }
    }
    let table = table(&found, &own_cells(table_of(&text)));
    (text, table)
}

/// What a runtime says to each row whose name holds `part`.
fn ask(runtime: Option<PathBuf>, part: &str) {
    let stage = Stage::new(runtime.as_deref());
    for row in rows().iter().filter(|row| row.name.contains(part)) {
        match stage.probe(row) {
            Found::Yes => println!("yes       {}: {}", row.area, row.name),
            Found::NotHere => println!("not here  {}: {}", row.area, row.name),
            Found::No(why) => println!(
                "no        {}: {}: {}",
                row.area,
                row.name,
                why.trim().replace('\n', " / ")
            ),
        }
    }
}
