//! What a runtime supports, found out by doing it: one small probe for every
//! command, flag and field of the specification.
//!
//! The probes are the rows of `support/rows.txt`; the README's table is made of
//! what they find (`cargo run -p teu-integration-tests --bin support-table`).

use crate::{Scene, binary, fixture};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const ROWS: &str = include_str!("../support/rows.txt");
const PRELUDE: &str = include_str!("../support/prelude.sh");

/// Exit status by which a probe says that this host cannot answer.
const NOT_HERE: i32 = 77;

/// Probes at a time: they mostly wait for each other's processes.
const WORKERS: usize = 3;

/// How long one probe may take before it counts as failed.
const PROBE_TIME_MAX: Duration = Duration::from_secs(60);

/// Lines of the README between which the table stands.
pub const MARKS: [&str; 2] = ["<!-- support-table -->", "<!-- /support-table -->"];

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// The area it belongs to.
    pub area: &'static str,
    /// Command, flag or field.
    pub name: &'static str,
    peers: &'static str,
    probe: &'static str,
}

/// What a probe has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It works.
    Yes,
    /// It does not; what was said.
    No(String),
    /// This host cannot tell.
    NotHere,
}

/// All rows, in order.
///
/// # Panics
/// When a line of the file is not a row.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut area = "";
    let mut rows = Vec::new();
    for line in ROWS.lines() {
        if let Some(name) = line.strip_prefix("= ") {
            area = name;
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut parts = line.splitn(3, " | ");
        let mut part = || parts.next().unwrap_or_else(|| panic!("not a row: {line}"));
        rows.push(Row {
            area,
            name: part(),
            peers: part(),
            probe: part(),
        });
    }
    rows
}

/// A place to probe in: a bundle, and the runtime to ask.
#[derive(Debug)]
pub struct Stage {
    scene: Scene,
    runtime: PathBuf,
}

impl Stage {
    /// Prepares the bundle for `runtime`; ours where there is none.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(runtime: Option<&Path>) -> Self {
        let scene = Scene::new("support");
        let bundle = scene.bundle("bundle", &["/bin/true"], |_| {});
        let mut config = fixture::minimal_config(&["/bin/true"]);
        config["linux"]["cgroupsPath"] = json!(format!("{}/probe", scene.cgroup()));
        scene.write("base.json", config.to_string());
        scene.write("prelude.sh", PRELUDE);
        // Probes of other users of the bundle must reach it.
        scene.shell(&format!("chmod 755 . {}", bundle.display()));
        Self {
            runtime: runtime.map_or_else(|| binary("teu-runtime"), Path::to_owned),
            scene,
        }
    }

    /// Executes the probe of one row, and removes what it leaves.
    #[must_use]
    pub fn probe(&self, row: &Row) -> Found {
        let group = format!("{}/probe", self.scene.cgroup());
        let id = format!("{}-probe", self.scene.mark());
        let script = format!(". ./prelude.sh\n{}\n", row.probe);
        let run = |script: &str| {
            let mut command = self.scene.command("sh", ["-euc", script]);
            command
                .env("RUNTIME", &self.runtime)
                .env("STATE", self.scene.path("state/runtime"))
                .env("C", &id)
                .env("CG", &group);
            crate::command::run_limited(command, b"", PROBE_TIME_MAX)
        };
        let outcome = run(&script);
        let _ = run(". ./prelude.sh; R delete -f \"$C\" >left 2>&1 || true; rm -rf own src s");
        match outcome.code() {
            0 => Found::Yes,
            NOT_HERE => Found::NotHere,
            code => Found::No(format!("{}{} ({code})", outcome.stdout, outcome.stderr)),
        }
    }
}

/// Executes the probes of all rows, a few at a time, each in a stage of its own.
///
/// # Panics
/// When a stage cannot be made.
#[must_use]
pub fn probe_all() -> Vec<(Row, Found)> {
    let rows = rows();
    let next = AtomicUsize::new(0);
    let found: Vec<OnceLock<Found>> = rows.iter().map(|_| OnceLock::new()).collect();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let stage = Stage::new(None);
                while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed))
                    && let Some(row) = rows.get(index)
                {
                    let _ = found[index].set(stage.probe(row));
                }
            });
        }
    });
    let found = found.into_iter().map(|cell| {
        cell.into_inner()
            .unwrap_or_else(|| Found::No("the probe did not end".into()))
    });
    let found: Vec<_> = found.collect();
    rows.into_iter().zip(found).collect()
}

/// The cells of our column, by row, as a table has them.
///
/// # Panics
/// When a row of the table has fewer cells than its head.
#[must_use]
pub fn own_cells(table: &str) -> BTreeMap<String, String> {
    let mut area = String::new();
    let mut cells = BTreeMap::new();
    // The first two lines are the head.
    for line in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        match parts[1].strip_prefix("**") {
            Some(name) => area = name.trim_end_matches("**").to_owned(),
            None => drop(cells.insert(format!("{area}: {}", parts[1]), parts[2].to_owned())),
        }
    }
    cells
}

/// The table. Where this host cannot tell, the cell stays what it was.
#[must_use]
pub fn table(found: &[(Row, Found)], before: &BTreeMap<String, String>) -> String {
    let mut text =
        String::from("| | teu | runc 1.5.1 | crun 1.29.1 | youki 0.7.0 |\n|---|---|---|---|---|\n");
    let mut area = "";
    for (row, found) in found {
        if row.area != area {
            area = row.area;
            let _ = writeln!(text, "| **{area}** | | | | |");
        }
        let _ = write!(text, "| {} | {} |", row.title(), row.cell(found, before));
        for peer in row.peers.chars() {
            let word = match peer {
                'y' => "yes",
                'n' => "no",
                'd' => "differs",
                _ => "?",
            };
            let _ = write!(text, " {word} |");
        }
        text.push('\n');
    }
    text
}

impl Row {
    /// The name as the table shows it.
    #[must_use]
    pub fn title(&self) -> String {
        self.name.replace('|', "\\|")
    }

    /// The cell of our column.
    #[must_use]
    pub fn cell(&self, found: &Found, before: &BTreeMap<String, String>) -> String {
        match found {
            Found::Yes => "yes".into(),
            Found::No(_) => "no".into(),
            Found::NotHere => before
                .get(&format!("{}: {}", self.area, self.title()))
                .cloned()
                .unwrap_or_else(|| "not tried".into()),
        }
    }
}

/// The table that a README has, without its marks.
#[must_use]
pub fn table_of(readme: &str) -> &str {
    let after = readme.split_once(MARKS[0]).map_or("", |(_, after)| after);
    after
        .split_once(MARKS[1])
        .map_or("", |(table, _)| table)
        .trim()
}

/// The README with another table between its marks.
///
/// # Panics
/// When it has no marks.
#[must_use]
pub fn with_table(readme: &str, table: &str) -> String {
    let (before, after) = readme.split_once(MARKS[0]).expect("the mark of the table");
    let (_, after) = after
        .split_once(MARKS[1])
        .expect("the mark after the table");
    format!(
        "{before}{}\n{}\n{}{after}",
        MARKS[0],
        table.trim(),
        MARKS[1]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_three_peers_and_a_name_of_its_own() {
        let rows = rows();
        let mut names: Vec<_> = rows.iter().map(|row| (row.area, row.name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len());
        for row in &rows {
            let known = row.peers.chars().all(|peer| "ynd?".contains(peer));
            assert!(known && row.peers.chars().count() == 3, "{row:?}");
        }
    }

    #[test]
    fn a_table_is_read_back() {
        let row = || Row {
            area: "A",
            name: "x | y",
            peers: "yn?",
            probe: "",
        };
        let none = BTreeMap::new();
        let first = table(&[(row(), Found::Yes)], &none);
        assert!(
            first.ends_with("| **A** | | | | |\n| x \\| y | yes | yes | no | ? |\n"),
            "{first}"
        );
        let plain = Row { name: "z", ..row() };
        let made = table(&[(plain, Found::No("why".into()))], &none);
        assert_eq!(own_cells(&made)["A: z"], "no");
        let readme = format!("a\n{}\n{}\nb\n", MARKS[0], MARKS[1]);
        assert_eq!(table_of(&with_table(&readme, &made)), made.trim());
    }
}
