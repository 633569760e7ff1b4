//! Ctrl-C and failures: what runs is killed, so that the build ends now and leaves nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

type Killer = Box<dyn Fn() + Send>;

/// Whether the build goes on, and how to end what is running.
#[derive(Default)]
pub struct Cancel {
    stopped: AtomicBool,
    /// The signal that ended the build; 0 for none.
    signal: AtomicU8,
    running: Mutex<HashMap<usize, Killer>>,
}

impl Cancel {
    /// Ends the build after a failure: kills what is running, and what starts later.
    pub fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.stopped.store(true, Ordering::SeqCst);
        running.values().for_each(|kill| kill());
    }

    /// Ends the build on a signal of that number.
    pub fn interrupt(&self, signal: u8) {
        self.signal.store(signal, Ordering::SeqCst);
        self.stop();
    }

    /// Whether the build is ending.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Whether a signal ended it.
    pub fn is_interrupted(&self) -> bool {
        self.signal() != 0
    }

    /// The number of the signal that ended it; 0 for none.
    pub fn signal(&self) -> u8 {
        self.signal.load(Ordering::SeqCst)
    }

    /// Calls `kill` if the build ends before [`Cancel::finished`] is called for the same step.
    pub fn started(&self, step: usize, kill: impl Fn() + Send + 'static) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_stopped() {
            kill();
        }
        running.insert(step, Box::new(kill));
    }

    /// The step has nothing more to kill.
    pub fn finished(&self, step: usize) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&step);
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancel")
            .field("stopped", &self.is_stopped())
            .finish_non_exhaustive()
    }
}
