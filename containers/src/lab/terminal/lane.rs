//! The events of a recording up to a moment, a line each.

use super::tree::named;
use crate::lab::{
    recording::{Event, Kind, LAB, Recording},
    signals,
};

/// One line of the lane.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub at: u64,
    pub kind: Kind,
    /// The process that it is about (outside pid).
    pub pid: Option<i32>,
    /// `→ SIGTERM: lab to sh[1]`; the time is not in it.
    pub text: String,
}

/// The last `count` events up to `at`. `outside` is who acts from outside the recording: the lab, the engine.
pub fn lines(recording: &Recording, at: u64, count: usize, outside: &str) -> Vec<Line> {
    let end = recording.events.partition_point(|event| event.at <= at);
    recording.events[end.saturating_sub(count)..end].iter().map(|event| line(recording, event, outside)).collect()
}

/// One event in words.
fn line(recording: &Recording, event: &Event, outside: &str) -> Line {
    let name = |pid| if pid == LAB { outside.to_owned() } else { named(recording, pid) };
    let who = name(event.pid);
    let whom = event.other.map(name).unwrap_or_default();
    let rest = &event.text;
    let by_the_kernel = rest.contains("from the kernel");
    let signal = event.signal.map(signals::name).unwrap_or_default();
    let text = match event.kind {
        Kind::SignalSent | Kind::SignalIgnored if by_the_kernel => {
            format!("→ {signal}: kernel to {whom}, PID 1 has ended")
        }
        Kind::Fork if event.pid == LAB => format!("+ {who} starts {whom}"),
        Kind::Fork => format!("+ {who} forks {whom}"),
        Kind::Exec => format!("» {who} {rest}"),
        Kind::Exit => format!("✗ {who} {}", ended(recording, event)),
        Kind::Reap => format!("✓ {who} reaps {whom}"),
        Kind::Adopt => format!("↪ {who} adopts {whom}"),
        Kind::SignalSent => format!("→ {signal}: {who} to {whom}"),
        Kind::SignalIgnored => format!("⊘ {signal} IGNORED: {who} to {whom}"),
        Kind::SignalForwarded => format!("⇒ {signal} forwarded: {who} to {whom}"),
        Kind::Stop => format!("T {who} STOPPED"),
        Kind::Continue => format!("▶ {who} goes on"),
        Kind::Phase => format!("# {rest}"),
        Kind::Output => format!("> {who}: {rest}"),
        Kind::Note => format!("i {rest}"),
    };
    Line { at: event.at, kind: event.kind, pid: if event.pid == LAB { event.other } else { Some(event.pid) }, text }
}

/// How it ended is at times known only a little later, by who waited for it.
fn ended(recording: &Recording, event: &Event) -> String {
    match recording.process(event.pid).and_then(|process| process.exit_status) {
        Some(status) if event.text == "ends" => format!("ends: exit {status}"),
        _ => event.text.clone(),
    }
}

/// `12.3 ms`, `3.004 s`
pub fn time(micros: u64) -> String {
    match micros {
        0..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        1_000_000..60_000_000 => format!("{:.3} s", micros as f64 / 1e6),
        _ => {
            let seconds = micros / 1_000_000;
            format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_says_so() {
        let event =
            |at, kind, text: &str| Event { at, kind, pid: LAB, other: Some(7), signal: Some(15), text: text.into() };
        let recording = Recording {
            events: vec![
                event(1, Kind::Phase, "stop"),
                event(2, Kind::SignalIgnored, "SIGTERM"),
                event(9, Kind::SignalSent, "SIGKILL"),
            ],
            ..Recording::default()
        };
        let text: Vec<String> = lines(&recording, 5, 10, "lab").into_iter().map(|line| line.text).collect();
        assert_eq!(text, ["# stop", "⊘ SIGTERM IGNORED: lab to pid 7"]);
        assert_eq!(lines(&recording, 9, 1, "lab")[0].text, "→ SIGTERM: lab to pid 7");
        assert_eq!([900, 1_500_000, 3_723_000_000].map(time), ["0.9 ms", "1.500 s", "1:02:03"]);
    }
}
