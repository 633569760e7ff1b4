//! The README's table of what is supported is what executing gives.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use teu_integration_tests::support::{Found, own_cells, probe_all, table_of};
use teu_integration_tests::{missing_command, readme, skipped};

#[test]
fn the_table_of_the_readme_is_true() {
    if std::env::var_os("TEU_RUNTIME").is_some() {
        return skipped("support", "the table is that of our runtime");
    }
    if missing_command("jq") {
        return skipped("support", "the probes need jq");
    }
    let text = std::fs::read_to_string(readme::path()).unwrap();
    let mut cells = own_cells(table_of(&text));
    let mut wrong = String::new();
    for (row, found) in probe_all() {
        let name = format!("{}: {}", row.area, row.title());
        let told = cells.remove(&name);
        let seen = match &found {
            Found::NotHere => {
                skipped(&name, "this host cannot tell");
                continue;
            }
            Found::Yes => "yes",
            Found::No(_) => "no",
        };
        if told.as_deref() != Some(seen) {
            wrong.push_str(&format!("{name}: told {told:?}, found {found:?}\n"));
        }
    }
    for (name, _) in cells {
        wrong.push_str(&format!("{name}: in the README, but no row\n"));
    }
    assert!(
        wrong.is_empty(),
        "README.md is not true (support-table --write makes it so):\n{wrong}"
    );
}
