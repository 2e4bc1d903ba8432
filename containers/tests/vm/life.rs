//! Machines that stay: `-d`, `ls`, `logs`, `stop`, `start`, `rm`.

use crate::{
    harness::{BUSYBOX, eventually, run},
    host::Host,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, net::TcpListener, process::Command};

fn page(port: u16) -> Option<String> {
    let address = format!("http://127.0.0.1:{port}/page");
    let said = run(Command::new("curl").args(["--silent", "--noproxy", "*", "--max-time", "5", "--fail", &address]));
    (said.code == 0).then_some(said.stdout)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_machine_stops_and_runs_again_with_its_disk() {
    let host = Host::start();
    let port = free_port();
    let script =
        "mkdir -p /www; echo again >>/www/page; echo serving; trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait";
    let publish = format!("127.0.0.1:{port}:80");
    assert_eq!(host.run(&["-d", "--name", "web", "-p", &publish, BUSYBOX, "sh", "-c", script]).ok(), "web");
    assert_eq!(eventually(90, "the page", || page(port)), "again\n");
    let listed = host.tell(&["ls"]).ok();
    assert!(listed.contains("running") && listed.contains(&format!("127.0.0.1:{port}->80/tcp")), "{listed}");
    host.tell(&["rm", "web"]).fails(1, "stop it first");
    host.tell(&["start", "web"]).fails(1, "runs already");
    host.run(&["-d", "--name", "web", BUSYBOX, "true"]).fails(125, "there is a machine web already");
    // What another one has published can't be had.
    let error =
        host.run(&["-d", "--rm", "--name", "second", "-p", &publish, BUSYBOX, "true"]).fails(125, "host forwarding");
    assert!(error.contains(&port.to_string()), "{error}");
    assert_eq!(host.tell(&["ls", "-q"]).ok(), "web");

    host.tell(&["stop", "web"]).ok();
    assert!(host.tell(&["ls"]).ok().contains("exited (0)"));
    assert!(host.tell(&["logs", "web"]).ok().contains("serving"));
    host.tell(&["stop", "web"]).ok();
    host.tell(&["start", "web"]).ok();
    assert_eq!(eventually(90, "the page of both times", || page(port)), "again\nagain\n");
    host.tell(&["rm", "-f", "web"]).ok();
    assert!(!host.machine("web").exists());
    host.tell(&["stop", "web"]).fails(1, "No such machine: web");
}

#[test]
fn a_machine_does_not_outlive_its_keeper() {
    let host = Host::start();
    let mut running = host.spawn(&["--name", "kept", BUSYBOX, "sh", "-c", "echo runs; sleep 1000"]);
    running.says("runs");
    let keeper: i32 = fs::read_to_string(host.machine("kept").join("lock")).unwrap().trim().parse().unwrap();
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    let qemu: i32 = children.trim().parse().unwrap();
    // The command that started it is gone: the machine goes on.
    running.signal(Signal::SIGKILL);
    running.ends();
    assert!(host.tell(&["ls"]).ok().contains("running"));
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    eventually(10, "qemu is gone", || kill(Pid::from_raw(qemu), None).is_err().then_some(()));
    assert!(host.tell(&["ls"]).ok().contains("lost"));
    host.tell(&["rm", "kept"]).ok();
}
