//! `run --rm` of a static `true` on the default bridge.

use crate::{
    harness::{BUSYBOX, Engine, busybox_archive},
    peers::{Kind, Peer},
    report::{Report, Takes, milliseconds},
};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{CreateContainerOptionsBuilder, WaitContainerOptionsBuilder},
};
use futures_util::StreamExt;
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const TAKES: usize = 15;
const AT_A_TIME: usize = 10;

/// Times of the API's four requests of one `run --rm`.
#[derive(Default)]
struct Steps {
    create: Takes,
    start: Takes,
    end: Takes,
    all: Takes,
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
    let client = |host: &str| {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", host).args(["run", "--rm", BUSYBOX, "/bin/true"]);
        command
    };
    let commands = || {
        let mut native = podman.podman();
        native.args(["run", "--rm", BUSYBOX, "/bin/true"]);
        [("inception", client(&ours.host())), ("dockerd", client(&docker.host())), ("podman (its own client)", native)]
    };

    let mut alone: [Takes; 3] = Default::default();
    let mut together: [Takes; 3] = Default::default();
    for take in 0..=TAKES {
        for (engine, (_, command)) in commands().into_iter().enumerate() {
            let time = time_of(command, 1);
            // The first round warms the caches.
            if take > 0 {
                alone[engine].add(time);
            }
        }
    }
    for _ in 0..3 {
        for (engine, (_, command)) in commands().into_iter().enumerate() {
            together[engine].add(time_of(command, AT_A_TIME));
        }
    }
    let names = commands().map(|(name, _)| name);
    report.title("`docker run --rm` of a static `true`, default bridge, runc");
    report.times(&rows(&names, &alone));
    report.title("The same, ten at a time");
    report.times(&rows(&names, &together));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let hosts = [ours.host(), docker.host()];
    let mut steps: [Steps; 2] = Default::default();
    runtime.block_on(async {
        for take in 0..=TAKES {
            for (engine, host) in hosts.iter().enumerate() {
                let mut one = Steps::default();
                by_api(host, &mut one).await;
                if take > 0 {
                    let into = &mut steps[engine];
                    into.create.add(one.create.min());
                    into.start.add(one.start.min());
                    into.end.add(one.end.min());
                    into.all.add(one.all.min());
                }
            }
        }
    });
    report.title("The same by the API alone: create, start, wait for the removal");
    report.times(&[("inception", &steps[0].all), ("dockerd", &steps[1].all)]);
    report.line("");
    report.line("Where the time goes (medians, ms):");
    report.line("");
    report.line("| engine | create | start | run, exit, removal |");
    report.line("|---|--:|--:|--:|");
    for (name, steps) in ["inception", "dockerd"].iter().zip(&steps) {
        let [create, start, end] = [&steps.create, &steps.start, &steps.end].map(|takes| milliseconds(takes.median()));
        report.line(&format!("| {name} | {create:.1} | {start:.1} | {end:.1} |"));
    }
}

fn rows<'a>(names: &'a [&str; 3], takes: &'a [Takes; 3]) -> Vec<(&'a str, &'a Takes)> {
    names.iter().copied().zip(takes).collect()
}

/// Runs `count` copies side by side; the time until the last has ended.
fn time_of(mut command: Command, count: usize) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let children: Vec<Child> = (0..count).map(|_| command.spawn().unwrap()).collect();
    for mut child in children {
        let status = child.wait().unwrap();
        assert!(status.success(), "{command:?}: {status}");
    }
    begin.elapsed()
}

async fn by_api(host: &str, steps: &mut Steps) {
    let path = host.trim_start_matches("unix://");
    let docker = Docker::connect_with_unix(path, 120, API_DEFAULT_VERSION).unwrap().negotiate_version().await.unwrap();
    let body = ContainerCreateBody {
        image: Some(BUSYBOX.into()),
        cmd: Some(vec!["/bin/true".into()]),
        host_config: Some(HostConfig { auto_remove: Some(true), ..Default::default() }),
        ..Default::default()
    };
    let begin = Instant::now();
    let created = docker.create_container(Some(CreateContainerOptionsBuilder::new().build()), body).await.unwrap();
    steps.create.add(begin.elapsed());
    let options = WaitContainerOptionsBuilder::new().condition("removed").build();
    let mut wait = docker.wait_container(&created.id, Some(options));
    let start = async {
        let begin = Instant::now();
        docker.start_container(&created.id, None).await.unwrap();
        (begin.elapsed(), Instant::now())
    };
    let ((start, started), status) = tokio::join!(start, wait.next());
    assert_eq!(status.unwrap().unwrap().status_code, 0);
    steps.start.add(start);
    steps.end.add(started.elapsed());
    steps.all.add(begin.elapsed());
}
