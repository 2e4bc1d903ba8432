//! Signals by name.

use nix::sys::signal::Signal;

/// `SIGTERM`; a real-time signal is `SIGRTMIN+3`.
pub fn name(signal: i32) -> String {
    match Signal::try_from(signal) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) if signal >= libc::SIGRTMIN() => format!("SIGRTMIN+{}", signal - libc::SIGRTMIN()),
        Err(_) => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names() {
        assert_eq!([15, 37, 33].map(super::name), ["SIGTERM", "SIGRTMIN+3", "signal 33"]);
    }
}
