//! An idle daemon is small: when it has done nothing for a while it gives back the memory that its work took.

use super::Engine;
use crate::sys;
use nix::sys::resource::{UsageWho, getrusage};
use std::time::Duration;
use tokio::{sync::Notify, time::sleep};

/// How long the process has used no time of a processor before it counts as idle.
const STILL: Duration = Duration::from_secs(2);

/// Told of each request, so that an idle daemon need not look whether it is idle.
#[derive(Default)]
pub struct Activity(Notify);

impl Activity {
    /// Something is being done.
    pub fn stir(&self) {
        self.0.notify_one();
    }
}

impl Engine {
    /// After each spell of work, when it is over, gives its memory back. Never ends.
    pub async fn shrink_when_idle(&self) {
        let (_, mut events) = self.events.subscribe();
        loop {
            let mut before = processor_time();
            loop {
                sleep(STILL).await;
                // The look itself takes some microseconds.
                let now = processor_time();
                if now - before < Duration::from_millis(2) {
                    break;
                }
                before = now;
            }
            sys::release_memory();
            tokio::select! {
                () = self.activity.0.notified() => {}
                _ = events.recv() => {}
            }
            events = events.resubscribe();
        }
    }
}

/// Seconds that this process has run, its own and the kernel's for it (getrusage(2)).
fn processor_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    [usage.user_time(), usage.system_time()]
        .into_iter()
        .map(|time| Duration::new(time.tv_sec().unsigned_abs(), time.tv_usec().unsigned_abs() as u32 * 1000))
        .sum()
}
