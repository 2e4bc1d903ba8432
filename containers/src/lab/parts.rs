//! Lesson 12: the processes from the client to the service, and what survives when each is killed. Killed only in an
//! engine of the lab's own.

use super::{
    connection::{ContextFile, Start, busybox},
    engine::{Engine, Foreign, IMAGE},
    processes::{self, started_at},
    recording::Outcome,
    stage::{PATIENCE, Stage},
};
use crate::error::{Context, Error, Result};
use bollard::models::HostConfig;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::{
    process::{Child, Stdio},
    time::Duration,
};

/// How long what outlives a part that was killed is watched.
const AFTERMATH: Duration = Duration::from_millis(300);

/// What is killed, in this order: the engine's death is the end of all clients.
const VICTIMS: [&str; 5] = ["client", "shim", "init", "service", "engine"];

const DOCKERFILE: &str = "FROM scratch\nCOPY busybox /bin/sleep\nCMD [\"sleep\", \"1000\"]\n";

/// A process by its pid and its start: the number may be another's later.
#[derive(Clone, Copy, PartialEq)]
struct Part {
    name: &'static str,
    pid: i32,
    started: u64,
}

impl Part {
    fn new(name: &'static str, pid: i32) -> Option<Part> {
        Some(Part { name, pid, started: started_at(pid)? })
    }

    fn is_alive(&self) -> bool {
        processes::stat(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z')
    }
}

/// The experiment.
pub fn parts(stage: &mut Stage, column: &str) -> Result<()> {
    match column {
        "embedded" => embedded(stage),
        _ => docker(stage),
    }
}

fn embedded(stage: &mut Stage) -> Result<()> {
    if let Some(outcome) = Engine::missing() {
        return stage.not_run(outcome);
    }
    let mut engine = Engine::start(stage.folder(), "parts")?;
    stage.watch(engine.pid(), "inception daemon");
    let content = busybox()?;
    engine.api().build(IMAGE, DOCKERFILE, &[ContextFile { name: "busybox", content: &content }])?;
    // Side by side: each victim has a container of its own.
    let clients: Vec<Child> = VICTIMS.iter().map(|victim| run(stage, &engine, victim)).collect::<Result<_>>()?;
    let mut cases = Vec::new();
    for (victim, client) in VICTIMS.into_iter().zip(clients) {
        let chain = chain(stage, &client, engine.pid(), &|| engine.api().pid(victim).ok().flatten())?;
        cases.push((victim, client, chain));
    }
    observe_chain(stage, &cases[0].2);
    for (victim, client, chain) in &mut cases {
        kill(stage, chain, victim, &mut engine)?;
        stage.watch_until(patience(victim), || settled(chain, victim))?;
        let alive: Vec<&str> =
            chain.iter().filter(|part| part.name != "client" && part.is_alive()).map(|part| part.name).collect();
        stage.observe(&format!("alive after the {victim} is killed"), alive.join(" "));
        if *victim == "engine" {
            engine.start_daemon()?;
            stage.watch(engine.pid(), "inception daemon");
            let runs = engine.api().pid(victim)?;
            let init = chain.iter().find(|part| part.name == "init").map(|init| init.pid);
            stage.observe("a new engine takes it over", runs.is_some() && runs == init);
        }
        // It ends with its container, and with its engine.
        if !stage.watch_until(PATIENCE, || !matches!(client.try_wait(), Ok(None)))? {
            let _ = client.kill();
        }
        let status = client.wait().doing("wait for the client")?;
        stage.unwatch(client.id() as i32, super::stage::shell_code(status));
    }
    let pid = engine.pid();
    drop(engine);
    stage.unwatch(pid, 0);
    Ok(())
}

fn kill(stage: &mut Stage, chain: &[Part], victim: &str, engine: &mut Engine) -> Result<()> {
    let Some(part) = chain.iter().find(|part| part.name == victim) else {
        return Err(Error::Failed(format!("there is no {victim}")));
    };
    stage.say(format!("kills the {victim}"));
    if victim == "engine" {
        // It is the lab's child.
        engine.kill_daemon();
        stage.unwatch(part.pid, 137);
    } else {
        stage.signal_process(part.pid, libc::SIGKILL);
    }
    Ok(())
}

/// How long the others are watched: to see that the client's and the engine's death change nothing takes the whole time.
fn patience(victim: &str) -> Duration {
    match victim {
        "client" | "engine" => AFTERMATH,
        _ => PATIENCE,
    }
}

/// Whether all has ended that follows the victim.
fn settled(chain: &[Part], victim: &str) -> bool {
    let ended = |name: &str| chain.iter().filter(|part| part.name == name).all(|part| !part.is_alive());
    match victim {
        "client" | "engine" => false,
        _ => ended("shim") && ended("init") && ended("service"),
    }
}

/// `inception run` in the foreground.
fn run(stage: &mut Stage, engine: &Engine, name: &str) -> Result<Child> {
    let mut command = engine.client()?;
    command.args(["run", "--init", "--network", "none", "--name", name, "lab"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A lab that is killed must not leave it.
    crate::sys::before_exec(&mut command, crate::sys::die_with_parent);
    let client = command.spawn().doing("start a client")?;
    stage.watch(client.id() as i32, "inception run");
    Ok(client)
}

/// Waits for the service, and finds who stands between the client and it.
fn chain(stage: &mut Stage, client: &Child, engine: i32, container: &dyn Fn() -> Option<i32>) -> Result<Vec<Part>> {
    let find = || -> Option<Vec<Part>> {
        let outside = [Part::new("client", client.id() as i32)?, Part::new("engine", engine)?];
        Some([&outside[..], &around(container()?)?].concat())
    };
    let mut found = None;
    stage.watch_until(PATIENCE, || {
        found = find();
        found.is_some()
    })?;
    found.ok_or_else(|| Error::Failed("the container did not start".into()))
}

/// A container's shim, init and service, from its PID 1.
fn around(init: i32) -> Option<[Part; 3]> {
    let service = *processes::children(init).first()?;
    // Before its exec the service is still the init.
    processes::stat(service).filter(|stat| stat.name == "sleep")?;
    let shim = processes::stat(init)?.parent;
    Some([Part::new("shim", shim)?, Part::new("init", init)?, Part::new("service", service)?])
}

fn observe_chain(stage: &mut Stage, chain: &[Part]) {
    for part in chain {
        stage.observe(part.name, words_of(part.pid));
    }
    let parent = chain.iter().find(|part| part.name == "init").and_then(|init| processes::stat(init.pid));
    let parent = parent.and_then(|stat| chain.iter().find(|part| part.pid == stat.parent));
    stage.observe("container's parent", parent.map_or("another", |part| part.name).to_owned());
    let runtimes = stage.recording().processes.iter().filter(|process| process.name.starts_with("runc"));
    let left = runtimes.filter(|process| processes::stat(process.pid).is_some_and(|stat| stat.name == "runc"));
    stage.observe_in("runtime's processes left", left.count() as i64, "processes");
}

/// The first words of a process's command line, without folders.
fn words_of(pid: i32) -> String {
    let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut words = text.split('\0').filter(|word| !word.is_empty());
    let program = words.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or(program);
    match words.next() {
        Some(word) if !word.starts_with(['-', '/']) => format!("{name} {word}"),
        _ => name.to_owned(),
    }
}

/// Docker's own chain, where it answers: looked at, and never killed.
fn docker(stage: &mut Stage) -> Result<()> {
    let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| "unix:///var/run/docker.sock".into());
    let socket = host.strip_prefix("unix://").unwrap_or_default();
    let Ok(connection) = std::os::unix::net::UnixStream::connect(socket) else {
        return stage.not_run(Outcome::NotInstalled(format!("apt install docker.io (no engine answers at {host})")));
    };
    if let Some(outcome) = Engine::missing() {
        return stage.not_run(outcome);
    }
    let peer = getsockopt(&connection, PeerCredentials).doing("ask who the engine is")?;
    let docker = Foreign::at(socket, DOCKERFILE)?;
    let name = docker.name();
    let host = HostConfig { network_mode: Some("none".into()), init: Some(true), ..Default::default() };
    docker.api().start(Start { name, image: name, words: &["sleep", "1000"], host })?;
    stage.describe(&format!("inception run -d --init {name}"));
    let mut found = None;
    stage.watch_until(PATIENCE, || {
        found = (|| {
            let engine = Part::new("engine", peer.pid())?;
            Some([&[engine][..], &around(docker.api().pid(name).ok().flatten()?)?].concat())
        })();
        found.is_some()
    })?;
    let chain = found.ok_or_else(|| Error::Failed("the container did not start".into()))?;
    for part in &chain {
        stage.observe(part.name, words_of(part.pid));
        stage.watch_container(part.pid, part.name);
    }
    let parent = processes::stat(chain[2].pid).map_or(0, |stat| stat.parent);
    let is_shim = parent == chain[1].pid && processes::stat(parent).is_some_and(|stat| stat.name.contains("shim"));
    stage.observe("container's parent", if is_shim { "shim" } else { "another" }.to_owned());
    let runtimes = processes::children(parent).into_iter().filter(|pid| words_of(*pid).starts_with("runc"));
    stage.observe_in("runtime's processes left", runtimes.count() as i64, "processes");
    Ok(())
}
