//! The companion at an engine of any kind: the same cases run on the embedded one, on Docker and on Podman.

use crate::{
    harness::{BUSYBOX, Engine, INCEPTION, Ran, busybox_archive, run, run_with_input},
    peers::{Kind, Peer},
    sessions::{self, Running},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
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

/// A name, and what is tried.
pub type Case = (&'static str, fn(&Client));

/// Runs `cases` on an engine, one after the other in a folder each, and tells which one failed.
pub fn run_cases(kind: Option<Kind>, cases: &[Case]) {
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
        Running::start(self.command(args), self.folder().join("output"))
    }

    /// Another client at the same engine.
    pub fn other(&self, program: &str, args: &[&str]) -> Ran {
        run(Command::new(program).current_dir(self.folder()).env("DOCKER_HOST", self.host()).args(args))
    }

    /// Runs the companion at a terminal: waits for each text, and types what belongs to it.
    pub fn at_a_terminal(&self, args: &[&str], dialogue: &[(&str, &str)]) -> Ran {
        sessions::at_a_terminal(self.command(args), dialogue)
    }
}
