//! An engine for one test: own data root, socket, names and subnets; gone at the end, whatever happened.

#![allow(dead_code, reason = "every feature uses a part of it")]

use crate::peers::Machine;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// The program under test.
pub const INCEPTION: &str = env!("CARGO_BIN_EXE_inception");

/// The image that [`Engine::with_busybox`] loads: a static busybox with its links.
pub const BUSYBOX: &str = "busybox:test";

/// A running engine, and the folder that is all of it.
pub struct Engine {
    folder: PathBuf,
    pool: Pool,
    daemon: Option<Child>,
    options: Vec<String>,
    /// Words before the program's name: what puts it on another machine (a network namespace).
    within: Vec<String>,
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Engine {
    /// Starts an engine with dockerd's options beside the harness's own.
    pub fn start_with(options: &[&str]) -> Engine {
        Engine::start_within(options, Vec::new())
    }

    pub fn start_within(options: &[&str], within: Vec<String>) -> Engine {
        let folder = tempfile::Builder::new().prefix("inception-e2e-").tempdir().unwrap().keep();
        let mut engine = Engine {
            pool: Pool::take(&folder),
            folder,
            daemon: None,
            options: options.iter().map(|option| option.to_string()).collect(),
            within,
        };
        engine.start_daemon();
        engine
    }

    pub fn start() -> Engine {
        Engine::start_with(&[])
    }

    /// An engine that has [`BUSYBOX`].
    pub fn with_busybox() -> Engine {
        Engine::start().load_busybox()
    }

    /// Such an engine on a machine of the test's own.
    pub fn with_busybox_in(machine: &Machine) -> Engine {
        Engine::start_within(&[], machine.words()).load_busybox()
    }

    pub fn load_busybox(self) -> Engine {
        let engine = self;
        let archive = engine.path("busybox.tar");
        busybox_archive(&archive);
        engine.docker(&["import", archive.to_str().unwrap(), BUSYBOX]).ok();
        engine
    }

    /// A path in the engine's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.path("engine.sock").display())
    }

    /// The first three numbers of the addresses that this test may use, as `198.18.160`; 16 of them in a row are its own.
    pub fn subnet(&self, number: u8) -> String {
        assert!(number < 16);
        format!("198.{}.{}", self.pool.base / 256, self.pool.base % 256 + u16::from(number))
    }

    /// Starts (again) the daemon on the engine's folder and waits until its socket answers.
    pub fn start_daemon(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let child = self
            .program()
            .arg("daemon")
            .args(["--host", &self.host()])
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .args(["--default-address-pool", &format!("base={}.0/20,size=24", self.subnet(0))])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(self.path("engine.sock")).is_err() {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "the daemon did not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The program under test, on the engine's machine.
    fn program(&self) -> Command {
        match self.within.split_first() {
            None => Command::new(INCEPTION),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(INCEPTION);
                command
            }
        }
    }

    pub fn daemon_pid(&self) -> Pid {
        Pid::from_raw(self.daemon.as_ref().unwrap().id() as i32)
    }

    /// Ends the daemon by a signal and waits for its end; containers go on.
    pub fn end_daemon(&mut self, signal: Signal) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = kill(Pid::from_raw(daemon.id() as i32), signal);
            daemon.wait().unwrap();
        }
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// A docker client at this engine, ready for more arguments.
    pub fn docker_command(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.host()).env("DOCKER_BUILDKIT", "0").env("DOCKER_CONFIG", self.path("client"));
        command
    }

    /// Runs the docker client.
    pub fn docker(&self, args: &[&str]) -> Ran {
        run(self.docker_command().args(args))
    }

    /// Runs the docker client with `input` on its stdin.
    pub fn docker_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        run_with_input(self.docker_command().args(args), input)
    }

    /// The companion at this engine.
    pub fn inception(&self, args: &[&str]) -> Ran {
        run(Command::new(INCEPTION).env("DOCKER_HOST", self.host()).args(args))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
        if self.daemon.as_mut().is_none_or(|daemon| daemon.try_wait().is_ok_and(|ended| ended.is_some())) {
            self.daemon = None;
            if !std::thread::panicking() {
                self.start_daemon();
            }
        }
        let ids = self.docker(&["ps", "-aq"]).stdout;
        for id in ids.split_whitespace() {
            self.docker(&["rm", "-f", "-v", id]);
        }
        let ids = self.docker(&["network", "ls", "-q", "--filter", "type=custom"]).stdout;
        for id in ids.split_whitespace() {
            self.docker(&["network", "rm", id]);
        }
        self.end_daemon(Signal::SIGTERM);
        let leaves = self
            .program()
            .args(["daemon", "--teardown"])
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .output();
        if let Ok(output) = leaves
            && !output.status.success()
        {
            eprintln!("traces left: {}", String::from_utf8_lossy(&output.stderr));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Ran {
    /// Asserts success; what stdout said, trimmed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout.trim_end().to_string()
    }

    /// Asserts failure with `code` and that stderr (or stdout) says `text`.
    #[track_caller]
    pub fn fails(self, code: i32, text: &str) -> String {
        let said = format!("{}{}", self.stdout, self.stderr);
        assert_eq!(self.code, code, "said:\n{said}");
        assert!(said.contains(text), "should say {text:?}, said:\n{said}");
        said
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        use std::os::unix::process::ExitStatusExt;
        Ran {
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ran {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}")).into()
}

/// Runs a command with `input` on its stdin.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.into()
}

/// Asks until `check` gives something, for at most `seconds`.
#[track_caller]
pub fn eventually<T>(seconds: u64, what: &str, check: impl FnMut() -> Option<T>) -> T {
    ask_every(Duration::from_millis(20), seconds, what, check)
}

/// The same with another pause between two questions.
#[track_caller]
pub fn ask_every<T>(pause: Duration, seconds: u64, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(pause);
    }
}

/// A tar with a static busybox, its links, and the folders and accounts that a small system has.
pub fn busybox_archive(path: &Path) {
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    let mut header = tar::Header::new_gnu();
    for folder in ["bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "var"] {
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        tar.append_data(&mut header, folder, std::io::empty()).unwrap();
    }
    header.set_mode(0o1777);
    tar.append_data(&mut header, "tmp", std::io::empty()).unwrap();
    let accounts = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/home:/bin/sh\n"),
        ("etc/group", "root:x:0:\nwww:x:33:\nextra:x:44:www\n"),
    ];
    for (name, text) in accounts {
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed by `make test`");
    header.set_mode(0o755);
    header.set_size(busybox.len() as u64);
    tar.append_data(&mut header, "bin/busybox", busybox.as_slice()).unwrap();
    let applets = String::from_utf8(Command::new("/bin/busybox").arg("--list").output().unwrap().stdout).unwrap();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    tar.finish().unwrap();
}

/// Sixteen /24 networks out of 198.18.0.0/15 that no other running test has.
struct Pool {
    /// 18 * 256 + the third number of the first network.
    base: u16,
    /// Names the folder of the engine that has them, for whoever comes after a crash.
    holder: Flock<File>,
}

impl Pool {
    fn take(folder: &Path) -> Pool {
        loop {
            let mut pool = Pool::lock();
            let mut left = String::new();
            pool.holder.read_to_string(&mut left).unwrap();
            if Path::new(&left).exists() {
                remove_left_behind(left.into(), pool);
                continue;
            }
            pool.holder.set_len(0).unwrap();
            pool.holder.write_all_at(folder.as_os_str().as_encoded_bytes(), 0).unwrap();
            return pool;
        }
    }

    fn lock() -> Pool {
        let folder = std::env::temp_dir().join("inception-e2e-pools");
        fs::create_dir_all(&folder).unwrap();
        // The others are left to engines that a person runs beside the tests.
        for slot in (9..16).chain(24..31_u16) {
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false).open(folder.join(slot.to_string()));
            if let Ok(holder) = Flock::lock(file.unwrap(), FlockArg::LockExclusiveNonblock) {
                return Pool { base: 18 * 256 + slot * 16, holder };
            }
        }
        panic!("more than 14 engines under test at a time");
    }
}

/// Takes away the engine of a test that was killed, by starting it once more.
fn remove_left_behind(folder: PathBuf, pool: Pool) {
    eprintln!("removing what a killed test left in {}", folder.display());
    // Its daemon may have outlived it.
    let pid = fs::read_to_string(folder.join("exec/inception.pid")).ok().and_then(|pid| pid.trim().parse().ok());
    let is_its_daemon = |pid: i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(&*folder.to_string_lossy())
    };
    if let Some(pid) = pid.filter(|pid| is_its_daemon(*pid)) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        eventually(20, "the daemon of a killed test ends", || (!is_its_daemon(pid)).then_some(()));
    }
    drop(Engine { folder: folder.clone(), pool, daemon: None, options: Vec::new(), within: Vec::new() });
    assert!(!folder.exists(), "{} can't be removed", folder.display());
}
