//! Which processes get a row of the picture, in which order, and what is said of them.

use super::{axis::duration, text::clean};
use crate::lab::{
    recording::{Event, Kind, Process, Recording, State},
    signals,
};

/// So many processes are shown one by one.
const ROWS: usize = 14;
/// Of more, those that lived for some of the run (this part of it), as long as they are not too many either.
const SOME: u64 = 6;
const MOST_ROWS: usize = 24;
/// Otherwise the first few; the others are one row that counts them.
const FIRST_ROWS: usize = 5;

/// One process's row.
pub struct Row<'a> {
    pub process: &'a Process,
    /// How many ancestors it has in the picture.
    pub depth: usize,
    pub spans: Vec<Span>,
    /// How it is, or how it ended: `killed by SIGKILL, a zombie for 2.90 s`.
    pub fate: String,
    pub is_killed: bool,
}

/// A stretch of a process's life in one state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    pub from: u64,
    pub to: u64,
    pub state: State,
}

/// The rows in the order of the tree, and the processes that have none of their own.
pub fn rows(recording: &Recording, now: u64) -> (Vec<Row<'_>>, Vec<&Process>) {
    let mut order = Vec::new();
    let is_child = |process: &&Process, parent: i32| process.parent == parent && process.pid != parent;
    let known = |pid| recording.process(pid).is_some();
    for root in recording.processes.iter().filter(|process| !known(process.parent)) {
        // Depth first, without recursion: who makes the processes decides how deep they are.
        let mut waiting = vec![(root, 0)];
        while let Some((process, depth)) = waiting.pop() {
            if order.len() > recording.processes.len() {
                break;
            }
            order.push((process, depth));
            let children = recording.processes.iter().filter(|child| is_child(child, process.pid));
            waiting.extend(children.rev().map(|child| (child, depth + 1)));
        }
    }
    let lived = |process: &Process| process.end.unwrap_or(now).saturating_sub(process.start) >= now / SOME;
    let others = match order.iter().filter(|(process, _)| lived(process)).count() {
        _ if order.len() <= ROWS => Vec::new(),
        1..=MOST_ROWS => order.extract_if(.., |(process, _)| !lived(process)).collect(),
        _ => order.split_off(FIRST_ROWS),
    };
    let rows = order.into_iter().map(|(process, depth)| row(recording, process, depth, now)).collect();
    (rows, others.into_iter().map(|(process, _)| process).collect())
}

fn row<'a>(recording: &'a Recording, process: &'a Process, depth: usize, now: u64) -> Row<'a> {
    let killer = killer(recording, process);
    let mut fate = match (process.end, killer) {
        (Some(_), Some(signal)) => format!("killed by {}", signals::name(signal)),
        (Some(_), None) => match (process.exit_status, last_signal(recording, process)) {
            (Some(status), _) => format!("ended with {status}"),
            (None, Some(signal)) => format!("ended after {}", signals::name(signal)),
            (None, None) => "ended".into(),
        },
        (None, _) if process.state(now) == Some(State::Stopped) => "stopped".into(),
        (None, _) => "runs".into(),
    };
    let spans = spans(process, now);
    let zombie: u64 = spans.iter().filter(|span| span.state == State::Zombie).map(|span| span.to - span.from).sum();
    let is_reaped = process.reaped.is_some_and(|reaped| reaped <= now);
    if process.end.is_some() && !is_reaped {
        fate += ", a zombie";
    } else if zombie > 10_000 {
        fate += &format!(", a zombie for {}", duration(zombie));
    }
    Row { process, depth, spans, fate, is_killed: killer.is_some() }
}

/// `sleep[2]`: the name and the pid inside; a dash where nobody could ask.
pub fn name(process: &Process) -> String {
    let inner = process.inner.map_or_else(|| "–".into(), |inner| inner.to_string());
    format!("{}[{inner}]", clean(&process.name))
}

/// The process's life up to now.
pub fn spans(process: &Process, now: u64) -> Vec<Span> {
    let mut spans = Vec::new();
    let (mut from, mut state) = (process.start, State::Alive);
    for change in process.states.iter().filter(|change| change.at <= now) {
        if state != State::Gone && change.at > from {
            spans.push(Span { from, to: change.at, state });
        }
        (from, state) = (change.at, change.state);
    }
    if state != State::Gone && now > from {
        spans.push(Span { from, to: now, state });
    }
    spans
}

/// The signal that ended the process, as far as it is known.
fn killer(recording: &Recording, process: &Process) -> Option<i32> {
    let told = recording.events.iter().find(|event| event.kind == Kind::Exit && event.pid == process.pid);
    let told = told.and_then(|event| event.signal);
    // Nobody survives this one.
    told.or_else(|| last_signal(recording, process).filter(|signal| *signal == libc::SIGKILL))
}

/// The last signal that reached it and that ends who does not handle it (signal(7)).
fn last_signal(recording: &Recording, process: &Process) -> Option<i32> {
    let reached = |kind| matches!(kind, Kind::SignalSent | Kind::SignalForwarded);
    let end = process.end.unwrap_or(u64::MAX);
    let mut events = recording.events.iter().rev();
    let harmless = [
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGCONT,
        libc::SIGCHLD,
        libc::SIGURG,
        libc::SIGWINCH,
    ];
    let ends = |signal: Option<i32>| signal.is_some_and(|signal| !harmless.contains(&signal));
    let is_it = |event: &&Event| {
        event.other == Some(process.pid) && reached(event.kind) && event.at <= end && ends(event.signal)
    };
    events.find(is_it).and_then(|event| event.signal)
}

/// How many of these processes live, and how many are zombies, from each time on.
pub fn counts(processes: &[&Process], now: u64) -> Vec<(u64, i64, i64)> {
    let mut steps: Vec<(u64, i64, i64)> = Vec::new();
    for process in processes {
        for span in spans(process, now) {
            let (alive, zombie) = if span.state == State::Zombie { (0, 1) } else { (1, 0) };
            steps.extend([(span.from, alive, zombie), (span.to, -alive, -zombie)]);
        }
    }
    steps.sort_unstable();
    let (mut alive, mut zombies) = (0, 0);
    let mut counts: Vec<(u64, i64, i64)> = Vec::new();
    for (at, more_alive, more_zombies) in steps {
        alive += more_alive;
        zombies += more_zombies;
        match counts.last_mut() {
            Some(last) if last.0 == at => *last = (at, alive, zombies),
            _ => counts.push((at, alive, zombies)),
        }
    }
    // What still is goes on up to now.
    counts.pop_if(|last| last.0 == now);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::recording::StateChange;

    fn process(pid: i32, parent: i32, start: u64, end: u64, reaped: u64) -> Process {
        let change = |at, state| StateChange { at, state };
        Process {
            pid,
            inner: Some(pid),
            parent,
            name: "app".into(),
            start,
            end: Some(end),
            reaped: Some(reaped),
            exit_status: Some(0),
            states: vec![change(end, State::Zombie), change(reaped, State::Gone)],
            adoptions: Vec::new(),
        }
    }

    #[test]
    fn a_life_in_spans() {
        let life = process(1, 0, 10, 20, 50);
        let span = |from, to, state| Span { from, to, state };
        assert_eq!(spans(&life, 100), [span(10, 20, State::Alive), span(20, 50, State::Zombie)]);
        assert_eq!(spans(&life, 30), [span(10, 20, State::Alive), span(20, 30, State::Zombie)]);
        assert_eq!(counts(&[&life], 100), [(10, 1, 0), (20, 0, 1), (50, 0, 0)]);
        assert_eq!(counts(&[&life], 30), [(10, 1, 0), (20, 0, 1)]);
    }

    #[test]
    fn many_processes_become_one_row() {
        let mut processes = vec![process(1, 0, 0, 90, 95)];
        processes.extend((2..40).map(|pid| process(pid, pid - 1, 1, 50, 60)));
        let recording = Recording { processes, events: Vec::new(), length: 100 };
        let (rows, others) = rows(&recording, 100);
        assert_eq!((rows.len(), others.len(), rows[4].depth), (5, 34, 4));
        // Those that were there for a while are shown, where they are few.
        let short =
            |process: &Process| Process { end: Some(if process.pid % 4 == 0 { 60 } else { 3 }), ..process.clone() };
        let processes = recording.processes.iter().map(short).collect();
        let recording = Recording { processes, events: Vec::new(), length: 100 };
        let (rows, others) = super::rows(&recording, 100);
        assert_eq!((rows.len(), others.len()), (9, 30));
        assert!(rows.iter().all(|row| row.process.pid % 4 == 0));
    }
}
