//! The images of the stack: built cold, built again with everything cached, and their size; then the stack itself, from
//! `up` to the first page.

use crate::{
    disk::Disk,
    harness::{Engine, ask_every, run},
    mirror,
    peers::{Kind, Peer},
    report::{Report, Takes},
    stack::{Client, Stack},
};
use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

const CACHED: usize = 3;
const UP: usize = 5;
pub const IMAGES: [&str; 3] = ["nginx:0.1.0", "mariadb:0.1.0", "wordpress:0.1.0"];

/// Builds the images, for both engines; what is `wanted` of it is measured: "build", "up".
pub fn measure(report: &mut Report, wanted: impl Fn(&str) -> bool) {
    let ours = Engine::start();
    let docker = Peer::start(Kind::Docker);
    let cold = build(&ours.host());
    // The peer's machine has no way to the archive: it gets the same images.
    let archive = ours.path("stack.tar");
    let client = |host: &str| {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", host);
        command
    };
    run(client(&ours.host()).arg("save").arg("--output").arg(&archive).args(IMAGES)).ok();
    run(client(&docker.host()).arg("load").arg("--input").arg(&archive)).ok();
    if wanted("build") {
        measure_build(report, &ours, &docker, cold);
    }
    if wanted("up") {
        measure_up(report, &ours, &docker);
    }
}

fn measure_build(report: &mut Report, ours: &Engine, docker: &Peer, cold: Duration) {
    let mut cached = Takes::default();
    for _ in 0..CACHED {
        cached.add(build(&ours.host()));
    }
    report.title("Build of nginx, MariaDB and WordPress, side by side");
    report.line("| | seconds |");
    report.line("|---|--:|");
    report.line(&format!("| cold: base image and packages from Debian's archive | {:.1} |", cold.as_secs_f64()));
    report.line(&format!("| every step cached, median | {:.2} |", cached.median().as_secs_f64()));
    mirror::measure(report, ours);
    report.title("Room on disk of these images, base and init included, MB");
    report.line("| inception | dockerd |");
    report.line("|--:|--:|");
    let [here, there] = [ours.path("data/image"), docker.path("data/overlay2")].map(|path| megabytes(&path));
    report.line(&format!("| {here} | {there} |"));
}

fn measure_up(report: &mut Report, ours: &Engine, docker: &Peer) {
    let engines = [("inception", ours.host()), ("dockerd", docker.host())];
    let mut first: [Takes; 2] = Default::default();
    let mut again: [Takes; 2] = Default::default();
    // Kept to the end, on a disk on which no build deleted anything.
    let disk = Disk::new();
    let mut stacks = Vec::new();
    for take in 0..=UP {
        for (index, (_, host)) in engines.iter().enumerate() {
            let machine = (index == 1).then_some(&docker.machine);
            let stack = Stack::new(host, Client::Inception, machine);
            let data = disk.path().join(&stack.project);
            stack.setup(&[("DATA_DIR", data.to_str().unwrap())]).ok();
            let times = [to_first_page(&stack), to_first_page(&stack)];
            stacks.push(stack);
            // The first round warms the caches.
            if take > 0 {
                first[index].add(times[0]);
                again[index].add(times[1]);
            }
        }
    }
    report.title("The stack from `up`, images built, volumes empty, to the first HTTPS 200");
    report.times(&rows(&engines, &first));
    report.line("");
    report.line(
        "No service waits for another one's health check (`depends_on: service_started`): no wait between probes is in these times.",
    );
    report.title("The same after `down`: the site is there");
    report.times(&rows(&engines, &again));
}

fn rows<'a>(engines: &'a [(&'a str, String); 2], takes: &'a [Takes; 2]) -> Vec<(&'a str, &'a Takes)> {
    engines.iter().map(|(name, _)| *name).zip(takes).collect()
}

/// `inception build` of the three images; its time.
fn build(host: &str) -> Duration {
    let stack = Stack::new(host, Client::Inception, None);
    let began = Instant::now();
    stack.compose(&["build"]).ok();
    began.elapsed()
}

/// The time from `up` to the first page; afterwards the stack is down, its volumes stay.
fn to_first_page(stack: &Stack) -> Duration {
    settle();
    let began = Instant::now();
    thread::scope(|scope| {
        let up = scope.spawn(|| stack.compose(&["up", "--detach"]).ok());
        // Each look is a TLS handshake on the processors that the stack is to start on: not too many.
        let pause = Duration::from_millis(50);
        ask_every(pause, 60, "the front page", || (stack.status("/") == 200).then_some(()));
        let time = began.elapsed();
        up.join().unwrap();
        stack.compose(&["down"]).ok();
        time
    })
}

/// What the engine before still tidies up and writes is not the next one's time.
pub fn settle() {
    thread::sleep(Duration::from_secs(2));
    nix::unistd::sync();
}

fn megabytes(path: &Path) -> u64 {
    let said = run(Command::new("du").args(["--summarize", "--block-size=1000000"]).arg(path)).ok();
    said.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}
