//! The exercises: each is wrong as it is given, and right when it is mended as its last hint says.

use crate::harness::INCEPTION;
use serde_json::Value;
use std::{fs, path::Path, process::Command};

/// The exit code and the names of the points that are wrong.
fn judge(folder: &Path, name: &str) -> (i32, Vec<String>) {
    let mut command = Command::new(INCEPTION);
    let output =
        command.current_dir(folder).args(["lab", "exercise", name, "--json", "--grace", "1"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let points = report["points"].as_array().unwrap().iter().filter(|point| point["verdict"] == "wrong");
    (output.status.code().unwrap(), points.map(|point| point["name"].as_str().unwrap().to_owned()).collect())
}

fn exercise(name: &str, wrong: &[&str], mended: &[(&str, &str)]) {
    let folder = tempfile::Builder::new().prefix("lab-test-").tempdir().unwrap();
    assert_eq!(judge(folder.path(), name), (3, wrong.iter().map(|name| (*name).to_owned()).collect()));
    for (file, text) in mended {
        fs::write(folder.path().join(name).join(file), text).unwrap();
    }
    assert_eq!(judge(folder.path(), name), (0, vec![]));
}

const INIT: &str = "FROM x\nENTRYPOINT [\"inception-init\", \"--\"]\nCMD [\"./server\"]\n";

fn shell_form() {
    exercise("shell-form", &["stops at SIGTERM", "exit code is seen outside"], &[("Dockerfile", INIT)]);
}

fn tail_f() {
    let dockerfile = "FROM x\nENTRYPOINT [\"inception-init\", \"--\", \"./entrypoint.sh\"]\n";
    let mended = [("Dockerfile", dockerfile), ("entrypoint.sh", "#!/bin/sh\necho preparing\nexec ./server\n")];
    exercise("tail-f", &["stops at SIGTERM", "exit code is seen outside"], &mended);
}

fn trap() {
    exercise("trap", &["stops at SIGTERM"], &[("entrypoint.sh", "#!/bin/bash\nexec ./server\n")]);
}

fn background() {
    exercise("background", &["stays in the foreground"], &[("Dockerfile", INIT)]);
}

fn health_check() {
    exercise("health-check", &["waits for orphans"], &[("Dockerfile", INIT)]);
}

/// Side by side: they mostly wait.
#[test]
fn every_exercise() {
    std::thread::scope(|scope| {
        for exercise in [shell_form, tail_f, trap, background, health_check] {
            scope.spawn(exercise);
        }
    });
}

/// What the learner has written is never overwritten, and hints come one by one.
#[test]
fn hints() {
    let folder = tempfile::Builder::new().prefix("lab-test-").tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(INCEPTION);
        let output = command.current_dir(folder.path()).args(["lab", "exercise"]).args(words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
    };
    fs::create_dir(folder.path().join("trap")).unwrap();
    fs::write(folder.path().join("trap/Dockerfile"), "FROM x\nCMD [\"true\"]\n").unwrap();
    let (code, text) = run(&["trap", "--hint", "3"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("As PID 1: true") && text.contains("A hint: Often nothing is left"), "{text}");
    assert!(!text.contains("ENTRYPOINT ["), "the solution is told: {text}");
    fs::write(folder.path().join("trap/Dockerfile"), "FROM x\nCMD [\n").unwrap();
    assert_eq!(run(&["trap"]).0, Some(3));
    assert_eq!(run(&["nosuch"]).0, Some(2));
    assert!(run(&[]).1.contains("health-check"));
}
