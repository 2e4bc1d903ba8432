//! Where one machine is not enough: Docker's Swarm, with an overlay network from container to container over two machines,
//! and the companion at both. No home-made overlay stands in for it.

use crate::{
    coexist::connect,
    harness::{BUSYBOX, Engine, INCEPTION, Ran, busybox_archive, eventually, run},
    peers::{Kind, Peer},
};
use std::{fs, process::Command};

/// The companion with a Compose file of its own, at one node.
fn compose(node: &Peer, words: &[&str]) -> Ran {
    let file = node.path("compose.yaml");
    run(Command::new(INCEPTION).env("DOCKER_HOST", node.host()).args(["-f", file.to_str().unwrap()]).args(words))
}

#[test]
fn a_project_on_each_of_two_machines_over_an_overlay_network() {
    // For its addresses only, which no other test has.
    let engine = Engine::start();
    engine.docker(&["network", "create", "-d", "overlay", "span"]).fails(1, "which Docker Swarm does");
    let nodes = [Peer::start(Kind::Docker), Peer::start(Kind::Docker)];
    connect(&nodes[0].machine, &nodes[1].machine, &engine.subnet(15));
    let archive = engine.path("busybox.tar");
    busybox_archive(&archive);
    for node in &nodes {
        node.docker(&["import", archive.to_str().unwrap(), BUSYBOX]).ok();
    }
    let [manager, worker] = &nodes;
    let address = |number: u8| format!("{}.{number}", engine.subnet(15));
    let pool = format!("{}.0/21", engine.subnet(0));
    manager.docker(&["swarm", "init", "--advertise-addr", &address(1), "--default-addr-pool", &pool]).ok();
    let token = manager.docker(&["swarm", "join-token", "-q", "worker"]).ok();
    let manager_address = format!("{}:2377", address(1));
    worker.docker(&["swarm", "join", "--advertise-addr", &address(2), "--token", &token, &manager_address]).ok();

    let web = format!(
        "name: server\nservices:\n  web: {{image: {BUSYBOX}, command: httpd -f -p 80 -h /etc, init: true, networks: [span]}}\n\
         networks: {{span: {{name: span, driver: overlay, attachable: true}}}}\n"
    );
    fs::write(manager.path("compose.yaml"), web).unwrap();
    let client = format!(
        "name: client\nservices:\n  client: {{image: {BUSYBOX}, command: sleep 1000, init: true, networks: [span]}}\n\
         networks: {{span: {{external: true}}}}\n"
    );
    fs::write(worker.path("compose.yaml"), client).unwrap();
    compose(manager, &["up", "-d"]).ok();
    // The worker has not heard of the network yet.
    compose(worker, &["up", "-d"]).ok();
    eventually(20, "the other machine's service answers by its name", || {
        let asked = compose(worker, &["exec", "client", "wget", "-qO-", "http://web/passwd"]);
        asked.stdout.contains("root:x:0:0").then_some(())
    });
    // By a tunnel: what is between the machines is VXLAN.
    let links = run(Command::new("sh").arg("-c").arg(format!(
        "for ns in {0}/netns/*; do nsenter --net=$ns ip -d link show type vxlan; done",
        worker.path("exec").display()
    )));
    assert!(links.stdout.contains("vxlan id"), "{links:?}");
    compose(worker, &["down"]).ok();
    compose(manager, &["down"]).ok();
    // The manager takes it back when its nodes have let go.
    eventually(20, "the network is gone", || {
        (!manager.docker(&["network", "ls"]).ok().contains(" span ")).then_some(())
    });
}
