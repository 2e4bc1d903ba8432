//! Nothing is left behind: processes, mounts, tracefs instances, folders.

use crate::harness::{ended, folders_of, instances_of, processes_of, soon, start};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, time::Duration};

fn signal(lab: u32, signal: Signal) {
    kill(Pid::from_raw(lab as i32), signal).unwrap();
}

fn nothing_is_left(lab: u32) {
    soon("processes are left", || processes_of(lab).is_empty());
    assert_eq!(folders_of(lab), Vec::<std::path::PathBuf>::new());
    assert_eq!(instances_of(lab), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("inception-lab-{lab}")), "{mounts}");
}

/// Ctrl-C from the first milliseconds to the middle of the grace period.
#[test]
fn ctrl_c_at_any_moment() {
    let moments = [0, 2, 5, 10, 20, 30, 50, 80, 150, 400, 900, 1500];
    let labs = moments.map(|moment| {
        let mut lab = start(&["zombies", "--yes"]);
        std::thread::sleep(Duration::from_millis(moment));
        signal(lab.id(), Signal::SIGINT);
        let code = ended(&mut lab);
        assert_eq!(code, 130, "after {moment} ms");
        lab.id()
    });
    labs.into_iter().for_each(nothing_is_left);
}

#[test]
fn term_and_hangup() {
    for (sent, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let mut lab = start(&["sigterm", "--yes"]);
        soon("the lesson runs", || !processes_of(lab.id()).is_empty());
        signal(lab.id(), sent);
        assert_eq!(ended(&mut lab), code);
        nothing_is_left(lab.id());
    }
}

/// A killed lab can't clean up: its processes end with it, and the next lab removes the rest.
#[test]
fn killed() {
    let mut lab = start(&["sigterm", "--yes"]);
    soon("the lesson runs", || processes_of(lab.id()).len() >= 3);
    signal(lab.id(), Signal::SIGKILL);
    assert_eq!(ended(&mut lab), 137);
    soon("processes outlive the lab", || processes_of(lab.id()).is_empty());
    assert_eq!((folders_of(lab.id()).len(), instances_of(lab.id()).len()), (1, 1));
    assert_eq!(ended(&mut start(&["exit-codes", "--yes"])), 0);
    nothing_is_left(lab.id());
}

#[test]
fn a_lesson_to_its_end() {
    let mut lab = start(&["exit-codes", "--yes"]);
    assert_eq!(ended(&mut lab), 0);
    nothing_is_left(lab.id());
}

/// A lesson with an engine of its own: containers, shims, mounts and bridges go too.
#[test]
fn ctrl_c_with_an_engine() {
    for moment in [200, 800, 1600] {
        let mut lab = start(&["storage", "--yes"]);
        std::thread::sleep(Duration::from_millis(moment));
        signal(lab.id(), Signal::SIGINT);
        // A lesson that was over is as well.
        assert!([130, 0].contains(&ended(&mut lab)), "after {moment} ms");
        no_engine_is_left(lab.id());
        nothing_is_left(lab.id());
    }
}

#[test]
fn killed_with_an_engine() {
    let mut lab = start(&["storage", "--yes"]);
    soon("a container runs", || !engine_processes(lab.id(), "inception-shim").is_empty());
    signal(lab.id(), Signal::SIGKILL);
    assert_eq!(ended(&mut lab), 137);
    assert_eq!(ended(&mut start(&["exit-codes", "--yes"])), 0);
    no_engine_is_left(lab.id());
    nothing_is_left(lab.id());
}

/// Processes that have the lab's folder among their words.
fn engine_processes(lab: u32, name: &str) -> Vec<String> {
    let mark = format!("inception-lab-{lab}-");
    let is_it = |process: &fs::DirEntry| {
        let words = String::from_utf8_lossy(&fs::read(process.path().join("cmdline")).unwrap_or_default()).into_owned();
        words.contains(&mark) && words.contains(name)
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().filter(is_it);
    processes.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

fn no_engine_is_left(lab: u32) {
    soon("the engine's processes are left", || engine_processes(lab, "").is_empty());
}
