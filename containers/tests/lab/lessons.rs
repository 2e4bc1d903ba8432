//! Each lesson under each alternative. The lessons' own tables say what is expected; here they are asked to agree, and
//! the values that make the lesson are written down once more, so that a wrong table does not pass.

use crate::harness::{ALTERNATIVES, events, lab, lab_as_nobody, observed, soon, under};
use serde_json::{Value, json};
use std::sync::{Once, OnceLock};

const NAMES: [&str; 11] = [
    "sigterm",
    "zombies",
    "orphans",
    "clean-up",
    "exit-codes",
    "inside",
    "worker",
    "daemon",
    "ctrl-c",
    "early",
    "trap",
];

/// An exit code and the runs.
type Ran = (i32, Vec<Value>);

/// Lessons mostly wait out grace periods: they are run ahead, four at a time.
fn ahead(name: &str) -> Ran {
    static RUNS: [OnceLock<Ran>; NAMES.len()] = [const { OnceLock::new() }; NAMES.len()];
    static WORKERS: Once = Once::new();
    WORKERS.call_once(|| {
        for worker in 0..4 {
            std::thread::spawn(move || {
                for place in (worker..NAMES.len()).step_by(4) {
                    let _ = RUNS[place].set(lab(&[NAMES[place]]));
                }
            });
        }
    });
    let place = NAMES.iter().position(|known| *known == name).unwrap();
    soon("the lesson is over", || RUNS[place].get().is_some());
    RUNS[place].get().unwrap().clone()
}

/// Runs it, and sees to it that all was measured and all agreed.
fn lesson(name: &str) -> Vec<Value> {
    let (code, runs) = ahead(name);
    agreed(code, &runs);
    assert!(runs.iter().all(|run| run["source"] == "tracepoints"));
    runs
}

fn agreed(code: i32, runs: &[Value]) {
    let names: Vec<&str> = runs.iter().map(|run| run["alternative"].as_str().unwrap()).collect();
    assert_eq!(names, ALTERNATIVES);
    for run in runs {
        assert_eq!(run["outcome"], "ran", "{run}");
        for observation in run["observations"].as_array().unwrap() {
            assert_eq!(observation["agrees"], true, "{}: {observation}", run["alternative"]);
        }
    }
    assert_eq!(code, 0);
}

/// One observation under all alternatives, in their order.
fn all(runs: &[Value], name: &str) -> Vec<Value> {
    runs.iter().map(|run| observed(run, name).clone()).collect()
}

fn took(run: &Value) -> i64 {
    observed(run, "stop took").as_i64().unwrap()
}

#[test]
fn sigterm() {
    let runs = lesson("sigterm");
    assert_eq!(all(&runs, "exit status"), [137, 137, 143, 143, 143, 143]);
    for run in &runs {
        assert_eq!(run["exit_status"], *observed(run, "exit status"));
    }
    assert!(took(under(&runs, "none")) >= 3000 && took(under(&runs, "sh")) >= 3000);
    assert!(took(under(&runs, "inception-init")) < 1500);
    // The kernel tells that it dropped the signal, and who passed it on.
    let dropped = events(under(&runs, "none"), "signal_ignored");
    assert_eq!((dropped.len(), dropped[0]["signal"].clone(), dropped[0]["pid"].clone()), (1, json!(15), json!(0)));
    for init in &ALTERNATIVES[2..] {
        let run = under(&runs, init);
        let root = run["recording"]["processes"][0].clone();
        assert_eq!((&root["inner"], &root["parent"]), (&json!(1), &json!(0)));
        let forwarded = events(run, "signal_forwarded");
        assert_eq!((&forwarded[0]["signal"], &forwarded[0]["pid"]), (&json!(15), &root["pid"]), "{init}");
    }
}

#[test]
fn zombies() {
    let runs = lesson("zombies");
    let none = under(&runs, "none");
    let made = observed(none, "orphans made").as_i64().unwrap();
    assert!((55..64).contains(&made), "{made}");
    assert_eq!(*observed(none, "zombies"), made);
    assert_eq!(all(&runs, "zombies")[1..], [0, 0, 0, 0, 0]);
    assert_eq!(all(&runs, "orphans made")[1..], [200, 200, 200, 200, 200]);
    // The picture shows the same: that many had ended and were not reaped when the stop began.
    let stop = events(none, "phase")[0]["at"].as_u64().unwrap();
    let is_zombie = |process: &&Value| {
        process["end"].as_u64().is_some_and(|end| end < stop) && process["reaped"].as_u64().is_some_and(|at| at > stop)
    };
    let seen = none["recording"]["processes"].as_array().unwrap().iter().filter(is_zombie).count();
    assert_eq!(seen as i64, made);
}

#[test]
fn orphans() {
    let runs = lesson("orphans");
    assert_eq!(all(&runs, "adopter"), ["app", "sh", "tini", "dumb-init", "catatonit", "inception-init"]);
    for run in &runs {
        let root = &run["recording"]["processes"][0]["pid"];
        assert!(events(run, "adopt").iter().any(|event| event["pid"] == *root), "{}", run["alternative"]);
    }
}

#[test]
fn clean_up() {
    let runs = lesson("clean-up");
    assert_eq!(all(&runs, "clean-up done"), [true, false, false, false, false, true]);
    assert_eq!(all(&runs, "exit status"), [0, 137, 143, 143, 143, 143]);
}

#[test]
fn exit_codes() {
    let runs = lesson("exit-codes");
    assert_eq!(all(&runs, "exit 3"), [3, 3, 3, 3, 3, 3]);
    assert_eq!(all(&runs, "killed by SIGTERM"), [0, 143, 143, 143, 143, 143]);
    assert_eq!(all(&runs, "killed by SIGKILL"), [0, 137, 137, 137, 137, 137]);
    assert_eq!(all(&runs, "abort()"), [139, 134, 134, 134, 134, 134]);
    assert_eq!(all(&runs, "not found"), [127, 127, 127, 2, 1, 127]);
    assert_eq!(all(&runs, "not executable"), [126, 126, 126, 2, 1, 126]);
}

#[test]
fn inside() {
    let runs = lesson("inside");
    assert_eq!(all(&runs, "KILL from outside"), [137, 137, 137, 137, 137, 137]);
    assert_eq!(all(&runs, "lives after KILL from inside"), [true; 6]);
    assert_eq!(all(&runs, "TERM from inside")[..3], ["ignored", "ignored", "forwarded"]);
}

#[test]
fn worker() {
    let runs = lesson("worker");
    assert_eq!(all(&runs, "worker flushed"), [false, false, false, false, false, true]);
    assert!(took(under(&runs, "inception-init")) >= 700);
}

#[test]
fn daemon() {
    let runs = lesson("daemon");
    assert_eq!(all(&runs, "runs on"), [false, true, false, false, false, false]);
    assert_eq!(*observed(under(&runs, "inception-init"), "service worked, with --wait-all"), true);
    assert_eq!(*observed(under(&runs, "sh"), "exit status"), 137);
}

#[test]
fn ctrl_c() {
    let runs = lesson("ctrl-c");
    assert_eq!(all(&runs, "Ctrl-C ends it"), [false, true, true, true, true, true]);
}

#[test]
fn early() {
    let runs = lesson("early");
    assert_eq!(all(&runs, "exit status"), [137, 137, 143, 143, 143, 143]);
    assert_eq!(*observed(under(&runs, "none"), "lost of 40, sent at once"), 40);
    assert_eq!(*observed(under(&runs, "inception-init"), "lost of 40, mask awaited"), 0);
}

#[test]
fn trap() {
    let runs = lesson("trap");
    assert_eq!(all(&runs, "foreground: exit status"), [137, 137, 137, 0, 137, 137]);
    assert_eq!(all(&runs, "background: exit status"), [0, 137, 0, 0, 0, 0]);
}

/// A lesson that compares other things than inits: its columns, all as expected, but for what is not there.
fn compared(name: &str, columns: &[&str]) -> Vec<Value> {
    let (code, runs) = lab(&[name]);
    let names: Vec<&str> = runs.iter().map(|run| run["alternative"].as_str().unwrap()).collect();
    assert_eq!(names, columns);
    for run in runs.iter().filter(|run| run["alternative"] != "docker") {
        assert_eq!(run["outcome"], "ran", "{run}");
        for observation in run["observations"].as_array().unwrap() {
            assert_eq!(observation["agrees"], true, "{}: {observation}", run["alternative"]);
        }
    }
    assert_eq!(code, 0);
    runs
}

#[test]
fn parts() {
    let runs = compared("parts", &["embedded", "docker"]);
    let embedded = under(&runs, "embedded");
    assert_eq!(*observed(embedded, "alive after the client is killed"), "engine shim init service");
    assert_eq!(*observed(embedded, "alive after the engine is killed"), "shim init service");
    assert_eq!(*observed(embedded, "a new engine takes it over"), true);
    assert_eq!(*observed(embedded, "alive after the shim is killed"), "engine");
    // runc lived, and is gone.
    let processes = embedded["recording"]["processes"].as_array().unwrap();
    let runc = processes.iter().find(|process| process["name"].as_str().unwrap().starts_with("runc")).unwrap();
    assert!(runc["reaped"].is_u64(), "{runc}");
}

#[test]
fn daemons() {
    let runs = compared("daemons", &["one", "three", "three-init", "three-any", "daemon"]);
    assert_eq!(*observed(under(&runs, "three"), "services told at a stop"), 0);
    assert_eq!(*observed(under(&runs, "three-init"), "services told at a stop"), 3);
    assert_eq!(*observed(under(&runs, "one"), "exit status then"), 137);
}

#[test]
fn storage() {
    let runs = compared("storage", &["layer", "volume", "bind", "tmpfs"]);
    assert_eq!(all(&runs, "there after kill and start"), [true, true, true, false]);
    assert_eq!(all(&runs, "there in a new container"), [false, true, true, false]);
    assert!(all(&runs, "write").iter().all(|speed| speed.as_i64().unwrap() > 0));
}

#[test]
fn networks() {
    let runs = compared("networks", &["bridge", "macvlan", "host", "none"]);
    assert_eq!(all(&runs, "reaches another container by name"), [true, true, false, false]);
    assert_eq!(all(&runs, "reaches the host's loopback"), [false, false, true, false]);
    assert_eq!(all(&runs, "reached by another container"), [true, true, false, false]);
    assert_eq!(all(&runs, "the host reaches it"), [true, false, true, false]);
    // What is drawn is what was probed: a veth pair into the bridge, that bridge's address as the way out.
    let map = &under(&runs, "bridge")["network"];
    let (probe, bridge) = (&map["containers"][1], &map["bridge"]);
    let outward = &probe["interfaces"][1];
    assert_eq!((&probe["name"], &outward["name"]), (&json!("probe-bridge"), &json!("eth0")));
    assert_eq!(outward["peer"]["bridge"], bridge["name"]);
    let address = bridge["address"].as_str().unwrap().split('/').next().unwrap();
    assert_eq!(probe["gateway"], address);
    assert!(address.starts_with("198.19."), "{address}");
    for run in &runs {
        let count = |reached: bool| {
            run["network"]["probes"].as_array().unwrap().iter().filter(|probe| probe["reached"] == reached).count()
        };
        let expected = match run["alternative"].as_str().unwrap() {
            "bridge" => (5, 1),
            "macvlan" => (3, 3),
            "host" => (4, 2),
            _ => (1, 5),
        };
        assert_eq!((count(true), count(false)), expected, "{run}");
    }
    // A macvlan hangs on its parent, here the bridge, without an end of its own in the host.
    let map = &under(&runs, "macvlan")["network"];
    assert_eq!(map["bridge"]["name"], bridge["name"]);
    assert_eq!(map["containers"][1]["interfaces"][1]["peer"], json!({"name": bridge["name"], "bridge": null}));
    let host = &under(&runs, "host")["network"]["containers"][1];
    assert_eq!((&host["is_in_host"], host["interfaces"][0]["name"].as_str()), (&json!(true), Some("lo")));
    assert_eq!(under(&runs, "none")["network"]["containers"][1]["gateway"], Value::Null);
}

/// The same in a terminal.
#[test]
fn a_network_drawn_in_letters() {
    let output = std::process::Command::new(crate::harness::INCEPTION).args(["lab", "networks"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["┌ web ─", "┌ probe-host ╌", "═╧═", "│ no default route │", "probe-bridge ───▶ web ", " ─ ✗  host "]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert_eq!(text.matches("no connection").count(), 11, "{text}");
}

#[test]
fn layers() {
    let columns = ["COPY busybox", "RUN --install", "COPY app", "RUN rm", "RUN echo", "ENV"];
    let runs = compared("layers", &columns);
    assert_eq!(all(&runs, "whited out"), [0, 0, 0, 1, 0, 0]);
    assert_eq!(all(&runs, "from cache, built again"), [true; 6]);
    assert_eq!(all(&runs, "from cache, app changed"), [true, true, false, false, false, false]);
    assert!(observed(&runs[0], "size").as_i64().unwrap() > 500);
}

/// Without rights: a user namespace, /proc and the init's event log.
#[test]
fn without_root() {
    let (code, runs) = lab_as_nobody(&["zombies", "--grace", "1"]);
    agreed(code, &runs);
    assert!(runs.iter().all(|run| run["source"] == "proc" && run["lost_events"] == 0));
    let init = under(&runs, "inception-init");
    let forwarded = events(init, "signal_forwarded");
    let app = init["recording"]["processes"].as_array().unwrap().iter().find(|process| process["inner"] == 2).unwrap();
    assert_eq!((&forwarded[0]["signal"], &forwarded[0]["other"]), (&json!(15), &app["pid"]));
    assert_eq!(app["exit_status"], 143);
    let dropped = |name: &str| events(under(&runs, name), "signal_ignored").len();
    assert_eq!(ALTERNATIVES.map(dropped), [1, 1, 0, 0, 0, 0]);
}

/// What is not there is said, with how to get it.
#[test]
fn not_installed() {
    let output = std::process::Command::new(crate::harness::INCEPTION)
        .args(["lab", "exit-codes", "--json", "--alternative", "inception-init"])
        .env("INCEPTION_INIT", "/nowhere/inception-init")
        .output()
        .unwrap();
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&run["outcome"], output.status.code()), (&json!("not_installed"), Some(0)));
    assert!(run["detail"].as_str().unwrap().contains("make init"));
}

/// A lesson that sees something else says so, and how.
#[test]
fn differences_are_said() {
    let folder = tempfile::Builder::new().prefix("lab-test-").tempdir().unwrap();
    // An init that ends with 0 whatever its child does.
    let liar = folder.path().join("init");
    std::fs::write(&liar, "#!/bin/sh\nshift\n\"$@\"\nexit 0\n").unwrap();
    std::process::Command::new("chmod").args(["755"]).arg(&liar).status().unwrap();
    let output = std::process::Command::new(crate::harness::INCEPTION)
        .args(["lab", "exit-codes", "--yes", "--alternative", "inception-init"])
        .env("INCEPTION_INIT", &liar)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("(!) inception-init: exit 3 is 0, expected: 3"), "{text}");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn plain_lines() {
    let output = std::process::Command::new(crate::harness::INCEPTION).args(["lab", "exit-codes"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "Lesson 5, exit-codes",
        "| #!/bin/sh",
        "What do you expect?",
        "What happened",
        "not found ",
        "Why\n",
        "| ENTRYPOINT",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn words_that_are_wrong() {
    for words in [&["lab", "99"][..], &["lab", "1", "--grace", "0"], &["lab", "1", "--alternative", "systemd"]] {
        let output = std::process::Command::new(crate::harness::INCEPTION).args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
    }
}
