//! Cases on a real terminal: a pty whose other end a user would sit at.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cases::Verdict;
use crate::harness::{Init, Place, eventually, pids, spawn};

/// A program on a terminal of its own.
struct Session {
    child: Child,
    screen: std::fs::File,
    seen: String,
    patience: Duration,
}

impl Session {
    /// Starts a command as the leader of a session whose terminal is a new pty.
    fn start(mut command: Command, place: Place) -> Result<Self, String> {
        let pty = nix::pty::openpty(None, None).map_err(|error| error.to_string())?;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(|error| error.to_string());
        command.stdin(Stdio::from(copy(&pty.slave)?)).stdout(Stdio::from(copy(&pty.slave)?));
        command.stderr(Stdio::from(copy(&pty.slave)?));
        // SAFETY: raw system calls only.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                // Nothing but 0, 1, 2: the pty hangs up when the harness closes its end.
                libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
                Ok(())
            });
        }
        let child = spawn(command, place).map_err(|error| error.to_string())?;
        drop(pty.slave);
        // SAFETY: the descriptor was ours, and is the file's now.
        let screen = unsafe { std::fs::File::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(pty.master)) };
        Ok(Self { child, screen, seen: String::new(), patience: Duration::from_secs(20) })
    }

    fn type_in(&mut self, text: &str) {
        let _ = self.screen.write_all(text.as_bytes());
    }

    /// Waits until a text appears after what was seen before.
    fn wait_for(&mut self, text: &str) -> Verdict {
        let start = Instant::now();
        while start.elapsed() < self.patience {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return Ok(());
            }
            let mut entry = libc::pollfd { fd: self.screen.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd.
            if unsafe { libc::poll(&raw mut entry, 1, 100) } == 1 {
                let mut buffer = [0; 4096];
                let Ok(count @ 1..) = self.screen.read(&mut buffer) else { break };
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
        Err(format!("no {text:?} on the screen, which shows {:?}", self.seen))
    }

    /// Waits until the shell has given the terminal away.
    fn wait_for_a_job(&self) -> Verdict {
        let shell = self.child.id() as i32;
        let is_given = || {
            let mut group = 0;
            // SAFETY: writes one pid_t.
            let known = unsafe { libc::ioctl(self.screen.as_raw_fd(), libc::TIOCGPGRP, &raw mut group) } == 0;
            known && group != shell
        };
        if eventually(Duration::from_secs(5), is_given) { Ok(()) } else { Err("the shell keeps the terminal".into()) }
    }

    fn code(&mut self) -> Result<i32, String> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code().ok_or_else(|| format!("{status}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err("still runs".into())
    }
}

/// A case that fails leaves its shell in the middle of something: stopped jobs outlive a hang-up.
impl Drop for Session {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let leader = self.child.id() as i32;
        for pid in pids() {
            // SAFETY: plain numbers; the leader is not waited for yet, so the session's number is nobody else's.
            if unsafe { libc::getsid(pid) } == leader {
                // SAFETY: as above.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        let _ = self.child.wait();
    }
}

fn on_terminal(init: &Init, script: &str) -> Result<Session, String> {
    Session::start(init.command(&[], &["sh", "-c", script]), Place::Pid1)
}

fn is(code: i32, wanted: i32) -> Verdict {
    if code == wanted { Ok(()) } else { Err(format!("exit code {code}, not {wanted}")) }
}

pub fn interrupt(init: &Init) -> Verdict {
    let mut session = on_terminal(init, "echo ready; exec sleep 100")?;
    session.wait_for("ready")?;
    session.type_in("\x03");
    is(session.code()?, 130)
}

pub fn reads(init: &Init) -> Verdict {
    let mut session = on_terminal(init, "echo ready; read word; echo got-$word; exit 3")?;
    session.wait_for("ready")?;
    session.type_in("hello\n");
    session.wait_for("got-hello")?;
    is(session.code()?, 3)
}

pub fn hang_up(init: &Init) -> Verdict {
    let mut session = on_terminal(init, "echo ready; exec sleep 100")?;
    session.wait_for("ready")?;
    let null = std::fs::File::open("/dev/null").map_err(|error| error.to_string())?;
    drop(std::mem::replace(&mut session.screen, null));
    is(session.code()?, 129)
}

pub fn window_size(init: &Init) -> Verdict {
    let mut session = on_terminal(init, "trap 'stty size; exit 4' WINCH; echo ready; while :; do sleep 0.02; done")?;
    session.wait_for("ready")?;
    let size = libc::winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: reads the struct.
    unsafe { libc::ioctl(session.screen.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    session.wait_for("33 77")?;
    is(session.code()?, 4)
}

/// Under an interactive shell: Ctrl-Z stops the job, `fg` goes on with it, and it has the terminal again,
/// its own (under dumb-init the service has none, and takes what is typed from the shell).
pub fn job_control(init: &Init) -> Verdict {
    let mut bash = Command::new("bash");
    // Without line editing, which throws away what is typed while it sets up the terminal.
    bash.args(["--norc", "--noprofile", "--noediting", "-i"])
        .env("PS1", "prompt> ")
        .env("HISTFILE", "/dev/null")
        .env("TERM", "dumb");
    let mut session = Session::start(bash, Place::Ordinary)?;
    session.patience = init.patience().max(Duration::from_secs(5));
    session.wait_for("prompt> ")?;
    let inner = init.command(&[], &["sh", "-c", "echo rea''dy; read word </dev/tty; echo got-$word; exit 5"]);
    let quoted: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    session.type_in(&format!("{}\n", quoted.join(" ")));
    session.wait_for("\nready")?;
    session.type_in("\x1a");
    session.wait_for("Stopped")?;
    session.wait_for("prompt> ")?;
    session.type_in("fg\n");
    session.wait_for_a_job()?;
    session.type_in("again\n");
    session.wait_for("got-again")?;
    session.wait_for("prompt> ")?;
    session.type_in("echo code-$?\n");
    session.wait_for("code-5")?;
    session.type_in("exit 0\n");
    is(session.code()?, 0)
}
