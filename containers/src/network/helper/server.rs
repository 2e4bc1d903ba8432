//! The helper's process: its life, its control socket, and what it holds.

use super::{
    Member, PublishedPort, Reply, Request, dns,
    forward::Transport,
    names::{self, Decision, Turns},
    pidfile_path,
    ports::{self, Port},
    quota::{Bounds, Quota},
    socket_path, sockets,
};
use crate::{
    error::{Context, Error, Result},
    shim::start_time,
    sys,
};
use futures_util::StreamExt;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::stat::{Mode, umask},
    unistd::setsid,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
    rc::Rc,
    time::Duration,
};
use tokio::{
    io::{AsyncWriteExt, Interest, unix::AsyncFd},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::{Mutex, Notify},
    task::{JoinHandle, LocalSet, spawn_local},
    time::sleep,
};
use tokio_util::codec::{FramedRead, LinesCodec};

/// How long the helper stays without a member and without a daemon.
const GRACE: Duration = Duration::from_secs(10);

/// Longest request, in bytes.
const REQUEST: usize = 4 << 20;

/// Runs the helper until it is told to end or is of no use. `exec_root`: where its socket and its state lie.
pub fn serve(exec_root: &Path) -> Result<()> {
    serve_with(exec_root, GRACE)
}

/// Like `serve`, with another grace.
pub(super) fn serve_with(exec_root: &Path, grace: Duration) -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().filter_or("INCEPTION_LOG", "info"))
        .format_timestamp_millis()
        .init();
    // A session leader already is as good.
    let _ = setsid();
    let mut lock = lock(exec_root)?;
    let own = std::process::id();
    writeln!(lock, "{own} {}", start_time(own as i32).unwrap_or_default()).at("write", &pidfile_path(exec_root))?;
    let ended =
        tokio::runtime::Builder::new_current_thread().enable_all().build().doing("start the async runtime")?.block_on(
            LocalSet::new().run_until(async {
                let mut terminate = signal(SignalKind::terminate()).doing("watch SIGTERM")?;
                tokio::select! {
                    ended = run(exec_root, grace) => ended,
                    _ = terminate.recv() => {
                        log::info!("SIGTERM: ending");
                        Ok(())
                    }
                }
            }),
        );
    // The lock goes last: whoever gets it next finds nothing of ours.
    for path in [socket_path(exec_root), pidfile_path(exec_root)] {
        let _ = fs::remove_file(path);
    }
    ended
}

/// Takes the pidfile's lock: one helper an exec root, however it dies.
fn lock(exec_root: &Path) -> Result<Flock<File>> {
    let path = pidfile_path(exec_root);
    loop {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = Flock::lock(file.at("open", &path)?, FlockArg::LockExclusiveNonblock)
            .map_err(|_| Error::Failed(format!("another network helper serves {}", exec_root.display())))?;
        let ours = file.metadata().at("look at", &path)?.ino();
        // One that was ending may have removed the file between the two calls.
        if fs::metadata(&path).is_ok_and(|now| now.ino() == ours) {
            file.set_len(0).at("empty", &path)?;
            return Ok(file);
        }
    }
}

/// Serves the control socket until nothing was held and nobody was connected for `grace`. Inside a [`LocalSet`].
pub async fn run(exec_root: &Path, grace: Duration) -> Result<()> {
    let path = socket_path(exec_root);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("remove the old", &path),
        _ => {}
    }
    let old = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(&path).at("listen on", &path);
    umask(old);
    let listener = listener?;
    let shared = Rc::new(Shared::new());
    tokio::select! {
        () = accept(&listener, &shared) => {}
        () = shared.useless(grace) => {}
    }
    shared.release_all().await;
    Ok(())
}

async fn accept(listener: &UnixListener, shared: &Rc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(spawn_local(converse(stream, Connected::new(shared)))),
            Err(error) => {
                log::warn!("accept: {error}");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Answers a connection's requests until it ends.
async fn converse(mut stream: UnixStream, connected: Connected) {
    let (read, mut write) = stream.split();
    let mut lines = FramedRead::new(read, LinesCodec::new_with_max_length(REQUEST));
    while let Some(Ok(line)) = lines.next().await {
        let reply = match serde_json::from_str(&line) {
            Ok(request) => connected.0.handle(request).await,
            Err(error) => Reply::Failed(format!("understand a request: {error}")),
        };
        let Ok(mut line) = serde_json::to_vec(&reply) else { return };
        line.push(b'\n');
        if write.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Counts a connection for as long as it is there.
struct Connected(Rc<Shared>);

impl Connected {
    fn new(shared: &Rc<Shared>) -> Connected {
        shared.connections.set(shared.connections.get() + 1);
        Connected(Rc::clone(shared))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.changed.notify_one();
    }
}

/// What the helper holds.
pub struct Shared {
    held: RefCell<BTreeMap<String, Held>>,
    /// Taken for every change, so that no two of them mix.
    changing: Mutex<()>,
    connections: Cell<usize>,
    /// A connection or a member has gone.
    changed: Notify,
    bounds: Bounds,
}

/// One member and its sockets.
struct Held {
    member: Member,
    quota: Quota,
    /// Waits for the shim's end.
    watch: JoinHandle<()>,
    resolver: Option<JoinHandle<Result<()>>>,
    ports: Vec<Port>,
    turns: Turns,
}

impl Held {
    /// Gives up everything; ports are free when this returns. Last the watch, which may be the caller.
    async fn close(self) {
        for port in self.ports {
            port.stop().await;
        }
        if let Some(resolver) = self.resolver {
            stop(resolver).await;
        }
        self.watch.abort();
    }
}

/// Ends a task and waits until what it holds is dropped.
pub async fn stop(task: JoinHandle<Result<()>>) {
    task.abort();
    let _ = task.await;
}

impl Shared {
    fn new() -> Shared {
        Shared {
            held: RefCell::default(),
            changing: Mutex::new(()),
            connections: Cell::new(0),
            changed: Notify::new(),
            bounds: Bounds::of_process(),
        }
    }

    /// What to do about a query that came from inside container `id`.
    pub fn decide(&self, id: &str, packet: &[u8], transport: Transport) -> Decision {
        let held = self.held.borrow();
        match held.get(id) {
            Some(asker) => {
                let members = held.values().map(|held| &held.member);
                names::decide(packet, transport, &asker.member, members, &asker.turns)
            }
            None => Decision::Ignore,
        }
    }

    async fn handle(self: &Rc<Self>, request: Request) -> Reply {
        match request {
            Request::Members => Reply::Members(self.held.borrow().keys().cloned().collect()),
            Request::Release(id) => {
                self.release(&id, |_| true).await;
                Reply::Done
            }
            Request::Set(member) => match self.set(member).await {
                Ok(ports) => Reply::Ports(ports),
                Err(Error::Conflict(message)) => Reply::Refused(message),
                Err(error) => Reply::Failed(error.to_string()),
            },
        }
    }

    /// Makes a member what `member` says. Everything that can fail comes before the first change.
    async fn set(self: &Rc<Self>, member: Member) -> Result<Vec<PublishedPort>> {
        let _changing = self.changing.lock().await;
        let id = member.container_id.clone();
        let shim = watched(&member)?;
        let (has_resolver, matched) = match self.held.borrow().get(&id) {
            Some(held) => {
                let same_shim = (held.member.pid, held.member.started) == (member.pid, member.started);
                (same_shim && held.resolver.is_some(), ports::match_up(&member.ports, &held.ports))
            }
            None => (false, vec![None; member.ports.len()]),
        };
        let is_new = |(proxy, there): (_, &Option<usize>)| there.is_none().then_some(proxy);
        let new: Vec<_> = member.ports.iter().map(|proxy| &proxy.port).zip(&matched).filter_map(is_new).collect();
        let mut listeners = ports::bind(&new)?.into_iter();
        let sockets = match member.resolver && !has_resolver {
            true => Some(sockets::resolver_sockets(member.pid, member.started).await?),
            false => None,
        };

        let old = self.held.borrow_mut().remove(&id);
        let (quota, turns, old_ports, mut old_resolver) = match old {
            Some(old) => {
                old.watch.abort();
                (old.quota, old.turns, old.ports, old.resolver)
            }
            None => (self.bounds.quota(), Turns::default(), Vec::new(), None),
        };
        let mut old_ports: Vec<_> = old_ports.into_iter().map(Some).collect();
        let mut ports = Vec::new();
        for (proxy, index) in member.ports.iter().zip(matched) {
            let kept = index.and_then(|index| old_ports.get_mut(index)?.take());
            ports.extend(match kept {
                Some(port) => Some(port.redirected(proxy)),
                None => listeners.next().map(|listener| Port::serve(listener, proxy, quota.clone())),
            });
        }
        let kept = if has_resolver && member.resolver { old_resolver.take() } else { None };
        let resolver = sockets.map_or(kept, |sockets| {
            Some(spawn_local(dns::serve(Rc::clone(self), id.as_str().into(), quota.clone(), sockets)))
        });
        let watch = spawn_local(Rc::clone(self).release_with(shim, id.clone(), member.pid, member.started));
        let published = ports.iter().map(|port| port.published.clone()).collect();
        self.held.borrow_mut().insert(id, Held { member, quota, watch, resolver, ports, turns });
        for port in old_ports.into_iter().flatten() {
            port.stop().await;
        }
        if let Some(resolver) = old_resolver {
            stop(resolver).await;
        }
        Ok(published)
    }

    /// Waits for a shim's end and releases its member.
    async fn release_with(self: Rc<Self>, shim: AsyncFd<OwnedFd>, id: String, pid: i32, started: u64) {
        if let Err(error) = shim.ready(Interest::READABLE).await {
            log::warn!("watch process {pid}: {error}");
        }
        self.release(&id, |member| (member.pid, member.started) == (pid, started)).await;
    }

    /// Gives up a member if it is there and `condition` holds.
    async fn release(&self, id: &str, condition: impl Fn(&Member) -> bool) {
        let _changing = self.changing.lock().await;
        let is_meant = self.held.borrow().get(id).is_some_and(|held| condition(&held.member));
        let held = if is_meant { self.held.borrow_mut().remove(id) } else { None };
        self.changed.notify_one();
        if let Some(held) = held {
            held.close().await;
        }
    }

    async fn release_all(&self) {
        let _changing = self.changing.lock().await;
        let all = std::mem::take(&mut *self.held.borrow_mut());
        for held in all.into_values() {
            held.close().await;
        }
    }

    /// Resolves when nothing has been held and nobody connected for `grace`.
    async fn useless(&self, grace: Duration) {
        let is_useful = || self.connections.get() > 0 || !self.held.borrow().is_empty();
        loop {
            if is_useful() {
                self.changed.notified().await;
                continue;
            }
            tokio::select! {
                () = sleep(grace) => if !is_useful() { return },
                () = self.changed.notified() => {}
            }
        }
    }
}

/// The member's shim, if it is the process that it is meant to be.
fn watched(member: &Member) -> Result<AsyncFd<OwnedFd>> {
    let ended =
        || Error::Failed(format!("the shim of container {} (pid {}) has ended", member.container_id, member.pid));
    let pidfd = sys::pidfd_open(member.pid).map_err(|_| ended())?;
    // After the pidfd is open the pid can't be given to another process unseen.
    if start_time(member.pid) != Some(member.started) {
        return Err(ended());
    }
    sys::watch(pidfd).doing("watch a process")
}
