//! Bounds on what clients can make the helper open, so that none exhausts its descriptors.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Kept back for listeners, control connections and the runtime itself.
const RESERVE: u64 = 256;

/// A share in a bound that all members have in common: a part of it for each of them.
#[derive(Clone, Debug)]
pub struct Quota {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

/// One thing (query, connection, session) that is under way.
#[derive(Debug)]
pub struct Permit {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// What the process as a whole may have under way.
#[derive(Debug)]
pub struct Bounds {
    all: Arc<Semaphore>,
    share: usize,
}

impl Bounds {
    /// Raises the limit of open files to the hard limit and makes the best of that. Each permit stands for at most two
    /// descriptors (the two ends of a proxied connection).
    pub fn of_process() -> Bounds {
        let files = match getrlimit(Resource::RLIMIT_NOFILE) {
            Ok((soft, hard)) if soft < hard => {
                // More would not be used, and a huge table is no help.
                let wanted = hard.min(1 << 17).max(soft);
                setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map(|()| wanted).unwrap_or(soft)
            }
            Ok((soft, _)) => soft,
            Err(_) => 1024,
        };
        let all = (files.saturating_sub(RESERVE) / 2).clamp(64, 1 << 16) as usize;
        Bounds { all: Arc::new(Semaphore::new(all)), share: (all / 4).min(4096) }
    }

    /// A new member's quota.
    pub fn quota(&self) -> Quota {
        Quota { all: Arc::clone(&self.all), own: Arc::new(Semaphore::new(self.share)) }
    }
}

impl Quota {
    /// None: too much is under way.
    pub fn take(&self) -> Option<Permit> {
        let own = Arc::clone(&self.own).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Permit { _own: own, _all: all })
    }

    /// Waits for room.
    pub async fn wait(&self) -> Option<Permit> {
        let own = Arc::clone(&self.own).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Permit { _own: own, _all: all })
    }
}
