//! Feeds a target of a fuzz crate with its corpus, changed at random, for a moment: what the gate has of `make fuzz`.
//! The unit tests of the crates that have such targets include this file.

use std::fs;
use std::time::{Duration, Instant};

/// How long each target is fed.
const TIME: Duration = Duration::from_secs(5);
/// Longest time for one input; a debug build on a busy machine is slow, a hang is longer.
const ONE: Duration = Duration::from_secs(10);

/// Bytes that mean something in numbers, names or texts.
const TELLING: &[u8] = b"01234567/.\0 -$\\\n\"'{}[]*?!:=<,";

/// Numbers that look random and are the same for the same seed (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }

    /// Changes some bytes, blocks and lengths; repairs the checksums of tar headers half of the time,
    /// since nothing behind a wrong one is looked at.
    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8], block: usize) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at.max(1)),
                3 => {
                    bytes[at] = TELLING[self.below(TELLING.len())];
                }
                4 => {
                    let from = self.below(other.len()) / block * block;
                    let to = (from + block.max(self.below(64))).min(other.len());
                    let at = at / block * block;
                    bytes.splice(at..at, other[from..to].iter().copied());
                }
                _ => {
                    let to = (at + self.below(block + 88)).min(bytes.len());
                    bytes.drain(at..to);
                    if bytes.is_empty() {
                        bytes.push(0);
                    }
                }
            }
        }
        if self.below(2) == 0 {
            bytes.chunks_exact_mut(512).for_each(repair);
        }
    }
}

/// Gives what looks like a header the checksum that it should have (tar(5), "checksum").
fn repair(block: &mut [u8]) {
    if block[257..262] == *b"ustar" {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Runs `run` with the corpus of `target` and with what becomes of it; pieces of `block` bytes are put in each other's
/// place.
///
/// # Panics
/// `run` does, or takes too long; the input is kept then.
pub(crate) fn feed(target: &str, block: usize, run: fn(&[u8])) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/");
    let mut corpus: Vec<_> = fs::read_dir(format!("{folder}{target}"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    corpus.sort();
    let corpus: Vec<Vec<u8>> = corpus.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(corpus.len() >= 4);
    corpus.iter().for_each(|bytes| run(bytes));
    let seed = std::process::id();
    let mut numbers = Numbers(u64::from(seed) << 20 | 1);
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < TIME {
        let mut bytes = corpus[numbers.below(corpus.len())].clone();
        let other = &corpus[numbers.below(corpus.len())];
        numbers.change(&mut bytes, other, block);
        let one = Instant::now();
        let survived = std::panic::catch_unwind(|| run(&bytes)).is_ok();
        if !survived || one.elapsed() > ONE {
            let path = std::env::temp_dir().join(format!("teu-fuzz-{target}-{seed}"));
            fs::write(&path, &bytes).unwrap();
            panic!("{target}: input {count} of seed {seed} is kept as {path:?}");
        }
        count += 1;
    }
    eprintln!("{target}: {count} inputs");
    assert!(count > 50, "{count}");
}
