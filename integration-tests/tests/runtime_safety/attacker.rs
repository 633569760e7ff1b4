//! The process that races against the runtime: this test program, executed once
//! more to do nothing but exchange two names.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, RenameFlags};

/// Names of the variables that make this program an attacker.
const NAMES: [&str; 2] = ["TEU_ATTACK_ONE", "TEU_ATTACK_OTHER"];

/// A process that exchanges two files until it is dropped.
pub(super) struct Attacker(Child);

impl Attacker {
    /// Begins to exchange `one` and `other` (`renameat2(2)`, `RENAME_EXCHANGE`).
    pub(super) fn swaps(one: &Path, other: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "attacker::exchange_without_end"])
            .env(NAMES[0], one)
            .env(NAMES[1], other)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let ended = self.0.try_wait().unwrap();
        let _ = self.0.kill();
        let _ = self.0.wait();
        if !std::thread::panicking() {
            assert_eq!(ended, None, "the attacker gave up");
        }
    }
}

/// How often a race is run.
pub(super) fn rounds() -> usize {
    std::env::var("TEU_RACE_ROUNDS").map_or(20, |text| text.parse().unwrap())
}

/// The attacker itself; without its variables, as one test among others, nothing.
#[test]
fn exchange_without_end() {
    let [Some(one), Some(other)] = NAMES.map(std::env::var_os) else {
        return;
    };
    // One of a pair may be missing at moments that are not ours.
    loop {
        let _ = rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
    }
}
