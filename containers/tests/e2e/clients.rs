//! The companion at an engine of any kind: the same cases run on the embedded one, on Docker and on Podman.

use crate::{
    harness::{BUSYBOX, Engine, INCEPTION, Ran, busybox_archive, eventually, run, run_with_input},
    peers::{Kind, Peer},
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

/// Where a case runs.
pub struct Client {
    engine: Place,
    folder: tempfile::TempDir,
}

enum Place {
    Embedded(Engine),
    Peer(Peer),
}

/// Runs `cases` on an engine, one after the other in a folder each, and tells which one failed.
pub fn run_cases(kind: Option<Kind>, cases: &[(&str, fn(&Client))]) {
    let mut client = Client::start(kind);
    for (name, case) in cases {
        eprintln!("case: {name}");
        client.folder = tempfile::Builder::new().prefix("inception-case-").tempdir().unwrap();
        case(&client);
    }
}

impl Client {
    fn start(kind: Option<Kind>) -> Client {
        let folder = tempfile::tempdir().unwrap();
        let engine = match kind {
            None => Place::Embedded(Engine::with_busybox()),
            Some(kind) => {
                let peer = Peer::start(kind);
                let archive = peer.path("busybox.tar");
                busybox_archive(&archive);
                peer.docker(&["import", archive.to_str().unwrap(), BUSYBOX]).ok();
                Place::Peer(peer)
            }
        };
        Client { engine, folder }
    }

    pub fn is(&self, kind: Kind) -> bool {
        matches!(&self.engine, Place::Peer(peer) if peer.kind == kind)
    }

    pub fn host(&self) -> String {
        match &self.engine {
            Place::Embedded(engine) => engine.host(),
            Place::Peer(peer) => peer.host(),
        }
    }

    /// The first three numbers of addresses that are this engine's own.
    pub fn subnet(&self, number: u8) -> String {
        match &self.engine {
            Place::Embedded(engine) => engine.subnet(8 + number),
            // A peer has a network namespace of its own.
            Place::Peer(_) => format!("198.19.{}", 244 + number),
        }
    }

    /// The name to reach a container by: its address on Podman, whose name server is one for all of a machine's Podmans
    /// (/run/containers/networks), and serves whoever came first.
    pub fn reachable<'a>(&self, name: &'a str, address: &'a str) -> &'a str {
        if self.is(Kind::Podman) { address } else { name }
    }

    /// The folder of this case, where the commands run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(INCEPTION);
        command.current_dir(self.folder()).env("DOCKER_HOST", self.host()).args(args);
        command
    }

    /// Runs the companion.
    pub fn inception(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args))
    }

    pub fn inception_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        run_with_input(&mut self.command(args), input)
    }

    /// Starts the companion, its output in a file that is read by [`Running`].
    pub fn spawn(&self, args: &[&str]) -> Running {
        let path = self.folder().join("output");
        let output = File::create(&path).unwrap();
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        Running { child: command.spawn().unwrap(), path }
    }

    /// Another client at the same engine.
    pub fn other(&self, program: &str, args: &[&str]) -> Ran {
        run(Command::new(program).current_dir(self.folder()).env("DOCKER_HOST", self.host()).args(args))
    }

    /// Runs the companion at a terminal of 33 rows and 101 columns: waits for each text, and types what belongs to it.
    pub fn at_a_terminal(&self, args: &[&str], dialogue: &[(&str, &str)]) -> Ran {
        let size = nix::libc::winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(Some(&size), None).unwrap();
        let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let mut command = self.command(args);
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
            from += eventually(20, &format!("{expected:?} is shown, after:\n{}", text()), || {
                text().get(from..).and_then(|text| text.find(expected)).map(|at| at + expected.len())
            });
            keyboard.write_all(typed.as_bytes()).unwrap();
        }
        let status = eventually(20, "the session at the terminal ends", || child.try_wait().unwrap());
        reader.join().unwrap();
        Ran { code: status.code().unwrap_or(-1), stdout: text(), stderr: String::new() }
    }
}

/// A companion that runs in the background.
pub struct Running {
    pub child: Child,
    path: PathBuf,
}

impl Running {
    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    /// Waits until it has said `text`.
    #[track_caller]
    pub fn says(&self, text: &str) {
        eventually(30, &format!("it says {text:?}"), || self.said().contains(text).then_some(()));
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Its exit code.
    pub fn ends(&mut self) -> i32 {
        eventually(30, "it ends", || self.child.try_wait().unwrap()).code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
