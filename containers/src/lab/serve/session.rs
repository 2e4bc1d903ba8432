//! The run on show: one lesson under some alternatives, at most one at a time for all browsers.

use crate::{
    error::{Error, Result},
    lab::{
        Lab,
        alternative::Alternative,
        controls::Controls,
        interrupt::Interrupt,
        lesson::{Experiment, Lesson},
        page::{self, View},
        processes::started_at,
        recording::{Kind, Recording, Run, RunId, State, Update, Watcher},
        signals,
    },
    sys,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// What a person may send.
pub const SIGNALS: [(&str, i32); 8] = [
    ("TERM", libc::SIGTERM),
    ("INT", libc::SIGINT),
    ("HUP", libc::SIGHUP),
    ("QUIT", libc::SIGQUIT),
    ("USR1", libc::SIGUSR1),
    ("STOP", libc::SIGSTOP),
    ("CONT", libc::SIGCONT),
    ("KILL", libc::SIGKILL),
];
/// So many announcements wait for a browser; of more, the last ones tell most.
const ANNOUNCEMENTS: usize = 4;

/// What all requests share.
pub struct Session {
    grace: Duration,
    show: Mutex<Option<Arc<Show>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Counts changes: who draws waits for the next.
    changes: watch::Sender<u64>,
}

/// A lesson that is run, or was.
pub struct Show {
    pub lesson: &'static Lesson,
    alternatives: Vec<Alternative>,
    controls: Controls,
    interrupt: Interrupt,
    changes: watch::Sender<u64>,
    state: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    lanes: Vec<Lane>,
    /// When each process had started, as /proc said when it was new: a pid alone may come to be another's.
    started: HashMap<i32, u64>,
    is_held: bool,
    is_over: bool,
    /// Why it could not be run.
    failure: Option<String>,
    /// For the screen reader: each with its number.
    announcements: Vec<(u64, String)>,
    announced: u64,
}

struct Lane {
    alternative: String,
    command: String,
    recording: Recording,
    began: Instant,
    run: Option<Run>,
}

/// How a show is, for the page's buttons.
#[derive(serde::Serialize)]
pub struct Status {
    pub lesson: Option<String>,
    pub running: bool,
    pub held: bool,
    pub failure: Option<String>,
}

impl Session {
    pub fn new(grace: Duration) -> Session {
        Session { grace, show: Mutex::default(), thread: Mutex::default(), changes: watch::Sender::new(0) }
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub fn show(&self) -> Option<Arc<Show>> {
        lock(&self.show).clone()
    }

    pub fn status(&self) -> Status {
        let Some(show) = self.show() else {
            return Status { lesson: None, running: false, held: false, failure: None };
        };
        let progress = lock(&show.state);
        Status {
            lesson: Some(show.lesson.name.clone()),
            running: !progress.is_over,
            held: progress.is_held && !progress.is_over,
            failure: progress.failure.clone(),
        }
    }

    /// Runs a lesson. One that goes on is not interrupted: somebody may be looking at it.
    pub fn run(&self, lesson: &'static Lesson, alternatives: Vec<Alternative>, hold: bool) -> Result<()> {
        if alternatives.is_empty() && matches!(lesson.experiment, Experiment::Under(_)) {
            return Err(Error::invalid("choose at least one alternative"));
        }
        let mut current = lock(&self.show);
        if current.as_ref().is_some_and(|show| !lock(&show.state).is_over) {
            return Err(Error::Conflict("a lesson is running: end it first".into()));
        }
        let show = Arc::new(Show {
            lesson,
            alternatives,
            controls: Controls::default(),
            interrupt: Interrupt::default(),
            changes: self.changes.clone(),
            state: Mutex::new(Progress { is_held: hold, ..Progress::default() }),
        });
        show.controls.hold(hold);
        *current = Some(show.clone());
        drop(current);
        show.changed();
        let grace = self.grace;
        let mut thread = lock(&self.thread);
        // The last one has ended.
        thread.take().map(std::thread::JoinHandle::join);
        *thread = Some(std::thread::spawn(move || show.run(grace)));
        Ok(())
    }

    /// Ends what runs, and waits until nothing of it is left.
    pub fn end(&self) {
        if let Some(show) = self.show() {
            show.end();
        }
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Show {
    fn run(&self, grace: Duration) {
        let lab = Lab { grace, watcher: self, interrupt: self.interrupt.clone(), controls: &self.controls };
        let result = lab.run(self.lesson, &self.alternatives);
        let mut progress = lock(&self.state);
        progress.is_over = true;
        match result {
            Ok(runs) => {
                let differ = runs.iter().flat_map(|run| &run.observations).filter(|one| !one.agrees).count();
                let judged = if differ == 0 { "all as expected".into() } else { format!("{differ} not as expected") };
                progress.announce(format!("The lesson is over: {judged}."));
            }
            Err(_) if self.interrupt.signal().is_some() => progress.announce("The lesson was ended.".into()),
            Err(error) => progress.failure = Some(error.to_string()),
        }
        drop(progress);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Lets runs go on that wait for the viewer.
    pub fn go_on(&self) {
        self.controls.hold(false);
        lock(&self.state).is_held = false;
        self.changed();
    }

    pub fn end(&self) {
        self.interrupt.raise(libc::SIGTERM);
    }

    /// Sends a signal to a process of this run, and to no other: the pid must be one that the run has shown, alive, and
    /// still the process that it was then.
    pub fn signal(&self, pid: i32, name: &str) -> Result<()> {
        let signal = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal);
        let signal = signal.ok_or_else(|| Error::Invalid(format!("SIG{name} is not sent from here")))?;
        let gone = || Error::Conflict("no such process in this run, or it has ended".into());
        let progress = lock(&self.state);
        let lanes = progress.lanes.iter().filter(|lane| lane.run.is_none());
        let process = lanes.filter_map(|lane| lane.recording.process(pid)).find(|process| process.end.is_none());
        let started = process.and_then(|_| progress.started.get(&pid)).ok_or_else(gone)?;
        // As long as it is open, the pid can be nobody else's once it was seen to be the same.
        let _pidfd = sys::pidfd_open(pid).map_err(|_| gone())?;
        if started_at(pid) != Some(*started) {
            return Err(gone());
        }
        self.controls.signal(pid, signal);
        Ok(())
    }

    /// The board as it is now.
    pub fn board(&self) -> String {
        let progress = lock(&self.state);
        let views: Vec<View> = progress.lanes.iter().map(|lane| lane.view(progress.is_over)).collect();
        let runs: Vec<Run> = progress.lanes.iter().filter_map(|lane| lane.run.clone()).collect();
        let board = page::board(&self.lesson.name, &views, !progress.is_over);
        let over = progress.is_over && !runs.is_empty();
        let parts = if over {
            [page::comparison(&runs), board, page::source(&runs)]
        } else {
            [board, maud::html! {}, maud::html! {}]
        };
        parts.map(maud::Markup::into_string).concat()
    }

    /// What was announced after number `seen`, and the last one's number.
    pub fn announcements(&self, seen: u64) -> (u64, Vec<String>) {
        let progress = lock(&self.state);
        let new = progress.announcements.iter().filter(|(number, _)| *number > seen);
        (progress.announced, new.map(|(_, text)| text.clone()).collect())
    }
}

impl Lane {
    fn view(&self, is_over: bool) -> View<'_> {
        // A run that was ended has no result.
        let now = match is_over {
            true => self.recording.length,
            false => self.began.elapsed().as_micros() as u64,
        };
        match &self.run {
            Some(run) => View::of(run),
            None => {
                let (alternative, command, recording) = (&self.alternative, &self.command, &self.recording);
                View { alternative, command, recording, now: now.max(recording.length), run: None }
            }
        }
    }
}

impl Progress {
    fn announce(&mut self, text: String) {
        self.announced += 1;
        self.announcements.push((self.announced, text));
        let extra = self.announcements.len().saturating_sub(ANNOUNCEMENTS);
        self.announcements.drain(..extra);
    }

    /// The lane of a run, which is new where it is not known.
    fn lane(&mut self, alternative: &str, order: &[String]) -> &mut Lane {
        let place = match self.lanes.iter().position(|lane| lane.alternative == alternative) {
            Some(place) => place,
            None => {
                let lane = Lane {
                    alternative: alternative.to_owned(),
                    command: String::new(),
                    recording: Recording::default(),
                    began: Instant::now(),
                    run: None,
                };
                self.lanes.push(lane);
                let rank = |lane: &Lane| order.iter().position(|one| **one == lane.alternative);
                self.lanes.sort_by_key(rank);
                self.lanes.iter().position(|lane| lane.alternative == alternative).unwrap_or(0)
            }
        };
        &mut self.lanes[place]
    }
}

impl Watcher for Show {
    fn update(&self, id: &RunId, update: Update) {
        let mut progress = lock(&self.state);
        if let Update::Process(process) = &update
            && process.end.is_none()
            && !progress.started.contains_key(&process.pid)
            && let Some(started) = started_at(process.pid)
        {
            progress.started.insert(process.pid, started);
        }
        let lane = progress.lane(&id.alternative, &self.lesson.columns);
        let news = news(&lane.recording, &update);
        lane.recording.apply(&update);
        match update {
            Update::Started { command, .. } => (lane.command, lane.began) = (command, Instant::now()),
            Update::Finished(run) => lane.run = Some(*run),
            Update::Process(_) | Update::Event(_) => {}
        }
        if let Some(news) = news {
            progress.announce(format!("{}: {news}.", id.alternative));
        }
        drop(progress);
        self.changed();
    }
}

/// What is worth to be spoken.
fn news(recording: &Recording, update: &Update) -> Option<String> {
    match update {
        Update::Process(process) => {
            let before = recording.process(process.pid).and_then(|before| before.states.last()).map(|last| last.state);
            let now = process.states.last().map(|last| last.state).filter(|now| Some(*now) != before)?;
            let named = page::clean(&process.name);
            match now {
                State::Zombie => Some(format!("{named} is a zombie")),
                State::Stopped => Some(format!("{named} is stopped")),
                State::Gone if before == Some(State::Zombie) => Some(format!("{named} is gone")),
                _ => None,
            }
        }
        Update::Event(event) => {
            let named = |pid| recording.process(pid).map_or_else(|| "the lab".into(), |one| page::clean(&one.name));
            let (who, whom) = (named(event.pid), event.other.map(named).unwrap_or_default());
            let signal = event.signal.map(signals::name).unwrap_or_default();
            match event.kind {
                Kind::SignalSent => Some(format!("{who} sends {signal} to {whom}")),
                Kind::SignalForwarded => Some(format!("{who} forwards {signal} to {whom}")),
                Kind::SignalIgnored => Some(format!("{who} sends {signal} to {whom}, and the kernel drops it")),
                _ => None,
            }
        }
        Update::Finished(run) => Some(match run.exit_status {
            Some(status) => format!("over, exit status {status}"),
            None => "over".into(),
        }),
        Update::Started { .. } => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
