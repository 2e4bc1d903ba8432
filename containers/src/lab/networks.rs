//! Lesson 15: what a container sees of the network, and who reaches whom; all of it probed.

use super::{
    connection::{Connection, Start},
    engine::{Engine, IMAGE},
    network_map::{Container, HOST, Interface, NetworkMap, Peer, Probe},
    stage::{PATIENCE, Stage},
};
use crate::{
    error::{Context, Error, Result},
    network::bridge_name,
};
use bollard::models::{HostConfig, NetworkCreateRequest};
use socket2::{Domain, Socket, Type};
use std::{
    collections::HashMap,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// How long the host waits for a connection that does not come about.
const LIMIT: Duration = Duration::from_millis(500);

/// The network and the container that the columns have in common.
const NETWORK: &str = "lab-net";
const WEB: &str = "web";
const WEB_PORT: u16 = 8080;
/// Those of the column macvlan: stations of the network that the bridge of [`NETWORK`] is.
const LAN: &str = "lab-lan";
const LAN_WEB: &str = "web-lan";

/// The experiment.
pub fn networks(stage: &mut Stage, column: &str) -> Result<()> {
    if let Some(outcome) = Engine::missing() {
        return stage.not_run(outcome);
    }
    let engine = stage.engine(make_ready)?;
    let api = engine.api();
    let port = free_port()?;
    let listen = if column == "host" { format!("127.0.0.1:{port}") } else { port.to_string() };
    let (network, web_name, parent) = match column {
        "bridge" => (NETWORK, WEB, None),
        "macvlan" => (LAN, LAN_WEB, Some(make_lan(api)?)),
        other => (other, WEB, None),
    };
    // The columns are side by side.
    let name = format!("probe-{column}");
    stage.describe(&format!("inception run -d --network {network} --name {name} lab httpd -f -p {listen}"));
    let pid = start(api, &name, network, &listen)?;
    stage.watch_container(pid, "httpd");
    let web_pid = api.pid(web_name)?.ok_or_else(|| Error::Failed(format!("{web_name} does not run")))?;
    for (pid, port) in [(pid, port), (web_pid, WEB_PORT)] {
        if !stage.watch_until(PATIENCE, || listens(pid, port))? {
            return Err(Error::Failed(format!("the server that is process {pid} does not listen on port {port}")));
        }
    }

    stage.say("looks around in both containers");
    let (web, from_web) = look(api, web_name, false, &[(&name, port)])?;
    let web_address = web.address().unwrap_or_default();
    let listener = TcpListener::bind("127.0.0.1:0").doing("listen on loopback")?;
    let here = listener.local_addr().doing("listen on loopback")?.port();
    let targets = [(web_name, WEB_PORT), (&*web_address, WEB_PORT), ("127.0.0.1", here)];
    let is_in_host = shares_network(pid)?;
    let looked = std::thread::scope(|scope| {
        // Whoever connects is hung up on; the last one is the lab itself.
        scope.spawn(|| listener.accept().map(drop));
        let looked = look(api, &name, is_in_host, &targets);
        let _ = TcpStream::connect(("127.0.0.1", here));
        looked
    });
    let (probe, from_probe) = looked?;
    // Without an address of its own it can only be looked for on the host's loopback.
    let address = if is_in_host { None } else { probe.address() }.unwrap_or_else(|| "127.0.0.1".into());
    let targets = [(&*name, &*address, port), (web_name, &*web_address, WEB_PORT)];
    let mut probes: Vec<Probe> = Vec::new();
    let mut note = |from: &str, to: &str, (host, port): (&str, u16), reached: bool| {
        probes.push(Probe { from: from.into(), to: to.into(), target: format!("{host}:{port}"), reached });
        reached
    };
    let by_name = note(&name, web_name, (web_name, WEB_PORT), from_probe[0]);
    note(&name, web_name, (&web_address, WEB_PORT), from_probe[1]);
    let from_outside = note(web_name, &name, (&name, port), from_web[0]);
    let loopback = note(&name, HOST, ("127.0.0.1", here), from_probe[2]);
    let by_host = |host: &str, port| connects(host, port, parent.as_deref());
    let [by_host, _] = targets.map(|(to, host, port)| note(HOST, to, (host, port), by_host(host, port)));

    let mut names: Vec<&str> = probe.interfaces.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    stage.observe("interfaces", if is_in_host { probe.interface_words().concat() } else { names.join(" ") });
    stage.observe("interfaces of its own", !is_in_host);
    if !is_in_host {
        stage.observe("default route by the engine", probe.gateway.is_some());
    }
    stage.observe("reaches another container by name", by_name);
    stage.observe("reached by another container", from_outside);
    stage.observe("reaches the host's loopback", loopback);
    stage.observe("the host reaches it", by_host);
    let bridge = parent.or_else(|| web.cable().and_then(|(_, peer)| peer.bridge.clone()));
    let bridge = bridge.map(|name| Interface { address: host_address(&name), name, peer: None });
    stage.network = Some(NetworkMap { bridge, containers: vec![web, probe], probes });
    Ok(())
}

/// The image, the network, and who is to be reached there.
fn make_ready(engine: &Engine) -> Result<()> {
    engine.make_busybox()?;
    let api = engine.api();
    let request = NetworkCreateRequest { name: NETWORK.into(), ..Default::default() };
    api.wait("create a network", api.docker.create_network(request))?;
    start(api, WEB, NETWORK, &WEB_PORT.to_string()).map(drop)
}

/// A macvlan network with the common network's bridge as its parent, and who is to be reached there; the parent's name.
fn make_lan(api: &Connection) -> Result<String> {
    let found = api.wait("look at a network", api.docker.inspect_network(NETWORK, None))?;
    let id = found.id.ok_or_else(|| Error::Failed(format!("the network {NETWORK} has no id")))?;
    let parent = bridge_name(&id);
    let request = NetworkCreateRequest {
        name: LAN.into(),
        driver: Some("macvlan".into()),
        options: Some(HashMap::from([("parent".into(), parent.clone())])),
        ..Default::default()
    };
    api.wait("create a macvlan network", api.docker.create_network(request))?;
    start(api, LAN_WEB, LAN, &WEB_PORT.to_string())?;
    Ok(parent)
}

fn start(api: &Connection, name: &str, network: &str, listen: &str) -> Result<i32> {
    let host = HostConfig { network_mode: Some(network.into()), ..Default::default() };
    api.start(Start { name, image: IMAGE, words: &["httpd", "-f", "-p", listen], host })
}

/// What a container sees, and which of the targets it reaches: by one command in it, because each costs a process.
fn look(api: &Connection, name: &str, is_in_host: bool, targets: &[(&str, u16)]) -> Result<(Container, Vec<bool>)> {
    let mut script = String::from("ip -o link; ip -o -4 addr; ip route; ");
    for (host, port) in targets {
        // A busy machine may need a second; a name server that does not answer would take longer than these.
        let probe = format!("timeout 3 nc -w 2 '{host}' {port} </dev/null >/dev/null 2>&1");
        script += &format!("{probe} && echo reached yes || echo reached no; ");
    }
    let (_, text) = api.exec(name, &["sh", "-c", &script])?;
    let reached: Vec<bool> =
        text.lines().filter_map(|line| line.strip_prefix("reached ")).map(|it| it == "yes").collect();
    if reached.len() != targets.len() {
        return Err(Error::Failed(format!("{name} can't look around: {text}")));
    }
    let gateway = text.lines().find_map(|line| line.strip_prefix("default via ")?.split(' ').next());
    // In the host's network, the numbers of other ends are those of other networks.
    let with_peer = |(interface, peer): (Interface, Option<u32>)| Interface {
        peer: peer.filter(|_| !is_in_host).and_then(host_end),
        ..interface
    };
    let interfaces = interfaces(&text).into_iter().map(with_peer).collect();
    Ok((Container { name: name.to_owned(), is_in_host, interfaces, gateway: gateway.map(str::to_owned) }, reached))
}

/// From `ip -o link` (`2: eth0@if7: <…`) and `ip -o -4 addr` (`2: eth0    inet 198.19.0.2/24 …`): the interfaces, and the
/// number of their other end in the host.
fn interfaces(text: &str) -> Vec<(Interface, Option<u32>)> {
    let mut found: Vec<(Interface, Option<u32>)> = Vec::new();
    for line in text.lines() {
        let Some((number, rest)) = line.split_once(": ") else { continue };
        if number.parse::<u32>().is_err() {
            continue;
        }
        if let Some((name, rest)) = rest.split_once(" inet ").or_else(|| rest.split_once("\tinet ")) {
            let address = rest.split_whitespace().next().map(str::to_owned);
            let known = found.iter_mut().find(|(one, _)| one.name == name.trim());
            known.into_iter().for_each(|(one, _)| one.address = one.address.take().or(address.clone()));
        } else if let Some((name, _)) = rest.split_once(": ") {
            let (name, peer) = name.split_once("@if").map_or((name, None), |(name, peer)| (name, peer.parse().ok()));
            let name = name.split('@').next().unwrap_or(name).to_owned();
            found.push((Interface { name, address: None, peer: None }, peer));
        }
    }
    found
}

/// The host's interface of this number (a veth pair's other end, or a macvlan's parent), and the bridge that it is in.
fn host_end(number: u32) -> Option<Peer> {
    let is_it = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("ifindex")).is_ok_and(|text| text.trim() == number.to_string())
    };
    let entry = fs::read_dir("/sys/class/net").ok()?.flatten().find(is_it)?;
    let bridge = fs::read_link(entry.path().join("master")).ok();
    let bridge = bridge.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Some(Peer { name: entry.file_name().to_string_lossy().into_owned(), bridge })
}

/// The IPv4 address of an interface of the host's, with its prefix length.
fn host_address(name: &str) -> Option<String> {
    nix::ifaddrs::getifaddrs().ok()?.filter(|one| one.interface_name == name).find_map(|one| {
        let address = one.address?.as_sockaddr_in()?.ip();
        let mask = one.netmask?.as_sockaddr_in()?.ip();
        Some(format!("{address}/{}", u32::from(mask).count_ones()))
    })
}

/// Whether a process's network is the lab's own.
fn shares_network(pid: i32) -> Result<bool> {
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).doing("look at a network namespace");
    Ok(of(&pid.to_string())? == of("self")?)
}

/// Whether somebody listens on this port in a process's network (proc_net(5): state 0A).
fn listens(pid: i32, port: u16) -> bool {
    let end = format!(":{port:04X}");
    let is_it = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&end)) && words.nth(1) == Some("0A")
    };
    let read = |table: &str| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
    [read("tcp"), read("tcp6")].iter().any(|text| text.lines().any(is_it))
}

/// Whether the host itself gets a connection: by its routes, or through one interface, because where no route leads to an
/// address, another machine may answer.
fn connects(host: &str, port: u16, interface: Option<&str>) -> bool {
    let Ok(address) = format!("{host}:{port}").parse::<SocketAddr>() else { return false };
    let connect = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind_device(interface.map(str::as_bytes))?;
        socket.connect_timeout(&address.into(), LIMIT)
    };
    connect().is_ok()
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").doing("find a free port")?;
    Ok(listener.local_addr().doing("find a free port")?.port())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_ip_prints() {
        let text = "1: lo: <LOOPBACK,UP> mtu 65536\\    link/loopback\n7: eth0@if8: <BROADCAST> mtu 1500\n\
                    1: lo    inet 127.0.0.1/8 scope host lo\\  valid\n7: eth0    inet 198.19.0.3/24 brd 198.19.0.255\n\
                    default via 198.19.0.1 dev eth0 \nreached yes\n";
        let found = super::interfaces(text);
        let words: Vec<_> = found.iter().map(|(one, peer)| (&*one.name, one.address.as_deref(), *peer)).collect();
        assert_eq!(words, [("lo", Some("127.0.0.1/8"), None), ("eth0", Some("198.19.0.3/24"), Some(8))]);
    }
}
