//! What a test's machines have around them: an engine with an image, and machines and roots of the test's own.

#![allow(dead_code, reason = "every test program uses a part of it")]

use crate::{
    harness::{self, Engine, INCEPTION, Ran},
    sessions::{self, Running},
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

pub struct Host {
    /// Machines, roots and files of the test; before the engine, whose volumes machines use.
    folder: tempfile::TempDir,
    host: String,
    _engine: Option<Engine>,
}

impl Host {
    pub fn start() -> Host {
        let engine = Engine::with_busybox();
        let mut host = Host::at(&engine.host());
        host._engine = Some(engine);
        host
    }

    /// At somebody else's engine.
    pub fn at(host: &str) -> Host {
        let folder = tempfile::Builder::new().prefix("inception-vm-").tempdir().unwrap();
        Host { folder, host: host.to_owned(), _engine: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `inception vm`, ready for more arguments.
    pub fn vm(&self, args: &[&str]) -> Command {
        let mut command = Command::new(INCEPTION);
        command.arg("vm").args(args);
        self.settle(&mut command);
        command
    }

    /// The test's own places, for a command.
    pub fn settle(&self, command: &mut Command) {
        command.current_dir(self.folder.path()).env("DOCKER_HOST", &self.host);
        command.env("XDG_STATE_HOME", self.path("state")).env("XDG_CACHE_HOME", self.path("cache"));
        // That machines are emulated need not be said.
        command.env("INCEPTION_LOG", "error");
    }

    /// `vm run` with the kernel that all tests share.
    pub fn run_command(&self, args: &[&str]) -> Command {
        let mut command = self.vm(&["run", "--kernel"]);
        command.arg(kernel()).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        harness::run(&mut self.run_command(args))
    }

    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        harness::run_with_input(&mut self.run_command(args), input)
    }

    pub fn at_a_terminal(&self, args: &[&str], dialogue: &[(&str, &str)]) -> Ran {
        sessions::at_a_terminal(self.run_command(args), dialogue)
    }

    /// `vm run` in the background of the test.
    pub fn spawn(&self, args: &[&str]) -> Running {
        Running::start(self.run_command(args), self.path("output"))
    }

    /// Another command of `vm`.
    pub fn tell(&self, args: &[&str]) -> Ran {
        harness::run(&mut self.vm(args))
    }

    /// The folder of a machine.
    pub fn machine(&self, name: &str) -> PathBuf {
        self.path("state/inception/vm").join(name)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for name in self.tell(&["ls", "-q"]).stdout.lines() {
            if std::thread::panicking() {
                eprintln!("--- console of {name}:\n{}", self.tell(&["logs", name]).stdout);
            }
            self.tell(&["rm", "-f", name]);
        }
    }
}

/// The kernel that the repository's tests share: Debian's, downloaded once.
pub fn kernel() -> &'static Path {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/vm-kernel");
        PathBuf::from(OsString::from(harness::run(&mut Command::new(script)).ok()))
    })
}
