//! Beside others: another engine of this kind, a firewall that drops what is forwarded, a dockerd that was there first.

use crate::{
    harness::{BUSYBOX, Engine, Ran, run},
    peers::{Kind, Machine, Peer},
};
use std::process::Command;

#[test]
fn two_engines_share_nothing() {
    let one = Engine::with_busybox();
    let other = Engine::with_busybox();
    for engine in [&one, &other] {
        engine.docker(&["network", "create", "net"]).ok();
        engine
            .docker(&["run", "-d", "--name", "box", "--network", "net", "-v", "data:/d", BUSYBOX, "sleep", "1000"])
            .ok();
        engine.docker(&["exec", "box", "touch", &format!("/d/{}", engine.subnet(0))]).ok();
    }
    for engine in [&one, &other] {
        assert_eq!(engine.docker(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "box");
        assert_eq!(engine.docker(&["exec", "box", "ls", "/d"]).ok(), engine.subnet(0));
    }
    let address = |engine: &Engine| {
        engine.docker(&["inspect", "--format", "{{.NetworkSettings.Networks.net.IPAddress}}", "box"]).ok()
    };
    let across = one.docker(&["exec", "box", "ping", "-c1", "-W1", &address(&other)]);
    assert_ne!(across.code, 0, "one engine's containers are out of the other's reach");
    // The end of one leaves the other alone.
    drop(one);
    assert_eq!(other.docker(&["exec", "box", "echo", "hi"]).ok(), "hi");
    other.docker(&["run", "--rm", "--network", "net", BUSYBOX, "ping", "-c1", "-W3", "box"]).ok();
}

/// A machine behind `machine`, which knows nothing else; its address.
pub fn far(machine: &Machine, subnet: &str) -> (Machine, String) {
    let far = Machine::new();
    connect(machine, &far, subnet);
    (far, format!("{subnet}.2"))
}

/// A cable between two machines, `up0` on both, with the addresses 1 and 2 of a subnet.
pub fn connect(machine: &Machine, other: &Machine, subnet: &str) {
    run(machine.command("ip").args([
        "link",
        "add",
        "up0",
        "type",
        "veth",
        "peer",
        "name",
        "up0",
        "netns",
        other.name(),
    ]))
    .ok();
    for (machine, number) in [(machine, 1), (other, 2)] {
        run(machine.command("ip").args(["addr", "add", &format!("{subnet}.{number}/24"), "dev", "up0"])).ok();
        run(machine.command("ip").args(["link", "set", "up0", "up"])).ok();
    }
}

fn iptables(machine: &Machine, line: &str) -> Ran {
    run(machine.command("iptables").args(line.split(' ')))
}

#[test]
fn a_firewall_that_drops_is_told_or_asked() {
    let machine = Machine::new();
    iptables(&machine, "-P FORWARD DROP").ok();
    let engine = Engine::with_busybox_in(&machine);
    let (_far, address) = far(&machine, &engine.subnet(15));
    let ping = ["run", "--rm", BUSYBOX, "ping", "-c1", "-W3", &address];
    // No chain for users: refused, with the command that allows it.
    let said = engine.docker(&ping).fails(125, "iptables -I FORWARD");
    engine.docker(&["run", "--rm", "--network", "none", BUSYBOX, "true"]).ok();
    let command = said.lines().find(|line| line.trim().starts_with("iptables -I FORWARD")).unwrap().trim();
    for part in command.split(" && ") {
        iptables(&machine, part.trim_start_matches("iptables ")).ok();
    }
    engine.docker(&ping).ok();
    // With a chain for users, by a commented rule there, that goes with its network.
    iptables(&machine, "-F FORWARD").ok();
    iptables(&machine, "-N DOCKER-USER").ok();
    iptables(&machine, "-I FORWARD -j DOCKER-USER").ok();
    engine.docker(&["network", "create", "net"]).ok();
    engine.docker(&["run", "--rm", "--network", "net", BUSYBOX, "ping", "-c1", "-W3", &address]).ok();
    let rules = iptables(&machine, "-S DOCKER-USER").ok();
    assert_eq!(rules.matches("--comment \"inception ").count(), 2, "{rules}");
    engine.docker(&["network", "rm", "net"]).ok();
    assert_eq!(iptables(&machine, "-S DOCKER-USER").ok(), "-N DOCKER-USER");
    // Turning forwarding on for containers has not made the machine a router for others.
    iptables(&machine, "-P FORWARD ACCEPT").ok();
    let table = run(machine.command("nft").args(["list", "ruleset"])).ok();
    assert!(table.contains("table ip inception_"), "{table}");
}

#[test]
fn a_dockerd_that_was_there_first() {
    let peer = Peer::start(Kind::Docker);
    let engine = Engine::with_busybox_in(&peer.machine);
    let archive = engine.path("busybox.tar");
    peer.docker(&["import", archive.to_str().unwrap(), BUSYBOX]).ok();
    let (far, address) = far(&peer.machine, &engine.subnet(15));
    // Both reach the outside, and the outside both, by published ports.
    let serve = |port: &str| -> Vec<String> {
        let line = format!("run -d --name web -p {port}:80 {BUSYBOX} httpd -f -p 80 -h /etc");
        line.split(' ').map(String::from).collect()
    };
    fn words(list: &[String]) -> Vec<&str> {
        list.iter().map(String::as_str).collect()
    }
    peer.docker(&words(&serve("8081"))).ok();
    engine.docker(&words(&serve("8082"))).ok();
    peer.docker(&["exec", "web", "ping", "-c1", "-W3", &address]).ok();
    engine.docker(&["exec", "web", "ping", "-c1", "-W3", &address]).ok();
    let near = format!("{}.1", engine.subnet(15));
    // curl is no static program: it is sound on any machine.
    let get = |machine: &Machine, url: String| run(machine.command("curl").args(["-sS", "--max-time", "5", &url])).ok();
    for port in [8081, 8082] {
        assert!(get(&far, format!("http://{near}:{port}/passwd")).contains("root"));
        assert!(get(&peer.machine, format!("http://127.0.0.1:{port}/passwd")).contains("root"));
    }
    engine.docker(&["rm", "-f", "web"]).ok();
    drop(engine);
    assert!(!iptables(&peer.machine, "-S").ok().contains("inception"), "its rules have gone with its networks");
    assert!(get(&far, format!("http://{near}:8081/passwd")).contains("root"), "dockerd's own are as they were");
}

#[test]
fn runtimes_by_name() {
    let runc =
        ["/usr/sbin/runc", "/usr/bin/runc", "/sbin/runc"].into_iter().find(|path| std::fs::exists(path).unwrap());
    let option = format!("other={}", runc.expect("runc is installed by `make`"));
    let engine = Engine::start_with(&["--add-runtime", &option, "--add-runtime", "broken=/no/such/program"]);
    let archive = engine.path("busybox.tar");
    crate::harness::busybox_archive(&archive);
    engine.docker(&["import", archive.to_str().unwrap(), BUSYBOX]).ok();
    engine.docker(&["run", "--rm", "--runtime", "other", BUSYBOX, "true"]).ok();
    let said = engine.docker(&["run", "--rm", "--runtime", "broken", BUSYBOX, "true"]);
    assert!(said.code != 0 && said.stderr.contains("/no/such/program"), "{said:?}");
    // crun runs, or says what it has against this machine's cgroups (traps.md).
    if Command::new("crun").arg("--version").output().is_ok() {
        let ran = engine.docker(&["run", "--rm", "--runtime", "crun", BUSYBOX, "echo", "hi"]);
        assert!(ran.stdout == "hi\n" || ran.stderr.contains("cgroup"), "{ran:?}");
    }
}
