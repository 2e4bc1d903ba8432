//! The stack, end to end: a site over TLS, used by a browser, looked at by an examiner, hurt and recovering; on this
//! engine, on Docker and on Podman. Needs root, and the packages that `make test` installs.

mod blog;
mod endurance;
mod entrypoints;
mod examiner;
#[path = "../e2e/harness.rs"]
mod harness;
#[path = "../e2e/peers.rs"]
mod peers;
mod profiles;
mod settings;
mod stack;
mod webdriver;

use peers::{Kind, Peer};
use stack::{Client, Stack};
use std::process::{Command, Stdio};

/// All that is asked of the stack, on an engine that has its images.
fn whole_life(mut stack: Stack, pictures: &str) {
    stack.up();
    examiner::running(&stack);
    let written = blog::publish_and_comment(&stack, &std::env::temp_dir().join("inception-pictures").join(pictures));
    endurance::down_and_up(&stack, &written);
    endurance::idle_stops(&stack, &written);
    endurance::requests_in_flight(&stack);
    endurance::killed_services(&stack, &written);
    endurance::another_port(&mut stack);
}

#[test]
fn files_keep_the_rules() {
    examiner::files();
}

/// For work on the stack itself: an engine that has the images, named by INCEPTION_TEST_DOCKER_HOST.
#[test]
#[ignore = "needs an engine in INCEPTION_TEST_DOCKER_HOST"]
fn on_a_given_engine() {
    whole_life(Stack::new(&given(), Client::DockerCompose, None), "given");
}

#[test]
#[ignore = "needs an engine in INCEPTION_TEST_DOCKER_HOST"]
fn kills_during_the_first_boot_on_a_given_engine() {
    endurance::first_boot_survives_kills(&Stack::new(&given(), Client::DockerCompose, None));
}

#[test]
#[ignore = "needs an engine in INCEPTION_TEST_DOCKER_HOST"]
fn profiles_on_a_given_engine() {
    profiles::all(&Stack::new(&given(), Client::DockerCompose, None));
}

#[test]
#[ignore = "needs an engine in INCEPTION_TEST_DOCKER_HOST"]
fn images_by_themselves_on_a_given_engine() {
    images_by_themselves(&given());
}

/// The images as users of the official ones start them.
fn images_by_themselves(host: &str) {
    let client = entrypoints::Client::new(host);
    entrypoints::mariadb_refuses_bad_settings(&client);
    entrypoints::mariadb_quotes(&client);
    entrypoints::mariadb_runs_scripts(&client);
    entrypoints::wordpress_refuses_bad_settings(&client);
    entrypoints::wordpress_without_installation(&client);
}

#[test]
#[ignore = "needs an engine in INCEPTION_TEST_DOCKER_HOST"]
fn on_podman_from_a_given_engine() {
    let peer = Peer::start(Kind::Podman);
    copy_images(&given(), &peer.host());
    whole_life(Stack::new(&peer.host(), Client::DockerCompose, Some(&peer.machine)), "podman");
}

/// Takes the stack's images from one engine to another, by `docker save` and `docker load`.
fn copy_images(from: &str, to: &str) {
    let mut save = Command::new("docker")
        .env("DOCKER_HOST", from)
        .args(["save", "nginx:0.1.0", "mariadb:0.1.0", "wordpress:0.1.0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let load =
        Command::new("docker").env("DOCKER_HOST", to).arg("load").stdin(save.stdout.take().unwrap()).output().unwrap();
    assert!(save.wait().unwrap().success() && load.status.success(), "{load:?}");
}

fn given() -> String {
    std::env::var("INCEPTION_TEST_DOCKER_HOST").expect("INCEPTION_TEST_DOCKER_HOST")
}
