//! The process that has a machine: it starts virtiofsd and qemu, hears the service's exit code, stops the machine when
//! it is told, and writes down how it ended. `inception vm-keeper FOLDER` runs [`serve`], [`start`] is the other side.
//!
//! On its stdout it says a line each: `ready`, when the machine is made and every port is bound; `started`, when the
//! service runs. Before `ready` it may say an error instead, and end. On its stdin it waits for `go`, so that nobody
//! misses the machine's first words. SIGTERM presses the machine's power button, SIGQUIT pulls its plug.

use super::{
    machine::{Exit, Folder, Machine},
    qemu,
    qmp::Qmp,
    share, tools,
};
use crate::error::{Context, Error, Result};
use chrono::Utc;
use nix::unistd::setsid;
use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    net::{UnixListener, UnixStream},
    process::Child,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, sleep_until},
};

/// How long a machine may take to hear of the power button beyond what its service may take to stop: to unmount, and to
/// tell its exit code.
pub const END: u64 = 15;
/// From when on a machine that did not tell of its service gets the power button all the same.
const BOOT: Duration = Duration::from_secs(30);

/// A keeper that has just been started.
pub struct Started {
    /// `started` comes here, and nothing else.
    pub news: Lines<BufReader<tokio::process::ChildStdout>>,
    go: tokio::process::ChildStdin,
}

/// Starts the machine in `folder`: made, and waiting for [`Started::go`].
pub async fn start(folder: &Folder) -> Result<Started> {
    let mut command = Command::new(std::env::current_exe().doing("find this program's own path")?);
    command.arg("vm-keeper").arg(&folder.path);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // What ends a terminal's processes does not end the machine.
    crate::sys::before_exec(&mut command, || {
        setsid()?;
        crate::sys::keep_standard_descriptors()
    });
    let mut child = tokio::process::Command::from(command).spawn().doing("start the machine's keeper")?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Error::Failed("start the machine's keeper: it has no pipes".into()));
    };
    let mut output = BufReader::new(output);
    let mut word = String::new();
    output.read_line(&mut word).await.doing("read from the machine's keeper")?;
    if word != "ready\n" {
        output.read_to_string(&mut word).await.doing("read from the machine's keeper")?;
        let status = child.wait().await.doing("wait for the machine's keeper")?;
        let word = if word.is_empty() { format!("its keeper ended ({status})") } else { word };
        return Err(Error::Failed(format!("start the machine: {}", word.trim_end())));
    }
    Ok(Started { news: output.lines(), go: input })
}

impl Started {
    /// Lets the machine run; news of it.
    pub async fn go(mut self) -> Result<Lines<BufReader<tokio::process::ChildStdout>>> {
        tokio::io::AsyncWriteExt::write_all(&mut self.go, b"go\n").await.doing("let the machine run")?;
        Ok(self.news)
    }
}

/// Keeps the machine in `folder` until its end.
pub fn serve(folder: &Path) -> Result<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = Folder::at(&name, folder.to_owned())?;
    crate::cli::block_on(async {
        let result = keep(&folder).await;
        if let Err(error) = &result {
            say(&error.to_string());
        }
        result
    })
}

/// Whoever listens may have left.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

async fn keep(folder: &Folder) -> Result<()> {
    let machine = folder.machine()?;
    let lock = folder.lock()?;
    let lock = lock.ok_or_else(|| Error::Conflict(format!("the machine {} runs already", folder.name)))?;
    lock.set_len(0).and_then(|()| writeln!(&*lock, "{}", std::process::id())).at("write", &folder.path.join("lock"))?;
    std::env::set_current_dir(&folder.path).at("go to", &folder.path)?;
    folder.write_exit(None)?;
    let ran = run(folder, &machine).await;
    for entry in fs::read_dir(".").at("list", &folder.path)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "sock") {
            let _ = fs::remove_file(entry.path());
        }
    }
    if let Ok(exit) = &ran {
        folder.write_exit(Some(exit))?;
    }
    if machine.remove {
        folder.remove()?;
    }
    // The lock goes last: who waits for it finds all of this done.
    drop(lock);
    ran.map(drop)
}

/// The machine from its making to its end.
async fn run(folder: &Folder, machine: &Machine) -> Result<Exit> {
    let mut terminate = signal(SignalKind::terminate()).doing("watch SIGTERM")?;
    let mut quit = signal(SignalKind::quit()).doing("watch SIGQUIT")?;
    // Killed when they are dropped.
    let _shares = machine.shares.iter().map(share::start).collect::<Result<Vec<_>>>()?;
    let _ = fs::remove_file(qemu::STATUS);
    let listener = UnixListener::bind(qemu::STATUS).doing("listen for the machine's status")?;
    let mut qemu = start_qemu(folder, machine)?;
    let (mut qmp, status) = tokio::select! {
        connected = connect(&listener) => connected?,
        ended = qemu.wait() => return Err(qemu_failed(machine, &ended.doing("wait for qemu")?.to_string())),
    };
    say("ready");
    let mut go = String::new();
    BufReader::new(tokio::io::stdin()).read_line(&mut go).await.doing("wait to be let go")?;
    if go != "go\n" {
        return Err(Error::Failed("whoever started the machine is gone".into()));
    }
    qmp.execute("cont").await?;
    let mut watched =
        Watched { status: BufReader::new(status).lines(), code: None, is_started: false, is_closed: false };
    let (mut is_stopping, mut is_pressed, mut reason) = (false, false, String::new());
    let began = Instant::now();
    let mut deadline = began;
    let ended = loop {
        // Before the service runs nobody in the machine hears the button.
        if is_stopping && !is_pressed && (watched.is_started || began.elapsed() >= BOOT) {
            is_pressed = true;
            qmp.execute("system_powerdown").await?;
            deadline = Instant::now() + Duration::from_secs(machine.stop_timeout);
        }
        tokio::select! {
            ended = qemu.wait() => break ended.doing("wait for qemu")?,
            () = watched.next(), if !watched.is_closed => {}
            _ = terminate.recv(), if !is_stopping => is_stopping = true,
            () = sleep_until(began + BOOT), if is_stopping && !is_pressed => {}
            _ = quit.recv() => {
                reason = "it was killed".into();
                qemu.start_kill().doing("kill qemu")?;
            }
            () = sleep_until(deadline), if is_pressed && reason.is_empty() => {
                reason = format!("it did not stop within {} s, and was killed", machine.stop_timeout);
                qemu.start_kill().doing("kill qemu")?;
            }
        }
    };
    while !watched.is_closed {
        watched.next().await;
    }
    if watched.code.is_none() && reason.is_empty() {
        reason = match ended.success() {
            true => "it ended without an exit code".into(),
            false => qemu_failed(machine, &ended.to_string()).to_string(),
        };
    }
    Ok(Exit { code: watched.code, reason, ended: Utc::now() })
}

fn start_qemu(folder: &Folder, machine: &Machine) -> Result<Child> {
    for socket in [qemu::QMP, qemu::CONSOLE] {
        let _ = fs::remove_file(socket);
    }
    let log = fs::File::create("qemu.log").at("create", &folder.path.join("qemu.log"))?;
    let mut command = Command::new(tools::find(tools::QEMU)?);
    command.args(qemu::arguments(&folder.name, machine, qemu::has_kvm()));
    command.stdin(Stdio::null()).stdout(log.try_clone().doing("duplicate a log")?).stderr(log);
    // No machine runs that nobody keeps.
    crate::sys::before_exec(&mut command, crate::sys::die_with_parent);
    tokio::process::Command::from(command).kill_on_drop(true).spawn().doing("start qemu")
}

/// qemu's two sides: its control socket, and its end of the status port.
async fn connect(listener: &UnixListener) -> Result<(Qmp, UnixStream)> {
    let (status, _) = listener.accept().await.doing("wait for the machine's status port")?;
    loop {
        match Qmp::connect(Path::new(qemu::QMP)).await {
            // Made by now, and not listening yet.
            Err(Error::Io { .. }) => sleep(Duration::from_millis(2)).await,
            qmp => return Ok((qmp?, status)),
        }
    }
}

/// What qemu and its helpers said.
fn qemu_failed(machine: &Machine, status: &str) -> Error {
    let logs = ["qemu.log".to_owned()].into_iter().chain(machine.shares.iter().map(share::log_file));
    let texts = logs.map(|log| fs::read_to_string(log).unwrap_or_default());
    let output = texts.collect::<String>().trim_end().to_owned();
    Error::Program { program: "qemu".into(), status: status.to_owned(), output }
}

/// The status port: `started`, then the exit code.
struct Watched {
    status: Lines<BufReader<UnixStream>>,
    code: Option<u8>,
    is_started: bool,
    /// Nothing more comes.
    is_closed: bool,
}

impl Watched {
    async fn next(&mut self) {
        match self.status.next_line().await {
            Ok(Some(line)) if line == "started" => {
                self.is_started = true;
                say("started");
            }
            Ok(Some(line)) => self.code = line.parse().ok().or(self.code),
            _ => self.is_closed = true,
        }
    }
}
