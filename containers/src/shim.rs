//! The daemon's side of a shim: spawn it, talk to it, adopt it, wait for its end. The other side is the package
//! inception-shim.

use crate::{
    beside,
    error::{Context, Error, Result},
    sys,
};
pub use inception_shim::{Config, Exit, Log, NetworkNamespace, Overlay, Process};
use inception_shim::{Reply, Request};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest, unix::AsyncFd},
    net::UnixStream,
    process::Command,
};

/// The file of a container's or build step's folder that configures its shim, by which the shim is found again.
pub const FILE: &str = "shim.json";

/// A running shim, spawned by this daemon or adopted from one before it.
#[derive(Debug)]
pub struct Shim {
    /// The shim's pid and start time (field 22 of /proc/PID/stat): together they name one process for ever.
    pub pid: i32,
    pub started: u64,
    pub config: Config,
    pidfd: AsyncFd<OwnedFd>,
}

/// The program inception-shim, held open: a daemon and its shims understand each other also after the file was replaced
/// by that of another version.
pub struct Program(File);

impl Program {
    /// Beside this program, where it is installed and built.
    pub fn open() -> Result<Program> {
        let path = beside::find("inception-shim").ok_or_else(|| {
            Error::Failed("the program inception-shim is not found beside this one: build it (make does)".into())
        })?;
        File::open(&path).at("open", &path).map(Program)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        command.arg0("inception-shim");
        // Those are for the daemon, from its service manager. runc takes them for the container's: it would wait until the
        // program inside says that it is ready.
        for variable in ["NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(variable);
        }
        command
    }
}

/// Starts a shim for `config` (written to `config_file`) and returns when its socket answers. Its network namespace is
/// /proc/PID/ns/net from then on.
pub async fn spawn(program: &Program, config: Config, config_file: &Path) -> Result<Shim> {
    let json = serde_json::to_vec(&config).map_err(std::io::Error::from).at("encode", config_file)?;
    fs::write(config_file, json).at("write", config_file)?;
    let mut child =
        program.command().arg(config_file).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().doing("start a shim")?;
    let pid = child.id().unwrap_or_default() as i32;
    let pidfd = pidfd(pid)?;
    let started = start_time(pid).unwrap_or_default();
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).await.doing("hear from the shim")?;
    }
    // tokio reaps the child in the background once this handle is gone.
    drop(child);
    match line.trim_end() {
        "ready" => Ok(Shim { pid, started, config, pidfd }),
        "" => Err(Error::Failed("the shim ended before it was ready; see the daemon's log".into())),
        error => Err(Error::Failed(error.into())),
    }
}

impl Shim {
    /// The shim that an earlier daemon started, if it still lives.
    pub fn adopt(config: Config, pid: i32, started: u64) -> Option<Shim> {
        let pidfd = pidfd(pid).ok()?;
        // After the pidfd is open the pid can't be given to another process unseen.
        (start_time(pid)? == started).then_some(Shim { pid, started, config, pidfd })
    }

    /// Starts the process, if it is not started already; its pid on the host.
    pub async fn start(&self) -> Result<i32> {
        match self.ask(Request::Start).await? {
            Reply::Pid(pid) => Ok(pid),
            Reply::Done => Err(Error::Failed("the shim answered without a pid".into())),
            Reply::Failed { message, code } => Err(Error::Runtime { message, code }),
        }
    }

    /// A stream of output (and input); connect before `start` to miss nothing.
    pub async fn attach(&self, stdin: bool, stdout: bool, stderr: bool) -> Result<UnixStream> {
        self.send(Request::Attach { stdin, stdout, stderr }).await
    }

    /// Sets the terminal's size.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.ask(Request::Resize { rows, columns }).await.map(drop)
    }

    /// Waits for the shim's end (pidfd) and reads its exit file; `None`: it was killed before it wrote one.
    pub async fn wait(&self) -> Result<Option<Exit>> {
        self.pidfd.ready(Interest::READABLE).await.doing("wait for a shim")?.retain_ready();
        read_exit(&self.config.exit_file)
    }

    /// Whether the shim still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    async fn ask(&self, request: Request) -> Result<Reply> {
        let mut stream = self.send(request).await?;
        let mut line = Vec::new();
        stream.read_to_end(&mut line).await.at("read from", &self.config.socket)?;
        serde_json::from_slice(&line).map_err(std::io::Error::from).at("understand the answer of", &self.config.socket)
    }

    async fn send(&self, request: Request) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.config.socket).await.at("connect to", &self.config.socket)?;
        let mut line = serde_json::to_vec(&request).map_err(std::io::Error::from).doing("encode a request")?;
        line.push(b'\n');
        stream.write_all(&line).await.at("write to", &self.config.socket)?;
        Ok(stream)
    }
}

/// The exit file of a shim that has ended.
pub fn read_exit(path: &Path) -> Result<Option<Exit>> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(std::io::Error::from).at("understand", path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("read", path),
    }
}

fn pidfd(pid: i32) -> Result<AsyncFd<OwnedFd>> {
    let fd = sys::pidfd_open(pid).doing(format_args!("open process {pid}"))?;
    sys::watch(fd).doing("watch a process")
}

/// Field 22 of /proc/PID/stat (proc(5)): clock ticks after boot; None for a process that has ended.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl Shim {
    /// Ends a shim that failed or was killed, and its container with it.
    pub async fn cleanup(&self) {
        if let Ok(fd) = sys::pidfd_open(self.pid)
            && self.is_alive()
            && let Err(error) = sys::pidfd_send_signal(&fd, libc::SIGKILL)
        {
            log::warn!("end shim {}: {error}", self.pid);
        }
        delete_container(&self.config).await;
    }
}

/// Every shim that runs on this machine, by the file that its configuration is in.
pub fn running() -> HashMap<PathBuf, i32> {
    let shim = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let file = line.strip_prefix(b"inception-shim\0")?.strip_suffix(b"\0")?;
        Some((PathBuf::from(OsStr::from_bytes(file)), pid))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(shim).collect()
}

/// Ends what a daemon that was killed left of a shim and its container.
pub async fn end(config: Config, pid: Option<i32>) -> Result<()> {
    match pid.and_then(|pid| Shim::adopt(config.clone(), pid, start_time(pid)?)) {
        Some(shim) => {
            shim.cleanup().await;
            shim.wait().await.map(drop)
        }
        None => {
            delete_container(&config).await;
            Ok(())
        }
    }
}

/// Has the runtime kill and forget what it still knows of a container, and removes the shim's sockets.
pub async fn delete_container(config: &Config) {
    if matches!(config.process, Process::Container { .. }) {
        let output = Command::new(&config.runtime)
            .arg("--root")
            .arg(&config.runtime_root)
            .args(["delete", "--force", &config.container_id])
            .stdin(Stdio::null())
            .output()
            .await;
        if let Err(error) = output {
            log::warn!("run {}: {error}", config.runtime.display());
        }
    }
    for path in [config.socket.clone(), config.socket.with_extension("tty")] {
        let _ = fs::remove_file(path);
    }
}
