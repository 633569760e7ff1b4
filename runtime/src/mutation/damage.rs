//! Random damage to a configuration; the suites of the built program use it too.

use serde_json::Value;

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
            // Never of a branch: two such in one mutant would fill the memory.
            1 if inner == 0 => Value::Array(vec![value.clone(); 2000]),
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

/// Turns, removes, doubles or inserts bytes, until none is left.
fn damage_text(random: &mut Random, text: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        if text.is_empty() {
            return;
        }
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

/// The mutant of this number: every fourth is damaged as text, the others as values.
pub(crate) fn mutant(number: usize, rich: &Value) -> Vec<u8> {
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
