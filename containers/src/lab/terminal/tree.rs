//! A recording at a moment, as the lines of a tree.

use crate::lab::{
    recording::{Kind, LAB, Process, Recording, State},
    signals,
};
use std::collections::{HashMap, HashSet};

/// So many siblings that look the same are lines; of more, the first ones and a count.
const ALIKE: usize = 3;

/// How a line looks. The mark says the same without colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Look {
    Alive,
    Zombie,
    Stopped,
    /// Gone, by a signal.
    Killed,
    Gone,
    /// No process: a container, a project.
    Heading,
}

impl Look {
    pub fn mark(self) -> char {
        match self {
            Look::Alive => '●',
            Look::Zombie => 'Z',
            Look::Stopped => 'T',
            Look::Killed => '✗',
            Look::Gone => '·',
            Look::Heading => '▸',
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub look: Look,
    /// Outside; none where the line is no process.
    pub pid: Option<i32>,
    /// `└─sleep[7] 31207`: the name, the pid inside, the pid outside.
    pub name: String,
    /// `ZOMBIE exit 0, adopted: was sh[3]'s`
    pub words: String,
    /// The same for a narrow screen: `ZOMBIE exit 0 ↪sh[3]`
    pub brief: String,
}

impl Line {
    pub fn heading(text: impl Into<String>, words: impl Into<String>) -> Line {
        let words = words.into();
        Line { look: Look::Heading, pid: None, name: text.into(), brief: words.clone(), words }
    }
}

/// `sleep[7]`, the pid inside; `lab` is who runs it all. What was gone before it could be asked is `sleep[–]`.
pub fn named(recording: &Recording, pid: i32) -> String {
    match recording.process(pid) {
        Some(Process { name, inner: Some(inner), .. }) => format!("{name}[{inner}]"),
        Some(Process { name, .. }) => format!("{name}[–]"),
        None if pid == LAB => "lab".into(),
        None => format!("pid {pid}"),
    }
}

/// What of a recording is to be seen.
#[derive(Clone, Copy)]
pub struct Show<'a> {
    /// All who are gone; without it a PID 1 and who was killed.
    pub gone: bool,
    /// Of many siblings that look the same only some, and a count.
    pub fold: bool,
    /// Whose processes; by their outside pids.
    pub of: &'a dyn Fn(i32) -> bool,
}

/// The tree at `at`.
pub fn lines(recording: &Recording, at: u64, show: Show) -> Vec<Line> {
    let killed = killed(recording, at);
    let is_shown = |process: &&Process| match process.state(at) {
        None => false,
        Some(State::Gone) => show.gone || process.inner == Some(1) || killed.contains_key(&process.pid),
        Some(_) => true,
    };
    let shown: Vec<&Process> =
        recording.processes.iter().filter(|process| (show.of)(process.pid)).filter(is_shown).collect();
    let pids: HashSet<i32> = shown.iter().map(|process| process.pid).collect();
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
    for process in &shown {
        let parent = Some(process.parent_at(at)).filter(|parent| pids.contains(parent)).unwrap_or(LAB);
        children.entry(parent).or_default().push(process);
    }
    let alike = if show.fold { ALIKE } else { usize::MAX };
    let mut tree = Tree { recording, at, killed, children, alike, lines: Vec::new() };
    tree.below(LAB, "", true);
    tree.lines
}

/// Who has ended by a signal, and by which.
fn killed(recording: &Recording, at: u64) -> HashMap<i32, i32> {
    let mut got: HashMap<i32, Vec<i32>> = HashMap::new();
    let mut killed = HashMap::new();
    for event in recording.events.iter().take_while(|event| event.at <= at) {
        match (event.kind, event.other, event.signal) {
            (Kind::SignalSent | Kind::SignalForwarded, Some(to), Some(signal)) => {
                got.entry(to).or_default().push(signal);
            }
            (Kind::Exit, _, Some(signal)) => {
                killed.insert(event.pid, signal);
            }
            _ => {}
        }
    }
    for process in recording.processes.iter().filter(|process| process.end.is_some_and(|end| end <= at)) {
        let status = process.exit_status.unwrap_or(128 + libc::SIGKILL);
        // PID 1's 143 is most often what its child ended with: only KILL is sure to have been its own.
        let is_sure = |signal: i32| status == 128 + signal && (process.parent != LAB || signal == libc::SIGKILL);
        let signal = got.get(&process.pid).and_then(|got| got.iter().copied().find(|signal| is_sure(*signal)));
        if let Some(signal) = signal {
            killed.entry(process.pid).or_insert(signal);
        }
    }
    killed
}

struct Tree<'a> {
    recording: &'a Recording,
    at: u64,
    killed: HashMap<i32, i32>,
    children: HashMap<i32, Vec<&'a Process>>,
    alike: usize,
    lines: Vec<Line>,
}

impl Tree<'_> {
    fn below(&mut self, parent: i32, stem: &str, is_top: bool) {
        let mut siblings = self.children.remove(&parent).unwrap_or_default();
        siblings.sort_by_key(|process| process.start);
        let mut count: HashMap<(String, Look), usize> = HashMap::new();
        let mut kept: Vec<(&Process, usize)> = Vec::new();
        for process in siblings {
            let of_its_kind = count.entry((process.name.clone(), self.look(process))).or_default();
            *of_its_kind += 1;
            if *of_its_kind <= self.alike || self.children.contains_key(&process.pid) {
                kept.push((process, 0));
            } else if let Some((_, more)) = kept.iter_mut().rev().find(|(last, _)| {
                last.name == process.name
                    && self.look(last) == self.look(process)
                    && !self.children.contains_key(&last.pid)
            }) {
                *more += 1;
            } else {
                kept.push((process, 0));
            }
        }
        let last = kept.len().saturating_sub(1);
        for (index, (process, more)) in kept.into_iter().enumerate() {
            let is_last = index == last;
            let branch = match (is_top, is_last && more == 0) {
                (true, _) => "",
                (_, true) => "└─",
                (_, false) => "├─",
            };
            let look = self.look(process);
            let name = format!("{stem}{branch}{} {}", named(self.recording, process.pid), process.pid);
            let (words, brief) = self.words(process);
            self.lines.push(Line { look, pid: Some(process.pid), name, words, brief });
            let pass = match (is_top, is_last) {
                (true, _) => "",
                (_, true) => "  ",
                (_, false) => "│ ",
            };
            self.below(process.pid, &format!("{stem}{pass}"), false);
            if more > 0 {
                let branch = if is_top {
                    ""
                } else if is_last {
                    "└─"
                } else {
                    "├─"
                };
                let kind = match look {
                    Look::Zombie => " ZOMBIE",
                    Look::Stopped => " STOPPED",
                    Look::Killed => " KILLED",
                    Look::Gone => " gone",
                    Look::Alive | Look::Heading => "",
                };
                let name = format!("{stem}{branch}… {more} more {}{kind}", process.name);
                self.lines.push(Line { look, pid: None, name, words: String::new(), brief: String::new() });
            }
        }
    }

    fn look(&self, process: &Process) -> Look {
        match process.state(self.at) {
            Some(State::Zombie) => Look::Zombie,
            Some(State::Stopped) => Look::Stopped,
            Some(State::Gone) | None if self.killed.contains_key(&process.pid) => Look::Killed,
            Some(State::Gone) | None => Look::Gone,
            Some(State::Alive) => Look::Alive,
        }
    }

    /// Its state and who adopted it from whom, long and short.
    fn words(&self, process: &Process) -> (String, String) {
        let end = match (self.killed.get(&process.pid), process.exit_status) {
            (Some(signal), _) => signals::name(*signal),
            (None, Some(status)) => format!("exit {status}"),
            (None, None) => String::new(),
        };
        let state = match self.look(process) {
            Look::Zombie => format!("ZOMBIE {end}"),
            Look::Stopped => "STOPPED".into(),
            Look::Killed => format!("KILLED {end}"),
            Look::Gone => format!("ended {end}"),
            Look::Alive | Look::Heading => String::new(),
        };
        let state = state.trim_end().to_owned();
        let adoptions = process.adoptions.iter().filter(|adoption| adoption.at <= self.at).count();
        let from = match adoptions {
            0 => return (state.clone(), state),
            1 => process.parent,
            more => process.adoptions[more - 2].by,
        };
        let from = named(self.recording, from);
        let comma = if state.is_empty() { "" } else { ", " };
        (format!("{state}{comma}adopted: was {from}'s"), format!("{state} ↪{from}").trim_start().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::recording::{Adoption, Event, StateChange};

    fn process(pid: i32, inner: i32, parent: i32, name: &str, start: u64) -> Process {
        Process {
            pid,
            inner: Some(inner),
            parent,
            name: name.into(),
            start,
            end: None,
            reaped: None,
            exit_status: None,
            states: Vec::new(),
            adoptions: Vec::new(),
        }
    }

    fn ends(mut process: Process, end: u64, reaped: u64, status: i32) -> Process {
        process.end = Some(end);
        process.reaped = Some(reaped);
        process.exit_status = Some(status);
        process.states =
            vec![StateChange { at: end, state: State::Zombie }, StateChange { at: reaped, state: State::Gone }];
        process
    }

    fn shown(recording: &Recording, at: u64, with_gone: bool) -> Vec<String> {
        let text = |line: &Line| format!("{} {} {}", line.look.mark(), line.name, line.words).trim_end().to_owned();
        lines(recording, at, Show { gone: with_gone, fold: true, of: &|_| true }).iter().map(text).collect()
    }

    /// sh forks a worker, the worker a sleep; the worker ends, the sleep is sh's, ends, is a zombie, is reaped.
    fn story() -> Recording {
        let mut orphan = ends(process(103, 3, 102, "sleep", 20), 40, 50, 0);
        orphan.adoptions.push(Adoption { at: 30, by: 101 });
        Recording {
            processes: vec![process(101, 1, LAB, "sh", 0), ends(process(102, 2, 101, "worker", 10), 30, 30, 7), orphan],
            events: Vec::new(),
            length: 60,
        }
    }

    #[test]
    fn an_orphan_is_adopted_becomes_a_zombie_and_goes() {
        let story = story();
        assert_eq!(shown(&story, 25, false), ["● sh[1] 101", "● └─worker[2] 102", "●   └─sleep[3] 103"]);
        assert_eq!(shown(&story, 35, false), ["● sh[1] 101", "● └─sleep[3] 103 adopted: was worker[2]'s"]);
        assert_eq!(
            shown(&story, 45, false),
            ["● sh[1] 101", "Z └─sleep[3] 103 ZOMBIE exit 0, adopted: was worker[2]'s"]
        );
        assert_eq!(shown(&story, 55, false), ["● sh[1] 101"]);
        assert_eq!(shown(&story, 55, true)[1], "· ├─worker[2] 102 ended exit 7");
    }

    #[test]
    fn the_killed_stay_and_pid_1_too() {
        let mut story = story();
        story.processes[2].exit_status = Some(137);
        story.processes[0] = ends(process(101, 1, LAB, "tini", 0), 58, 58, 143);
        let signal = |signal, to, at| Event {
            at,
            kind: Kind::SignalSent,
            pid: LAB,
            other: Some(to),
            signal: Some(signal),
            text: String::new(),
        };
        story.events = vec![signal(libc::SIGKILL, 103, 39), signal(libc::SIGTERM, 101, 57)];
        let expected = ["· tini[1] 101 ended exit 143", "✗ └─sleep[3] 103 KILLED SIGKILL, adopted: was worker[2]'s"];
        assert_eq!(shown(&story, 60, false), expected);
    }

    #[test]
    fn many_alike_are_counted() {
        let mut story = Recording { processes: vec![process(1, 1, LAB, "perl", 0)], ..Recording::default() };
        story.processes.extend((2..=62).map(|pid| ends(process(pid, pid, 1, "orphan", 1), 2, 90, 0)));
        let lines = shown(&story, 5, false);
        assert_eq!((lines.len(), &*lines[3]), (5, "Z ├─orphan[4] 4 ZOMBIE exit 0"));
        assert_eq!(lines[4], "Z └─… 58 more orphan ZOMBIE");
    }
}
