//! What a lesson's run leaves: the type that every view draws and that `--json` prints, one [`Run`] a line.
//!
//! Live, the same data comes as [`Update`]s through a [`Watcher`], in this order for each run: one `Started`, any number
//! of `Process` and `Event`, one `Finished` with the whole [`Run`]. Runs of a lesson are side by side, so the updates of
//! its alternatives are mixed; each names its run. [`Recording::apply`] builds the same picture as the run grows.
//!
//! All times are microseconds since the run's start, by CLOCK_MONOTONIC. All runs of one lesson have their own start.

use super::network_map::NetworkMap;
use serde::{Deserialize, Serialize};

/// The pid that stands for the lab itself, which is outside the watched tree: who starts it and signals it.
pub const LAB: i32 = 0;

/// One lesson under one alternative.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The lesson's number in the list, from 1; 0 for `lab check`.
    pub lesson: u32,
    /// The lesson's name as typed: `sigterm`.
    pub name: String,
    /// What stands between the runner and the program, as typed: `none`, `sh`, `tini`, `dumb-init`, `catatonit`,
    /// `inception-init`; in a lesson that compares something else, that thing's name.
    pub alternative: String,
    /// The first process's words, as a shell would take them.
    pub command: String,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How the first process ended, as a shell sees it (128+n for signal n); none where it was not run, or where the
    /// lesson runs several (its observations tell then).
    pub exit_status: Option<i32>,
    pub observations: Vec<Observation>,
    pub source: Source,
    /// Events that the kernel had no room for.
    pub lost_events: u64,
    /// What was probed of a network, in the lesson about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkMap>,
    pub recording: Recording,
}

/// Whether there is something to see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
pub enum Outcome {
    Ran,
    /// The alternative is not on this machine; the command line that gets it.
    NotInstalled(String),
    /// The alternative makes no sense in this lesson; why.
    NotApplicable(String),
    /// It could not be run; why.
    Failed(String),
}

/// One thing that was measured in this run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// In words: `exit status`, `zombies`, `stop took`.
    pub name: String,
    pub value: Value,
    /// `ms`, `processes`; none for exit statuses and yes or no.
    pub unit: Option<String>,
    /// What the lesson expects, in words (`143`, `at most 1500`); none where it expects nothing.
    pub expected: Option<String>,
    /// Whether the value is as expected; true where nothing is expected.
    pub agrees: bool,
}

/// A measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Flag(bool),
    Number(i64),
    Text(String),
}

/// Where the picture comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The kernel's tracepoints: every fork, exec, exit and signal.
    Tracepoints,
    /// /proc, looked at every few milliseconds, and the init's own event log: what is shorter may be missing.
    Proc,
}

/// Who lived when, and what happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// In the order of their starts; the first is PID 1 (of the first namespace, in a lesson that makes several).
    pub processes: Vec<Process>,
    /// In the order of time.
    pub events: Vec<Event>,
    /// The run's length in microseconds.
    pub length: u64,
}

/// One process (its threads are not shown). `pid` is its name throughout a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Outside, as the host counts.
    pub pid: i32,
    /// Inside its pid namespace; none where it was gone before it could be asked (show “–”).
    pub inner: Option<i32>,
    /// Who forked it (outside pid); [`LAB`] for the first.
    pub parent: i32,
    /// The program's name, the last that it had.
    pub name: String,
    pub start: u64,
    /// When it exited: from here to `reaped` it is a zombie.
    pub end: Option<u64>,
    /// When its parent (or adopter) had waited for it and it was gone.
    pub reaped: Option<u64>,
    /// As a shell sees it; none where unknown.
    pub exit_status: Option<i32>,
    /// In the order of time; before the first it is `Alive`.
    pub states: Vec<StateChange>,
    /// In the order of time; the last is its present parent.
    pub adoptions: Vec<Adoption>,
}

/// From `at` on the process is in `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    pub at: u64,
    pub state: State,
}

/// A process's state; running and sleeping are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Alive,
    Stopped,
    Zombie,
    Gone,
}

/// From `at` on the process is a child of `by` (outside pid).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    pub at: u64,
    pub by: i32,
}

/// One thing that happened. Who does what to whom is said by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub at: u64,
    pub kind: Kind,
    /// Who does it (outside pid); [`LAB`] is the lab.
    pub pid: i32,
    /// To whom, where there is one.
    pub other: Option<i32>,
    pub signal: Option<i32>,
    /// For people, short, without the pids: `exec /bin/sleep`, `SIGTERM`, `grace of 3 s begins`.
    pub text: String,
}

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `pid` made `other`.
    Fork,
    /// `pid` became another program.
    Exec,
    /// `pid` ended; it is a zombie until it is reaped. `signal` where one killed it.
    Exit,
    /// `pid` waited for `other`, which is gone.
    Reap,
    /// `pid` is the new parent of `other`, whose own has ended.
    Adopt,
    /// `pid` sent `signal` to `other`.
    SignalSent,
    /// The same, and the kernel dropped it: a default or ignored signal, most often to a PID 1 without a handler.
    SignalIgnored,
    /// The same, by an init that got this signal itself just before.
    SignalForwarded,
    /// `pid` was stopped (`State::Stopped`).
    Stop,
    /// `pid` goes on.
    Continue,
    /// The lab's own step (`pid` is [`LAB`]): the start, a stop's TERM, its grace period's end.
    Phase,
    /// A line that the programs wrote.
    Output,
    /// What inception-init says in its event log.
    Note,
}

/// News of a run that is going on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "update", content = "data")]
pub enum Update {
    Started {
        command: String,
        source: Source,
    },
    /// A process that is new, or whose entry has changed: take it in place of the one with the same pid.
    Process(Process),
    Event(Event),
    Finished(Box<Run>),
}

/// Which run an [`Update`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RunId {
    pub lesson: u32,
    pub alternative: String,
}

/// Who wants to see runs as they go. Called from the runs' own threads: be quick, or pass it on
/// (`std::sync::mpsc::Sender<(RunId, Update)>` and [`NoWatcher`] are watchers).
pub trait Watcher: Sync {
    fn update(&self, run: &RunId, update: Update);
}

/// For who only wants the result.
pub struct NoWatcher;

impl Watcher for NoWatcher {
    fn update(&self, _: &RunId, _: Update) {}
}

impl Watcher for std::sync::mpsc::Sender<(RunId, Update)> {
    fn update(&self, run: &RunId, update: Update) {
        // A viewer that has gone away does not end the lesson.
        let _ = self.send((run.clone(), update));
    }
}

impl Recording {
    /// Takes in an update, so that a live view can draw a recording at any moment.
    pub fn apply(&mut self, update: &Update) {
        match update {
            Update::Started { .. } => {}
            Update::Process(new) => match self.processes.iter_mut().find(|known| known.pid == new.pid) {
                Some(known) => *known = new.clone(),
                None => self.processes.push(new.clone()),
            },
            Update::Event(event) => {
                self.length = self.length.max(event.at);
                // They come nearly in order: what is seen in /proc is seen a little later than it happened.
                let place = self.events.partition_point(|known| known.at <= event.at);
                self.events.insert(place, event.clone());
            }
            Update::Finished(run) => *self = run.recording.clone(),
        }
    }

    /// The process with this outside pid.
    pub fn process(&self, pid: i32) -> Option<&Process> {
        self.processes.iter().find(|process| process.pid == pid)
    }
}

impl Process {
    /// The state at a time; none before its start.
    pub fn state(&self, at: u64) -> Option<State> {
        (at >= self.start).then(|| {
            self.states.iter().rev().find(|change| change.at <= at).map_or(State::Alive, |change| change.state)
        })
    }

    /// The parent at a time (outside pid): who forked it, or who adopted it last.
    pub fn parent_at(&self, at: u64) -> i32 {
        self.adoptions.iter().rev().find(|adoption| adoption.at <= at).map_or(self.parent, |adoption| adoption.by)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Value::Flag(flag)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Value::Flag(true) => out.write_str("yes"),
            Value::Flag(false) => out.write_str("no"),
            Value::Number(number) => write!(out, "{number}"),
            Value::Text(text) => out.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_back() {
        let run = Run {
            lesson: 1,
            name: "sigterm".into(),
            alternative: "none".into(),
            command: "sleep 1000".into(),
            outcome: Outcome::NotInstalled("apt install tini".into()),
            exit_status: Some(137),
            observations: vec![Observation {
                name: "stop took".into(),
                value: Value::Number(3004),
                unit: Some("ms".into()),
                expected: Some("at least 3000".into()),
                agrees: true,
            }],
            source: Source::Tracepoints,
            lost_events: 0,
            network: None,
            recording: Recording::default(),
        };
        let text = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<Run>(&text).unwrap(), run);
        assert!(text.contains(r#""outcome":"not_installed","detail":"apt install tini""#), "{text}");
    }

    #[test]
    fn a_recording_grows_by_updates() {
        let mut recording = Recording::default();
        let mut process = Process {
            pid: 7,
            inner: Some(1),
            parent: LAB,
            name: "sh".into(),
            start: 5,
            end: None,
            reaped: None,
            exit_status: None,
            states: Vec::new(),
            adoptions: vec![Adoption { at: 40, by: 9 }],
        };
        recording.apply(&Update::Process(process.clone()));
        process.states.push(StateChange { at: 20, state: State::Zombie });
        recording.apply(&Update::Process(process));
        let event = |at| Event { at, kind: Kind::Exit, pid: 7, other: None, signal: None, text: String::new() };
        recording.apply(&Update::Event(event(30)));
        recording.apply(&Update::Event(event(20)));
        let seen = recording.process(7).unwrap();
        assert_eq!([seen.state(4), seen.state(5), seen.state(20)], [None, Some(State::Alive), Some(State::Zombie)]);
        assert_eq!((seen.parent_at(39), seen.parent_at(40)), (LAB, 9));
        assert_eq!(recording.events.iter().map(|event| event.at).collect::<Vec<_>>(), [20, 30]);
        assert_eq!((recording.processes.len(), recording.length), (1, 30));
    }
}
