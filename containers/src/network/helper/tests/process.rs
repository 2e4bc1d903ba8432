//! The helper as a process of its own: this test program, which runs `as_process` in it.

use super::{super::server, Helper, Shim, eventually, exists, proxy};
use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::Command;

const EXEC_ROOT: &str = "INCEPTION_TEST_EXEC_ROOT";

const GRACE: Duration = Duration::from_secs(3);

/// No test: what the helper's process runs.
#[test]
#[ignore = "run by the other tests here"]
fn as_process() {
    if let Some(exec_root) = std::env::var_os(EXEC_ROOT) {
        server::serve_with(&PathBuf::from(exec_root), GRACE).unwrap();
    }
}

async fn start(exec_root: &Path) -> Helper {
    let helper = Helper::start_with(exec_root, || {
        let mut command = Command::new("/proc/self/exe");
        command.args(["network::helper::tests::process::as_process", "--exact", "--ignored", "--nocapture"]);
        command.env(EXEC_ROOT, exec_root).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    });
    helper.await.unwrap()
}

/// The pid that the helper wrote.
fn pid(exec_root: &Path) -> i32 {
    let written = std::fs::read_to_string(exec_root.join("network-helper.pid")).unwrap();
    let pid = written.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(written, format!("{pid} {}\n", crate::shim::start_time(pid).unwrap()));
    pid
}

/// How many processes serve `exec_root`.
fn count(exec_root: &Path) -> usize {
    let meant = format!("{EXEC_ROOT}={}", exec_root.display());
    let serves = |entry: std::io::Result<std::fs::DirEntry>| {
        let environment = std::fs::read(entry.unwrap().path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == meant.as_bytes())
    };
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| serves(entry).then_some(())).count()
}

fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

#[tokio::test]
async fn one_process_that_can_be_killed_and_ends_by_itself() {
    let exec_root = tempfile::tempdir().unwrap();
    let path = exec_root.path();
    let (socket, pidfile) = (path.join("network-helper.sock"), path.join("network-helper.pid"));
    let (one, two, three) = tokio::join!(start(path), start(path), start(path));
    drop((two, three));
    let first = pid(path);
    eventually("only one stays", async || count(path) == 1).await;
    assert_eq!(pid(path), first);
    let mode = std::os::unix::fs::PermissionsExt::mode(&socket.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let mut shim = Shim::new();
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut member = shim.member("a");
    member.resolver = true;
    member.ports = vec![proxy("127.0.0.1", 0, "tcp", target.local_addr().unwrap())];
    let ports = one.set(&member).await.unwrap();
    member.ports[0].port = ports[0].clone();
    let connected = TcpStream::connect(("127.0.0.1", ports[0].host_port)).unwrap();

    // Killed, with a connection open: the next one takes over socket, name service and port.
    kill(first, nix::sys::signal::SIGKILL);
    one.ended().await;
    one.ended().await;
    assert!(exists(&socket));
    let next = start(path).await;
    let pid_of_next = pid(path);
    assert_ne!(pid_of_next, first);
    assert_eq!(next.members().await.unwrap(), Vec::<String>::new());
    assert_eq!(next.set(&member).await.unwrap(), ports);
    drop(connected);
    one.set(&member).await.unwrap();

    // Without a daemon it goes on as long as it holds something, and then a little.
    let watched = crate::sys::watch(crate::sys::pidfd_open(pid_of_next).unwrap()).unwrap();
    drop((one, next));
    tokio::time::sleep(GRACE + Duration::from_secs(1)).await;
    let again = start(path).await;
    assert_eq!((pid(path), again.members().await.unwrap()), (pid_of_next, vec!["a".to_string()]));
    drop(again);
    shim.end();
    let start_of_end = Instant::now();
    drop(watched.readable().await.unwrap());
    assert!(start_of_end.elapsed() > GRACE - Duration::from_millis(500), "it waits for a daemon that restarts");
    assert!(start_of_end.elapsed() < Duration::from_secs(20));
    assert!(!exists(&socket) && !exists(&pidfile));
}

#[tokio::test]
async fn sigterm_ends_it() {
    let exec_root = tempfile::tempdir().unwrap();
    let helper = start(exec_root.path()).await;
    kill(pid(exec_root.path()), nix::sys::signal::SIGTERM);
    helper.ended().await;
    eventually("the files go", async || !exists(&exec_root.path().join("network-helper.sock"))).await;
    assert!(!exists(&exec_root.path().join("network-helper.pid")));
}
