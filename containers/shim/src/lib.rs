//! The shim: one small process for each container or exec session. It owns the process's stdio, its log and its exit
//! status, and lives on when the daemon dies. Single-threaded and blocking, and a program of its own, because there is
//! one for each container: what it costs is paid as often. This library is what the daemon and the shim say to each other.
//!
//! `inception-shim CONFIG` reads a [`Config`] from the file CONFIG and writes one line on stdout: "ready", or what
//! failed. On its unix socket (0600) a client connects and sends one JSON line, a [`Request`].
//! * `Attach`: from then on the connection is a stream: output as Docker's multiplexed frames (8-byte header; raw
//!   where the process has a terminal), input as raw bytes until the client shuts down its writing half.
//! * the others: one JSON line, a [`Reply`], and the end.

use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Everything that a shim is told, as a JSON file whose path is its one argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// The name under which the OCI runtime knows the container.
    pub container_id: String,
    /// The OCI runtime program (runc, crun, youki) and its state folder (`--root`).
    pub runtime: PathBuf,
    pub runtime_root: PathBuf,
    /// What this shim runs.
    pub process: Process,
    /// The process has a pseudo-terminal.
    pub tty: bool,
    /// Keep stdin open for attached clients; otherwise it is /dev/null.
    pub stdin: bool,
    /// End stdin when the first attached client ends its side.
    pub stdin_once: bool,
    /// The host's uid that owns the stdio pipes, so that a non-root service can reopen /dev/stdout.
    pub stdio_uid: u32,
    /// The json-file log; none for exec sessions and build steps.
    pub log: Option<Log>,
    /// Where the shim listens.
    pub socket: PathBuf,
    /// Where the shim writes an [`Exit`] as JSON, by fsync and rename, as its last act.
    pub exit_file: PathBuf,
}

/// What a shim runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Process {
    /// A container's first process: mount the root file system in a mount namespace of the shim's own, enter the network
    /// namespace (the container inherits it: its spec names none), and on `Start` `runc run --detach`. `cgroup` is the
    /// container's, from the root of a hierarchy on.
    Container {
        bundle: PathBuf,
        rootfs: Overlay,
        // A daemon that comes back may find the shims of a version that did not have it.
        #[serde(default)]
        cgroup: PathBuf,
        network: NetworkNamespace,
        sysctls: BTreeMap<String, String>,
    },
    /// A further process in a running container: `runc exec --detach --process FILE`, from within the container's network
    /// namespace, of which the runtime knows nothing.
    Exec { process_file: PathBuf, pid_file: PathBuf, network: NetworkNamespace },
}

/// The network namespace that a shim enters and that its process inherits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum NetworkNamespace {
    /// A fresh one with `lo` up, /proc/SHIM/ns/net to others. `sysctls` (net.*) are set in it: the runtime would refuse to.
    Own,
    /// The host's.
    Host,
    /// Another container's, as /proc/PID/ns/net.
    Join(PathBuf),
}

/// An overlay mount: the container's root file system.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overlay {
    /// Read-only layers, the topmost first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// The mount point.
    pub merged: PathBuf,
    /// overlayfs's `volatile`: no fsync reaches the disk. For build steps.
    pub volatile: bool,
}

impl Overlay {
    /// Mounts it in the caller's mount namespace (mount(2)).
    pub fn mount(&self) -> nix::Result<()> {
        let lower: Vec<String> = self.lower.iter().map(|path| path.display().to_string()).collect();
        let mut options =
            format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), self.upper.display(), self.work.display());
        if self.volatile {
            options.push_str(",volatile");
        }
        mount(Some("overlay"), &self.merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
    }
}

/// A json-file log with rotation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Log {
    pub path: PathBuf,
    /// Bytes after which a file is rotated; 0: never.
    pub max_size: u64,
    /// Files kept, the current one included.
    pub max_file: u32,
}

/// A request to a shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Start the process. Reply::Pid or Reply::Failed, also where it was started before.
    Start,
    /// Stream; see the module's text.
    Attach { stdin: bool, stdout: bool, stderr: bool },
    /// Set the terminal's size.
    Resize { rows: u16, columns: u16 },
}

/// A shim's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// The first process's pid on the host.
    Pid(i32),
    Done,
    /// What failed, with the runtime's last words. `code` is what a shell would see (126, 127, 128).
    Failed {
        message: String,
        code: i32,
    },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0-255; 128+n for signal n.
    pub code: i32,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
    /// RFC 3339, UTC, nanoseconds.
    pub finished_at: String,
    /// Why the process never started.
    pub error: Option<String>,
}
