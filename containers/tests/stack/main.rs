//! The stack, end to end: a site over TLS, used by a browser, looked at by an examiner, hurt and recovering; on this
//! engine, on Docker and on Podman. Needs root, and the packages that `make test` installs.

mod blog;
mod endurance;
mod entrypoints;
mod examiner;
#[path = "../e2e/harness.rs"]
mod harness;
#[path = "../vm/host.rs"]
mod host;
mod machines;
#[path = "../e2e/peers.rs"]
mod peers;
mod profiles;
#[path = "../e2e/sessions.rs"]
mod sessions;
mod settings;
mod stack;
mod webdriver;

use harness::{Engine, run};
use peers::{Kind, Peer};
use stack::{Client, Stack};
use std::{
    path::Path,
    process::Command,
    sync::{Mutex, OnceLock},
};

/// One at a time: what is measured in one would be another's load.
static TURN: Mutex<()> = Mutex::new(());

/// All that is asked of the stack, on an engine that has its images.
fn whole_life(stack: &mut Stack, pictures: &str) -> blog::Written {
    let written = short_life(stack, pictures);
    endurance::idle_stops(stack, &written);
    endurance::requests_in_flight(stack);
    endurance::killed_services(stack, &written);
    endurance::another_port(stack);
    written
}

/// Up, looked at, used, down and up again.
fn short_life(stack: &Stack, pictures: &str) -> blog::Written {
    stack.up();
    examiner::running(stack);
    let written = blog::publish_and_comment(stack, &std::env::temp_dir().join("inception-pictures").join(pictures));
    endurance::down_and_up(stack, &written);
    written
}

#[test]
fn files_keep_the_rules() {
    examiner::files();
}

/// The images, built from the Compose file by the companion on an engine of its own, as `docker save` writes them.
fn images() -> &'static Path {
    static IMAGES: OnceLock<tempfile::TempPath> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let engine = Engine::start();
        let stack = Stack::new(&engine.host(), Client::Inception, None);
        stack.compose(&["build"]).ok();
        let archive = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        stack.docker(&[&["save", "--output", archive.to_str().unwrap()], &IMAGES_OF_THE_STACK[..]].concat()).ok();
        archive
    })
}

const IMAGES_OF_THE_STACK: [&str; 3] = ["nginx:0.1.0", "mariadb:0.1.0", "wordpress:0.1.0"];

fn load(host: &str) {
    run(Command::new("docker").env("DOCKER_HOST", host).arg("load").arg("--input").arg(images())).ok();
}

#[test]
fn on_this_engine() {
    let _turn = TURN.lock();
    let mut engine = Engine::start();
    load(&engine.host());
    let mut stack = Stack::new(&engine.host(), Client::Inception, None);
    let written = whole_life(&mut stack, "inception");
    endurance::killed_engine(&stack, &mut engine, &written);
}

#[test]
fn kills_during_the_first_boot() {
    let _turn = TURN.lock();
    let engine = Engine::start();
    load(&engine.host());
    endurance::first_boot_survives_kills(&Stack::new(&engine.host(), Client::Inception, None));
}

#[test]
fn images_by_themselves() {
    let _turn = TURN.lock();
    let engine = Engine::start();
    load(&engine.host());
    entrypoints::all(&engine.host());
}

#[test]
fn profiles() {
    let _turn = TURN.lock();
    let engine = Engine::start();
    load(&engine.host());
    let stack = Stack::new(&engine.host(), Client::Inception, None);
    profiles::choose(&stack);
    stack.compose(&["build"]).ok();
    profiles::all(&stack);
}

#[test]
fn as_virtual_machines() {
    let _turn = TURN.lock();
    let engine = Engine::start();
    load(&engine.host());
    machines::nginx(&engine);
    machines::mariadb(&engine);
}

/// docker-compose, a client that nobody here wrote, reads the same file.
#[test]
fn by_docker_compose() {
    let _turn = TURN.lock();
    let engine = Engine::start();
    load(&engine.host());
    short_life(&Stack::new(&engine.host(), Client::DockerCompose, None), "docker-compose");
}

#[test]
fn on_docker() {
    let _turn = TURN.lock();
    let peer = Peer::start(Kind::Docker);
    load(&peer.host());
    short_life(&Stack::new(&peer.host(), Client::Inception, Some(&peer.machine)), "docker");
}

#[test]
fn on_podman() {
    let _turn = TURN.lock();
    let peer = Peer::start(Kind::Podman);
    load(&peer.host());
    short_life(&Stack::new(&peer.host(), Client::Inception, Some(&peer.machine)), "podman");
}

/// For work on the stack itself, without this project's engine: one that has the images, named by
/// INCEPTION_TEST_DOCKER_HOST, and docker-compose.
#[test]
#[ignore = "needs an engine in INCEPTION_TEST_DOCKER_HOST"]
fn on_a_given_engine() {
    let host = std::env::var("INCEPTION_TEST_DOCKER_HOST").expect("INCEPTION_TEST_DOCKER_HOST");
    whole_life(&mut Stack::new(&host, Client::DockerCompose, None), "given");
    endurance::first_boot_survives_kills(&Stack::new(&host, Client::DockerCompose, None));
    entrypoints::all(&host);
    let stack = Stack::new(&host, Client::DockerCompose, None);
    profiles::choose(&stack);
    profiles::all(&stack);
}
