//! What a lesson does with an alternative: starts PID 1s, waits, signals, stops and measures, while the picture grows.

mod reading;

use super::{
    Lab,
    alternative::Alternative,
    clock,
    engine::{Engine, SharedEngine},
    launch::{Child, Launch},
    network_map::NetworkMap,
    picture::Picture,
    processes,
    recording::{Kind, LAB, Observation, Outcome, Recording, RunId, Source, Update, Value},
    signals,
    trace_line::TraceEvent,
    tracer::Tracer,
};
use crate::error::{Context, Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    ffi::OsString,
    io::Write,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

/// How often /proc is looked at, microseconds.
const LOOK_EVERY: u64 = 5_000;

/// How long a program may take to say that it is ready: far longer than it needs, for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One run as it goes.
pub struct Stage<'a> {
    lab: &'a Lab<'a>,
    pub alternative: Alternative,
    folder: PathBuf,
    variables: Vec<(OsString, OsString)>,
    tracer: Option<(&'a Tracer, Receiver<TraceEvent>)>,
    picture: Picture<'a>,
    child: Option<Child>,
    /// The command line of the first PID 1.
    pub command: String,
    lines: Vec<String>,
    partial: Vec<u8>,
    output_is_open: bool,
    events_partial: Vec<u8>,
    looked: u64,
    ended: u64,
    pub status: Option<i32>,
    last_root: i32,
    shared: Option<&'a SharedEngine>,
    /// Ran, unless the experiment says otherwise.
    pub outcome: Outcome,
    /// To be drawn beside the processes.
    pub network: Option<NetworkMap>,
    observations: Vec<Observation>,
}

/// How a stop went.
#[derive(Debug, Clone, Copy)]
pub struct Stopped {
    /// As a shell sees it.
    pub status: i32,
    /// From the signal to the end, milliseconds.
    pub took: i64,
}

/// What a PID 1 is started with.
#[derive(Default)]
pub struct Start {
    /// A terminal instead of a pipe.
    pub terminal: bool,
    /// How many processes there may be.
    pub limit: Option<u64>,
}

impl<'a> Stage<'a> {
    pub fn new(
        lab: &'a Lab,
        run: &'a RunId,
        alternative: Alternative,
        folder: &Path,
        tracer: Option<&'a Tracer>,
    ) -> Stage<'a> {
        let variables = lab.variables(folder);
        Stage { alternative, ..Stage::on(lab, run, folder.to_owned(), variables, tracer) }
    }

    /// For the user's own command: where to work, and with which environment.
    pub fn on(
        lab: &'a Lab,
        run: &'a RunId,
        folder: PathBuf,
        variables: Vec<(OsString, OsString)>,
        tracer: Option<&'a Tracer>,
    ) -> Stage<'a> {
        let source = if tracer.is_some() { Source::Tracepoints } else { Source::Proc };
        Stage {
            lab,
            alternative: Alternative::None,
            folder,
            variables,
            tracer: tracer.map(|tracer| (tracer, tracer.listen())),
            picture: Picture::new(run, lab.watcher, source),
            child: None,
            command: String::new(),
            lines: Vec::new(),
            partial: Vec::new(),
            output_is_open: false,
            events_partial: Vec::new(),
            looked: 0,
            ended: 0,
            status: None,
            last_root: LAB,
            shared: None,
            outcome: Outcome::Ran,
            network: None,
            observations: Vec::new(),
        }
    }

    fn launch<'l>(&'l self, words: &'l [String], start: &Start) -> Launch<'l> {
        let events = self.tracer.is_none() && words.first().is_some_and(|word| word == Alternative::Inception.name());
        Launch {
            words,
            variables: self.variables.clone(),
            folder: &self.folder,
            terminal: start.terminal,
            limit: start.limit,
            events,
        }
    }

    /// The lesson's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the engine is that this run has in common with the lesson's others.
    pub fn share(&mut self, shared: &'a SharedEngine) {
        self.shared = Some(shared);
    }

    /// That engine, made ready by who comes first.
    pub fn engine(&mut self, make_ready: impl FnOnce(&Engine) -> Result<()>) -> Result<Arc<Engine>> {
        let shared = self.shared.ok_or_else(|| Error::Failed("there is no engine to share".into()))?;
        let mut shared = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(engine) = &*shared {
            return Ok(engine.clone());
        }
        let engine = Engine::start(&self.folder, "shared")?;
        make_ready(&engine)?;
        Ok(shared.insert(Arc::new(engine)).clone())
    }

    /// There is nothing to measure here, and why.
    pub fn not_run(&mut self, outcome: Outcome) -> Result<()> {
        self.outcome = outcome;
        Ok(())
    }

    /// Watches a process that the lab has started as any other: its namespaces are the lab's.
    pub fn watch(&mut self, pid: i32, name: &str) {
        self.picture.outsider(pid, name);
        self.describe(name);
    }

    /// Watches a container's PID 1 and what is below it, from now on.
    pub fn watch_container(&mut self, pid: i32, name: &str) {
        self.picture.outsider(pid, name);
        self.trace(&[pid]);
        self.trace_below(pid);
    }

    fn trace_below(&mut self, pid: i32) {
        let below = self.picture.find_tree(pid);
        self.trace(&below);
    }

    fn trace(&self, pids: &[i32]) {
        if let Some((tracer, _)) = &self.tracer {
            for pid in pids {
                // It may have ended meanwhile.
                let _ = tracer.watch(&[*pid]);
            }
        }
    }

    /// What this run is, where that is no PID 1's command line. The first description stays.
    pub fn describe(&mut self, command: &str) {
        if self.command.is_empty() {
            self.command = command.to_owned();
            self.lab.watcher.update(self.run(), Update::Started { command: command.to_owned(), source: self.source() });
        }
    }

    /// Such a process has ended.
    pub fn unwatch(&mut self, pid: i32, status: i32) {
        self.take_events();
        self.picture.root_ended(pid, status);
    }

    /// Until the condition holds or the time is over, whether or not there is a PID 1; whether it holds.
    pub fn watch_until(&mut self, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while !holds() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.tick(left)?;
        }
        Ok(true)
    }

    /// Starts a PID 1. One that is still there from before is killed.
    pub fn start(&mut self, words: &[String]) -> Result<()> {
        self.start_with(words, &Start::default())
    }

    pub fn start_with(&mut self, words: &[String], start: &Start) -> Result<()> {
        self.kill_if_alive()?;
        let at = clock::now();
        let child = self.launch(words, start).start()?;
        self.output_is_open = true;
        self.begin(child, words, at);
        Ok(())
    }

    /// Takes on the PID 1 of a container that an engine has just started.
    pub fn take(&mut self, child: Child, words: &[String]) -> Result<()> {
        let pid = child.pid;
        if let Some((tracer, _)) = &self.tracer {
            tracer.watch(&[pid])?;
        }
        self.output_is_open = false;
        self.begin(child, words, clock::now());
        self.trace_below(pid);
        Ok(())
    }

    fn begin(&mut self, child: Child, words: &[String], at: u64) {
        let command = shown(words);
        self.describe(&command);
        let first = words.first().map_or("", String::as_str);
        let name = first.rsplit('/').next().unwrap_or_default();
        self.picture.root(child.pid, name, at);
        self.lines.clear();
        self.partial.clear();
        self.events_partial.clear();
        self.status = None;
        self.last_root = child.pid;
        self.child = Some(child);
    }

    /// Starts a PID 1 that the picture leaves out.
    pub fn start_unwatched(&self, words: &[String]) -> Result<Child> {
        self.launch(words, &Start::default()).start()
    }

    fn run(&self) -> &'a RunId {
        self.picture.run()
    }

    pub fn source(&self) -> Source {
        self.picture.source()
    }

    pub fn grace(&self) -> Duration {
        self.lab.grace
    }

    /// The present PID 1's outside pid.
    pub fn root(&self) -> i32 {
        self.child.as_ref().map_or(LAB, |child| child.pid)
    }

    /// The PID 1 that was started last (outside pid), whether or not it still is.
    pub fn last_root(&self) -> i32 {
        self.last_root
    }

    /// What was seen so far, as it came.
    pub fn recording(&self) -> &Recording {
        self.picture.recording()
    }

    /// Has an orphan come to PID 1, as a health check that starts a process and ends does. It ends by itself.
    pub fn make_orphan(&mut self) -> Result<()> {
        self.say("puts an orphan into the namespace");
        let Some(child) = &self.child else { return Ok(()) };
        child.make_orphan()?;
        self.picture.look_for_newcomers(self.root());
        Ok(())
    }

    /// Waits for a moment, for news, or for the end of PID 1.
    fn tick(&mut self, limit: Duration) -> Result<()> {
        self.lab.interrupt.check()?;
        let mut readable = [false; 3];
        if let Some(child) = &self.child {
            let wait = limit.as_millis().clamp(1, 5) as u16;
            let mut wanted = vec![PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
            if self.output_is_open {
                wanted.push(PollFd::new(child.output.as_fd(), PollFlags::POLLIN));
            }
            if let Some(events) = &child.events {
                wanted.push(PollFd::new(events.as_fd(), PollFlags::POLLIN));
            }
            let _ = poll(&mut wanted, PollTimeout::from(wait));
            let mut found = wanted.iter().map(|fd| fd.any().unwrap_or(false));
            readable[0] = found.next().unwrap_or(false);
            readable[1] = self.output_is_open && found.next().unwrap_or(false);
            readable[2] = child.events.is_some() && found.next().unwrap_or(false);
        } else {
            std::thread::sleep(limit.min(Duration::from_millis(5)));
        }
        let now = clock::now();
        if readable[1] {
            self.read_output();
        }
        if readable[2] {
            self.read_events();
        }
        self.take_events();
        if now - self.looked >= LOOK_EVERY {
            self.picture.look();
            self.looked = clock::now();
        }
        for (pid, signal) in self.lab.controls.take(|pid| self.picture.is_alive(pid)) {
            self.send(pid, signal);
        }
        if readable[0] {
            self.end(now)?;
        }
        Ok(())
    }

    /// Until the condition holds, PID 1 has ended, or the time is over; whether it holds.
    pub fn wait_until(&mut self, limit: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            if holds(self) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.child.is_none() || left.is_zero() {
                return Ok(false);
            }
            self.tick(left)?;
        }
    }

    /// Until the programs have written a line that has this in it.
    pub fn wait_line(&mut self, text: &str, limit: Duration) -> Result<bool> {
        self.wait_until(limit, |stage| stage.line(text).is_some())
    }

    /// Waits for the program's `ready`: a lesson that does not see it can't go on. A viewer may hold the run here.
    pub fn wait_ready(&mut self) -> Result<()> {
        if !self.wait_line("ready", PATIENCE)? {
            let said = self.lines.join(" / ");
            return Err(Error::Failed(format!("`{}` did not get ready; it said: {said}", self.command)));
        }
        // Whether it is asleep by now is the program's business; a moment makes the picture readable.
        self.rest(Duration::from_millis(20))?;
        while self.lab.controls.is_held() && self.child.is_some() {
            self.tick(Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// The first line with this in it.
    pub fn line(&self, text: &str) -> Option<&str> {
        self.lines.iter().find(|line| line.contains(text)).map(String::as_str)
    }

    /// Lets time pass; ends early with PID 1.
    pub fn rest(&mut self, time: Duration) -> Result<()> {
        self.wait_until(time, |_| false).map(drop)
    }

    /// Waits for PID 1's end.
    pub fn wait_end(&mut self, limit: Duration) -> Result<Option<i32>> {
        self.wait_until(limit, |_| false)?;
        Ok(self.status)
    }

    /// Sends a signal to PID 1 from outside.
    pub fn signal(&mut self, signal: i32) {
        self.send(self.root(), signal);
    }

    /// Sends a signal to one of the run's processes.
    pub fn signal_process(&mut self, pid: i32, signal: i32) {
        self.send(pid, signal);
    }

    /// The pid is one of the run's processes that has not ended.
    fn send(&mut self, pid: i32, signal: i32) {
        let ignored = match self.tracer {
            Some(_) => None,
            None => Some(pid == self.root() && signal != libc::SIGKILL && processes::drops(pid, signal)),
        };
        let sent = match &self.child {
            Some(child) if child.pid == pid => child.signal(signal),
            _ => crate::sys::pidfd_open(pid).and_then(|pidfd| crate::sys::pidfd_send_signal(&pidfd, signal)),
        };
        if let (Ok(()), Some(ignored)) = (sent, ignored) {
            self.picture.sent(pid, signal, ignored);
        }
    }

    /// Types into the terminal.
    pub fn type_keys(&mut self, keys: &[u8], name: &str) -> Result<()> {
        self.picture.say(Kind::Phase, LAB, format!("types {name}"));
        match &mut self.child {
            Some(child) => child.output.write_all(keys).doing("type into the terminal"),
            None => Ok(()),
        }
    }

    /// Stops PID 1 as a container engine does: TERM, the grace period, KILL.
    pub fn stop(&mut self) -> Result<Stopped> {
        self.stop_by(libc::SIGTERM)
    }

    /// The same with another signal than TERM, as an image may want it.
    pub fn stop_by(&mut self, signal: i32) -> Result<Stopped> {
        if let (None, Some(status)) = (&self.child, self.status) {
            return Ok(Stopped { status, took: 0 });
        }
        let grace = self.grace();
        let start = clock::now();
        self.say(format!("stop: {}, then a grace of {} s", signals::name(signal), grace.as_secs_f32()));
        self.signal(signal);
        if self.wait_end(grace)?.is_none() {
            self.say("the grace is over: SIGKILL");
            self.kill()?;
        }
        let status = self.status.unwrap_or_default();
        Ok(Stopped { status, took: ((self.ended.saturating_sub(start)) / 1000) as i64 })
    }

    /// Ends PID 1 by SIGKILL from outside, and all of its namespace with it; the status.
    pub fn kill(&mut self) -> Result<i32> {
        self.signal(libc::SIGKILL);
        match self.wait_end(PATIENCE)? {
            Some(status) => Ok(status),
            None => Err(Error::Failed("PID 1 outlives SIGKILL".into())),
        }
    }

    /// The same, where it has not ended by itself.
    pub fn kill_if_alive(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.kill()?;
        }
        Ok(())
    }

    /// A step of the lab's.
    pub fn say(&mut self, text: impl Into<String>) {
        self.picture.say(Kind::Phase, LAB, text);
    }

    /// How many zombies /proc shows in the present namespace.
    pub fn zombies(&self) -> i64 {
        processes::zombies_below(self.root())
    }

    /// Notes what was measured.
    pub fn observe(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        self.observations.push(Observation { name: name.to_owned(), value, unit: None, expected: None, agrees: true });
    }

    /// The same, with a unit.
    pub fn observe_in(&mut self, name: &str, value: i64, unit: &str) {
        self.observe(name, value);
        if let Some(last) = self.observations.last_mut() {
            last.unit = Some(unit.to_owned());
        }
    }

    /// Notes a stop under `exit status` and `stop took`.
    pub fn observe_stop(&mut self, stopped: Stopped) {
        self.observe("exit status", i64::from(stopped.status));
        self.observe_in("stop took", stopped.took, "ms");
    }

    /// Ends what still runs; what was measured and what was seen.
    pub fn finish(mut self) -> Result<(Vec<Observation>, Recording)> {
        self.kill_if_alive()?;
        Ok((self.observations, self.picture.finish()))
    }
}

/// Words as one would type them.
pub fn shown(words: &[String]) -> String {
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

/// How a child of the lab ended, as a shell sees it.
pub fn shell_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
