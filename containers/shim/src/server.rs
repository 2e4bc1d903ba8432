//! One thread, one poll loop: output to the log and to the clients, the clients' requests and input.
//!
//! Life: namespaces and root file system, socket, "ready" on stdout → a `Start` request → `runc run --detach` → the
//! process ends → its output is drained → `runc delete` → the exit file → the end. For an exec session `Start` runs
//! `runc exec --detach`. In both cases the process becomes the shim's child, because it is a subreaper.

mod life;

use crate::{
    error::{Context, Result},
    json_log::JsonLog,
    output::{Attached, CLIENT_BUFFER, Client, Queue, STDIN_BUFFER},
    runtime::Runtime,
    sys,
};
use inception_shim::{Config, Reply, Request};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signalfd::SignalFd,
};
use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    process::Child,
    time::{Duration, Instant},
};

/// How long output is waited for after the process's end, where a descendant keeps the pipe open.
const DRAIN: Duration = Duration::from_millis(500);

/// How long a shim waits to be told to start: its daemon does so once the network is there, or never.
const START_WAIT: Duration = Duration::from_secs(60);

/// Where the process stands.
enum State {
    /// Nobody has asked for its start yet.
    Unstarted,
    /// The runtime starts it; its stdio's other ends are held back until it has them.
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

/// The shim, from its first connection on.
pub struct Server<'a> {
    config: &'a Config,
    runtime: Runtime<'a>,
    listener: UnixListener,
    children: SignalFd,
    console: Option<UnixListener>,
    state: State,
    pid: i32,
    /// Children that ended while the runtime started the process, and their exit codes: a short command can be over, and
    /// have come to the shim, before the runtime is.
    early: Vec<(i32, i32)>,
    born: Instant,
    failed: Option<(String, i32)>,
    /// Somebody has heard of the failure: the daemon asks soon after it is told "ready".
    told: bool,
    ours: Ours,
    log: Option<JsonLog>,
    clients: Vec<Client>,
    waiting_start: Vec<UnixStream>,
    input: Queue,
    /// Close stdin once `input` is empty.
    input_ended: bool,
    /// A terminal's size that was asked for before there was a terminal.
    size: Option<(u16, u16)>,
}

impl<'a> Server<'a> {
    pub fn new(config: &'a Config, listener: UnixListener, children: SignalFd) -> Server<'a> {
        Server {
            config,
            runtime: Runtime::new(config),
            listener,
            children,
            console: None,
            state: State::Unstarted,
            pid: 0,
            early: Vec::new(),
            born: Instant::now(),
            failed: None,
            told: false,
            ours: Ours::default(),
            log: config.log.clone().map(JsonLog::open),
            clients: Vec::new(),
            waiting_start: Vec::new(),
            input: Queue::default(),
            input_ended: false,
            size: None,
        }
    }

    pub fn run(mut self) -> Result<()> {
        let mut buffer = vec![0; 16 * 1024].into_boxed_slice();
        let mut settled = false;
        while !self.finished() {
            if !settled && matches!(self.state, State::Running) {
                sys::let_pages_go();
                settled = true;
            }
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

    /// Nothing is left to do but to end.
    fn finished(&self) -> bool {
        let State::Ended { until, .. } = self.state else {
            return matches!(self.state, State::Unstarted) && self.born.elapsed() > START_WAIT;
        };
        let drained = self.ours.output.iter().all(Option::is_none) && self.ours.terminal.is_none();
        let sent = self.clients.iter().all(|client| client.queue.len() == 0);
        let now = Instant::now();
        if self.failed.is_some() && !self.told && now < until + 9 * DRAIN {
            return false;
        }
        // A client that does not read its last output is given ten times as long.
        (drained || now >= until) && (sent || now >= until + 9 * DRAIN)
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
            flags.set(PollFlags::POLLIN, self.may_read(client));
            flags.set(PollFlags::POLLOUT, client.queue.len() > 0);
            if !flags.is_empty() {
                fds.push(PollFd::new(client.stream.as_fd(), flags));
            }
        }
        let timeout = match self.state {
            State::Ended { .. } => PollTimeout::from(20_u8),
            State::Unstarted => PollTimeout::from(1000_u16),
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

    /// Input waits in the client where there is much of it already; a request never does: it may be the very start that
    /// the input waits for.
    fn may_read(&self, client: &Client) -> bool {
        client.reads && (client.attached.is_none() || self.input.len() < STDIN_BUFFER)
    }

    fn read_output(&mut self, buffer: &mut [u8]) {
        if !self.may_read_output() || matches!(self.state, State::Starting(_)) {
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

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client::new(stream));
            }
        }
    }

    fn serve_clients(&mut self, buffer: &mut [u8]) -> Result<()> {
        for mut client in std::mem::take(&mut self.clients) {
            if !client.queue.drain_into(&mut &client.stream) {
                continue;
            }
            if self.may_read(&client) {
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
            Ok(Request::Start) => match self.state {
                State::Starting(_) => self.waiting_start.push(client.stream),
                State::Unstarted => {
                    self.waiting_start.push(client.stream);
                    if let Err(error) = self.start() {
                        self.fail_by(error.to_string(), 128);
                    }
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

    fn standing(&mut self) -> Reply {
        self.told = true;
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
        } else if self.ours.stdin.is_none() && !matches!(self.state, State::Unstarted | State::Starting(_)) {
            self.input = Queue::default();
        }
    }
}

fn answer(stream: UnixStream, reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        // A few hundred bytes always fit; a client that has gone is no loss.
        let _ = (&stream).write_all(&line);
    }
}
