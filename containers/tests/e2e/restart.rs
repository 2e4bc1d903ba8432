//! Restart policies, and health checks.

use crate::harness::{BUSYBOX, Engine, eventually};
use std::time::{Duration, Instant};

fn inspect(engine: &Engine, name: &str, format: &str) -> String {
    engine.docker(&["inspect", "--format", format, name]).ok()
}

#[test]
fn policies_back_off_and_stops() {
    let engine = Engine::with_busybox();
    let start = |name: &str, policy: &str, script: &str| {
        engine.docker(&["run", "-d", "--name", name, "--restart", policy, BUSYBOX, "sh", "-c", script]).ok()
    };
    start("twice", "on-failure:2", "exit 3");
    start("fine", "on-failure", "exit 0");
    start("always", "always", "echo started; exit 0");
    start("never", "no", "exit 4");
    eventually(20, "on-failure:2 gives up after two restarts", || {
        (inspect(&engine, "twice", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}") == "exited 2 3")
            .then_some(())
    });
    assert_eq!(inspect(&engine, "fine", "{{.State.Status}} {{.RestartCount}}"), "exited 0");
    assert_eq!(inspect(&engine, "never", "{{.State.Status}} {{.RestartCount}}"), "exited 0");
    // 0.1, 0.2, 0.4, 0.8 s: the fifth start comes after 1.5 s at the soonest, and a busy loop would be past it by then.
    let begin = Instant::now();
    let starts = eventually(30, "it is started again and again", || {
        let count = engine.docker(&["logs", "always"]).ok().lines().count();
        (count >= 4).then_some(count)
    });
    assert!(starts < 8, "{starts} starts in {:?}: no back-off", begin.elapsed());
    // A stop ends it, in the middle of a back-off too; nothing starts it again.
    engine.docker(&["stop", "-t", "1", "always"]).ok();
    let count = inspect(&engine, "always", "{{.RestartCount}}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(inspect(&engine, "always", "{{.State.Status}} {{.RestartCount}}"), format!("exited {count}"));
    // rm -f, in a back-off.
    start("gone", "always", "exit 1");
    eventually(10, "it restarts", || (inspect(&engine, "gone", "{{.State.Status}}") == "restarting").then_some(()));
    engine.docker(&["rm", "-f", "gone"]).ok();
    // update changes the policy.
    engine.docker(&["update", "--restart", "always", "never"]).ok();
    assert_eq!(inspect(&engine, "never", "{{.HostConfig.RestartPolicy.Name}}"), "always");
}

#[test]
fn health() {
    let engine = Engine::with_busybox();
    let options = ["--health-cmd", "test -e /well", "--health-interval", "200ms", "--health-retries", "2"];
    engine.docker(&[&["run", "-d", "--name", "box"], &options[..], &[BUSYBOX, "sleep", "1000"]].concat()).ok();
    let status = || inspect(&engine, "box", "{{.State.Health.Status}}");
    assert_eq!(status(), "starting");
    eventually(15, "it is unhealthy", || (status() == "unhealthy").then_some(()));
    assert!(engine.docker(&["ps", "--format", "{{.Status}}"]).ok().ends_with("(unhealthy)"));
    assert_eq!(inspect(&engine, "box", "{{(index .State.Health.Log 0).ExitCode}}"), "1");
    engine.docker(&["exec", "box", "touch", "/well"]).ok();
    eventually(15, "it is healthy", || (status() == "healthy").then_some(()));
    assert_eq!(engine.docker(&["ps", "--filter", "health=healthy", "--format", "{{.Names}}"]).ok(), "box");
    // One that hangs is killed at its timeout, and counts as a failure.
    let options = [
        "--health-cmd",
        "sleep 100",
        "--health-interval",
        "100ms",
        "--health-timeout",
        "300ms",
        "--health-retries",
        "1",
    ];
    engine.docker(&[&["run", "-d", "--name", "slow"], &options[..], &[BUSYBOX, "sleep", "1000"]].concat()).ok();
    eventually(15, "its check was ended", || {
        (inspect(&engine, "slow", "{{.State.Health.Status}}") == "unhealthy").then_some(())
    });
    engine.docker(&["rm", "-f", "box", "slow"]).ok();
    engine.docker(&["run", "-d", "--name", "none", "--no-healthcheck", BUSYBOX, "sleep", "1000"]).ok();
    assert!(!engine.docker(&["ps", "--format", "{{.Status}}"]).ok().contains("health"));
}
