//! Output without end, for readers that are quick enough, slow, dead, and for a full
//! disk: through each face of the shim.

mod clients;
mod conmon;
mod containerd;
mod disk;
mod own;
mod rotation;
mod sequence;

use std::io;
use std::time::{Duration, Instant};

use super::Verdict;
use sequence::Sequence;
use teu_integration_tests::shim::Cost;

/// How much a shim may grow, in KiB.
const GROWTH_MAX_KIB: u64 = 1024;
/// The pace of the reader that keeps up, in bytes a second.
const PACE: u64 = 10 << 20;

/// How long each case takes.
fn duration(quick: bool) -> Duration {
    Duration::from_secs(if quick { 5 } else { 600 })
}

/// containerd's face.
pub(crate) fn containerd(quick: bool) -> Verdict {
    let mut verdict = Verdict::default();
    containerd::by_fifo(&mut verdict, duration(quick));
    containerd::by_file(&mut verdict, duration(quick));
    verdict
}

/// conmon's face.
pub(crate) fn conmon(quick: bool) -> Verdict {
    let mut verdict = Verdict::default();
    conmon::by_client(&mut verdict, duration(quick));
    conmon::by_file(&mut verdict, duration(quick));
    rotation::run(&mut verdict, duration(quick), quick);
    verdict
}

/// teu's own.
pub(crate) fn own(quick: bool) -> Verdict {
    let mut verdict = Verdict::default();
    own::by_client(&mut verdict, duration(quick));
    own::by_file(&mut verdict, duration(quick));
    own::by_file_that_drops(&mut verdict, duration(quick));
    verdict
}

/// A shim's memory, as it was at first and at worst.
#[derive(Debug)]
struct Memory {
    pid: u32,
    before: Cost,
    worst: Cost,
    looked: Instant,
}

impl Memory {
    /// As it is now.
    fn of(pid: u32) -> Self {
        let before = Cost::of(pid);
        Self {
            pid,
            before,
            worst: before,
            looked: Instant::now(),
        }
    }

    /// Looks again, once a second at most.
    fn look(&mut self) {
        if self.looked.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.looked = Instant::now();
        let cost = Cost::of(self.pid);
        self.worst.rss = self.worst.rss.max(cost.rss);
        self.worst.private = self.worst.private.max(cost.private);
    }

    /// Whether what was promised of it holds.
    fn judge(&self, verdict: &mut Verdict, case: &str) {
        let (before, worst) = (&self.before, &self.worst);
        println!(
            "  {case}: RSS {} -> {} KiB, private {} -> {} KiB",
            before.rss, worst.rss, before.private, worst.private
        );
        verdict.check(
            before.rss > 0 && worst.rss <= before.rss + GROWTH_MAX_KIB,
            format!("{case}: the shim grows by less than {GROWTH_MAX_KIB} KiB"),
        );
    }
}

/// Reads at a pace, what `read` yields, which gets room for no more than is due;
/// whether all was in order.
fn read_for(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    sequence: &mut Sequence,
    time: Duration,
    pace: u64,
    memory: &mut Memory,
) -> bool {
    let begin = Instant::now();
    let (mut taken, mut block) = (0, vec![0; 64 << 10]);
    while begin.elapsed() < time {
        memory.look();
        let due = (begin.elapsed().as_secs_f64() * pace as f64) as u64;
        let most = usize::try_from(due.saturating_sub(taken))
            .unwrap_or(0)
            .min(block.len());
        match read(&mut block[..most]) {
            Ok(len @ 1..) => {
                taken += len as u64;
                if !sequence.takes(&block[..len]) {
                    return false;
                }
            }
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    true
}
