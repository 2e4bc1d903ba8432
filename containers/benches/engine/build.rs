//! The images of the stack: built cold, built again with everything cached, and their size; then the stack itself, from
//! `up` to the first page.

use crate::{
    harness::{Engine, INCEPTION, eventually, run},
    peers::{Kind, Machine, Peer},
    report::{Report, Takes},
    stack::{Client, Stack},
};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const COLD: usize = 2;
const CACHED: usize = 3;
const UP: usize = 3;

/// The two ends of the wire between this machine and the peer's.
const HERE: &str = "198.19.244.1";
const THERE: &str = "198.19.244.2";
const PROXY_PORT: &str = "3143";

pub fn measure(report: &mut Report) {
    let ours = Engine::start();
    let docker = Peer::start(Kind::Docker);
    let _wire = Wire::between(&docker.machine);
    let _cache = PackageCache::start();
    let engines = [("inception", ours.host()), ("dockerd", docker.host())];

    // Fills the package cache, and makes the base image on both.
    for (_, host) in &engines {
        build(host, &[]);
    }
    let mut cold: [Takes; 2] = Default::default();
    let mut cached: [Takes; 2] = Default::default();
    for _ in 0..COLD {
        for (index, (_, host)) in engines.iter().enumerate() {
            cold[index].add(build(host, &["--no-cache"]));
        }
    }
    for _ in 0..CACHED {
        for (index, (_, host)) in engines.iter().enumerate() {
            cached[index].add(build(host, &[]));
        }
    }
    report
        .title("Cold build of nginx, MariaDB and WordPress (base image there, packages from a cache on this machine)");
    report.times(&rows(&engines, &cold));
    report.title("The same with every step cached");
    report.times(&rows(&engines, &cached));

    report.title("Room on disk of these images, the base and the init, MB");
    report.line("| inception | dockerd |");
    report.line("|--:|--:|");
    // The cold builds left images without a name: those are not the stack's.
    for (_, host) in &engines {
        run(Command::new("docker").env("DOCKER_HOST", host).args(["image", "prune", "--force"])).ok();
    }
    let [here, there] = [ours.path("data/image"), docker.path("data/overlay2")].map(|path| megabytes(&path));
    report.line(&format!("| {here} | {there} |"));

    let mut up: [Takes; 2] = Default::default();
    for take in 0..=UP {
        for (index, (_, host)) in engines.iter().enumerate() {
            let machine = (index == 1).then_some(&docker.machine);
            let time = to_first_page(&Stack::new(host, Client::Inception, machine));
            // The first round warms the caches.
            if take > 0 {
                up[index].add(time);
            }
        }
    }
    report.title("The stack from `up`, images built, volumes empty, to the first HTTPS 200");
    report.times(&rows(&engines, &up));
    report.line("");
    report.line("No service waits for another one's health check (`depends_on: service_started`), so no wait between probes is in these times.");
}

fn rows<'a>(engines: &'a [(&'a str, String); 2], takes: &'a [Takes; 2]) -> Vec<(&'a str, &'a Takes)> {
    engines.iter().map(|(name, _)| *name).zip(takes).collect()
}

/// `inception build` of the three images; its time.
fn build(host: &str, more: &[&str]) -> Duration {
    let stack = Stack::new(host, Client::Inception, None);
    let began = Instant::now();
    run(Command::new(INCEPTION)
        .env("DOCKER_HOST", host)
        .arg("build")
        .arg("--file")
        .arg(stack.file("compose.yaml"))
        .args(["--build-arg", &format!("http_proxy=http://{HERE}:{PROXY_PORT}")])
        .args(more))
    .ok();
    began.elapsed()
}

/// The time from `up` to the first page; the stack is gone afterwards.
fn to_first_page(stack: &Stack) -> Duration {
    let began = Instant::now();
    thread::scope(|scope| {
        let up = scope.spawn(|| stack.compose(&["up", "--detach"]).ok());
        stack.wait();
        let time = began.elapsed();
        up.join().unwrap();
        time
    })
}

fn megabytes(path: &Path) -> u64 {
    let said = run(Command::new("du").args(["--summarize", "--block-size=1000000"]).arg(path)).ok();
    said.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// A veth pair between this machine and the network namespace that stands for the peer's.
struct Wire(String);

impl Wire {
    fn between(machine: &Machine) -> Wire {
        let name = format!("ibench{}", std::process::id());
        let ip = |args: &[&str]| run(Command::new("ip").args(args)).ok();
        ip(&["link", "add", &name, "type", "veth", "peer", "name", "wire0", "netns", machine.name()]);
        ip(&["address", "add", &format!("{HERE}/30"), "dev", &name]);
        ip(&["link", "set", &name, "up"]);
        run(machine.command("ip").args(["address", "add", &format!("{THERE}/30"), "dev", "wire0"])).ok();
        run(machine.command("ip").args(["link", "set", "wire0", "up"])).ok();
        run(machine.command("ip").args(["route", "add", "default", "via", HERE])).ok();
        Wire(name)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.0]).status();
    }
}

/// apt-cacher-ng: what one engine has fetched, the other gets from this machine too.
struct PackageCache {
    _folder: tempfile::TempDir,
    server: Child,
}

impl PackageCache {
    fn start() -> PackageCache {
        let folder = tempfile::Builder::new().prefix("inception-packages-").tempdir().unwrap();
        for name in ["cache", "log", "settings"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        // Not the machine's settings: they send Debian's names to mirrors that may not answer here.
        fs::write(folder.path().join("settings/acng.conf"), "").unwrap();
        let setting = |name: &str, value: &str| format!("{name}={value}");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let server = Command::new("/usr/sbin/apt-cacher-ng")
            .args(["-c", &path("settings"), "ForeGround=1"])
            .args([setting("CacheDir", &path("cache")), setting("LogDir", &path("log"))])
            .args([setting("Port", PROXY_PORT), setting("BindAddress", HERE), setting("SocketPath", &path("socket"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("apt-cacher-ng, which `make bench` installs");
        eventually(10, "the package cache answers", || {
            std::net::TcpStream::connect(format!("{HERE}:{PROXY_PORT}")).ok().map(drop)
        });
        PackageCache { _folder: folder, server }
    }
}

impl Drop for PackageCache {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
