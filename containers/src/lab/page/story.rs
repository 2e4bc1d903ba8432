//! The telling events of a run, numbered: the numbers stand in the picture and before the lines below it.

use super::{rows::name, text::clean};
use crate::lab::recording::{Event, Kind, LAB, Recording};

/// So many lines are told; the end tells most.
const LINES: usize = 18;

/// One line of the story.
pub struct Line<'a> {
    pub number: usize,
    pub event: &'a Event,
    pub text: String,
    /// How many more of the same followed at once.
    pub more: usize,
}

/// The lines, and how many were left out.
pub fn story<'a>(recording: &'a Recording) -> (Vec<Line<'a>>, usize) {
    let mut lines: Vec<Line> = Vec::new();
    for event in recording.events.iter().filter(|event| is_telling(recording, event)) {
        let is_like = |line: &&mut Line| {
            let last = line.event;
            event.kind != Kind::Output && (last.kind, last.pid, &last.text) == (event.kind, event.pid, &event.text)
        };
        match lines.last_mut().filter(is_like) {
            Some(last) => last.more += 1,
            None => lines.push(Line { number: 0, event, text: told(recording, event), more: 0 }),
        }
    }
    let all = lines.len();
    if all > LINES {
        // A runtime makes orphans all the time: they tell least.
        lines.retain(|line| line.event.kind != Kind::Adopt);
    }
    let too_many = lines.len().saturating_sub(LINES);
    if too_many > 0 {
        lines.drain(LINES / 2..LINES / 2 + too_many);
    }
    let left_out = all - lines.len();
    for (index, line) in lines.iter_mut().enumerate() {
        line.number = index + 1;
    }
    (lines, left_out)
}

fn is_telling(recording: &Recording, event: &Event) -> bool {
    match event.kind {
        Kind::Fork | Kind::Exec | Kind::Reap => false,
        // Of the others it stands in their rows.
        Kind::Exit => recording.process(event.pid).is_some_and(|process| process.parent == LAB),
        _ => true,
    }
}

/// `tini[1] forwards SIGTERM to sleep[2]`
pub fn told(recording: &Recording, event: &Event) -> String {
    let named = |pid| recording.process(pid).map_or_else(|| "the lab".to_owned(), name);
    let (who, text) = (named(event.pid), clean(&event.text));
    let whom = event.other.map(named).unwrap_or_default();
    match event.kind {
        Kind::Fork => format!("{who} forks {whom}"),
        Kind::Reap => format!("{who} reaps {whom}"),
        Kind::Adopt => format!("{who} adopts the orphan {whom}"),
        Kind::SignalSent => format!("{who} sends {whom} {text}"),
        Kind::SignalForwarded => format!("{who} forwards {text} to {whom}"),
        Kind::SignalIgnored => format!("{who} sends {whom} {text}"),
        Kind::Exit => {
            let status = recording.process(event.pid).and_then(|process| process.exit_status);
            status.map_or_else(|| format!("{who} ends"), |status| format!("{who} ends with {status}"))
        }
        Kind::Stop => format!("{who} is stopped"),
        Kind::Continue => format!("{who} goes on"),
        Kind::Output => format!("it writes: {text}"),
        Kind::Phase => format!("the lab: {text}"),
        Kind::Exec | Kind::Note => format!("{who}: {text}"),
    }
}
