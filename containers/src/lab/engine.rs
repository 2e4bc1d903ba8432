//! An engine of the lab's own: its folders, socket and addresses are nobody else's, and it is gone at the end.

use super::{layers::Layer, processes::started_at, recording::Outcome};
use crate::{
    error::{Context, Error, Result},
    program,
};
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

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The Dockerfile of an image with a busybox and all that it can be.
pub const BUSYBOX: &str = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN mkdir /data\n";

/// A running engine. Dropping it removes its containers and all that it made on the machine.
pub struct Engine {
    folder: PathBuf,
    daemon: Option<Child>,
    pool: Pool,
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
        let mut engine = Engine { folder, daemon: None, pool: Pool::take()?, layers: OnceLock::new() };
        engine.start_daemon()?;
        Ok(engine)
    }

    /// Starts the daemon (again), and waits for its socket.
    pub fn start_daemon(&mut self) -> Result<()> {
        let path = self.folder.join("log");
        let log = File::options().create(true).append(true).open(&path).at("open", &path)?;
        let mut command = daemon(&self.folder)?;
        command.args(["--default-address-pool", &format!("base={},size=24", self.pool.base)]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().doing("start an engine")?;
        self.daemon = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.folder.join("sock")).is_err() {
            let ended = self.daemon.as_mut().is_some_and(|daemon| !matches!(daemon.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(&path).unwrap_or_default();
                return Err(Error::Failed(format!("the lab's engine did not start; its log:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
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

    /// The path of its socket.
    pub fn socket(&self) -> String {
        self.folder.join("sock").to_string_lossy().into_owned()
    }

    /// This program as a client of the engine, ready for arguments.
    pub fn client(&self) -> Result<Command> {
        let mut command = client(&format!("unix://{}", self.socket()))?;
        // Outside of any project.
        command.current_dir(&self.folder);
        Ok(command)
    }

    /// Runs a client's command; what it printed, or its words as the error.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        finish(self.client()?, words)
    }

    /// Builds the image `lab` from a Dockerfile, beside which lie a static busybox and the file `app`.
    pub fn build(&self, dockerfile: &str, app: &str) -> Result<String> {
        let context = self.folder.join("context");
        write_context(&context, "lab", dockerfile, app)?;
        self.run(&["--project-directory", &context.to_string_lossy(), "-f", &file(&context), "build"])
    }
}

/// An engine that is not the lab's: nothing of it is killed, and what the lab makes there is removed.
pub struct Foreign {
    host: String,
    /// Of the lab's image and container.
    name: String,
    folder: PathBuf,
}

impl Foreign {
    /// Builds the lab's image there.
    pub fn at(host: &str, lesson: &Path, dockerfile: &str) -> Result<Foreign> {
        let folder = lesson.join("foreign");
        let name = format!("inception-lab-{}", std::process::id());
        write_context(&folder, &name, dockerfile, "")?;
        let foreign = Foreign { host: host.to_owned(), name, folder };
        foreign.run(&[
            "--project-directory",
            &foreign.folder.to_string_lossy(),
            "-f",
            &file(&foreign.folder),
            "build",
        ])?;
        Ok(foreign)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn run(&self, words: &[&str]) -> Result<String> {
        let mut command = client(&self.host)?;
        command.current_dir(&self.folder);
        finish(command, words)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // What was never made is no trouble.
        let _ = self.run(&["rm", "--force", &self.name]);
        if let Err(error) = self.run(&["rmi", &self.name]) {
            log::warn!("remove the lab's image {}: {error}", self.name);
        }
    }
}

/// Runs a client; what it printed, or its words as the error.
fn finish(mut command: Command, words: &[&str]) -> Result<String> {
    let printed = program::run(command.args(words), &format!("inception {}", words.join(" ")))?;
    Ok(String::from_utf8_lossy(&printed).into_owned())
}

fn file(context: &Path) -> String {
    context.join("compose.yaml").to_string_lossy().into_owned()
}

/// A build context: the Dockerfile, a static busybox, and the Compose file that names the image.
fn write_context(context: &Path, image: &str, dockerfile: &str, app: &str) -> Result<()> {
    fs::create_dir_all(context).at("create", context)?;
    let put = |name: &str, text: &str| {
        let path = context.join(name);
        fs::write(&path, text).at("write", &path)
    };
    put("compose.yaml", &format!("services: {{lab: {{build: ., image: {image}}}}}\n"))?;
    put("Dockerfile", dockerfile)?;
    put("app", app)?;
    let busybox = crate::cli::find_program("busybox").ok_or_else(|| Error::Failed("there is no busybox".into()))?;
    let path = context.join("busybox");
    fs::copy(&busybox, &path).map(drop).at("copy busybox to", &path)
}

fn client(host: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().doing("find this program's own path")?);
    for name in ["COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"] {
        command.env_remove(name);
    }
    command.env("DOCKER_HOST", host);
    Ok(command)
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

/// The outside pid of a container's PID 1, from what `inspect` tells of it.
pub fn container_pid(inspected: Result<String>) -> Option<i32> {
    let found: serde_json::Value = serde_json::from_str(&inspected.ok()?).ok()?;
    found[0]["State"]["Pid"].as_i64().filter(|pid| *pid > 0).map(|pid| pid as i32)
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
    fn clean_up(&mut self) -> Result<()> {
        let containers = self.run(&["ps", "--all", "--quiet"])?;
        let containers: Vec<&str> = containers.split_whitespace().collect();
        if !containers.is_empty() {
            self.run(&[&["rm", "--force", "--volumes"], &containers[..]].concat())?;
        }
        let networks = self.run(&["network", "ls", "--quiet", "--filter", "type=custom"])?;
        for network in networks.split_whitespace() {
            self.run(&["network", "rm", network])?;
        }
        if let Some(mut child) = self.daemon.take() {
            kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).doing("end the lab's engine")?;
            child.wait().doing("wait for the lab's engine")?;
        }
        let output = daemon(&self.folder)?.arg("--teardown").output().doing("take the lab's engine away")?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Error::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
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
        if let Ok(pool) = Pool::take() {
            drop(Engine { folder, daemon: None, pool, layers: OnceLock::new() });
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
