//! Ctrl-C, SIGTERM and SIGHUP end the build in order.

use crate::cancel::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;

/// Cancels on each of the signals; the second one ends the process at once.
///
/// # Errors
/// As `sigaction(2)` or the thread that waits.
pub fn cancel_on_signals(cancel: &Arc<Cancel>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
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
