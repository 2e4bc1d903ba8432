//! The helper with real packets, inside real network namespaces: as root, on loopback addresses only.

mod names;
mod ports;
mod process;
mod upstream;

use super::{Attachment, Helper, Member, Proxy, server};
use crate::{network::PublishedPort, shim::start_time};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A helper that runs in this process, on a thread of its own, and ends with the scene.
struct Scene {
    helper: Option<Helper>,
    server: Option<std::thread::JoinHandle<()>>,
    _exec_root: TempDir,
}

impl Scene {
    async fn new() -> Scene {
        let exec_root = tempfile::tempdir().unwrap();
        let path = exec_root.path().to_owned();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let served = server::run(&path, Duration::from_millis(500));
            runtime.block_on(tokio::task::LocalSet::new().run_until(served)).unwrap();
        });
        let helper = Helper::start_with(exec_root.path(), || {
            // The thread above is about to listen: this command only takes the time.
            Ok(tokio::process::Command::new("true"))
        });
        Scene { helper: Some(helper.await.unwrap()), server: Some(server), _exec_root: exec_root }
    }

    fn helper(&self) -> &Helper {
        self.helper.as_ref().unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Nobody connected, nothing held by a shim that lives: the server ends by itself.
        self.helper = None;
        if let Some(server) = self.server.take()
            && !std::thread::panicking()
        {
            server.join().unwrap();
        }
    }
}

/// A process with a network namespace of its own in which `lo` is up, ended with the value.
struct Shim(Child);

impl Shim {
    fn new() -> Shim {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep 120"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "these tests need root and iproute2");
        Shim(child)
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    fn namespace(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.pid())).unwrap()
    }

    /// Has `body` run inside its namespace.
    fn inside<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.namespace();
        let thread = std::thread::spawn(move || {
            enter(namespace);
            body()
        });
        thread.join().unwrap()
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// A member without anything.
    fn member(&self, id: &str) -> Member {
        Member {
            container_id: id.into(),
            pid: self.pid(),
            started: start_time(self.pid()).unwrap(),
            attachments: Vec::new(),
            servers: Vec::new(),
            resolver: false,
            ports: Vec::new(),
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.end();
    }
}

/// Moves this thread into a network namespace.
fn enter(namespace: File) {
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
}

fn attachment(network: &str, last: u8, names: &[&str]) -> Attachment {
    Attachment {
        network_id: network.into(),
        address: Ipv4Addr::new(198, 18, 0, last),
        names: names.iter().map(ToString::to_string).collect(),
    }
}

fn proxy(host_ip: &str, host_port: u16, protocol: &str, target: SocketAddr) -> Proxy {
    let host_ip: IpAddr = host_ip.parse().unwrap();
    let port = PublishedPort { host_ip, host_port, container_port: target.port(), protocol: protocol.into() };
    Proxy { port, target }
}

/// Waits until `condition` holds.
async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
