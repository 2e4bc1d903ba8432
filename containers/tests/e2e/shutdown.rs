//! SIGTERM from a machine that goes down: containers are stopped, and those with a policy are back at the next boot. Only
//! systemd's answer is the test's own: `systemctl`, as the daemon finds it in PATH.

use crate::{
    harness::{BUSYBOX, Engine, eventually},
    recovery::{pid, processes_of},
};
use nix::sys::signal::{Signal, kill};
use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A machine whose systemd says what the test wants to hear.
struct Systemd(TempDir);

impl Systemd {
    fn new() -> Systemd {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$*\" = is-system-running ] || exit 1\ncat {}/answer\nexit 1\n",
            folder.path().display()
        );
        let program = folder.path().join("systemctl");
        fs::write(&program, script).unwrap();
        fs::set_permissions(program, Permissions::from_mode(0o755)).unwrap();
        let systemd = Systemd(folder);
        systemd.answers("running");
        systemd
    }

    fn answers(&self, state: &str) {
        fs::write(self.0.path().join("answer"), format!("{state}\n")).unwrap();
    }

    /// An engine that asks it, and tells it what units tell.
    fn engine(&self) -> Engine {
        let path = format!("PATH={}:{}", self.0.path().display(), std::env::var("PATH").unwrap());
        let within = ["env".into(), path, format!("NOTIFY_SOCKET={}", self.socket().display())];
        Engine::start_within(&[], within.to_vec()).load_busybox()
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("notify")
    }
}

fn run(engine: &Engine, name: &str, options: &[&str], command: &[&str]) {
    engine.docker(&[&["run", "-d", "--name", name], options, &[BUSYBOX], command].concat()).ok();
}

fn state(engine: &Engine, name: &str) -> String {
    engine.docker(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name]).ok()
}

fn record(engine: &Engine, id: &str) -> serde_json::Value {
    let path = engine.path("data/containers").join(id).join("container.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A build whose step would run for long.
fn build(engine: &Engine) -> Child {
    let context = engine.path("context");
    fs::create_dir_all(&context).unwrap();
    fs::write(context.join("Dockerfile"), format!("FROM {BUSYBOX}\nRUN sleep 1000\n")).unwrap();
    let mut client = engine.docker_command();
    client.args(["build", "--network", "none"]).arg(context).stdout(Stdio::null()).stderr(Stdio::null());
    let client = client.spawn().unwrap();
    let steps = engine.path("exec/build");
    eventually(20, "the build's step runs", || fs::read_dir(&steps).ok()?.next().map(drop));
    client
}

#[test]
fn containers_are_stopped_and_come_back_at_the_next_boot() {
    let systemd = Systemd::new();
    let socket = UnixDatagram::bind(systemd.socket()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let heard = || {
        let mut message = [0; 64];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let mut engine = systemd.engine();
    assert_eq!(heard(), "READY=1");
    let deaf = ["sleep", "1000"];
    let traps = ["sh", "-c", "trap 'echo bye; exit 7' USR1; echo up; while :; do sleep 0.1; done"];
    for name in ["always", "unless", "unless2"] {
        let policy = if name == "always" { name } else { "unless-stopped" };
        run(&engine, name, &["--restart", policy, "--stop-timeout", "3"], &deaf);
    }
    run(&engine, "own-signal", &["--restart", "unless-stopped", "--stop-signal", "USR1"], &traps);
    run(&engine, "plain", &["--init"], &deaf);
    run(&engine, "once", &["--rm", "--init"], &deaf);
    run(&engine, "stopped", &["--restart", "unless-stopped", "--init"], &deaf);
    engine.docker(&["stop", "stopped"]).ok();
    run(&engine, "waits", &["--restart", "always"], &["false"]);
    eventually(10, "its handler is set up", || {
        engine.docker(&["logs", "own-signal"]).ok().contains("up").then_some(())
    });
    let mut building = build(&engine);

    // A restart of the daemon is none of the machine's: SIGHUP does nothing, SIGTERM leaves the containers alone.
    kill(engine.daemon_pid(), Signal::SIGHUP).unwrap();
    engine.docker(&["version"]).ok();
    let running = ["always", "unless", "unless2", "own-signal", "plain"];
    let before = running.map(|name| pid(&engine, name));
    engine.end_daemon(Signal::SIGTERM);
    assert!(!building.wait().unwrap().success());
    engine.start_daemon();
    assert_eq!(heard(), "READY=1");
    assert_eq!(running.map(|name| pid(&engine, name)), before);
    // Those, the one with --rm, and none of the build's; the one in its back-off has one for a moment only.
    eventually(10, "the build's step is gone", || {
        (processes_of(&engine, "inception-shim").len() == before.len() + 1).then_some(())
    });

    // The machine goes down, in the middle of a build.
    let mut building = build(&engine);
    let ids = engine.docker(&["ps", "-aq", "--no-trunc", "--filter", "name=unless"]).ok();
    systemd.answers("stopping");
    let begin = Instant::now();
    kill(engine.daemon_pid(), Signal::SIGTERM).unwrap();
    // The longest time of a container, and what systemd is to add for the rest.
    assert_eq!(heard(), "EXTEND_TIMEOUT_USEC=40000000");
    // systemd sends that behind SIGTERM to what runs in a login's session.
    engine.end_daemon(Signal::SIGHUP);
    let took = begin.elapsed();
    assert!((3000..6000).contains(&took.as_millis()), "three of 3 s side by side took {took:?}");
    assert_eq!(processes_of(&engine, "inception-shim"), []);
    assert!(!building.wait().unwrap().success());
    for id in ids.lines() {
        let record = record(&engine, id);
        assert_eq!(record["state"]["status"], "restarting", "{record}");
        assert_eq!(record["stopped_by_user"], false);
    }

    systemd.answers("running");
    engine.start_daemon();
    for name in ["always", "unless", "unless2", "own-signal"] {
        eventually(20, &format!("{name} is back"), || state(&engine, name).starts_with("running").then_some(()));
    }
    assert_eq!(state(&engine, "plain"), "exited 143");
    assert_eq!(state(&engine, "stopped"), "exited 143");
    eventually(10, "the one in its back-off is started on", || {
        let count = engine.docker(&["inspect", "--format", "{{.RestartCount}}", "waits"]).ok();
        (count.parse::<u32>().unwrap() > 2).then_some(())
    });
    eventually(10, "--rm holds", || {
        engine.docker(&["ps", "-aq", "--filter", "name=once"]).ok().is_empty().then_some(())
    });
    assert_eq!(engine.docker(&["logs", "own-signal"]).ok().lines().collect::<Vec<_>>(), ["up", "bye", "up"]);
}

/// systemd's patience, or the power, may end in the middle.
#[test]
fn a_kill_in_the_middle_loses_no_policy() {
    let systemd = Systemd::new();
    let mut engine = systemd.engine();
    run(&engine, "stopped", &["--restart", "unless-stopped", "--init"], &["sleep", "1000"]);
    engine.docker(&["stop", "stopped"]).ok();
    let mut ended = [0; 3];
    for milliseconds in (0..60).step_by(4).chain([400]) {
        // New ones each time: the pause before a restart grows with each run that was short.
        run(&engine, "deaf", &["--restart", "unless-stopped", "--stop-timeout", "0"], &["sleep", "1000"]);
        run(&engine, "init", &["--restart", "unless-stopped", "--init"], &["sleep", "1000"]);
        systemd.answers("stopping");
        let _ = kill(engine.daemon_pid(), Signal::SIGTERM);
        std::thread::sleep(Duration::from_millis(milliseconds));
        engine.end_daemon(Signal::SIGKILL);
        ended[2 - processes_of(&engine, "inception-shim").len().min(2)] += 1;
        systemd.answers("running");
        engine.start_daemon();
        for name in ["deaf", "init"] {
            eventually(20, &format!("{name} runs after {milliseconds} ms"), || {
                (state(&engine, name) == "running 0").then_some(())
            });
        }
        assert_eq!(state(&engine, "stopped"), "exited 143", "after {milliseconds} ms");
        engine.docker(&["rm", "-f", "deaf", "init"]).ok();
    }
    eprintln!("shutdowns that had ended none, one, both: {ended:?}");
    assert!(ended[0] > 0 && ended[2] > 0, "{ended:?}");
}
