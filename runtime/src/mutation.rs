//! Configurations with random damage, for tests: none may make us panic or hang.

use std::path::Path;

use serde_json::Value;

use crate::cgroup::{self, Paths};
use crate::init::{self, Wishes};
use crate::seccomp;
use crate::spec::Spec;

mod damage;
pub(crate) use damage::{Random, mutant};

/// Mutants tried unless `TEU_MUTANTS` says how many.
const MUTANTS: usize = 5000;

/// A configuration in which every part of the specification occurs.
const RICH: &str = include_str!("mutation.json");

/// Everything that is decided about a configuration before the first side
/// effect. Whether it was accepted.
fn decide(text: &[u8]) -> bool {
    let Ok(spec) = Spec::checked(text, Path::new("config.json")) else {
        return false;
    };
    let id = "mutant".parse().unwrap();
    let plan = init::Plan::new(&spec, &id, Path::new("/bundle"), &Wishes::default());
    let filter = spec.linux.seccomp.as_ref().map(seccomp::compile);
    let resources = spec.linux.resources.clone().unwrap_or_default();
    let [v1, v2] = [
        Paths::from_pairs([("pids", "/p"), ("cpu", "/c"), ("memory", "/m"), ("", "/u")]),
        Paths::from_pairs([("", "/u")]),
    ];
    let limits = [&v1, &v2].map(|paths| cgroup::Plan::new(&resources, paths).is_ok());
    plan.is_ok() && filter.is_none_or(|filter| filter.is_ok()) && limits == [true; 2]
}

#[test]
fn the_undamaged_configuration_is_accepted() {
    assert!(decide(RICH.as_bytes()));
}

/// No damage makes the parser or the planner panic, and none takes them long.
#[test]
fn damaged_configurations_are_refused_or_carried_out() {
    let count = std::env::var("TEU_MUTANTS").map_or(MUTANTS, |text| text.parse().unwrap());
    let rich: Value = serde_json::from_str(RICH).unwrap();
    let mut accepted = 0;
    for number in 0..count {
        let text = mutant(number, &rich);
        let begun = std::time::Instant::now();
        let decided = std::panic::catch_unwind(|| decide(&text));
        let shown = || String::from_utf8_lossy(&text[..text.len().min(20_000)]).into_owned();
        match decided {
            Ok(true) => accepted += 1,
            Ok(false) => (),
            Err(_) => panic!("mutant {number} panics: {}", shown()),
        }
        // Nothing here is slow: a hundred times more than the slowest takes.
        assert!(
            begun.elapsed().as_secs() < 10,
            "mutant {number} hangs: {}",
            shown()
        );
    }
    eprintln!("{count} mutants, {accepted} of them valid");
}
