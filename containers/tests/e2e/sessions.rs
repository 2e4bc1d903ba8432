//! The companion as people have it: at a terminal, or in the background.

#![allow(dead_code, reason = "every test program uses a part of it")]

use crate::harness::{Ran, eventually};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

/// Runs a command at a terminal of 33 rows and 101 columns: waits for each text, and types what belongs to it.
pub fn at_a_terminal(mut command: Command, dialogue: &[(&str, &str)]) -> Ran {
    let size = nix::libc::winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    command.stdin(slave(&pty.slave)).stdout(slave(&pty.slave)).stderr(slave(&pty.slave));
    let mut child = command.spawn().unwrap();
    // The terminal ends with the last that has it open.
    drop((command, pty.slave));
    let mut keyboard = File::from(pty.master.try_clone().unwrap());
    let mut screen = File::from(pty.master);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shown = Arc::clone(&seen);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut buffer) {
            shown.lock().unwrap().extend_from_slice(&buffer[..length]);
        }
    });
    let text = || String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    let mut from = 0;
    for (expected, typed) in dialogue {
        from += eventually(60, &format!("{expected:?} is shown, after:\n{}", text()), || {
            text().get(from..).and_then(|text| text.find(expected)).map(|at| at + expected.len())
        });
        keyboard.write_all(typed.as_bytes()).unwrap();
    }
    let status = eventually(60, "the session at the terminal ends", || child.try_wait().unwrap());
    reader.join().unwrap();
    Ran { code: status.code().unwrap_or(-1), stdout: text(), stderr: String::new() }
}
/// A command that runs in the background.
pub struct Running {
    pub child: Child,
    path: PathBuf,
}

impl Running {
    /// Starts a command with its output in the file `path`.
    pub fn start(mut command: Command, path: PathBuf) -> Running {
        let output = File::create(&path).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        Running { child: command.spawn().unwrap(), path }
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    /// Waits until it has said `text`.
    #[track_caller]
    pub fn says(&self, text: &str) {
        eventually(60, &format!("it says {text:?}"), || self.said().contains(text).then_some(()));
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Its exit code.
    pub fn ends(&mut self) -> i32 {
        eventually(60, "it ends", || self.child.try_wait().unwrap()).code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
