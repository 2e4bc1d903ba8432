//! The engines that the same clients drive elsewhere: Docker's and Podman's, each in a network namespace of its own, so
//! that their firewall rules, bridges and ports are theirs alone.

#![allow(dead_code, reason = "the benchmarks use a part of it, the tests another")]

use crate::harness::{Ran, eventually, run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

/// What the names of machines begin with; their test's pid and a number follow.
const PREFIX: &str = "ie2e-";

/// A network namespace that stands for a machine: loopback and nothing else.
pub struct Machine {
    name: String,
}

impl Machine {
    pub fn new() -> Machine {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(Machine::remove_left_behind);
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name])).ok();
        let machine = Machine { name };
        run(machine.command("ip").args(["link", "set", "lo", "up"])).ok();
        machine
    }

    /// Takes away the machines of tests that were killed.
    fn remove_left_behind() {
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if owner.is_some_and(|pid| pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists())
            {
                drop(Machine { name });
            }
        }
    }

    /// The namespace's name, as ip(8) knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The words before a command that has to run on this machine, for [`Engine::start_within`].
    ///
    /// [`Engine::start_within`]: crate::harness::Engine::start_within
    pub fn words(&self) -> Vec<String> {
        let command = self.command("");
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).filter(|word| !word.is_empty()).collect()
    }

    /// A command on this machine. Not by `ip netns exec`, which would hide /sys/fs/cgroup.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Docker,
    Podman,
}

/// A peer engine with a store of its own.
pub struct Peer {
    pub kind: Kind,
    pub machine: Machine,
    folder: tempfile::TempDir,
    server: Option<Child>,
}

impl Peer {
    /// Starts the engine and waits until it answers.
    pub fn start(kind: Kind) -> Peer {
        let machine = Machine::new();
        let folder = tempfile::Builder::new().prefix("inception-peer-").tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let log = fs::File::create(path("log")).unwrap();
        let mut command = match kind {
            Kind::Docker => {
                let mut command = machine.command("dockerd");
                command
                    .arg("--data-root")
                    .arg(path("data"))
                    .arg("--exec-root")
                    .arg(path("exec"))
                    .arg("--pidfile")
                    .arg(path("pid"))
                    .arg("--host")
                    .arg(format!("unix://{}", path("sock").display()))
                    .args(["--bip", "198.19.240.1/24", "--default-address-pool", "base=198.19.241.0/24,size=26"]);
                command
            }
            Kind::Podman => {
                // The machine's hard limits may be below Podman's defaults.
                fs::write(
                    path("containers.conf"),
                    "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=32768:32768\"]\n\
                     [network]\nnetwork_backend = \"netavark\"\ndefault_subnet = \"198.19.242.0/24\"\n\
                     default_subnet_pools = [{\"base\" = \"198.19.243.0/24\", \"size\" = 26}]\n\
                     [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n",
                )
                .unwrap();
                // Its name service keeps what it knows in one place for the whole machine: here, a place of its own.
                let mut command = machine.command("unshare");
                command
                    .args(["--mount", "sh", "-c"])
                    .arg("mkdir -p /run/containers && mount -t tmpfs tmpfs /run/containers && exec podman \"$@\"");
                command.arg("podman");
                on_store(&mut command, folder.path());
                command.args(["system", "service", "--time", "0"]).arg(format!("unix://{}", path("sock").display()));
                command
            }
        };
        let server = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut peer = Peer { kind, machine, folder, server: Some(server) };
        eventually(30, "the peer engine answers", || {
            let ended = peer.server.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{kind:?} ended:\n{}", peer.log());
            (peer.docker(&["version"]).code == 0).then_some(())
        });
        peer
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.path("sock").display())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The server's own process (nsenter has become it).
    pub fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// Podman's own command line on the same store.
    pub fn podman(&self) -> Command {
        let mut command = self.machine.command("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.pid())).arg("podman");
        on_store(&mut command, self.folder.path());
        command
    }

    /// Runs the docker client at this engine.
    pub fn docker(&self, args: &[&str]) -> Ran {
        run(Command::new("docker").env("DOCKER_HOST", self.host()).env("DOCKER_BUILDKIT", "0").args(args))
    }
}

/// Has a `podman` work on a store below `folder`.
fn on_store(command: &mut Command, folder: &Path) {
    command
        .env("CONTAINERS_CONF", folder.join("containers.conf"))
        .env("TMPDIR", folder)
        .arg("--root")
        .arg(folder.join("data"))
        .arg("--runroot")
        .arg(folder.join("exec"))
        .args(["--storage-driver", "overlay", "--tmpdir"])
        .arg(folder.join("tmp"))
        .arg("--network-config-dir")
        .arg(folder.join("networks"));
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {:?}'s log:\n{}", self.kind, self.log());
        }
        for id in self.docker(&["ps", "-aq"]).stdout.split_whitespace() {
            self.docker(&["rm", "-f", "-v", id]);
        }
        if let Some(mut server) = self.server.take() {
            let _ = kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM);
            let _ = server.wait();
        }
        // Both leave mounts of their stores behind.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = self.folder.path().to_string_lossy().into_owned();
        let mut points: Vec<&str> =
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|point| point.starts_with(&own)).collect();
        points.sort_by_key(|point| std::cmp::Reverse(point.len()));
        for point in points {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
