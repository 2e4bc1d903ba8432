//! Ctrl-C, SIGTERM and SIGHUP end a lesson by the same way as its own end: what it made is taken away.

use crate::error::{Context, Error, Result};
use nix::libc::{SIGHUP, SIGINT, SIGTERM};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Whether somebody wants the lab to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// From now on the process is not ended by these signals, but sees them here.
    pub fn catch() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register_usize(signal, interrupt.0.clone(), signal as usize)
                .doing("catch the signals that end the lab")?;
        }
        Ok(interrupt)
    }

    /// Asks for the end, as a signal would.
    pub fn raise(&self, signal: i32) {
        self.0.store(signal as usize, Ordering::Relaxed);
    }

    /// The signal that asked for the end.
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// The exit code of what was done: 128+n where signal n asked for the end, whatever came of it.
    pub fn exit_code(&self, done: Result<u8>) -> Result<u8> {
        self.signal().map_or(done, |signal| Ok(128 + signal as u8))
    }

    /// An error once the end was asked for.
    pub fn check(&self) -> Result<()> {
        match self.signal() {
            None => Ok(()),
            Some(signal) => Err(Error::Failed(format!("ended by {}", super::signals::name(signal)))),
        }
    }
}
