//! Configurations with random damage, for tests: none may make us panic or hang.

use std::path::Path;

use serde_json::Value;

use crate::cgroup::{self, Paths};
use crate::init::{self, Wishes};
use crate::seccomp;
use crate::spec::Spec;

/// Mutants tried unless `TEU_MUTANTS` says how many.
const MUTANTS: usize = 20_000;

/// A configuration in which every part of the specification occurs.
const RICH: &str = include_str!("mutation.json");

/// Numbers from a seed, the same on every machine (xorshift64*).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit
    }
}

/// Values that are most often forgotten.
const EXTREMES: [&str; 34] = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "1e308",
    "1.5",
    "-0.0",
    "4294967295",
    "4294967296",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "\"\"",
    "\"/\"",
    "\"..\"",
    "\"../../x\"",
    "\"/proc/self/fd/7\"",
    "\"a\\u0000b\"",
    "\"\\n\"",
    "\"é\\uFFFD\"",
    "\"=\"",
    "\"0-4294967295\"",
    "\"1-0\"",
    "\",,\"",
    "[]",
    "{}",
    "[null]",
    "[[]]",
    "{\"\":\"\"}",
    "\"user\"",
];

/// Replaces, removes or doubles one value somewhere below.
fn damage_value(random: &mut Random, value: &mut Value) {
    let inner = match value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    // A leaf, or one of four times a whole branch.
    if inner == 0 || random.below(8) == 0 {
        *value = match random.below(40) {
            0 => Value::String("x".repeat(70_000)),
            1 => Value::Array(vec![value.clone(); 2000]),
            _ => serde_json::from_str(EXTREMES[random.below(EXTREMES.len())]).unwrap(),
        };
        return;
    }
    let index = random.below(inner);
    match value {
        Value::Array(list) => match random.below(8) {
            0 => drop(list.remove(index)),
            1 => list.push(list[index].clone()),
            _ => damage_value(random, &mut list[index]),
        },
        Value::Object(map) => {
            let key = map.keys().nth(index).cloned().unwrap();
            if random.below(10) == 0 {
                map.remove(&key);
            } else {
                damage_value(random, &mut map[&key]);
            }
        }
        _ => (),
    }
}

/// Turns, removes, doubles or inserts bytes.
fn damage_text(random: &mut Random, text: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(text.len());
        match random.below(5) {
            0 => text[at] ^= 1 << random.below(8),
            1 => drop(text.remove(at)),
            2 => text.insert(at, b"{}[]\",:0\\-e\xff\0"[random.below(13)]),
            3 => text.truncate(at.max(1)),
            _ => text.extend_from_within(at..(at + random.below(64)).min(text.len())),
        }
    }
}

/// The mutant of this number.
fn mutant(number: usize, rich: &Value) -> Vec<u8> {
    let mut random = Random::new(number as u64 + 1);
    let mut value = rich.clone();
    if !number.is_multiple_of(4) {
        for _ in 0..=random.below(3) {
            damage_value(&mut random, &mut value);
        }
    }
    let mut text = serde_json::to_vec(&value).unwrap();
    if number.is_multiple_of(4) {
        damage_text(&mut random, &mut text);
    }
    text
}

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
