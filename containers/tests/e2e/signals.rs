//! Signals by name and number, real-time ones too, and the container's own stop signal.

use crate::harness::{BUSYBOX, Engine, eventually};

/// A shell that ends with `code` on `signal`, and has set its trap.
fn start(engine: &Engine, name: &str, options: &[&str], signal: &str, code: &str) {
    let script = format!("trap 'exit {code}' {signal}; echo ready; while :; do sleep 0.1; done");
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(options);
    args.extend([BUSYBOX, "sh", "-c", &script]);
    engine.docker(&args).ok();
    eventually(10, "the trap is set", || engine.docker(&["logs", name]).ok().contains("ready").then_some(()));
}

#[test]
fn reach_the_main_process() {
    let engine = Engine::with_busybox();
    for (signal, number, code) in
        [("USR1", "10", "5"), ("SIGHUP", "1", "6"), ("12", "12", "7"), ("RTMIN+3", "37", "8"), ("SIGRTMAX", "64", "9")]
    {
        start(&engine, "box", &[], number, code);
        engine.docker(&["kill", "-s", signal, "box"]).ok();
        assert_eq!(engine.docker(&["wait", "box"]).ok(), code, "{signal}");
        engine.docker(&["rm", "box"]).ok();
    }
    for wrong in ["FOO", "99", "RTMIN+40"] {
        start(&engine, "box", &[], "10", "1");
        engine.docker(&["kill", "-s", wrong, "box"]).fails(1, &format!("Invalid signal: {wrong}"));
        engine.docker(&["rm", "-f", "box"]).ok();
    }
}

#[test]
fn stop_sends_the_containers_own() {
    let engine = Engine::with_busybox();
    start(&engine, "usr1", &["--stop-signal", "SIGUSR1"], "10", "5");
    start(&engine, "rt", &["--stop-signal", "RTMIN+1"], "35", "6");
    start(&engine, "term", &["--stop-timeout", "60"], "15", "7");
    engine.docker(&["stop", "usr1", "rt", "term"]).ok();
    assert_eq!(engine.docker(&["wait", "usr1", "rt", "term"]).ok(), "5\n6\n7");
    // A signal that ends a process is 128 and its number, a real-time one too.
    engine.docker(&["run", "--rm", "--init", BUSYBOX, "sh", "-c", "kill -40 $$"]).fails(168, "");
}
