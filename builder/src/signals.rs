//! Ctrl-C, SIGTERM and SIGHUP end the build in order.

use crate::cancel::Cancel;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Lets children that have ended wait to be asked how, also where the caller ignores its own. Makes no thread.
///
/// # Errors
/// As `sigaction(2)`.
pub fn hear_of_children() -> io::Result<()> {
    // A handler, whatever it does, is what undoes the ignoring.
    signal_hook::flag::register(SIGCHLD, Arc::new(AtomicBool::new(false))).map(drop)
}

/// Cancels on each of the signals, but those that the caller has ignored, as nohup(1)
/// does; the second one ends the process at once.
///
/// # Errors
/// As `sigaction(2)` or the thread that waits.
pub fn cancel_on_signals(cancel: &Arc<Cancel>) -> io::Result<()> {
    let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    let heard = [SIGINT, SIGTERM, SIGHUP];
    let mut signals = Signals::new(heard.iter().filter(|&&signal| !is_in(ignored, signal)))?;
    let cancel = cancel.clone();
    let wait = move || {
        for signal in signals.forever() {
            if cancel.is_interrupted() {
                std::process::exit(128 + signal);
            }
            cancel.interrupt(u8::try_from(signal).unwrap_or(0));
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .map(drop)
}

/// The set of ignored signals in a `proc_pid_status(5)`; empty where it has none.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0)
}

fn is_in(set: u64, signal: i32) -> bool {
    set >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_ignores_is_seen() {
        let set = ignored("Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000000001\n");
        assert!(is_in(set, SIGHUP) && !is_in(set, SIGINT) && !is_in(set, SIGTERM));
        assert_eq!(ignored(""), 0);
        assert_eq!(ignored("SigIgn:\tx\n"), 0);
    }
}
