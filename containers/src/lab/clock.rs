//! The one clock of the lab: CLOCK_MONOTONIC, which the kernel's tracepoints can take their times from too.

use nix::time::{ClockId, clock_gettime};

/// Microseconds since the machine's start (without suspensions).
pub fn now() -> u64 {
    // The clock is there on every Linux: an error would be a zero.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1000)
}
