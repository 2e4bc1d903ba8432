//! Networks: names and aliases, several of them a container, live changes, isolation, the kinds without a bridge.

use crate::{
    coexist::far,
    harness::{BUSYBOX, Engine, Ran, eventually, run},
    peers::Machine,
};
use nix::sys::signal::Signal;

fn start(engine: &Engine, name: &str, options: &[&str]) {
    engine.docker(&[&["run", "-d", "--name", name], options, &[BUSYBOX, "sleep", "1000"]].concat()).ok();
}

fn ping(engine: &Engine, from: &str, to: &str) -> Ran {
    engine.docker(&["exec", from, "ping", "-c1", "-W2", to])
}

fn address(engine: &Engine, name: &str, network: &str) -> String {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    engine.docker(&["inspect", "--format", &format, name]).ok()
}

#[test]
fn names_aliases_and_live_changes() {
    let engine = Engine::with_busybox();
    let docker = |args: &[&str]| engine.docker(args);
    docker(&["network", "create", "--label", "k=v", "front"]).ok();
    docker(&["network", "create", "front"]).fails(1, "network with name front already exists");
    let subnet = format!("{}.0/28", engine.subnet(9));
    docker(&["network", "create", "--subnet", &subnet, "--gateway", &format!("{}.1", engine.subnet(9)), "back"]).ok();
    assert_eq!(
        docker(&["network", "ls", "--filter", "type=custom", "--format", "{{.Name}} {{.Driver}}"]).ok(),
        "back bridge\nfront bridge"
    );
    assert_eq!(docker(&["network", "ls", "-q", "--filter", "label=k=v"]).ok().lines().count(), 1);
    assert_eq!(docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", "back"]).ok(), subnet);

    start(&engine, "one", &["--network", "front", "--network-alias", "first"]);
    start(&engine, "two", &["--network", "front"]);
    for name in ["one", "first", "one.front", "two"] {
        ping(&engine, "two", name).ok();
    }
    assert_eq!(docker(&["exec", "two", "cat", "/etc/resolv.conf"]).ok().lines().next(), Some("nameserver 127.0.0.11"));
    let unknown = docker(&["exec", "two", "nslookup", "no-such-name."]);
    assert!(format!("{unknown:?}").contains("NXDOMAIN") || unknown.code != 0, "{unknown:?}");

    // A container may be a name server itself: port 53 is free in it.
    let server = "nc -l -p 53 & sleep 0.5; netstat -ltn; kill $!; ping -c1 -W2 first";
    let said = docker(&["exec", "two", "sh", "-c", server]).ok();
    assert!(said.contains(":53 "), "{said}");

    // A second network, live, with an alias of its own and a fixed address.
    let fixed = format!("{}.7", engine.subnet(9));
    docker(&["network", "connect", "--alias", "other", "--ip", &fixed, "back", "one"]).ok();
    docker(&["network", "connect", "back", "one"]).fails(1, "already exists in network back");
    start(&engine, "three", &["--network", "back"]);
    ping(&engine, "three", "other").ok();
    ping(&engine, "three", &fixed).ok();
    assert_eq!(address(&engine, "one", "back"), fixed);
    assert!(docker(&["exec", "one", "cat", "/etc/hosts"]).ok().contains(&fixed));
    let inside = docker(&["network", "inspect", "--format", "{{range .Containers}}{{.Name}} {{end}}", "back"]).ok();
    assert!(inside.contains("one") && inside.contains("three") && !inside.contains("two"), "{inside}");
    // Another network's names and addresses are out of reach.
    assert_ne!(ping(&engine, "two", "three").code, 0);
    assert_ne!(ping(&engine, "two", &address(&engine, "three", "back")).code, 0);

    docker(&["network", "disconnect", "front", "one"]).ok();
    docker(&["network", "disconnect", "front", "one"]).fails(1, "is not connected to network front");
    assert_ne!(ping(&engine, "two", "one").code, 0);
    assert!(docker(&["exec", "one", "ip", "route"]).ok().starts_with(&format!("default via {}.1", engine.subnet(9))));
    // A new name is answered, the old one no more.
    docker(&["rename", "three", "drei"]).ok();
    ping(&engine, "one", "drei").ok();
    assert_ne!(ping(&engine, "one", "three").code, 0);
    // What was changed live holds after a restart.
    docker(&["restart", "-t", "0", "one"]).ok();
    ping(&engine, "drei", "other").ok();

    docker(&["network", "rm", "back"]).fails(1, "has active endpoints");
    docker(&["network", "rm", "bridge"]).fails(1, "is a pre-defined network and cannot be removed");
    docker(&["network", "rm", "none-such"]).fails(1, "network none-such not found");
    docker(&["rm", "-f", "one", "two", "drei"]).ok();
    docker(&["network", "rm", "back"]).ok();
    docker(&["network", "prune", "-f"]).ok();
    assert_eq!(docker(&["network", "ls", "--format", "{{.Name}}"]).ok(), "bridge\nhost\nnone");
}

#[test]
fn what_can_not_be_is_refused() {
    let engine = Engine::with_busybox();
    let docker = |args: &[&str]| engine.docker(args);
    let subnet = format!("{}.0/28", engine.subnet(8));
    docker(&["network", "create", "--subnet", &subnet, "taken"]).ok();
    docker(&["network", "create", "--subnet", &subnet, "same"])
        .fails(1, "Pool overlaps with other one on this address space");
    let wider = format!("{}.0/24", engine.subnet(8));
    docker(&["network", "create", "--subnet", &wider, "wider"]).fails(1, "Pool overlaps");
    docker(&["network", "create", "--subnet", "odd", "wrong"]).fails(1, "odd");
    for driver in ["overlay", "ipvlan"] {
        docker(&["network", "create", "-d", driver, "later"])
            .fails(1, &format!("not implemented: networks of driver {driver}"));
    }
    docker(&["network", "create", "-d", "odd", "wrong"]).fails(1, "odd");
    let outside = format!("{}.200", engine.subnet(8));
    docker(&["run", "--rm", "--network", "taken", "--ip", &outside, BUSYBOX, "true"]).fails(125, &outside);
    docker(&["run", "--rm", "--network-alias", "x", BUSYBOX, "true"]).fails(125, "user-defined networks");
    assert_eq!(docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn host_none_and_another_containers() {
    let engine = Engine::with_busybox();
    let rm = |options: &[&str], script: &str| {
        engine.docker(&[&["run", "--rm"], options, &[BUSYBOX, "sh", "-c", script]].concat())
    };
    assert_eq!(rm(&["--network", "none"], "ls /sys/class/net").ok(), "lo");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(rm(&["--network", "host"], "readlink /proc/self/ns/net").ok(), own.to_str().unwrap());
    let name = nix::unistd::gethostname().unwrap();
    assert_eq!(rm(&["--network", "host"], "hostname").ok(), name.to_str().unwrap());
    let warned = rm(&["--network", "host", "-p", "1:1"], "true");
    assert!(warned.stderr.contains("Published ports are discarded"), "{warned:?}");

    engine.docker(&["network", "create", "net"]).ok();
    start(&engine, "main", &["--network", "net", "--hostname", "box"]);
    start(&engine, "peer", &["--network", "net"]);
    let ip = address(&engine, "main", "net");
    let said =
        rm(&["--network", "container:main"], "ip -o -4 addr show eth0; hostname; cat /etc/hosts; ping -c1 -W2 peer")
            .ok();
    assert!(said.contains(&ip) && said.contains("\nbox\n") && said.contains(&format!("{ip}\tbox")), "{said}");
    rm(&["--network", "container:main", "-p", "80"], "true").fails(125, "conflicting options: port publishing");
    rm(&["--network", "container:main", "--hostname", "x"], "true").fails(125, "conflicting options: hostname");
    engine.docker(&["network", "connect", "host", "main"]).fails(1, "host");
}

#[test]
fn the_way_out_and_internal_networks() {
    let machine = Machine::new();
    let engine = Engine::with_busybox_in(&machine);
    engine.docker(&["network", "create", "--internal", "inner"]).ok();
    engine.docker(&["network", "create", "outer"]).ok();
    start(&engine, "inside", &["--network", "inner"]);
    start(&engine, "neighbour", &["--network", "inner"]);
    start(&engine, "outside", &["--network", "outer"]);
    // Something that is neither container nor bridge: a machine behind the engine's.
    let (far, its_address) = far(&machine, &engine.subnet(15));
    ping(&engine, "inside", "neighbour").ok();
    ping(&engine, "outside", &its_address).ok();
    assert_ne!(ping(&engine, "inside", &its_address).code, 0);
    let routes = engine.docker(&["exec", "inside", "ip", "route"]).ok();
    assert!(!routes.contains("default"), "{routes}");
    // Connected to both, it has a way out; the inner one stays closed to others.
    engine.docker(&["network", "connect", "outer", "inside"]).ok();
    ping(&engine, "inside", &its_address).ok();
    assert_ne!(ping(&engine, "outside", &address(&engine, "neighbour", "inner")).code, 0);
    // The far machine has no route back: it was answered because the address was the machine's own.
    let direct = run(far.command("busybox").args(["ping", "-c1", "-W1", &address(&engine, "outside", "outer")]));
    assert_ne!(direct.code, 0, "{direct:?}");
}

#[test]
fn a_macvlan_is_a_station_of_the_machines_network() {
    let machine = Machine::new();
    let engine = Engine::with_busybox_in(&machine);
    let lan = engine.subnet(14);
    let (neighbour, its_address) = far(&machine, &lan);
    let subnet = format!("{lan}.0/24");
    let create = |options: &[&str]| {
        let range = format!("{lan}.64/26");
        let fixed = ["network", "create", "-d", "macvlan", "--subnet", &subnet, "--ip-range", &range];
        engine.docker(&[&fixed, options].concat())
    };
    create(&["-o", "parent=nope", "lan"]).fails(1, "parent interface nope is not there");
    create(&["-o", "parent=up0", "lan"]).ok();
    create(&["-o", "parent=up0", "twice"]).fails(1, "Pool overlaps");
    let format = "{{.Driver}} {{.Options.parent}} {{(index .IPAM.Config 0).Subnet}}";
    let shown = engine.docker(&["network", "inspect", "--format", format, "lan"]).ok();
    assert_eq!(shown, format!("macvlan up0 {subnet}"));

    start(&engine, "one", &["--network", "lan", "--ip", &format!("{lan}.100"), "--network-alias", "first"]);
    start(&engine, "two", &["--network", "lan"]);
    assert_eq!(address(&engine, "one", "lan"), format!("{lan}.100"));
    // Each other by name, and the neighbours in both directions, with no address translated on the way.
    ping(&engine, "two", "first").ok();
    ping(&engine, "one", &its_address).ok();
    run(neighbour.command("busybox").args(["ping", "-c1", "-W2", &address(&engine, "two", "lan")])).ok();
    let seen = run(neighbour.command("ip").args(["neigh", "show", &format!("{lan}.100")])).ok();
    let mac = engine.docker(&["exec", "one", "cat", "/sys/class/net/eth0/address"]).ok();
    assert!(seen.contains(&mac), "{seen} is not {mac}");
    // Not the machine itself: the kernel keeps a macvlan apart from its parent.
    assert_ne!(ping(&engine, "one", &format!("{lan}.1")).code, 0);

    // With a bridge beside it, and without it again.
    engine.docker(&["network", "create", "inner"]).ok();
    engine.docker(&["network", "connect", "inner", "one"]).ok();
    start(&engine, "three", &["--network", "inner"]);
    ping(&engine, "one", "three").ok();
    ping(&engine, "one", &its_address).ok();
    engine.docker(&["network", "disconnect", "lan", "one"]).ok();
    assert_eq!(engine.docker(&["exec", "one", "ls", "/sys/class/net"]).ok().split_whitespace().count(), 2);
    // From now on by the bridge, with the machine's address.
    assert!(engine.docker(&["exec", "one", "ip", "route"]).ok().contains("default via"));
    ping(&engine, "one", &its_address).ok();

    // Daemons come and go.
    let mut engine = engine;
    engine.end_daemon(Signal::SIGKILL);
    engine.start_daemon();
    run(neighbour.command("busybox").args(["ping", "-c1", "-W2", &address(&engine, "two", "lan")])).ok();
    engine.docker(&["restart", "-t", "0", "two"]).ok();
    ping(&engine, "two", &its_address).ok();
    engine.docker(&["network", "rm", "lan"]).fails(1, "active endpoints");
    engine.docker(&["rm", "-f", "two"]).ok();
    engine.docker(&["network", "rm", "lan"]).ok();

    // As a Compose file says it.
    let file = engine.path("compose.yaml");
    let text = format!(
        "name: m\nservices: {{box: {{image: {BUSYBOX}, command: sleep 1000, init: true, networks: {{lan: {{ipv4_address: {lan}.90}}}}}}}}\n\
         networks: {{lan: {{driver: macvlan, driver_opts: {{parent: up0, macvlan_mode: bridge}},\
         ipam: {{config: [{{subnet: {subnet}, gateway: {its_address}, ip_range: {lan}.64/26}}]}}}}}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let compose = |words: &[&str]| engine.inception(&[&["-f", file.to_str().unwrap()], words].concat());
    compose(&["up", "-d"]).ok();
    run(neighbour.command("busybox").args(["ping", "-c1", "-W2", &format!("{lan}.90")])).ok();
    let routes = compose(&["exec", "box", "ip", "route"]).ok();
    assert!(routes.starts_with(&format!("default via {its_address}")), "{routes}");
    compose(&["down"]).ok();
}

#[test]
fn names_are_served_again_after_the_helper_was_killed() {
    let engine = Engine::with_busybox();
    engine.docker(&["network", "create", "net"]).ok();
    start(&engine, "one", &["--network", "net"]);
    start(&engine, "two", &["--network", "net"]);
    ping(&engine, "one", "two").ok();
    let helper = crate::recovery::process_of(&engine, "inception network-helper").expect("a helper runs");
    nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually(20, "names are answered again", || (ping(&engine, "one", "two").code == 0).then_some(()));
}
