//! `inception top`: what runs in an engine.

use crate::{
    harness::{BUSYBOX, Engine, run},
    window::{INCEPTION, Window},
};
use serde_json::Value;
use std::{
    process::Command,
    time::{Duration, Instant},
};

fn top(engine: &Engine, words: &[&str]) -> String {
    run(Command::new(INCEPTION).args(["--host", &engine.host(), "top"]).args(words)).ok()
}

/// A first process that waits for nobody, with a child that ends after a while: a zombie.
fn start(engine: &Engine, name: &str, options: &[&str], seconds: u32) {
    let script = format!("sleep {seconds} & exec sleep 1000");
    let mut words = vec!["run", "-d", "--name", name];
    words.extend(options);
    words.extend([BUSYBOX, "sh", "-c", &script]);
    engine.docker(&words).ok();
}

fn soon(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_zombie_appears_is_told_and_goes() {
    let engine = Engine::with_busybox();
    start(&engine, "undead", &[], 4);
    let window = Window::open(110, 35, &format!("{INCEPTION} --host {} top", engine.host()));
    window.shows(&["1 containers", "▸ undead", "● ", "sleep[1]", "└─sleep[", "up ", "live"]);
    window.shows(&["Z ", "ZOMBIE", "1 zombies"]);
    // From outside, and from inside by `docker exec`, whose processes are nobody's children there.
    engine.docker(&["kill", "--signal", "USR1", "undead"]).ok();
    window.shows(&["⊘ SIGUSR1 IGNORED: outside to sleep[1]"]);
    engine.docker(&["exec", "-d", "undead", "sh", "-c", "kill -STOP $$; sleep 1000"]).ok();
    window.shows(&["outside starts", "T ", "STOPPED"]);
    engine.docker(&["rm", "--force", "undead"]).ok();
    window.shows(&["0 containers, 0 zombies", "ENDED", "KILLED SIGKILL"]);
    // Back, event by event, to where it was a zombie.
    for _ in 0..60 {
        window.keys(&["Left"]);
        if window.text().contains("ZOMBIE") {
            break;
        }
    }
    window.shows(&["ZOMBIE", "‖", "End is live"]);
    window.keys(&["q"]);
    window.ended(0);
}

#[test]
fn tables_json_and_services() {
    let engine = Engine::with_busybox();
    let of = |service: &str| format!("com.docker.compose.service={service}");
    for service in ["web", "db"] {
        let labels = ["--label", "com.docker.compose.project=blog", "--label", &of(service)];
        start(&engine, &format!("blog-{service}-1"), &labels, 0);
    }
    start(&engine, "alone", &["--init"], 0);
    soon("zombies", || top(&engine, &[]).matches("ZOMBIE").count() == 3);
    let table = top(&engine, &[]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..5], ["PROJECT", "SERVICE", "CONTAINER", "PID", "STATE"], "{table}");
    assert_eq!(rows.iter().filter(|row| row.starts_with(&["blog", "db", "blog-db-1"])).count(), 2, "{table}");
    assert!(!table.contains('\u{1b}'));

    let seen: Vec<Value> = serde_json::from_str(&top(&engine, &["--json", "blog-web-1"])).unwrap();
    assert_eq!((seen.len(), &seen[0]["service"], &seen[0]["project"]), (1, &"web".into(), &"blog".into()));
    let processes = seen[0]["processes"].as_array().unwrap();
    let states: Vec<&Value> = processes.iter().map(|process| &process["state"]).collect();
    assert_eq!(states, ["alive", "zombie"], "{processes:?}");
    assert_eq!((&processes[0]["inner"], &processes[1]["exit_status"]), (&1.into(), &0.into()));
    assert_eq!(processes[1]["parent"], processes[0]["pid"]);
    let pid = engine.docker(&["inspect", "--format", "{{.State.Pid}}", "blog-web-1"]).ok();
    assert_eq!(processes[0]["pid"].to_string(), pid.trim());

    let window = Window::open(100, 30, &format!("{INCEPTION} --host {} top", engine.host()));
    let text = window.shows(&["▸ project blog", "web: blog-web-1", "db: blog-db-1", "▸ alone", "3 zombies"]);
    let place = |part: &str| text.find(part).unwrap();
    assert!(place("project blog") < place("db: ") && place("db: ") < place("web: "), "{text}");
    window.keys(&["C-c"]);
    window.ended(130);
}

#[test]
fn what_can_not_be_watched() {
    let engine = Engine::with_busybox();
    let said = run(Command::new(INCEPTION).args(["--host", &engine.host(), "top", "nobody"]));
    assert!(said.code == 1 && said.stderr.contains("nobody"), "{said:?}");
    let said = run(Command::new(INCEPTION).args(["--host", "tcp://127.0.0.1:1", "top"]));
    assert_ne!(said.code, 0);
    assert_eq!(top(&engine, &["--json"]).trim(), "[]");
}
