//! Starts an init as PID 1 of a fresh pid namespace with a /proc of its own, or as an ordinary process.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A case takes at most so long.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The init under test.
#[derive(Clone)]
pub struct Init {
    pub path: PathBuf,
    /// What the matrix calls it.
    pub name: String,
    /// The personality asked for by `--as`.
    pub personality: Option<String>,
    /// It has this project's options.
    pub ours: bool,
}

/// A path for a file that is this run's own.
pub fn scratch(name: &str) -> PathBuf {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    std::env::temp_dir().join(format!("init-tests-{}-{count}-{name}", std::process::id()))
}

/// The programs that the services of the cases are.
pub fn probe_program() -> PathBuf {
    std::env::var_os("INIT_TESTS_PROBE").map_or_else(|| std::env::current_exe().unwrap_or_default(), PathBuf::from)
}

impl Init {
    /// An init by its path; ours is known by its name.
    pub fn new(path: &Path, personality: Option<&str>) -> Self {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = personality.map_or(file.clone(), |personality| format!("{file} --as {personality}"));
        let ours = file.starts_with("inception-init") && personality.is_none();
        // Cases start it in other folders.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { path, name, personality: personality.map(str::to_owned), ours }
    }

    /// How long to wait for what ought to come: not long where it is known not to.
    pub fn patience(&self) -> Duration {
        if self.path.ends_with("inception-init") { LIMIT } else { Duration::from_secs(3) }
    }

    /// The command `INIT [options] -- words`.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, options: &[&str], words: &[S]) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(personality) = &self.personality {
            command.arg("--as").arg(personality);
        }
        command.args(options).arg("--").args(words);
        command
    }
}

/// A running init and what it says.
pub struct Running {
    pub child: Child,
    pub out: BufReader<ChildStdout>,
}

/// How a command is started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// As PID 1 of a pid namespace of its own.
    Pid1,
    /// As a process among others.
    Ordinary,
}

/// Starts a command with pipes; what it says on stderr is dropped.
pub fn start(mut command: Command, place: Place) -> io::Result<Running> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = spawn(command, place)?;
    let out = child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
    Ok(Running { child, out: BufReader::new(out) })
}

/// Starts a command. A thread that unshares its pid namespace makes its next child that namespace's PID 1.
pub fn spawn(mut command: Command, place: Place) -> io::Result<Child> {
    if place == Place::Ordinary {
        return command.spawn();
    }
    let spawn = move || {
        // SAFETY: plain numbers; the thread ends right after.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: raw system calls only, on static strings.
        unsafe { command.pre_exec(own_proc) };
        command.spawn()
    };
    std::thread::spawn(spawn).join().map_err(|_| io::Error::other("the starting thread panicked"))?
}

fn own_proc() -> io::Result<()> {
    // SAFETY: static NUL-terminated strings, numbers.
    unsafe {
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let none = std::ptr::null();
        if libc::unshare(libc::CLONE_NEWNS) < 0
            || libc::mount(none, c"/".as_ptr(), none, private, none.cast()) < 0
            || libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, none.cast()) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: plain numbers; the child is not waited for yet, so the pid is its own.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// The next line that the service says.
    pub fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.out.read_line(&mut line) {
            Ok(0) => Err("ended before it said what was waited for".into()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Reads lines until they are enough, or none comes for a time, or the end; what they were.
    pub fn lines(&mut self, limit: Duration, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        while !enough(&lines) {
            let mut entry = libc::pollfd { fd: self.out.get_ref().as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, which lives.
            let ready = !self.out.buffer().is_empty()
                || unsafe { libc::poll(&raw mut entry, 1, limit.as_millis() as i32) } == 1;
            match ready.then(|| self.line()) {
                Some(Ok(line)) => lines.push(line),
                _ => break,
            }
        }
        lines
    }

    /// Waits for the end: the exit code (128+n by the harness where the init itself was killed).
    pub fn wait(&mut self, limit: Duration) -> Result<i32, String> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Ok(status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or(0)));
            }
            if start.elapsed() > limit {
                return Err(format!("still runs after {limit:?}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Everything else that is said, to the end.
    pub fn rest(&mut self) -> String {
        let mut text = String::new();
        let _ = self.out.read_to_string(&mut text);
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs to the end: exit code and output.
pub fn finish(command: Command, place: Place) -> Result<(i32, String), String> {
    let mut running = start(command, place).map_err(|error| error.to_string())?;
    let code = running.wait(LIMIT)?;
    // As an ordinary process a peer may leave somebody behind who holds the pipe.
    let text = if place == Place::Pid1 { running.rest() } else { String::new() };
    Ok((code, text))
}

/// A field of /proc/PID/status.
pub fn status_field(pid: i32, key: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
}

/// Every process.
pub fn pids() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The children of a process: pid, name, state.
pub fn children(pid: i32) -> Vec<(i32, String, char)> {
    let mut found = Vec::new();
    for child in pids() {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else { continue };
        let mut fields = stat[close + 2..].split(' ');
        let state = fields.next().and_then(|state| state.chars().next()).unwrap_or('?');
        if fields.next().and_then(|parent| parent.parse().ok()) == Some(pid) {
            found.push((child, stat[open + 1..close].to_owned(), state));
        }
    }
    found
}

/// Waits until a condition holds.
pub fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    holds()
}
