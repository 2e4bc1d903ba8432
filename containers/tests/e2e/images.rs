//! Images travel: what is saved here loads in Docker and Podman, and theirs here.

use crate::{
    harness::{BUSYBOX, Engine},
    peers::{Kind, Peer},
};

fn travels(kind: Kind) {
    let ours = Engine::with_busybox();
    let peer = Peer::start(kind);
    let archive = ours.path("saved.tar");
    let archive = archive.to_str().unwrap();
    ours.docker(&["save", "-o", archive, BUSYBOX]).ok();
    peer.docker(&["load", "-i", archive]).ok();
    let run = ["run", "--rm", "--network", "none", BUSYBOX, "echo", "it runs"];
    assert_eq!(peer.docker(&run).ok(), "it runs");

    let back = ours.path("back.tar");
    let back = back.to_str().unwrap();
    peer.docker(&["tag", BUSYBOX, "theirs:1"]).ok();
    peer.docker(&["save", "-o", back, "theirs:1"]).ok();
    ours.docker(&["rmi", "-f", BUSYBOX]).ok();
    ours.docker(&["load", "-i", back]).ok();
    let name = match kind {
        Kind::Docker => "theirs:1",
        Kind::Podman => "docker.io/library/theirs:1",
    };
    assert_eq!(ours.docker(&["run", "--rm", "--network", "none", name, "echo", "here too"]).ok(), "here too");
}

#[test]
fn images_travel_to_docker_and_back() {
    travels(Kind::Docker);
}

#[test]
fn images_travel_to_podman_and_back() {
    travels(Kind::Podman);
}
