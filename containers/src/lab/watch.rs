//! Containers that run, watched from the host: their processes by /proc, and by tracepoints where these can be had.
//!
//! A container's processes are those that come of its first one, and those that share its pid namespace, because
//! `docker exec`'s do not come of it. Two tracefs instances tell what happens: one follows these processes, the other the
//! signals that reach a first process from outside.

use super::{
    picture::Picture,
    processes::{children, started_at, stat},
    recording::{LAB, NoWatcher, Recording, RunId, Source},
    trace_line::TraceEvent,
    tracer::Tracer,
};
use nix::unistd::{SysconfVar, sysconf};
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::PathBuf,
    sync::mpsc::Receiver,
    time::Duration,
};

/// How long what is over is remembered, microseconds, and how much of it.
const HISTORY: u64 = 300_000_000;
const MOST: usize = 5_000;

/// How often all of /proc is looked through, microseconds.
const SEARCH_EVERY: u64 = 200_000;

/// A process that is gone without an exit that was told gets this long, microseconds.
const PATIENCE: u64 = 500_000;

static NOBODY: RunId = RunId { lesson: 0, alternative: String::new() };

/// A container that runs, as the engine tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub image: String,
    /// Of Compose; empty where it has none.
    pub project: String,
    pub service: String,
    /// Its first process, outside.
    pub pid: i32,
}

/// All that is watched, as one recording with several first processes.
pub struct Watch {
    picture: Picture<'static>,
    traces: Option<Traces>,
    containers: Vec<Container>,
    /// First processes, to their containers' ids.
    roots: HashMap<i32, String>,
    /// Pid namespaces, to the first processes in them.
    namespaces: HashMap<PathBuf, String>,
    running: HashSet<String>,
    /// Since when a process is gone and nothing has told of it.
    missing: HashMap<i32, u64>,
    searched: u64,
    is_new: bool,
}

struct Traces {
    processes: (Tracer, Receiver<TraceEvent>),
    signals: (Tracer, Receiver<TraceEvent>),
}

impl Traces {
    fn start() -> crate::error::Result<Traces> {
        let listening = |tracer: Tracer| {
            let receiver = tracer.listen();
            (tracer, receiver)
        };
        Ok(Traces { processes: listening(Tracer::start()?), signals: listening(Tracer::start_signals()?) })
    }
}

impl Watch {
    /// With `traced` by tracepoints, where these can be had.
    pub fn start(traced: bool) -> Watch {
        let started = || Traces::start().inspect_err(|error| log::debug!("no tracepoints: {error}")).ok();
        let traces = traced.then(started).flatten();
        let source = if traces.is_some() { Source::Tracepoints } else { Source::Proc };
        Watch {
            picture: Picture::new(&NOBODY, &NoWatcher, source),
            traces,
            containers: Vec::new(),
            roots: HashMap::new(),
            namespaces: HashMap::new(),
            running: HashSet::new(),
            missing: HashMap::new(),
            searched: 0,
            is_new: true,
        }
    }

    /// The containers that run now. One that has ended stays as long as its processes are remembered.
    pub fn run_now(&mut self, containers: Vec<Container>) {
        let own = fs::read_link("/proc/self/ns/pid").ok();
        self.namespaces.clear();
        for container in &containers {
            self.roots.insert(container.pid, container.id.clone());
            // In the host's namespace there is everything: then only what comes of the first process is the container's.
            let namespace = fs::read_link(format!("/proc/{}/ns/pid", container.pid)).ok();
            if let Some(namespace) = namespace.filter(|found| Some(found) != own.as_ref()) {
                self.namespaces.entry(namespace).or_insert_with(|| container.id.clone());
            }
        }
        self.running = containers.iter().map(|container| container.id.clone()).collect();
        let remembered: HashSet<&String> = self.roots.values().collect();
        let ended = self
            .containers
            .drain(..)
            .filter(|old| remembered.contains(&old.id) && !containers.iter().any(|container| container.id == old.id));
        let mut all: Vec<Container> = ended.collect();
        all.extend(containers.iter().cloned());
        all.sort_by(|a, b| (&a.project, &a.service, &a.name).cmp(&(&b.project, &b.service, &b.name)));
        self.containers = all;
        if let Some(traces) = &self.traces {
            let pids: Vec<i32> = containers.iter().map(|container| container.pid).collect();
            let aimed = traces.signals.0.aim(&pids);
            aimed.unwrap_or_else(|error| log::debug!("signals from outside are not seen: {error}"));
        }
        self.search();
        self.is_new = false;
    }

    /// By project, service and name.
    pub fn containers(&self) -> &[Container] {
        &self.containers
    }

    /// Whether it runs, as the engine said last.
    pub fn is_running(&self, container: &Container) -> bool {
        self.running.contains(&container.id)
    }

    pub fn recording(&self) -> &Recording {
        self.picture.recording()
    }

    pub fn source(&self) -> Source {
        self.picture.source()
    }

    /// Microseconds since the watch began.
    pub fn now(&self) -> u64 {
        self.picture.now()
    }

    /// Events that the kernel had no room for.
    pub fn lost(&self) -> u64 {
        self.traces.as_ref().map_or(0, |traces| traces.processes.0.lost() + traces.signals.0.lost())
    }

    /// The container that a process belongs to (its id).
    pub fn container_of(&self, pid: i32) -> Option<&String> {
        self.roots.get(&self.picture.root_of(pid))
    }

    /// Takes in what has happened since the last look.
    pub fn look(&mut self) {
        if let Some(traces) = &self.traces {
            while let Ok(event) = traces.processes.1.try_recv() {
                self.picture.trace(event);
            }
            while let Ok(event) = traces.signals.1.try_recv() {
                // Those from inside have been told.
                if self.picture.root_of(event.by) == LAB {
                    self.picture.trace(event);
                }
            }
        }
        self.find();
        self.picture.look();
        let now = self.picture.now();
        if now - self.searched >= SEARCH_EVERY {
            self.search();
            self.end_what_left();
            self.rename();
        }
        self.picture.forget(now.saturating_sub(HISTORY), MOST);
        let recording = self.picture.recording();
        self.roots.retain(|pid, _| recording.process(*pid).is_some());
    }

    /// New processes that come of those that are known.
    fn find(&mut self) {
        // The pid of one that is gone may be another's by now.
        let is_there =
            |pid: &i32| self.picture.recording().process(*pid).is_none_or(|process| process.reaped.is_none());
        let mut found: Vec<i32> = self.roots.keys().copied().filter(is_there).collect();
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            found.extend(children(*pid));
            next += 1;
        }
        for pid in found.into_iter().filter(|pid| self.picture.root_of(*pid) == LAB).collect::<Vec<_>>() {
            if let Some(traces) = &self.traces {
                // One that has just ended is no longer there to be watched.
                let _ = traces.processes.0.watch(&threads(pid));
            }
            self.picture.found(pid, !self.is_new);
        }
    }

    /// The same, and those that came into a container's pid namespace from outside.
    fn search(&mut self) {
        self.find();
        self.searched = self.picture.now();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            if self.picture.root_of(pid) == LAB
                && let Ok(namespace) = fs::read_link(entry.path().join("ns/pid"))
                && let Some(id) = self.namespaces.get(&namespace)
            {
                self.roots.insert(pid, id.clone());
            }
        }
        self.find();
    }

    /// A busybox is what it calls itself, not the file that was executed.
    fn rename(&mut self) {
        let open = self.picture.recording().processes.iter().filter(|process| process.end.is_none());
        let renamed: Vec<(i32, String)> = open
            .filter_map(|process| {
                let name = stat(process.pid)?.name;
                // The kernel keeps 15 letters.
                (!process.name.starts_with(&name)).then_some((process.pid, name))
            })
            .collect();
        renamed.into_iter().for_each(|(pid, name)| self.picture.rename(pid, name));
    }

    fn end_what_left(&mut self) {
        let now = self.picture.now();
        let open = self.picture.recording().processes.iter().filter(|process| process.reaped.is_none());
        let gone: Vec<(i32, bool)> = open
            .filter(|process| stat(process.pid).is_none())
            .map(|process| (process.pid, process.parent == LAB))
            .collect();
        self.missing.retain(|pid, _| gone.iter().any(|(other, _)| other == pid));
        for (pid, is_first) in gone {
            let since = *self.missing.entry(pid).or_insert(now);
            // The tracepoint of a first one's exit may still be on its way, too.
            if now - since > if is_first { PATIENCE / 5 } else { PATIENCE } {
                self.picture.left(pid);
            }
        }
    }
}

fn threads(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// How long ago a process started; none when it is gone.
pub fn age(pid: i32) -> Option<Duration> {
    let started = started_at(pid)? as f64 / ticks();
    let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
    Duration::try_from_secs_f64((uptime - started).max(0.0)).ok()
}

/// Clock ticks a second.
fn ticks() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100.0, |ticks| ticks as f64)
}
