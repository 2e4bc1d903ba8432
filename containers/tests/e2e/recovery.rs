//! SIGKILL of the daemon, of a shim, of everything at once; `daemon --teardown`.

use crate::harness::{BUSYBOX, Engine, INCEPTION, eventually, run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

/// The processes of this engine's whose command line begins with `kind`: "inception-shim", "inception network-helper".
pub fn processes_of(engine: &Engine, kind: &str) -> Vec<Pid> {
    let folder = engine.path("");
    let own = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.starts_with(&format!("{kind} ")) && line.contains(folder.to_str().unwrap())
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(own).map(Pid::from_raw).collect()
}

pub fn process_of(engine: &Engine, kind: &str) -> Option<Pid> {
    processes_of(engine, kind).first().copied()
}

fn status(engine: &Engine, name: &str) -> String {
    engine.docker(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name]).ok()
}

pub fn pid(engine: &Engine, name: &str) -> i32 {
    engine.docker(&["inspect", "--format", "{{.State.Pid}}", name]).ok().parse().unwrap()
}

#[test]
fn of_the_daemon() {
    let mut engine = Engine::with_busybox();
    engine.docker(&["run", "-d", "--name", "box", "--init", BUSYBOX, "sleep", "1000"]).ok();
    engine.docker(&["run", "-d", "--name", "short", BUSYBOX, "sh", "-c", "sleep 2; echo done; exit 6"]).ok();
    engine.docker(&["run", "-d", "--name", "gone", "--rm", BUSYBOX, "sleep", "2"]).ok();
    engine
        .docker(&["run", "-d", "--name", "again", "--restart", "on-failure:1", BUSYBOX, "sh", "-c", "sleep 2; exit 1"])
        .ok();
    let before = pid(&engine, "box");
    engine.end_daemon(Signal::SIGKILL);
    // What ends meanwhile is not lost.
    std::thread::sleep(Duration::from_secs(3));
    engine.start_daemon();
    assert_eq!(pid(&engine, "box"), before);
    assert_eq!(status(&engine, "short"), "exited 6");
    assert_eq!(engine.docker(&["logs", "short"]).ok(), "done");
    assert_eq!(engine.docker(&["ps", "-aq", "--filter", "name=gone"]).ok(), "");
    eventually(20, "the policy is applied to an end that nobody saw", || {
        let format = "{{.State.Status}} {{.RestartCount}}";
        (engine.docker(&["inspect", "--format", format, "again"]).ok() == "exited 1").then_some(())
    });
    // The container that went on is as good as before.
    assert_eq!(engine.docker(&["exec", "box", "echo", "hi"]).ok(), "hi");
    engine.docker(&["stop", "box"]).ok();
    assert_eq!(status(&engine, "box"), "exited 143");
    // A client that waits over the daemon's death ends; it does not hang.
    engine.docker(&["start", "box"]).ok();
    let mut waiting = engine.docker_command().args(["wait", "box"]).stderr(Stdio::null()).spawn().unwrap();
    engine.end_daemon(Signal::SIGKILL);
    assert!(!waiting.wait().unwrap().success());
    engine.start_daemon();
}

/// Nobody was told of a start that its daemon did not live to see: all of it happened, or nothing did.
#[test]
fn of_a_daemon_in_the_middle_of_a_start() {
    let mut engine = Engine::with_busybox();
    engine.docker(&["create", "--name", "box", BUSYBOX, "sleep", "1000"]).ok();
    let mut seen = [0; 2];
    for milliseconds in (0..90).step_by(12) {
        let mut client = engine.docker_command();
        let mut client = client.args(["start", "box"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Not before the client has asked: it needs some 20 ms to be there.
        std::thread::sleep(Duration::from_millis(15 + milliseconds));
        engine.end_daemon(Signal::SIGKILL);
        client.wait().unwrap();
        engine.start_daemon();
        let runs = status(&engine, "box").starts_with("running");
        seen[usize::from(runs)] += 1;
        eventually(5, "the processes are those of the record", || {
            (processes_of(&engine, "inception-shim").len() == usize::from(runs)).then_some(())
        });
        if !runs {
            engine.docker(&["start", "box"]).ok();
        }
        assert_eq!(engine.docker(&["exec", "box", "echo", "hi"]).ok(), "hi", "after {milliseconds} ms");
        engine.docker(&["kill", "box"]).ok();
        engine.docker(&["wait", "box"]).ok();
    }
    eprintln!("undone: {}, done: {}", seen[0], seen[1]);
    assert!(seen[0] > 0, "no daemon was killed before the start was over");
}

#[test]
fn of_a_shim() {
    let engine = Engine::with_busybox();
    engine.docker(&["run", "-d", "--name", "box", BUSYBOX, "sleep", "1000"]).ok();
    let inner = pid(&engine, "box");
    let shim = process_of(&engine, "inception-shim").expect("a shim runs");
    kill(shim, Signal::SIGKILL).unwrap();
    eventually(20, "the container's end is recorded", || (status(&engine, "box") == "exited 137").then_some(()));
    // It took its container with it, at the latest when that is told.
    let stat = fs::read_to_string(format!("/proc/{inner}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    engine.docker(&["start", "box"]).ok();
    assert_eq!(engine.docker(&["exec", "box", "echo", "hi"]).ok(), "hi");
    // With a policy it comes back by itself.
    engine.docker(&["rm", "-f", "box"]).ok();
    engine.docker(&["run", "-d", "--name", "box", "--restart", "always", BUSYBOX, "sleep", "1000"]).ok();
    kill(process_of(&engine, "inception-shim").expect("a shim runs"), Signal::SIGKILL).unwrap();
    eventually(20, "it runs again", || {
        let format = "{{.State.Status}} {{.RestartCount}}";
        (engine.docker(&["inspect", "--format", format, "box"]).ok() == "running 1").then_some(())
    });
}

#[test]
fn of_everything_as_by_a_reboot() {
    let mut engine = Engine::with_busybox();
    engine.docker(&["network", "create", "net"]).ok();
    let start = |name: &str, options: &[&str]| {
        engine.docker(&[&["run", "-d", "--name", name], options, &[BUSYBOX, "sleep", "1000"]].concat()).ok()
    };
    start("always", &["--restart", "always", "--network", "net", "-v", "data:/d"]);
    start("unless", &["--restart", "unless-stopped", "--network", "net"]);
    start("stopped", &["--restart", "unless-stopped"]);
    start("plain", &[]);
    engine.docker(&["exec", "always", "touch", "/d/kept", "/own"]).ok();
    engine.docker(&["stop", "-t", "0", "stopped"]).ok();
    let inner = ["always", "unless", "plain"].map(|name| pid(&engine, name));
    let bridges = engine.docker(&["network", "ls", "-q", "--filter", "driver=bridge", "--no-trunc"]).ok();
    engine.end_daemon(Signal::SIGKILL);
    let shims = processes_of(&engine, "inception-shim");
    assert_eq!(shims.len(), 3);
    for process in
        shims.into_iter().chain(processes_of(&engine, "inception network-helper")).chain(inner.map(Pid::from_raw))
    {
        let _ = kill(process, Signal::SIGKILL);
    }
    fs::remove_dir_all(engine.path("exec")).unwrap();
    for id in bridges.lines() {
        // The default one has another name; one bridge that stays must not matter.
        let name = format!("inc-{}", &id[..10]);
        let _ = Command::new("ip").args(["link", "delete", &name]).stderr(Stdio::null()).status();
    }
    engine.start_daemon();
    for name in ["always", "unless"] {
        eventually(20, &format!("{name} is back"), || status(&engine, name).starts_with("running").then_some(()));
    }
    engine.docker(&["exec", "always", "ls", "/d/kept", "/own"]).ok();
    engine.docker(&["exec", "always", "ping", "-c1", "-W3", "unless"]).ok();
    assert_eq!(status(&engine, "stopped"), "exited 137");
    assert_eq!(status(&engine, "plain"), "exited 137");
}

#[test]
fn teardown_leaves_nothing() {
    let mut engine = Engine::with_busybox();
    let instance = {
        let id = engine.docker(&["info", "--format", "{{.ID}}"]).ok();
        id.trim_start_matches("inception-").to_string()
    };
    let network = engine.docker(&["network", "create", "net"]).ok();
    engine.docker(&["run", "-d", "--name", "box", "--network", "net", "-p", "80", BUSYBOX, "sleep", "1000"]).ok();
    let teardown = |engine: &Engine| {
        let mut command = Command::new(INCEPTION);
        command.args(["daemon", "--teardown", "--data-root"]).arg(engine.path("data"));
        run(command.arg("--exec-root").arg(engine.path("exec")))
    };
    teardown(&engine).fails(1, "another daemon uses");
    engine.docker(&["rm", "-f", "box"]).ok();
    engine.end_daemon(Signal::SIGTERM);
    teardown(&engine).ok();
    let links = run(Command::new("ip").args(["-br", "link"])).ok();
    assert!(!links.contains(&instance) && !links.contains(&network[..10]), "{links}");
    let tables = run(Command::new("nft").args(["list", "tables"])).ok();
    assert!(!tables.contains(&instance), "{tables}");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(engine.path("").to_str().unwrap()), "{mounts}");
    for entry in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let cgroup = entry.path().join(format!("inception-{instance}"));
        assert!(!cgroup.exists(), "{}", cgroup.display());
    }
    eventually(10, "no process is left", || {
        (processes_of(&engine, "inception-shim").is_empty()
            && processes_of(&engine, "inception network-helper").is_empty())
        .then_some(())
    });
    // What it kept is whole.
    engine.start_daemon();
    assert!(engine.docker(&["images", "--format", "{{.Repository}}"]).ok().contains("busybox"));
    engine.docker(&["run", "--rm", "--network", "net", BUSYBOX, "true"]).ok();
}
