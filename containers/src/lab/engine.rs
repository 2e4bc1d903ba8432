//! An engine of the lab's own: its folders, socket and addresses are nobody else's, and it is gone at the end.

use super::{
    connection::{Connection, ContextFile, busybox, busybox_root},
    layers::Layer,
    processes::started_at,
    recording::Outcome,
};
use crate::error::{Context, Error, Result};
use bollard::query_parameters::RemoveImageOptions;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

/// The engine's folder in a lesson's.
const FOLDER: &str = "engine";

/// The lab's image.
pub const IMAGE: &str = "lab";

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running engine. Dropping it removes its containers and all that it made on the machine.
pub struct Engine {
    folder: PathBuf,
    daemon: Option<Child>,
    pool: Pool,
    connection: Connection,
    /// What lesson 16 found in the image that its columns have in common.
    pub layers: OnceLock<std::result::Result<Vec<Layer>, String>>,
}

/// The engine that a lesson's runs have in common; started by the first that wants it.
pub type SharedEngine = Mutex<Option<Arc<Engine>>>;

impl Engine {
    /// Why there can be none; none where there can.
    pub fn missing() -> Option<Outcome> {
        if !geteuid().is_root() {
            return Some(Outcome::NotApplicable("an engine needs root: run it with sudo".into()));
        }
        let programs = [("runc", "apt install runc"), ("busybox", "apt install busybox-static")];
        let absent = programs.iter().find(|(name, _)| crate::cli::find_program(name).is_none());
        absent.map(|(_, install)| Outcome::NotInstalled((*install).into()))
    }

    /// Starts one below a lesson's folder, under this name.
    pub fn start(lesson: &Path, name: &str) -> Result<Engine> {
        let folder = lesson.join(FOLDER).join(name);
        fs::create_dir_all(&folder).at("create", &folder)?;
        Engine::in_folder(folder)
    }

    fn in_folder(folder: PathBuf) -> Result<Engine> {
        let pool = Pool::take()?;
        let (daemon, connection) = launch(&folder, &pool)?;
        Ok(Engine { folder, daemon: Some(daemon), pool, connection, layers: OnceLock::new() })
    }

    /// Starts the daemon again, and waits for its socket.
    pub fn start_daemon(&mut self) -> Result<()> {
        let (daemon, connection) = launch(&self.folder, &self.pool)?;
        (self.daemon, self.connection) = (Some(daemon), connection);
        Ok(())
    }

    /// The daemon's pid.
    pub fn pid(&self) -> i32 {
        self.daemon.as_ref().map_or(0, |daemon| daemon.id() as i32)
    }

    /// Kills the daemon, and nothing else.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// To ask it.
    pub fn api(&self) -> &Connection {
        &self.connection
    }

    /// This program as a client of the engine, ready for arguments: for who wants to see a client.
    pub fn client(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().doing("find this program's own path")?);
        command.env("DOCKER_HOST", format!("unix://{}", self.folder.join("sock").display()));
        Ok(command)
    }

    /// Makes the image `lab`: a busybox and the folder `/data`.
    pub fn make_busybox(&self) -> Result<()> {
        let root = busybox_root(&busybox()?)?;
        self.connection.build(
            IMAGE,
            "FROM scratch\nADD root.tar /\n",
            &[ContextFile { name: "root.tar", content: &root }],
        )
    }
}

/// An engine that is not the lab's: nothing of it is killed, and what the lab makes there is removed.
pub struct Foreign {
    connection: Connection,
    /// Of the lab's image and container.
    name: String,
}

impl Foreign {
    /// Builds the lab's image there.
    pub fn at(socket: &str, dockerfile: &str) -> Result<Foreign> {
        let connection = Connection::to_socket(socket)?.negotiated()?;
        let foreign = Foreign { connection, name: format!("inception-lab-{}", std::process::id()) };
        let content = busybox()?;
        foreign.connection.build(&foreign.name, dockerfile, &[ContextFile { name: "busybox", content: &content }])?;
        Ok(foreign)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn api(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // What was never made is no trouble.
        let _ = self.connection.remove(&self.name);
        let docker = &self.connection.docker;
        let removed = self.connection.wait(
            format!("remove the lab's image {}", self.name),
            docker.remove_image(&self.name, None::<RemoveImageOptions>, None),
        );
        if let Err(error) = removed {
            log::warn!("{error}");
        }
    }
}

/// Starts a daemon, and waits for its socket.
fn launch(folder: &Path, pool: &Pool) -> Result<(Child, Connection)> {
    let (path, socket) = (folder.join("log"), folder.join("sock"));
    let log = File::options().create(true).append(true).open(&path).at("open", &path)?;
    let mut command = daemon(folder)?;
    command.args(["--default-address-pool", &format!("base={},size=24", pool.base)]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().doing("start an engine")?;
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(&socket).is_err() {
        if !matches!(child.try_wait(), Ok(None)) || Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let _ = take_away(folder);
            let log = fs::read_to_string(&path).unwrap_or_default();
            return Err(Error::Failed(format!("the lab's engine did not start; its log:\n{log}")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok((child, Connection::to_socket(&socket.to_string_lossy())?))
}

/// The daemon of a folder.
fn daemon(folder: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().doing("find this program's own path")?);
    command.arg("daemon").arg("--host").arg(format!("unix://{}", folder.join("sock").display()));
    command.arg("--data-root").arg(folder.join("data")).arg("--exec-root").arg(folder.join("exec"));
    // Ctrl-C is the lab's, which ends it in its own time.
    crate::sys::before_exec(&mut command, || nix::unistd::setsid().map(drop).map_err(Into::into));
    Ok(command)
}

impl Drop for Engine {
    fn drop(&mut self) {
        let is_gone = |daemon: &mut Child| !matches!(daemon.try_wait(), Ok(None));
        if self.daemon.as_mut().is_none_or(is_gone)
            && let Err(error) = self.start_daemon()
        {
            log::warn!("clean up after the lab's engine: {error}");
        }
        if let Err(error) = self.clean_up() {
            log::warn!("clean up after the lab's engine: {error}");
        }
    }
}

impl Engine {
    /// Whatever fails, the rest is done: the first error.
    fn clean_up(&mut self) -> Result<()> {
        let removed = self.connection.remove_all();
        let ended = self.end_daemon();
        removed.and(ended).and(take_away(&self.folder))
    }

    fn end_daemon(&mut self) -> Result<()> {
        let Some(mut child) = self.daemon.take() else { return Ok(()) };
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).doing("end the lab's engine")?;
        child.wait().map(drop).doing("wait for the lab's engine")
    }
}

/// Removes what a daemon that has ended left on the machine.
fn take_away(folder: &Path) -> Result<()> {
    let output = daemon(folder)?.arg("--teardown").output().doing("take the lab's engine away")?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Takes away the engines of a killed lab's folder: it is started once more, for that.
pub fn remove_stale(lesson: &Path) {
    for entry in fs::read_dir(lesson.join(FOLDER)).into_iter().flatten().flatten() {
        let folder = entry.path();
        // The killed lab's daemon may outlive it.
        let pid = fs::read_to_string(folder.join("exec/inception.pid")).ok();
        if let Some(pid) = pid.and_then(|text| text.trim().parse::<i32>().ok())
            && is_daemon_of(pid, &folder)
        {
            let started = started_at(pid);
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let deadline = Instant::now() + PATIENCE;
            while started_at(pid) == started && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // To drop it is to take it away.
        if let Err(error) = Engine::in_folder(folder) {
            log::warn!("clean up after a killed lab: {error}");
        }
    }
}

fn is_daemon_of(pid: i32, folder: &Path) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).contains(&*folder.to_string_lossy())
}

/// 4096 addresses of those for tests of networks (198.18.0.0/15), which no other lab uses now.
struct Pool {
    base: String,
    _lock: Flock<File>,
}

impl Pool {
    fn take() -> Result<Pool> {
        let folder = std::env::temp_dir().join("inception-lab-pools");
        fs::create_dir_all(&folder).at("create", &folder)?;
        for slot in 0..8 {
            let path = folder.join(slot.to_string());
            let file = File::create(&path).at("create", &path)?;
            if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                return Ok(Pool { base: format!("198.19.{}.0/20", slot * 16), _lock: lock });
            }
        }
        Err(Error::Failed("more than 8 engines of labs at a time".into()))
    }
}
