//! Idle memory: the daemon, a shim, and what the peers have in their places.

use crate::{
    harness::{BUSYBOX, Engine, busybox_archive},
    peers::{Kind, Peer},
    report::Report,
};
use std::{fs, time::Duration};

/// A process as /proc tells of it.
struct Process {
    pid: u32,
    parent: u32,
    name: String,
}

pub fn measure(report: &mut Report) {
    let ours = Engine::with_busybox();
    let docker = Peer::start(Kind::Docker);
    let podman = Peer::start(Kind::Podman);
    for peer in [&docker, &podman] {
        let archive = peer.path("busybox.tar");
        busybox_archive(&archive);
        peer.docker(&["import", archive.to_str().unwrap(), BUSYBOX]).ok();
    }
    let sleep = ["run", "-d", BUSYBOX, "sleep", "1000"];
    ours.docker(&sleep).ok();
    docker.docker(&sleep).ok();
    crate::harness::run(podman.podman().args(sleep)).ok();
    std::thread::sleep(Duration::from_secs(5));

    let ours_all = processes_with(&ours.path("").display().to_string());
    let docker_all = processes_with(&docker.path("").display().to_string());
    let podman_all = processes_with(&podman.path("").display().to_string());
    let daemon = ours.daemon_pid().as_raw() as u32;
    let shim = |processes: &[Process], name: &str| {
        processes.iter().filter(|process| process.name.contains(name)).map(|process| pss(process.pid)).sum::<u64>()
    };
    report.title("Idle memory with one container running `sleep`, PSS in KiB");
    report.line("| | inception | dockerd + containerd | podman |");
    report.line("|---|--:|--:|--:|");
    let containerd: u64 = docker_all
        .iter()
        .filter(|process| process.parent == docker.pid() && process.name.contains("containerd"))
        .map(|process| pss(process.pid))
        .sum();
    report.line(&format!("| daemon | {} | {} | none needed |", pss(daemon), pss(docker.pid()) + containerd));
    report.line(&format!(
        "| shim, one a container | {} | {} | {} |",
        shim(&ours_all, "inception-shim"),
        shim(&docker_all, "containerd-shim"),
        shim(&podman_all, "conmon")
    ));
    report.line(&format!(
        "| names and published ports | {} | in dockerd | aardvark-dns |",
        shim(&ours_all, "network-helper")
    ));
}

/// Processes whose command line mentions `text`, which is an engine's folder.
fn processes_with(text: &str) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let name = String::from_utf8_lossy(&line).replace('\0', " ");
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).and_then(|pid| pid.parse().ok());
        if name.contains(text.trim_end_matches('/')) && pid != std::process::id() {
            found.push(Process { pid, parent: parent.unwrap_or(0), name });
        }
    }
    found
}

/// Proportional set size in KiB.
fn pss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
