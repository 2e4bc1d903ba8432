//! The process from its making to its exit file.

use super::{DRAIN, Ours, Server, State, answer};
use crate::{
    error::{Context, Result},
    runtime::{Stdio3, stdio},
    sys,
};
use chrono::{SecondsFormat, Utc};
use inception_shim::{Exit, Process, Reply};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::{Gid, Uid, fchown, pipe2},
};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    process::Stdio,
    time::Instant,
};

impl Server<'_> {
    /// Begins the runtime's `run` or `exec` with fresh stdio.
    pub(super) fn start(&mut self) -> Result<()> {
        let child = if self.config.tty {
            let path = self.runtime.console_socket();
            let _ = fs::remove_file(&path);
            let console = UnixListener::bind(&path).at("listen on", &path)?;
            console.set_nonblocking(true).at("set up", &path)?;
            self.console = Some(console);
            let null = || Stdio::null();
            self.runtime.start(Stdio3 { stdin: null(), stdout: null(), stderr: null() }, Some(&path))
        } else {
            let stdin = if self.config.stdin {
                let (theirs, ours) = self.pipe()?;
                nonblocking(&ours)?;
                self.ours.stdin = Some(File::from(ours));
                stdio(theirs)
            } else {
                Stdio::null()
            };
            let output = || -> Result<(OwnedFd, File)> {
                let (ours, theirs) = self.pipe()?;
                nonblocking(&ours)?;
                Ok((theirs, File::from(ours)))
            };
            let (stdout, our_stdout) = output()?;
            let (stderr, our_stderr) = output()?;
            self.ours.output = [Some(our_stdout), Some(our_stderr)];
            self.runtime.start(Stdio3 { stdin, stdout: stdio(stdout), stderr: stdio(stderr) }, None)
        };
        self.state = State::Starting(child.doing(format_args!("run {}", self.config.runtime.display()))?);
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

    /// Takes every child's end; the runtime's and the process's mean something.
    pub(super) fn reap(&mut self) -> Result<()> {
        while let Ok(Some(_)) = self.children.read_signal() {}
        while let Some((pid, code)) = sys::reap_any() {
            self.child_ended(pid, code)?;
        }
        Ok(())
    }

    fn child_ended(&mut self, pid: i32, code: i32) -> Result<()> {
        match &self.state {
            State::Starting(child) if child.id() as i32 == pid => {
                if code == 0 {
                    self.started()?;
                } else {
                    self.fail();
                }
            }
            _ if pid == self.pid => {
                self.state = State::Ended { code, until: Instant::now() + DRAIN };
            }
            State::Starting(_) => self.early.push((pid, code)),
            _ => {}
        }
        Ok(())
    }

    /// The runtime has started the process: its pid is known.
    fn started(&mut self) -> Result<()> {
        let path = self.runtime.pid_file();
        let text = fs::read_to_string(&path).at("read", &path)?;
        self.pid = text.trim().parse().map_err(io::Error::other).at("find a pid in", &path)?;
        self.state = State::Running;
        self.answer_start(&Reply::Pid(self.pid));
        // A short process may be reaped before the runtime that started it.
        if let Some((pid, code)) = std::mem::take(&mut self.early).into_iter().find(|(pid, _)| *pid == self.pid) {
            self.child_ended(pid, code)?;
        }
        Ok(())
    }

    /// The runtime refused: whoever waits hears why, and the shim ends.
    fn fail(&mut self) {
        let (message, code) = self.runtime.failure();
        self.fail_by(message, code);
    }

    pub(super) fn fail_by(&mut self, message: String, code: i32) {
        let reply = Reply::Failed { message: message.clone(), code };
        self.answer_start(&reply);
        // What the runtime itself wrote to the pipes is no output of the service.
        self.ours = Ours::default();
        self.failed = Some((message, code));
        self.state = State::Ended { code, until: Instant::now() };
    }

    pub(super) fn answer_start(&mut self, reply: &Reply) {
        for stream in std::mem::take(&mut self.waiting_start) {
            answer(stream, reply);
            self.told = true;
        }
    }

    /// The runtime hands over the terminal's master side.
    pub(super) fn take_terminal(&mut self) -> Result<()> {
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

    /// The container is deleted, the exit file written, the clients let go.
    pub(super) fn end(mut self) -> Result<()> {
        let code = match self.state {
            State::Ended { code, .. } => code,
            // Never started: the daemon that asked for it is gone, or has given it up.
            _ => 126,
        };
        let finished_at = Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true);
        if let Some(log) = &mut self.log {
            log.flush(1);
            log.flush(2);
        }
        let mut oom_killed = false;
        if let Process::Container { cgroup, .. } = &self.config.process {
            oom_killed = was_oom_killed(cgroup);
            if let Ok(mut child) = self.runtime.delete() {
                let _ = child.wait();
            }
        }
        self.runtime.tidy();
        let error = self.failed.take().map(|(message, _)| message);
        write_exit(&self.config.exit_file, &Exit { code, oom_killed, finished_at, error })?;
        let _ = fs::remove_file(&self.config.socket);
        let _ = fs::remove_file(self.runtime.console_socket());
        Ok(())
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
    serde_json::to_writer(&file, exit).map_err(io::Error::from).at("write", &temporary)?;
    file.flush().and_then(|()| file.sync_all()).at("write", &temporary)?;
    fs::rename(&temporary, path).at("rename to", path)
}

/// Whether the kernel killed for want of memory: cgroup v1's memory.oom_control or v2's memory.events counts it.
fn was_oom_killed(cgroup: &Path) -> bool {
    let cgroup = cgroup.strip_prefix("/").unwrap_or(cgroup);
    [("/sys/fs/cgroup/memory", "memory.oom_control"), ("/sys/fs/cgroup", "memory.events")]
        .iter()
        .filter_map(|(root, name)| fs::read_to_string(Path::new(root).join(cgroup).join(name)).ok())
        .any(|text| text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0")))
}
