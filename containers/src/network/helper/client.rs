//! The daemon's side of the helper.

use super::{Member, PublishedPort, Reply, Request, socket_path};
use crate::{
    error::{Context, Error, Result},
    sys,
};
use std::{
    fs::OpenOptions,
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest, unix::AsyncFd},
    net::UnixStream,
    process::Command,
    time::{sleep, timeout},
};

/// How long a helper may take to be ready.
const READY: Duration = Duration::from_secs(10);

/// How long a helper may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A helper that answers. Cheap to clone; as long as one of the clones lives, the helper stays.
#[derive(Debug, Clone)]
pub struct Helper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: PathBuf,
    pid: i32,
    pidfd: AsyncFd<OwnedFd>,
    /// Says that a daemon lives. Requests have connections of their own: one that is given up halfway, because the API's
    /// client has gone, can't leave its answer for the next.
    _presence: UnixStream,
}

impl Helper {
    /// Connects to the helper of `exec_root` (an absolute path), or starts one, and returns when it answers. It outlives
    /// this process; what it has to say is in EXEC_ROOT/network-helper.log.
    pub async fn start(exec_root: &Path) -> Result<Helper> {
        let log_path = exec_root.join("network-helper.log");
        Helper::start_with(exec_root, || {
            let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path).at("open", &log_path)?;
            // /proc/self/exe still names this program after its file was replaced.
            let mut command = Command::new("/proc/self/exe");
            command.arg0("inception").arg("network-helper").arg(exec_root).current_dir("/");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            Ok(command)
        })
        .await
    }

    /// Like `start`, with another command.
    pub(super) async fn start_with(exec_root: &Path, command: impl Fn() -> Result<Command>) -> Result<Helper> {
        let deadline = Instant::now() + READY;
        let mut child = None;
        loop {
            // One that is about to end may still take the connection, and then does not answer.
            let failed = match Helper::connect(exec_root).await {
                Ok(helper) => return Ok(helper),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                let log = exec_root.join("network-helper.log");
                return Err(Error::Failed(format!(
                    "the network helper does not answer ({failed}); see {}",
                    log.display()
                )));
            }
            let ended = match &mut child {
                None => true,
                Some(child) => tokio::process::Child::try_wait(child).doing("wait for the network helper")?.is_some(),
            };
            if ended {
                if child.is_some() {
                    // It failed, or another one was first.
                    sleep(Duration::from_millis(100)).await;
                }
                // tokio reaps it in the background once the handle is gone.
                child = Some(command()?.spawn().doing("start the network helper")?);
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn connect(exec_root: &Path) -> Result<Helper> {
        let socket = socket_path(exec_root);
        let mut presence = UnixStream::connect(&socket).await.at("connect to", &socket)?;
        let peer = presence.peer_cred().at("look behind", &socket)?;
        let pid = peer.pid().ok_or(io::ErrorKind::NotConnected).at("look behind", &socket)?;
        let pidfd = sys::pidfd_open(pid).doing(format_args!("open process {pid}"))?;
        // That it answers says that the pidfd is its own, not of another process that was given the pid.
        ask(&mut presence, &Request::Members).await.at("ask", &socket)?;
        let pidfd = sys::watch(pidfd).doing("watch a process")?;
        Ok(Helper(Arc::new(Inner { socket, pid, pidfd, _presence: presence })))
    }

    /// Sets what the helper holds for one container; what it held before goes, but for ports that stay the same. The
    /// published ports with their real host ports, in the order of `member.ports`.
    ///
    /// # Errors
    /// [`Error::Conflict`] for a port that can't be had, as `listen tcp4 0.0.0.0:80: bind: address already in use`.
    /// After any error everything is as it was before.
    pub async fn set(&self, member: &Member) -> Result<Vec<PublishedPort>> {
        match self.ask(&Request::Set(member.clone())).await? {
            Reply::Ports(ports) => Ok(ports),
            other => Err(unexpected(other)),
        }
    }

    /// Gives up what is held for a container; its ports are free when this returns. None held is no error.
    pub async fn release(&self, container_id: &str) -> Result<()> {
        match self.ask(&Request::Release(container_id.into())).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Ids of the containers that something is held for.
    pub async fn members(&self) -> Result<Vec<String>> {
        match self.ask(&Request::Members).await? {
            Reply::Members(ids) => Ok(ids),
            other => Err(unexpected(other)),
        }
    }

    /// Resolves when the helper's process has ended.
    pub async fn ended(&self) {
        match self.0.pidfd.ready(Interest::READABLE).await {
            Ok(mut guard) => guard.retain_ready(),
            Err(error) => log::warn!("watch the network helper: {error}"),
        }
    }

    /// The helper's process id.
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    async fn ask(&self, request: &Request) -> Result<Reply> {
        let socket = &self.0.socket;
        let mut stream = UnixStream::connect(socket).await.at("connect to", socket)?;
        match ask(&mut stream, request).await.at("ask", socket)? {
            Reply::Refused(message) => Err(Error::Conflict(message)),
            Reply::Failed(message) => Err(Error::Failed(message)),
            reply => Ok(reply),
        }
    }
}

async fn ask(stream: &mut UnixStream, request: &Request) -> io::Result<Reply> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let answer = timeout(ANSWER, async {
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        BufReader::new(stream).read_until(b'\n', &mut answer).await?;
        Ok::<_, io::Error>(answer)
    });
    let answer = answer.await??;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

fn unexpected(reply: Reply) -> Error {
    Error::Failed(format!("the network helper gave an answer to something else: {reply:?}"))
}
