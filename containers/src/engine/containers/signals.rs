//! Signals by name and number, as clients write them, and the wait for the init's readiness.

use crate::error::{Error, Result};
use std::{
    fs,
    time::{Duration, Instant},
};

/// Names of signals 1 to 31 (signal(7)).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// `SIGTERM`, `term`, `15`, `RTMIN+3`, `SIGRTMAX-1`. Docker's words for what is none.
pub fn parse_signal(text: &str) -> Result<i32> {
    let bad = || Error::Invalid(format!("Invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let relative = |rest: &str, base: i32| -> Result<i32> {
        let offset = if rest.is_empty() { 0 } else { rest.parse::<i32>().map_err(|_| bad())? };
        Some(base + offset).filter(|number| (34..=64).contains(number)).ok_or_else(bad)
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return relative(rest, 34);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return relative(rest, 64);
    }
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    NAMES.iter().position(|known| *known == name).map(|at| at as i32 + 1).ok_or_else(bad)
}

/// Waits until PID 1 of a container has its mask set: before, the kernel drops signals that PID 1 neither blocks nor
/// handles. Bounded, because an init that never does is no reason not to send.
pub async fn await_init(pid: i32) {
    let deadline = Instant::now() + Duration::from_millis(200);
    while Instant::now() < deadline {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return };
        let mask = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
                .unwrap_or(0)
        };
        const TERM: u64 = 1 << 14;
        if (mask("SigBlk:") | mask("SigCgt:")) & TERM != 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("sigquit", 3), ("9", 9), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)]
        {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "SIGFOO", "RTMIN+31", "RTMIN-1"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
