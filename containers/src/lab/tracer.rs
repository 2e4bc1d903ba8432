//! The kernel's tracepoints, in a tracefs instance of the lab's own: what it watches, others do not see, and the other
//! way round. The instance is reached through a mount that has no place in the tree (fsmount(2)), so that nothing is
//! left mounted however the lab ends; the instance itself is removed at the end, or, after a SIGKILL, by the next lab.

use super::{
    clock, leftover,
    trace_line::{TraceEvent, What},
};
use crate::error::{Context, Result};
use nix::unistd::gettid;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The events that make up the picture. task_newtask tells threads from processes.
const EVENTS: [&str; 5] =
    ["task/task_newtask", "sched/sched_process_fork", "sched/sched_process_exec", "sched/sched_process_exit", SIGNALS];

const SIGNALS: &str = "signal/signal_generate";

/// Of each processor. Some ten thousand events.
const BUFFER_KIB: &str = "1024";

/// How often the events are fetched: sooner than /proc is looked at.
const READ_EVERY: Duration = Duration::from_millis(3);

/// How long the reader may go on when it is to end.
const LAST_CALL: Duration = Duration::from_millis(200);

type Listeners = Arc<Mutex<Vec<Sender<TraceEvent>>>>;

/// A running instance. Dropping it removes it.
pub struct Tracer {
    instance: PathBuf,
    listeners: Listeners,
    ends: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    marker: Option<File>,
    /// Holds the tracefs that `instance` leads through.
    _mount: OwnedFd,
}

impl Tracer {
    /// Watches the calling thread and every thread and process that comes of it from now on.
    pub fn start() -> Result<Tracer> {
        Tracer::with(&EVENTS, |tracer| {
            tracer.write("options/event-fork", "1")?;
            tracer.write("set_event_pid", &gettid().to_string())
        })
    }

    /// Watches only the signals to some processes, whoever sends them: [`Tracer::aim`] says which.
    pub fn start_signals() -> Result<Tracer> {
        Tracer::with(&[SIGNALS], |tracer| tracer.aim(&[]))
    }

    /// Watches these threads, too, which are there already, and what comes of them from now on.
    pub fn watch(&self, threads: &[i32]) -> Result<()> {
        let path = self.instance.join("set_event_pid");
        // Opened without O_TRUNC, which would forget the others.
        let mut file = OpenOptions::new().write(true).open(&path).at("open", &path)?;
        let numbers: Vec<String> = threads.iter().map(i32::to_string).collect();
        file.write_all((numbers.join(" ") + " ").as_bytes()).at("write", &path)
    }

    /// Tells of signals to these processes only, of no more than the first 100 (a filter has its limit).
    pub fn aim(&self, pids: &[i32]) -> Result<()> {
        // No process has the number 0 here.
        let pids = std::iter::once(&0).chain(pids.iter().take(100));
        let filter: Vec<String> = pids.map(|pid| format!("pid == {pid}")).collect();
        self.write(&format!("events/{SIGNALS}/filter"), &filter.join(" || "))
    }

    fn with(events: &[&str], filter: impl FnOnce(&Tracer) -> Result<()>) -> Result<Tracer> {
        let mount = mount_tracefs().doing("mount tracefs")?;
        let instances = PathBuf::from(format!("/proc/self/fd/{}/instances", mount.as_raw_fd()));
        remove_stale(&instances);
        // A process may run one lesson after another, or two at once.
        let name = format!("{}{}", leftover::own_prefix(), clock::now());
        let instance = instances.join(name);
        fs::create_dir(&instance).at("create", &instance)?;
        let mut tracer = Tracer {
            instance,
            listeners: Listeners::default(),
            ends: Arc::default(),
            reader: None,
            marker: None,
            _mount: mount,
        };
        tracer.set_up(events, filter)?;
        Ok(tracer)
    }

    fn set_up(&mut self, events: &[&str], filter: impl FnOnce(&Tracer) -> Result<()>) -> Result<()> {
        self.write("buffer_size_kb", BUFFER_KIB)?;
        self.write("trace_clock", "mono")?;
        filter(self)?;
        for event in events {
            self.write(&format!("events/{event}/enable"), "1")?;
        }
        let path = self.instance.join("trace_marker");
        self.marker = Some(OpenOptions::new().write(true).open(&path).at("open", &path)?);
        let path = self.instance.join("trace_pipe");
        let pipe = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).at("open", &path)?;
        let (listeners, ends) = (self.listeners.clone(), self.ends.clone());
        let reader = std::thread::Builder::new().name("tracepoints".into());
        self.reader = Some(reader.spawn(move || read_pipe(pipe, &listeners, &ends)).doing("start a thread")?);
        Ok(())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.instance.join(file);
        fs::write(&path, text).at("write", &path)
    }

    /// All events from now on.
    pub fn listen(&self) -> Receiver<TraceEvent> {
        let (sender, receiver) = channel();
        lock(&self.listeners).push(sender);
        receiver
    }

    /// Puts a text between the events: who listens and meets it has all that came before.
    pub fn mark(&self, text: &str) {
        if let Some(mut marker) = self.marker.as_ref() {
            // Without it the listener waits for its limit.
            let _ = marker.write_all(text.as_bytes());
        }
    }

    /// Events that the kernel had no room for, or overwrote before they were read.
    pub fn lost(&self) -> u64 {
        let Ok(folders) = fs::read_dir(self.instance.join("per_cpu")) else { return 0 };
        let lost_in = |text: String| -> u64 {
            let count = |line: &str| {
                let (name, count) = line.split_once(": ")?;
                matches!(name, "overrun" | "commit overrun" | "dropped events")
                    .then(|| count.trim().parse::<u64>().ok())?
            };
            text.lines().filter_map(count).sum::<u64>()
        };
        folders.flatten().filter_map(|cpu| fs::read_to_string(cpu.path().join("stats")).ok()).map(lost_in).sum()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.marker = None;
        remove(&self.instance);
    }
}

/// A file that has just been closed may keep the instance busy for a moment.
fn remove(instance: &Path) {
    for _ in 0..50 {
        match fs::remove_dir(instance) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return log::warn!("remove {}: {error}", instance.display());
            }
            _ => return,
        }
    }
}

fn mount_tracefs() -> io::Result<OwnedFd> {
    let filesystem = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(filesystem.as_fd())?;
    Ok(fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Removes the instances of labs that were killed. One in use (by a lab in another pid namespace) is busy, and stays.
fn remove_stale(instances: &Path) {
    for entry in fs::read_dir(instances).into_iter().flatten().flatten() {
        if leftover::is_left_behind(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn read_pipe(mut pipe: File, listeners: &Listeners, ends: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    let mut rest: Vec<u8> = Vec::new();
    let mut last_call = None;
    loop {
        // Where the lab itself is traced, to read makes new events: it would never come to their end.
        if ends.load(Ordering::Relaxed) && last_call.get_or_insert_with(Instant::now).elapsed() > LAST_CALL {
            return;
        }
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => rest.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                // Not poll(2): to wake the reader at each event would make every one dear to the process that it is about.
                std::thread::sleep(READ_EVERY);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let lines: Vec<u8> = rest.drain(..=end).collect();
        let events: Vec<_> = String::from_utf8_lossy(&lines).lines().filter_map(TraceEvent::read).collect();
        // Who has gone away is forgotten.
        lock(listeners).retain(|listener| events.iter().all(|event| listener.send(event.clone()).is_ok()));
    }
}

fn lock(listeners: &Listeners) -> std::sync::MutexGuard<'_, Vec<Sender<TraceEvent>>> {
    listeners.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Takes all that has come up to the mark `text` (or, should it be lost, for some seconds: where much else runs, the reader
/// may get its turn late).
pub fn until_mark(receiver: &Receiver<TraceEvent>, text: &str, mut take: impl FnMut(TraceEvent)) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Ok(event) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if matches!(&event.what, What::Mark { text: found } if found == text) {
            return;
        }
        take(event);
    }
}
