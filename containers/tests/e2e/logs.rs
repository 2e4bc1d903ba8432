//! `docker logs`, and rotation.

use crate::harness::{BUSYBOX, Engine, eventually};
use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

#[test]
fn what_was_written_by_stream_tail_and_time() {
    let engine = Engine::with_busybox();
    engine.docker(&["run", "--name", "box", BUSYBOX, "sh", "-c", "echo one; echo two >&2; printf three"]).ok();
    let logs = |args: &[&str]| engine.docker(&[&["logs"], args, &["box"]].concat());
    let all = logs(&[]);
    assert_eq!((all.stdout.as_str(), all.stderr.as_str()), ("one\nthree", "two\n"));
    assert_eq!(logs(&["--tail", "1"]).stdout, "three");
    assert_eq!(logs(&["--tail", "0"]).stdout, "");
    assert_eq!(logs(&["--tail", "all"]).stdout, "one\nthree");
    assert_eq!(logs(&["--since", "10m"]).stdout, "one\nthree");
    assert_eq!(logs(&["--since", "2090-01-01T00:00:00Z"]).stdout, "");
    assert_eq!(logs(&["--until", "10m"]).stdout, "");
    let stamped = logs(&["-t", "--tail", "1"]).stdout;
    let (time, text) = stamped.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.contains('T') && text == "three", "{stamped}");
    // It has ended: following ends too.
    assert_eq!(logs(&["-f"]).stdout, "one\nthree");
    // A second run's output stands behind the first one's.
    engine.docker(&["start", "-a", "box"]).ok();
    assert_eq!(logs(&[]).stdout, "one\nthreeone\nthree");
    engine.docker(&["logs", "none-such"]).fails(1, "No such container: none-such");
    engine.docker(&["run", "--name", "mute", "--log-driver", "none", BUSYBOX, "echo", "x"]).ok();
    let mute = engine.docker(&["logs", "mute"]);
    assert!(!mute.stdout.contains('x'), "{mute:?}");
}

#[test]
fn followed_while_it_is_written_and_over_a_restart_of_the_daemon() {
    let mut engine = Engine::with_busybox();
    let script = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.2; done";
    engine.docker(&["run", "-d", "--name", "box", BUSYBOX, "sh", "-c", script]).ok();
    let follow = |engine: &Engine, wanted: &str| {
        let mut client = engine.docker_command().args(["logs", "-f", "box"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(client.stdout.take().unwrap()).lines();
        let found = lines.map_while(Result::ok).any(|line| line == wanted);
        let _ = client.kill();
        client.wait().unwrap();
        assert!(found, "the log ended before {wanted:?}");
    };
    follow(&engine, "line 3");
    engine.end_daemon(nix::sys::signal::Signal::SIGKILL);
    engine.start_daemon();
    follow(&engine, "line 12");
    // Nothing was lost meanwhile.
    let text = engine.docker(&["logs", "box"]).ok();
    for (index, line) in text.lines().enumerate() {
        assert_eq!(line, format!("line {}", index + 1));
    }
}

#[test]
fn rotated() {
    let engine = Engine::with_busybox();
    let options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
    let script = "n=0; while [ $n -lt 2000 ]; do n=$((n+1)); echo line $n; done";
    engine.docker(&[&["run", "--name", "box"], &options[..], &[BUSYBOX, "sh", "-c", script]].concat()).ok();
    let path = engine.docker(&["inspect", "--format", "{{.LogPath}}", "box"]).ok();
    for file in [path.clone(), format!("{path}.1"), format!("{path}.2")] {
        let size = fs::metadata(&file).unwrap_or_else(|error| panic!("{file}: {error}")).len();
        assert!(size <= 20 << 10, "{file}: {size}");
    }
    assert!(fs::metadata(format!("{path}.3")).is_err());
    let text = engine.docker(&["logs", "box"]).ok();
    assert!(text.ends_with("line 2000"), "{}", text.len());
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() > 300, "older files are read too: {}", lines.len());
    eventually(5, "tail counts over files", || {
        (engine.docker(&["logs", "--tail", "400", "box"]).ok().lines().count() == 400).then_some(())
    });
}
