//! The daemon itself: start, refuse, end.

use crate::harness::{BUSYBOX, Engine, INCEPTION, run};
use nix::sys::signal::Signal;
use std::{
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    process::Command,
};

#[test]
fn docker_client_reads_version_and_info() {
    let engine = Engine::start();
    let version = engine.docker(&["version", "--format", "{{.Server.APIVersion}} {{.Server.Os}}"]).ok();
    assert_eq!(version, "1.47 linux");
    let info = engine.docker(&["info", "--format", "{{.Driver}} {{.ServerErrors}}"]).ok();
    assert_eq!(info, "overlay2 []");
}

#[test]
fn its_socket_is_private() {
    let engine = Engine::start();
    let mode = std::fs::metadata(engine.path("engine.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_second_daemon_on_the_same_store_is_refused() {
    let engine = Engine::start();
    let other = format!("unix://{}", engine.path("other.sock").display());
    run(Command::new(INCEPTION)
        .args(["daemon", "--host", &other, "--data-root"])
        .arg(engine.path("data"))
        .arg("--exec-root")
        .arg(engine.path("other")))
    .fails(1, "another daemon uses");
}

#[test]
fn a_daemon_comes_back_after_sigkill() {
    let mut engine = Engine::start();
    engine.end_daemon(Signal::SIGKILL);
    engine.start_daemon();
    engine.docker(&["version"]).ok();
}

#[test]
fn an_unknown_route_is_refused_by_name() {
    let engine = Engine::start();
    engine.docker(&["swarm", "init"]).fails(1, "not implemented: POST /swarm/init");
}

#[test]
fn a_service_managers_variables_are_not_the_containers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let within = ["env".into(), format!("NOTIFY_SOCKET={}", path.display()), "LISTEN_FDS=1".into()];
    let engine = Engine::start_within(&[], within.to_vec()).load_busybox();
    let mut message = [0; 64];
    let length = socket.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1");
    // With the variable, runc would wait for the program inside to say that it is ready.
    engine.docker(&["run", "-d", "--name", "box", BUSYBOX, "sleep", "1000"]).ok();
    let environment = engine.docker(&["exec", "box", "env"]).ok();
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("LISTEN_FDS"), "{environment}");
}
