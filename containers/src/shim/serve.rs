//! The shim's side: one thread, one poll loop.
//!
//! Life: namespaces and root file system, socket, "ready" on stdout → `runc create` → a `Start` request → `runc start`
//! → the process ends → its output is drained → `runc delete` → the exit file → the end. An exec session has no create:
//! `Start` runs `runc exec --detach`. In both cases the process becomes the shim's child, because it is a subreaper.

use super::{
    Config, Exit, NetworkNamespace, Overlay, Process, Reply, Request,
    json_log::JsonLog,
    output::{Attached, CLIENT_BUFFER, Client, Queue, STDIN_BUFFER},
    runtime::{Runtime, Stdio3, stdio},
};
use crate::{
    error::{Context, Error, Result},
    sys,
};
use chrono::{SecondsFormat, Utc};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl::set_child_subreaper,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, fchown, pipe2, setsid},
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

/// How long output is waited for after the process's end, where a descendant keeps the pipe open.
const DRAIN: Duration = Duration::from_millis(500);

/// How long an exec session waits to be started: its daemon does so at once, or never.
const START_WAIT: Duration = Duration::from_secs(30);

/// Runs a shim until its process has ended. `config_file` holds a [`Config`] as JSON.
pub fn serve(config_file: &Path) -> Result<()> {
    let prepared = read_config(config_file).and_then(|config| prepare(&config).map(|parts| (config, parts)));
    let (config, (listener, children)) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            println!("{error}");
            return Err(error);
        }
    };
    println!("ready");
    // Whoever started this shim hears no more of it here, and its end of the pipe may go.
    nix::unistd::dup2_stdout(File::open("/dev/null").doing("open /dev/null")?).doing("let go of stdout")?;
    Server::new(&config, listener, children).run()
}

fn read_config(path: &Path) -> Result<Config> {
    let text = fs::read(path).at("read", path)?;
    serde_json::from_slice(&text).map_err(std::io::Error::from).at("understand", path)
}

/// Session, signals, namespaces, root file system, socket.
fn prepare(config: &Config) -> Result<(UnixListener, SignalFd)> {
    // A shim that is its session's leader already is as good.
    let _ = setsid();
    for number in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE] {
        sys::ignore_signal(number).doing("ignore a signal")?;
    }
    set_child_subreaper(true).doing("become a subreaper")?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().doing("block SIGCHLD")?;
    let children =
        SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).doing("watch children")?;
    if let Process::Container { rootfs, .. } = &config.process {
        unshare(CloneFlags::CLONE_NEWNS).doing("make a mount namespace")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
            .doing("keep mounts from the host")?;
        mount_overlay(rootfs)?;
    }
    let (Process::Container { network, .. } | Process::Exec { network, .. }) = &config.process;
    match network {
        NetworkNamespace::Own => unshare(CloneFlags::CLONE_NEWNET).doing("make a network namespace")?,
        NetworkNamespace::Host => {}
        NetworkNamespace::Join(path) => {
            let namespace = File::open(path).at("open", path)?;
            setns(namespace, CloneFlags::CLONE_NEWNET).at("enter", path)?;
        }
    }
    if let Process::Container { sysctls, .. } = &config.process {
        for (name, value) in sysctls {
            let path = Path::new("/proc/sys").join(name.replace('.', "/"));
            fs::write(&path, value).at("write", &path)?;
        }
    }
    let old = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(&config.socket).at("listen on", &config.socket);
    umask(old);
    let listener = listener?;
    listener.set_nonblocking(true).at("set up", &config.socket)?;
    Ok((listener, children))
}

/// Mounts an overlay on its `merged`.
pub fn mount_overlay(overlay: &Overlay) -> Result<()> {
    let lower: Vec<String> = overlay.lower.iter().map(|path| path.display().to_string()).collect();
    let mut options =
        format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), overlay.upper.display(), overlay.work.display());
    if overlay.volatile {
        options.push_str(",volatile");
    }
    mount(Some("overlay"), &overlay.merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .at("mount the overlay on", &overlay.merged)
}

/// Where the process stands.
enum State {
    /// The runtime makes it; its stdio's other ends are held back until it has them.
    Making(Child),
    /// Made, not started. For an exec session: not even made.
    Made,
    Starting(Child),
    Running,
    /// Ended; its last output is awaited until then.
    Ended {
        code: i32,
        until: Instant,
    },
}

/// Descriptors of the process's stdio that the shim holds.
#[derive(Default)]
struct Ours {
    /// Write end of stdin's pipe.
    stdin: Option<File>,
    /// Read ends of stdout's and stderr's pipes.
    output: [Option<File>; 2],
    /// In place of all three.
    terminal: Option<File>,
}

struct Server<'a> {
    config: &'a Config,
    runtime: Runtime<'a>,
    listener: UnixListener,
    children: SignalFd,
    console: Option<UnixListener>,
    state: State,
    pid: i32,
    /// Children that ended while the runtime made the process, and their exit codes: a short command can be over, and
    /// have come to the shim, before the runtime is.
    early: Vec<(i32, i32)>,
    born: Instant,
    failed: Option<(String, i32)>,
    ours: Ours,
    log: Option<JsonLog>,
    clients: Vec<Client>,
    waiting_created: Vec<UnixStream>,
    waiting_start: Vec<UnixStream>,
    input: Queue,
    /// Close stdin once `input` is empty.
    input_ended: bool,
    /// A terminal's size that was asked for before there was a terminal.
    size: Option<(u16, u16)>,
    memory_cgroup: Option<std::path::PathBuf>,
}

impl<'a> Server<'a> {
    fn new(config: &'a Config, listener: UnixListener, children: SignalFd) -> Server<'a> {
        Server {
            config,
            runtime: Runtime::new(config),
            listener,
            children,
            console: None,
            state: State::Made,
            pid: 0,
            early: Vec::new(),
            born: Instant::now(),
            failed: None,
            ours: Ours::default(),
            log: config.log.clone().map(JsonLog::open),
            clients: Vec::new(),
            waiting_created: Vec::new(),
            waiting_start: Vec::new(),
            input: Queue::default(),
            input_ended: false,
            size: None,
            memory_cgroup: None,
        }
    }

    fn run(mut self) -> Result<()> {
        let exec = matches!(self.config.process, Process::Exec { .. });
        if !exec {
            self.make()?;
        }
        let mut buffer = vec![0; 16 * 1024].into_boxed_slice();
        while !self.finished() {
            self.wait()?;
            self.reap()?;
            self.accept();
            self.take_terminal()?;
            self.read_output(&mut buffer);
            self.serve_clients(&mut buffer)?;
            self.feed_stdin();
        }
        self.end()
    }

    /// Starts the runtime's `create` or `exec` with fresh stdio.
    fn make(&mut self) -> Result<()> {
        let child = if self.config.tty {
            let path = self.runtime.console_socket();
            let _ = fs::remove_file(&path);
            let console = UnixListener::bind(&path).at("listen on", &path)?;
            console.set_nonblocking(true).at("set up", &path)?;
            self.console = Some(console);
            let null = || std::process::Stdio::null();
            self.runtime.make(Stdio3 { stdin: null(), stdout: null(), stderr: null() }, Some(&path))
        } else {
            let stdin = if self.config.stdin {
                let (theirs, ours) = self.pipe()?;
                nonblocking(&ours)?;
                self.ours.stdin = Some(File::from(ours));
                stdio(theirs)
            } else {
                std::process::Stdio::null()
            };
            let output = || -> Result<(OwnedFd, File)> {
                let (ours, theirs) = self.pipe()?;
                nonblocking(&ours)?;
                Ok((theirs, File::from(ours)))
            };
            let (stdout, our_stdout) = output()?;
            let (stderr, our_stderr) = output()?;
            self.ours.output = [Some(our_stdout), Some(our_stderr)];
            self.runtime.make(Stdio3 { stdin, stdout: stdio(stdout), stderr: stdio(stderr) }, None)
        };
        self.state = State::Making(child.doing(format_args!("run {}", self.config.runtime.display()))?);
        Ok(())
    }

    /// A pipe (read end, write end) that belongs to the process's user, so that it can reopen /dev/stdout.
    fn pipe(&self) -> Result<(OwnedFd, OwnedFd)> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).doing("make a pipe")?;
        if self.config.stdio_uid != 0 {
            for end in [&read, &write] {
                fchown(end, Some(Uid::from_raw(self.config.stdio_uid)), None::<Gid>)
                    .doing("give a pipe to the user")?;
            }
        }
        Ok((read, write))
    }

    /// Nothing is left to do but to end.
    fn finished(&self) -> bool {
        let State::Ended { until, .. } = self.state else {
            return self.is_unstarted_session() && self.born.elapsed() > START_WAIT;
        };
        let drained = self.ours.output.iter().all(Option::is_none) && self.ours.terminal.is_none();
        let sent = self.clients.iter().all(|client| client.queue.len() == 0);
        let now = Instant::now();
        // A client that does not read its last output is given ten times as long.
        (drained || now >= until) && (sent || now >= until + 9 * DRAIN)
    }

    /// An exec session that nobody has started yet.
    fn is_unstarted_session(&self) -> bool {
        matches!((&self.config.process, &self.state), (Process::Exec { .. }, State::Made))
    }

    /// Waits until something can be done.
    fn wait(&self) -> Result<()> {
        let mut fds = vec![PollFd::new(self.children.as_fd(), PollFlags::POLLIN)];
        fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        fds.extend(self.console.iter().map(|console| PollFd::new(console.as_fd(), PollFlags::POLLIN)));
        if self.may_read_output() {
            let outputs = self.ours.output.iter().flatten().chain(&self.ours.terminal);
            fds.extend(outputs.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        }
        if self.input.len() > 0
            && let Some(file) = self.ours.stdin.as_ref().or(self.ours.terminal.as_ref())
        {
            fds.push(PollFd::new(file.as_fd(), PollFlags::POLLOUT));
        }
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, client.reads && self.may_read_clients());
            flags.set(PollFlags::POLLOUT, client.queue.len() > 0);
            if !flags.is_empty() {
                fds.push(PollFd::new(client.stream.as_fd(), flags));
            }
        }
        let timeout = match self.state {
            State::Ended { .. } => PollTimeout::from(20_u8),
            State::Made if self.is_unstarted_session() => PollTimeout::from(1000_u16),
            _ => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).doing("wait for events"),
        }
    }

    fn may_read_output(&self) -> bool {
        self.clients.iter().all(|client| client.queue.len() < CLIENT_BUFFER)
    }

    fn may_read_clients(&self) -> bool {
        self.input.len() < STDIN_BUFFER
    }

    /// Takes every child's end; the runtime's and the process's mean something.
    fn reap(&mut self) -> Result<()> {
        while let Ok(Some(_)) = self.children.read_signal() {}
        while let Some((pid, code)) = sys::reap_any() {
            self.child_ended(pid, code)?;
        }
        Ok(())
    }

    fn child_ended(&mut self, pid: i32, code: i32) -> Result<()> {
        match &self.state {
            State::Making(child) if child.id() as i32 == pid => {
                if code == 0 {
                    self.made()?;
                } else {
                    self.fail();
                }
            }
            State::Starting(child) if child.id() as i32 == pid => {
                if code == 0 {
                    self.state = State::Running;
                    self.answer_start(&Reply::Pid(self.pid));
                } else if !matches!(self.state, State::Ended { .. }) {
                    self.fail();
                }
            }
            _ if pid == self.pid => {
                // It may end before `runc start` does.
                self.answer_start(&Reply::Pid(self.pid));
                self.state = State::Ended { code, until: Instant::now() + DRAIN };
            }
            State::Making(_) => self.early.push((pid, code)),
            _ => {}
        }
        Ok(())
    }

    /// The runtime has made the process: its pid is known.
    fn made(&mut self) -> Result<()> {
        let path = self.runtime.pid_file();
        let text = fs::read_to_string(&path).at("read", &path)?;
        self.pid = text.trim().parse().map_err(|_| Error::Failed(format!("{}: no pid: {text}", path.display())))?;
        match self.config.process {
            Process::Container { .. } => {
                self.memory_cgroup = memory_cgroup(self.pid);
                self.state = State::Made;
                for stream in std::mem::take(&mut self.waiting_created) {
                    answer(stream, &Reply::Pid(self.pid));
                }
                if !self.waiting_start.is_empty() {
                    self.start()?;
                }
            }
            Process::Exec { .. } => {
                self.state = State::Running;
                self.answer_start(&Reply::Pid(self.pid));
            }
        }
        // A short process of `exec --detach` may be reaped before the runtime that made it.
        if let Some((pid, code)) = std::mem::take(&mut self.early).into_iter().find(|(pid, _)| *pid == self.pid) {
            self.child_ended(pid, code)?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        match self.config.process {
            Process::Container { .. } => {
                let child = self.runtime.start().doing(format_args!("run {}", self.config.runtime.display()))?;
                self.state = State::Starting(child);
            }
            Process::Exec { .. } => self.make()?,
        }
        Ok(())
    }

    /// The runtime refused: whoever waits hears why, and the shim ends.
    fn fail(&mut self) {
        let (message, code) = self.runtime.failure();
        let reply = Reply::Failed { message: message.clone(), code };
        for stream in std::mem::take(&mut self.waiting_created) {
            answer(stream, &reply);
        }
        self.answer_start(&reply);
        // What the runtime itself wrote to the pipes is no output of the service.
        self.ours = Ours::default();
        self.failed = Some((message, code));
        self.state = State::Ended { code, until: Instant::now() };
    }

    fn answer_start(&mut self, reply: &Reply) {
        for stream in std::mem::take(&mut self.waiting_start) {
            answer(stream, reply);
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client::new(stream));
            }
        }
    }

    /// The runtime hands over the terminal's master side.
    fn take_terminal(&mut self) -> Result<()> {
        let Some(console) = &self.console else { return Ok(()) };
        let Ok((stream, _)) = console.accept() else { return Ok(()) };
        stream.set_nonblocking(false).doing("set up the console socket")?;
        let terminal = sys::receive_descriptor(&stream).doing("receive the terminal")?;
        nonblocking(&terminal)?;
        if let Some((rows, columns)) = self.size {
            sys::set_window_size(&terminal, rows, columns).doing("set the terminal's size")?;
        }
        self.ours.terminal = Some(File::from(terminal));
        self.console = None;
        let _ = fs::remove_file(self.runtime.console_socket());
        Ok(())
    }

    fn read_output(&mut self, buffer: &mut [u8]) {
        if !self.may_read_output() || matches!(self.state, State::Making(_)) {
            return;
        }
        for (index, stream) in [(0, 1_u8), (1, 2), (2, 1)] {
            let file = if index < 2 { &mut self.ours.output[index] } else { &mut self.ours.terminal };
            let Some(open) = file else { continue };
            match open.read(buffer) {
                Ok(count) if count > 0 => {
                    let bytes = &buffer[..count];
                    if let Some(log) = &mut self.log {
                        log.write(stream, bytes);
                    }
                    for client in &mut self.clients {
                        client.output(stream, bytes, self.config.tty);
                    }
                }
                Err(error)
                    if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
                // The end of a pipe; EIO is a terminal's (pty(7)), once nobody has its other side.
                _ if index == 2 && !matches!(self.state, State::Ended { .. }) => {
                    // Between a program that closes the terminal and one that opens it again: look again later.
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => {
                    *file = None;
                    if let Some(log) = &mut self.log {
                        log.flush(stream);
                    }
                }
            }
        }
    }

    fn serve_clients(&mut self, buffer: &mut [u8]) -> Result<()> {
        for mut client in std::mem::take(&mut self.clients) {
            if !client.queue.drain_into(&mut &client.stream) {
                continue;
            }
            if client.reads && self.may_read_clients() {
                match client.read(buffer) {
                    None => {}
                    Some(0) => {
                        client.reads = false;
                        let Some(attached) = client.attached else { continue };
                        if attached.stdin && self.config.stdin_once {
                            self.input_ended = true;
                        }
                    }
                    Some(count) => match client.attached {
                        Some(attached) if attached.stdin => self.input.push(&buffer[..count]),
                        Some(_) => {}
                        None => {
                            client.request.extend_from_slice(&buffer[..count]);
                            match self.request(client)? {
                                Some(waits_on) => client = waits_on,
                                None => continue,
                            }
                        }
                    },
                }
            }
            self.clients.push(client);
        }
        Ok(())
    }

    /// Acts on a request once its line is whole. Gives the client back when it stays one.
    fn request(&mut self, mut client: Client) -> Result<Option<Client>> {
        let Some(end) = client.request.iter().position(|byte| *byte == b'\n') else {
            return Ok((client.request.len() < 4096).then_some(client));
        };
        let rest = client.request.split_off(end + 1);
        match serde_json::from_slice::<Request>(&client.request) {
            Ok(Request::Attach { stdin, stdout, stderr }) => {
                client.attached = Some(Attached { stdin, stdout, stderr });
                client.request = Vec::new();
                if stdin {
                    self.input.push(&rest);
                }
                return Ok(Some(client));
            }
            Ok(Request::Created) => match self.state {
                State::Making(_) => self.waiting_created.push(client.stream),
                _ => answer(client.stream, &self.standing()),
            },
            Ok(Request::Start) => match self.state {
                State::Making(_) => self.waiting_start.push(client.stream),
                State::Made => {
                    self.waiting_start.push(client.stream);
                    self.start()?;
                }
                _ => answer(client.stream, &self.standing()),
            },
            Ok(Request::Resize { rows, columns }) => {
                self.size = Some((rows, columns));
                let reply = match &self.ours.terminal {
                    Some(terminal) => match sys::set_window_size(terminal, rows, columns) {
                        Ok(()) => Reply::Done,
                        Err(error) => Reply::Failed { message: format!("set the terminal's size: {error}"), code: 1 },
                    },
                    None => Reply::Done,
                };
                answer(client.stream, &reply);
            }
            Err(error) => answer(client.stream, &Reply::Failed { message: format!("bad request: {error}"), code: 1 }),
        }
        Ok(None)
    }

    fn standing(&self) -> Reply {
        match &self.failed {
            Some((message, code)) => Reply::Failed { message: message.clone(), code: *code },
            None => Reply::Pid(self.pid),
        }
    }

    fn feed_stdin(&mut self) {
        if let Some(terminal) = &mut self.ours.terminal {
            self.input.drain_into(terminal);
        } else if let Some(stdin) = &mut self.ours.stdin
            && (!self.input.drain_into(stdin) || (self.input_ended && self.input.len() == 0))
        {
            self.ours.stdin = None;
            self.input = Queue::default();
        } else if self.ours.stdin.is_none() && !matches!(self.state, State::Making(_) | State::Made) {
            self.input = Queue::default();
        }
    }

    /// The container is deleted, the exit file written, the clients let go.
    fn end(mut self) -> Result<()> {
        let code = match self.state {
            State::Ended { code, .. } => code,
            // A session that was never started: the daemon that asked for it is gone, or has given it up.
            _ => 126,
        };
        let finished_at = Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true);
        if let Some(log) = &mut self.log {
            log.flush(1);
            log.flush(2);
        }
        let oom_killed = self.memory_cgroup.as_deref().is_some_and(oom_killed);
        if matches!(self.config.process, Process::Container { .. })
            && let Ok(mut child) = self.runtime.delete()
        {
            let _ = child.wait();
        }
        self.runtime.tidy();
        let error = self.failed.take().map(|(message, _)| message);
        write_exit(&self.config.exit_file, &Exit { code, oom_killed, finished_at, error })?;
        let _ = fs::remove_file(&self.config.socket);
        let _ = fs::remove_file(self.runtime.console_socket());
        Ok(())
    }
}

fn answer(stream: UnixStream, reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        // A few hundred bytes always fit; a client that has gone is no loss.
        let _ = (&stream).write_all(&line);
    }
}

fn nonblocking(fd: &impl AsFd) -> Result<()> {
    let fd: BorrowedFd<'_> = fd.as_fd();
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .doing(format_args!("set up descriptor {}", fd.as_raw_fd()))
        .map(drop)
}

/// By fsync and rename: a reader sees all of it or nothing.
fn write_exit(path: &Path, exit: &Exit) -> Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).at("create", &temporary)?;
    serde_json::to_writer(&file, exit).map_err(std::io::Error::from).at("write", &temporary)?;
    file.flush().and_then(|()| file.sync_all()).at("write", &temporary)?;
    fs::rename(&temporary, path).at("rename to", path)
}

/// The folder of a process's memory controller: cgroup v1's or the unified one.
fn memory_cgroup(pid: i32) -> Option<std::path::PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path_of = |wanted: &dyn Fn(&str) -> bool| {
        text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            wanted(controllers).then(|| parts.next().unwrap_or_default().trim_start_matches('/').to_string())
        })
    };
    if let Some(path) = path_of(&|controllers| controllers.split(',').any(|name| name == "memory")) {
        return Some(Path::new("/sys/fs/cgroup/memory").join(path));
    }
    path_of(&str::is_empty).map(|path| Path::new("/sys/fs/cgroup").join(path))
}

/// Whether the kernel killed for want of memory: memory.oom_control (v1) or memory.events (v2) counts it.
fn oom_killed(cgroup: &Path) -> bool {
    ["memory.oom_control", "memory.events"]
        .iter()
        .filter_map(|name| fs::read_to_string(cgroup.join(name)).ok())
        .any(|text| text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0")))
}
