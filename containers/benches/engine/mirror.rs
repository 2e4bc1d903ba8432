//! Cold builds beside dockerd's: both take the packages from the same folder, served on each engine's own machine.

use crate::{
    build::{IMAGES, settle},
    harness::{Engine, eventually, run},
    peers::{Kind, Machine, Peer},
    report::{Report, Takes},
    stack::{Client, Stack},
};
use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const TAKES: usize = 5;
const PORT: u16 = 8000;
const BASE: &str = "debian:bookworm-slim";
const INIT: &str = "inception-init:0.1.0";

/// `archive` has the way to Debian's archive, the base image and the init's.
pub fn measure(report: &mut Report, archive: &Engine) {
    let folder = tempfile::Builder::new().prefix("inception-mirror-").tempdir().unwrap();
    let stack = Stack::new(&archive.host(), Client::Inception, None);
    collect(archive, &stack, folder.path());
    let images = folder.path().join("base.tar");
    archive.docker(&["save", "--output", images.to_str().unwrap(), BASE, INIT]).ok();

    let here = Machine::new();
    let ours = Engine::start_within(&[], here.words());
    let docker = Peer::start(Kind::Docker);
    let _servers = [serve(&here, folder.path()), serve(&docker.machine, folder.path())];
    for host in [ours.host(), docker.host()] {
        let client = || {
            let mut client = Command::new("docker");
            client.env("DOCKER_HOST", &host).env("DOCKER_BUILDKIT", "0");
            client
        };
        run(client().arg("load").arg("--input").arg(&images)).ok();
        run(client().args(["tag", BASE, "base:plain"])).ok();
        let format = "{{(index .IPAM.Config 0).Gateway}}";
        let gateway: Ipv4Addr =
            run(client().args(["network", "inspect", "--format", format, "bridge"])).ok().parse().unwrap();
        let text = format!(
            "FROM base:plain\nRUN rm -f /etc/apt/sources.list.d/* && \
             echo 'deb [trusted=yes] http://{gateway}:{PORT}/ ./' >/etc/apt/sources.list\n"
        );
        let context = folder.path().join("base");
        fs::create_dir_all(&context).unwrap();
        fs::write(context.join("Dockerfile"), text).unwrap();
        run(client().args(["build", "--tag", BASE]).arg(&context)).ok();
    }

    let by_inception = |host: &str| {
        let stack = Stack::new(host, Client::Inception, None);
        settle();
        let began = Instant::now();
        stack.compose(&["build", "--no-cache"]).ok();
        began.elapsed()
    };
    let mut takes: [Takes; 3] = Default::default();
    for take in 0..=TAKES {
        let times = [by_inception(&ours.host()), by_inception(&docker.host()), by_buildkit(&docker.host(), &stack)];
        // The first round warms the caches.
        for (takes, time) in takes.iter_mut().zip(times).filter(|_| take > 0) {
            takes.add(time);
        }
    }
    report
        .title("Cold build of nginx, MariaDB and WordPress, side by side, packages from a mirror on the same machine");
    let names = ["inception", "dockerd (the same client, classic builder)", "dockerd (`docker build`, BuildKit)"];
    report.times(&names.into_iter().zip(&takes).collect::<Vec<_>>());
}

/// Fetches the packages that the Dockerfiles name, and what these need, and makes an index of them.
fn collect(engine: &Engine, stack: &Stack, folder: &Path) {
    let mut installed = Vec::new();
    let mut unpacked = Vec::new();
    for image in IMAGES {
        let (name, _) = image.split_once(':').unwrap();
        let text = fs::read_to_string(stack.file(name).join("Dockerfile")).unwrap().replace("\\\n", " ");
        installed.extend(words_after(&text, "--no-install-recommends "));
        unpacked.extend(words_after(&text, "apt-get download -qq "));
    }
    let script = format!(
        "set -e; apt-get update -qq; cd /mirror; mkdir partial; \
         apt-get install -y -qq --no-install-recommends --download-only -o Dir::Cache::archives=/mirror {}; \
         apt-get download -qq {}; rm -rf partial lock; \
         for file in *%*; do mv \"$file\" \"$(echo \"$file\" | tr -d %)\"; done",
        installed.join(" "),
        unpacked.join(" ")
    );
    let volume = format!("{}:/mirror", folder.display());
    engine.docker(&["run", "--rm", "--volume", &volume, "--entrypoint", "sh", BASE, "-c", &script]).ok();
    let index = run(Command::new("dpkg-scanpackages").args(["--multiversion", "."]).current_dir(folder)).ok();
    fs::write(folder.join("Packages"), index + "\n").unwrap();
}

/// The packages' names that follow `command` in a Dockerfile.
fn words_after(dockerfile: &str, command: &str) -> Vec<String> {
    let after = dockerfile.split_once(command).map(|(_, after)| after).unwrap_or_default();
    let is_name = |word: &&str| word.starts_with(|first: char| first.is_ascii_lowercase());
    after.split_whitespace().take_while(is_name).map(str::to_string).collect()
}

/// A web server; it ends with the value.
struct Server(Child);

fn serve(machine: &Machine, folder: &Path) -> Server {
    let port = PORT.to_string();
    let mut command = machine.command("busybox");
    command.args(["httpd", "-f", "-p", &port, "-h"]).arg(folder);
    let server = Server(command.stdin(Stdio::null()).spawn().unwrap());
    eventually(10, "the mirror answers", || {
        let url = format!("http://127.0.0.1:{PORT}/Packages");
        let ran = run(machine.command("curl").args(["--silent", "--fail", "--output", "/dev/null", &url]));
        (ran.code == 0).then_some(())
    });
    server
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `docker build` of each image at the same time; the time until the last is there.
fn by_buildkit(host: &str, stack: &Stack) -> Duration {
    settle();
    let began = Instant::now();
    let children = IMAGES.map(|image| {
        let (name, _) = image.split_once(':').unwrap();
        // Debian's own client has BuildKit's side in it; newer ones need a plugin for it.
        Command::new("/usr/bin/docker")
            .env("DOCKER_HOST", host)
            .env("DOCKER_BUILDKIT", "1")
            .args(["build", "--no-cache", "--quiet", "--tag", image])
            .arg(stack.file(name))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    });
    for mut child in children {
        assert!(child.wait().unwrap().success(), "docker build failed");
    }
    began.elapsed()
}
