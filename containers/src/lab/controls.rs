//! What a viewer may do to a run that is going on.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a wish waits for the run that has the process: after that the number may be another's.
const VALID: Duration = Duration::from_secs(1);

/// Shared by the viewer and the runs.
#[derive(Debug, Default)]
pub struct Controls {
    signals: Mutex<Vec<(Instant, i32, i32)>>,
    held: AtomicBool,
}

impl Controls {
    /// Asks for a signal to a process (outside pid). The run that has it sends it within some milliseconds; a pid that is
    /// no live process of a run is never signalled.
    pub fn signal(&self, pid: i32, signal: i32) {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), pid, signal));
    }

    /// While held, runs wait where their program is ready, so that a person can look and send signals.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// The wishes that are about one's own processes.
    pub(super) fn take(&self, is_own: impl Fn(i32) -> bool) -> Vec<(i32, i32)> {
        let mut wishes = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        wishes.retain(|(when, _, _)| when.elapsed() < VALID);
        let (own, others): (Vec<_>, Vec<_>) = wishes.drain(..).partition(|(_, pid, _)| is_own(*pid));
        *wishes = others;
        own.into_iter().map(|(_, pid, signal)| (pid, signal)).collect()
    }
}
