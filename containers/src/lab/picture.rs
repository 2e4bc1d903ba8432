//! A recording in the making: what the tracepoints tell and what /proc shows become processes and events.
//!
//! Tracepoints tell of forks, execs, exits and signals to the microsecond. Only /proc tells who adopted an orphan, who is
//! stopped, how a process ended and whether its parent has waited for it: it is looked at every few milliseconds. An
//! orphan that was gone before it was seen is taken to have been its PID 1's, as pid_namespaces(7) has it; a process that
//! was never seen as a zombie is taken to have been reaped as it ended.

use super::{
    clock,
    processes::{self, Stat, shell_status, stat},
    recording::{Adoption, Event, Kind, LAB, Process, Recording, RunId, Source, State, StateChange, Update, Watcher},
    signals,
    trace_line::{TraceEvent, What},
};
use std::collections::{HashMap, HashSet};

/// A run's recording as it grows.
pub struct Picture<'a> {
    run: &'a RunId,
    watcher: &'a dyn Watcher,
    source: Source,
    /// Of the run, by [`clock::now`].
    start: u64,
    recording: Recording,
    /// Outside pid to the place in the recording.
    places: HashMap<i32, usize>,
    /// Threads other than the first, to their processes.
    threads: HashMap<i32, i32>,
    /// The PID 1 above each process.
    roots: HashMap<i32, i32>,
    /// Who was seen as a zombie.
    zombies: HashSet<i32>,
    /// Which signals a process got from others: it may pass them on.
    got: HashSet<(i32, i32)>,
    /// Events of processes that are not known: another run's, or one whose fork was read a moment too late, because each
    /// processor has a buffer of its own.
    waiting: HashMap<i32, Vec<TraceEvent>>,
}

impl<'a> Picture<'a> {
    /// It begins now.
    pub fn new(run: &'a RunId, watcher: &'a dyn Watcher, source: Source) -> Self {
        Picture {
            run,
            watcher,
            source,
            start: clock::now(),
            recording: Recording::default(),
            places: HashMap::new(),
            threads: HashMap::new(),
            roots: HashMap::new(),
            zombies: HashSet::new(),
            got: HashSet::new(),
            waiting: HashMap::new(),
        }
    }

    pub fn run(&self) -> &'a RunId {
        self.run
    }

    pub fn source(&self) -> Source {
        self.source
    }

    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// A PID 1 that the lab has made at `at`.
    pub fn root(&mut self, pid: i32, name: &str, at: u64) {
        self.add(pid, LAB, name, at);
        self.change(pid, |process| process.inner = Some(1));
        self.event(at, Kind::Fork, LAB, Some(pid), None, format!("{name} is PID 1 of a new namespace"));
        self.waiting.remove(&pid).into_iter().flatten().for_each(|event| self.trace(event));
    }

    /// A process that the lab has just started in its own namespaces.
    pub fn outsider(&mut self, pid: i32, name: &str) {
        let now = clock::now();
        self.add(pid, LAB, name, now);
        self.event(now, Kind::Fork, LAB, Some(pid), None, format!("starts {name}"));
        self.waiting.remove(&pid).into_iter().flatten().for_each(|event| self.trace(event));
    }

    /// PID 1 was seen to end at `at`: before what its end makes vanish is seen.
    pub fn root_exits(&mut self, pid: i32, at: u64) {
        if self.source == Source::Proc {
            self.exit(pid, at, None);
        }
    }

    /// The lab has waited for a PID 1.
    pub fn root_ended(&mut self, pid: i32, status: i32) {
        let now = clock::now();
        self.exit(pid, now, None);
        self.change(pid, |process| process.exit_status = Some(status));
        self.gone(pid, now);
        self.event(now, Kind::Reap, LAB, Some(pid), None, format!("known outside as {status}"));
    }

    /// Something that the lab itself does or sees, now.
    pub fn say(&mut self, kind: Kind, pid: i32, text: impl Into<String>) {
        self.event(clock::now(), kind, pid, None, None, text.into());
    }

    /// A signal that the lab sends, where no tracepoint tells of it.
    pub fn sent(&mut self, pid: i32, signal: i32, ignored: bool) {
        self.signal(clock::now(), LAB, pid, signal, ignored);
    }

    /// The init says that it passed a signal on to one of its processes.
    pub fn forwarded(&mut self, root: i32, inner: i32, signal: i32) {
        let pid = self.outside(root, inner);
        let text = signals::name(signal);
        self.event(clock::now(), Kind::SignalForwarded, root, pid, Some(signal), text);
    }

    /// The init says how one of its processes ended.
    pub fn told_status(&mut self, root: i32, inner: i32, status: i32) {
        if let Some(pid) = self.outside(root, inner) {
            self.change(pid, |process| process.exit_status = process.exit_status.or(Some(status)));
        }
    }

    fn outside(&self, root: i32, inner: i32) -> Option<i32> {
        let is_it = |process: &&Process| process.inner == Some(inner) && self.roots.get(&process.pid) == Some(&root);
        self.recording.processes.iter().rev().find(is_it).map(|process| process.pid)
    }

    /// Whether the process is one of the run's and has not ended.
    pub fn is_alive(&self, pid: i32) -> bool {
        self.process(pid).is_some_and(|process| process.end.is_none())
    }

    /// Takes in what a tracepoint tells. Other runs' events come too, and are left out.
    pub fn trace(&mut self, event: TraceEvent) {
        let by = self.process_of(event.by);
        if by.is_none() && !matches!(event.what, What::Signal { .. } | What::Mark { .. }) {
            self.waiting.entry(event.by).or_default().push(event);
            return;
        }
        match event.what {
            What::Thread { thread } => {
                if let Some(process) = by {
                    self.threads.insert(thread, process);
                }
            }
            What::Fork { child, name } => {
                let Some(parent) = by.filter(|_| !self.threads.contains_key(&child)) else { return };
                if self.places.contains_key(&child) {
                    return;
                }
                self.add(child, parent, &name, event.at);
                self.event(event.at, Kind::Fork, parent, Some(child), None, "fork".into());
                self.waiting.remove(&child).into_iter().flatten().for_each(|event| self.trace(event));
            }
            What::Exec { file } => {
                let Some(pid) = by else { return };
                // A descriptor's number is no name.
                let called = file.starts_with("/proc/self/").then(|| processes::called(pid)).flatten();
                let name = called.unwrap_or_else(|| file.rsplit('/').next().unwrap_or(&file).to_owned());
                self.change(pid, |process| process.name = name);
                self.event(event.at, Kind::Exec, pid, None, None, format!("exec {file}"));
            }
            What::Exit { thread } => {
                if by == Some(thread) {
                    self.exit(thread, event.at, stat(thread).filter(|stat| stat.state == 'Z').as_ref());
                }
            }
            What::Signal { signal, thread, ignored } => {
                if let Some(to) = self.process_of(thread)
                    && signal != libc::SIGCHLD
                    // How Go's runtime (of runc) interrupts its own threads.
                    && !(signal == libc::SIGURG && by == Some(to))
                {
                    self.signal(event.at, by.unwrap_or(LAB), to, signal, ignored);
                }
            }
            What::Mark { .. } => {}
        }
    }

    fn process_of(&self, thread: i32) -> Option<i32> {
        let pid = self.threads.get(&thread).copied().unwrap_or(thread);
        self.places.contains_key(&pid).then_some(pid)
    }

    fn signal(&mut self, at: u64, by: i32, to: i32, signal: i32, ignored: bool) {
        let by_the_kernel = signal == libc::SIGKILL
            && self.process(by).is_some_and(|sender| sender.parent == LAB && sender.end.is_some());
        let kind = match ignored {
            // Nobody has to take SIGCONT: who was stopped goes on when it is sent.
            true if signal != libc::SIGCONT => Kind::SignalIgnored,
            _ if by != to && signal != libc::SIGKILL && self.got.contains(&(by, signal)) => Kind::SignalForwarded,
            _ => Kind::SignalSent,
        };
        if by != to {
            self.got.insert((to, signal));
        }
        let name = signals::name(signal);
        let text = match (kind, by_the_kernel) {
            (_, true) => format!("{name} from the kernel: PID 1 has ended"),
            (Kind::SignalIgnored, _) => format!("{name}, which the kernel drops"),
            _ => name,
        };
        self.event(at, kind, by, Some(to), Some(signal), text);
    }

    /// Looks at every process in /proc.
    pub fn look(&mut self) {
        let now = clock::now();
        let present: Vec<i32> =
            self.recording.processes.iter().filter(|process| process.reaped.is_none()).map(|it| it.pid).collect();
        for pid in present {
            match stat(pid) {
                Some(stat) => self.seen(pid, &stat, now),
                None => self.vanished(pid, now),
            }
        }
    }

    fn seen(&mut self, pid: i32, stat: &Stat, now: u64) {
        if self.source == Source::Proc {
            self.find_children(pid, now);
        }
        let Some(known) = self.process(pid) else { return };
        let (inner, name, end, parent) = (known.inner, known.name.clone(), known.end, known.parent_at(u64::MAX));
        let has_status = known.exit_status.is_some();
        let state = known.states.last().map_or(State::Alive, |change| change.state);
        let at = self.since(now);
        if inner.is_none()
            && let Some(inner) = processes::inner_pid(pid)
        {
            self.change(pid, |process| process.inner = Some(inner));
        }
        if self.source == Source::Proc && name != stat.name && stat.state != 'Z' && parent != LAB {
            self.change(pid, |process| process.name = stat.name.clone());
            self.event(now, Kind::Exec, pid, None, None, format!("exec {}", stat.name));
        }
        if parent != stat.parent && parent != LAB && self.places.contains_key(&stat.parent) {
            self.adopt(pid, parent, stat.parent, now);
        }
        match stat.state {
            'Z' => {
                self.zombies.insert(pid);
                if end.is_none() && self.source == Source::Proc {
                    self.exit(pid, now, Some(stat));
                } else if !has_status {
                    self.change(pid, |process| process.exit_status = Some(shell_status(stat.wait_status)));
                }
            }
            'T' | 't' if state == State::Alive => {
                self.change(pid, |process| process.states.push(StateChange { at, state: State::Stopped }));
                self.event(now, Kind::Stop, pid, None, None, "stopped".into());
            }
            'R' | 'S' | 'D' if state == State::Stopped => {
                self.change(pid, |process| process.states.push(StateChange { at, state: State::Alive }));
                self.event(now, Kind::Continue, pid, None, None, "goes on".into());
            }
            _ => {}
        }
    }

    /// Processes that came into the namespace from outside are no child of a process that is watched.
    pub fn look_for_newcomers(&mut self, root: i32) {
        self.find_children(root, clock::now());
    }

    /// A process that was there before it was watched, or that came from elsewhere (`docker exec`): then it is news.
    pub fn found(&mut self, pid: i32, is_news: bool) {
        let Some(stat) = stat(pid).filter(|_| !self.places.contains_key(&pid)) else { return };
        let now = clock::now();
        let parent = if self.places.contains_key(&stat.parent) { stat.parent } else { LAB };
        self.add(pid, parent, &stat.name, now);
        if is_news {
            self.event(now, Kind::Fork, parent, Some(pid), None, "fork".into());
        }
        if stat.state == 'Z' {
            self.zombies.insert(pid);
            let at = self.since(now);
            self.change(pid, |process| {
                process.end = Some(at);
                process.exit_status = Some(shell_status(stat.wait_status));
                process.states.push(StateChange { at, state: State::Zombie });
            });
        }
        self.waiting.remove(&pid).into_iter().flatten().for_each(|event| self.trace(event));
    }

    /// A process is gone, and nobody here waited for it: a first one, or one whose exit was not told.
    pub fn left(&mut self, pid: i32) {
        let now = clock::now();
        self.exit(pid, now, None);
        self.gone(pid, now);
    }

    /// Nothing of it is left in /proc.
    fn gone(&mut self, pid: i32, now: u64) {
        let at = self.since(now);
        self.change(pid, |process| {
            process.reaped = Some(at);
            process.states.push(StateChange { at, state: State::Gone });
        });
    }

    /// The name that the process has given itself.
    pub fn rename(&mut self, pid: i32, name: String) {
        self.change(pid, |process| process.name = name);
    }

    /// The first of the processes that this one comes from.
    pub fn root_of(&self, pid: i32) -> i32 {
        self.roots.get(&pid).copied().unwrap_or(LAB)
    }

    /// Now, in the recording's time.
    pub fn now(&self) -> u64 {
        self.since(clock::now())
    }

    /// Leaves out who was gone and what happened before `since` (in the recording's time), and all but the last `most`.
    pub fn forget(&mut self, since: u64, most: usize) {
        let Recording { processes, events, .. } = &mut self.recording;
        let old = events.partition_point(|event| event.at < since).max(events.len().saturating_sub(most));
        events.drain(..old);
        let mut gone = processes.iter().filter(|process| process.reaped.is_some()).count();
        processes.retain(|process| {
            let is_old = process.reaped.is_some_and(|reaped| reaped < since || gone > most);
            gone -= usize::from(is_old);
            !is_old
        });
        self.places = processes.iter().enumerate().map(|(place, process)| (process.pid, place)).collect();
        let places = &self.places;
        self.threads.retain(|_, process| places.contains_key(process));
        self.roots.retain(|pid, _| places.contains_key(pid));
        self.zombies.retain(|pid| places.contains_key(pid));
        self.got.retain(|(pid, _)| places.contains_key(pid));
        // What nobody has claimed in a second is of no process here.
        let recent = clock::now().saturating_sub(1_000_000);
        self.waiting.retain(|_, events| events.iter().any(|event| event.at >= recent));
    }

    /// All that is below a process, when the lab comes to see it late; their outside pids.
    pub fn find_tree(&mut self, pid: i32) -> Vec<i32> {
        let below = processes::descendants(pid);
        std::iter::once(&pid).chain(&below).for_each(|parent| self.find_children(*parent, clock::now()));
        below
    }

    fn find_children(&mut self, pid: i32, now: u64) {
        for child in processes::children(pid) {
            if !self.places.contains_key(&child) {
                let name = stat(child).map_or_else(String::new, |stat| stat.name);
                self.add(child, pid, &name, now);
                self.event(now, Kind::Fork, pid, Some(child), None, "fork".into());
            }
        }
    }

    fn adopt(&mut self, pid: i32, before: i32, by: i32, now: u64) {
        // It happened as the parent ended, which may be known better than when it was seen.
        let ended = self.process(before).and_then(|parent| parent.end);
        let at = ended.unwrap_or_else(|| self.since(now));
        self.change(pid, |process| process.adoptions.push(Adoption { at, by }));
        self.event(at + self.start, Kind::Adopt, by, Some(pid), None, "adopts an orphan".into());
    }

    fn vanished(&mut self, pid: i32, now: u64) {
        let Some(known) = self.process(pid) else { return };
        let (end, parent, is_root) = (known.end, known.parent_at(u64::MAX), known.parent == LAB);
        if is_root {
            // The lab waits for it, and says so by root_ended.
            return;
        }
        let Some(end) = end.map(|end| end + self.start) else {
            // Its exit is on its way here, where there are tracepoints.
            if self.source == Source::Proc {
                self.exit(pid, now, None);
                self.vanished(pid, now);
            }
            return;
        };
        let root = self.roots.get(&pid).copied().unwrap_or(LAB);
        let reaped = if self.zombies.contains(&pid) { now } else { end };
        let parent_end = self.process(parent).and_then(|parent| parent.end).map(|end| end + self.start);
        let by = if parent != root && parent_end.is_some_and(|end| end <= reaped) {
            self.adopt(pid, parent, root, end);
            root
        } else {
            parent
        };
        self.gone(pid, reaped);
        self.event(reaped, Kind::Reap, by, Some(pid), None, "reaps".into());
    }

    /// `stat` is of the zombie, where it was seen: it tells how it ended.
    fn exit(&mut self, pid: i32, now: u64, stat: Option<&Stat>) {
        if self.process(pid).is_none_or(|process| process.end.is_some()) {
            return;
        }
        let at = self.since(now);
        let status = stat.map(|stat| shell_status(stat.wait_status));
        self.change(pid, |process| {
            process.end = Some(at);
            process.exit_status = process.exit_status.or(status);
            process.states.push(StateChange { at, state: State::Zombie });
        });
        let signal = stat.map(|stat| stat.wait_status & 0x7f).filter(|signal| *signal != 0);
        let text = match (signal, status) {
            (Some(signal), _) => format!("killed by {}", signals::name(signal)),
            (None, Some(status)) => format!("exit {status}"),
            (None, None) => "ends".into(),
        };
        self.event(now, Kind::Exit, pid, None, signal, text);
    }

    fn process(&self, pid: i32) -> Option<&Process> {
        self.places.get(&pid).map(|place| &self.recording.processes[*place])
    }

    fn add(&mut self, pid: i32, parent: i32, name: &str, at: u64) {
        let process = Process {
            pid,
            inner: processes::inner_pid(pid),
            parent,
            name: name.to_owned(),
            start: self.since(at),
            end: None,
            reaped: None,
            exit_status: None,
            states: Vec::new(),
            adoptions: Vec::new(),
        };
        self.roots.insert(pid, self.roots.get(&parent).copied().unwrap_or(pid));
        self.places.insert(pid, self.recording.processes.len());
        self.watcher.update(self.run, Update::Process(process.clone()));
        self.recording.processes.push(process);
    }

    fn change(&mut self, pid: i32, change: impl FnOnce(&mut Process)) {
        if let Some(place) = self.places.get(&pid) {
            let process = &mut self.recording.processes[*place];
            change(process);
            self.watcher.update(self.run, Update::Process(process.clone()));
        }
    }

    fn event(&mut self, now: u64, kind: Kind, pid: i32, other: Option<i32>, signal: Option<i32>, text: String) {
        let event = Event { at: self.since(now), kind, pid, other, signal, text };
        self.watcher.update(self.run, Update::Event(event.clone()));
        // Two sources, and each processor's buffer: they come nearly in order.
        let place = self.recording.events.partition_point(|known| known.at <= event.at);
        self.recording.events.insert(place, event);
    }

    fn since(&self, now: u64) -> u64 {
        now.saturating_sub(self.start)
    }

    /// The recording, in order.
    pub fn finish(mut self) -> Recording {
        self.look();
        // The engine's children, which others have waited for.
        let is_gone = |process: &&Process| process.reaped.is_none() && stat(process.pid).is_none();
        let gone: Vec<i32> = self.recording.processes.iter().filter(is_gone).map(|process| process.pid).collect();
        gone.into_iter().for_each(|pid| self.left(pid));
        self.recording.length = self.since(clock::now());
        self.recording.processes.sort_by_key(|process| process.start);
        self.recording.events.sort_by_key(|event| event.at);
        for process in &mut self.recording.processes {
            process.states.sort_by_key(|change| change.at);
            process.adoptions.sort_by_key(|adoption| adoption.at);
        }
        self.recording
    }
}
