//! Published ports: TCP and UDP, on every address the machine has, from the machine, from containers.

use crate::harness::{BUSYBOX, Engine, eventually};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

/// A web server that answers with `name`.
fn serve(engine: &Engine, name: &str, options: &[&str]) {
    let script = format!("mkdir /www; echo {name} > /www/index.html; exec httpd -f -p 80 -h /www");
    engine.docker(&[&["run", "-d", "--name", name], options, &[BUSYBOX, "sh", "-c", &script]].concat()).ok();
}

fn get(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.contains("200 OK").then(|| text.lines().last().unwrap_or_default().to_string())
}

/// The host port that a container's port is published at.
fn port(engine: &Engine, name: &str, what: &str) -> u16 {
    let said = engine.docker(&["port", name, what]).ok();
    let first = said.lines().next().unwrap_or_else(|| panic!("{name} publishes no {what}"));
    first.rsplit(':').next().unwrap().parse().unwrap()
}

/// An address of this machine that is not a loopback's and not a bridge's: what the default route would send from.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

#[test]
fn tcp_on_every_address_and_from_containers() {
    let mut engine = Engine::with_busybox();
    serve(&engine, "web", &["-p", "80"]);
    let number = port(&engine, "web", "80");
    let mut addresses: Vec<String> = vec!["127.0.0.1".into(), "[::1]".into(), format!("{}.1", engine.subnet(0))];
    addresses.extend(own_address().map(|address| address.to_string()));
    let all_answer = |engine: &Engine, number: u16| {
        for address in &addresses {
            let socket = format!("{address}:{number}").parse().unwrap();
            eventually(10, &format!("{socket} answers"), || get(socket).filter(|said| said == "web"));
        }
        // Hairpin: from a container of the same network, and from another network's, by the machine's own address.
        for network in ["bridge", "other"] {
            // Debian's busybox crashes in wget: its static C library can't look names up.
            let script = format!(
                "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {} {number} | tail -1",
                addresses.last().unwrap()
            );
            let said = engine.docker(&["run", "--rm", "--network", network, BUSYBOX, "sh", "-c", &script]);
            assert_eq!(said.ok(), "web", "{network} {script}");
        }
    };
    engine.docker(&["network", "create", "other"]).ok();
    all_answer(&engine, number);
    let shown = engine.docker(&["ps", "--format", "{{.Ports}}"]).ok();
    assert_eq!(shown, format!("0.0.0.0:{number}->80/tcp, [::]:{number}->80/tcp"));
    // Without a daemon, too, and after it came back.
    engine.end_daemon(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(get(SocketAddr::from(([127, 0, 0, 1], number))).as_deref(), Some("web"));
    engine.start_daemon();
    all_answer(&engine, number);
    let helper = crate::recovery::process_of(&engine, "inception network-helper").expect("a helper runs");
    nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
    all_answer(&engine, number);
    // Its end frees the port.
    engine.docker(&["rm", "-f", "web"]).ok();
    TcpListener::bind(("0.0.0.0", number)).unwrap();
}

#[test]
fn one_address_alone_and_a_port_that_is_taken() {
    let engine = Engine::with_busybox();
    serve(&engine, "web", &["-p", "127.0.0.1::80"]);
    let number = port(&engine, "web", "80");
    eventually(10, "loopback answers", || get(SocketAddr::from(([127, 0, 0, 1], number))));
    if let Some(own) = own_address() {
        assert_eq!(get(SocketAddr::from((own, number))), None, "only loopback was asked for");
    }
    let publish = format!("127.0.0.1:{number}:80");
    let run = |name: &str, publish: &str| {
        engine.docker(&["run", "-d", "--name", name, "-p", publish, BUSYBOX, "sleep", "1000"])
    };
    run("second", &publish).fails(125, "address already in use");
    // It is there, and starts once the port is free.
    assert_eq!(engine.docker(&["ps", "-a", "--filter", "name=second", "--format", "{{.Status}}"]).ok(), "Created");
    engine.docker(&["rm", "-f", "web"]).ok();
    engine.docker(&["start", "second"]).ok();
    // A port that a program on the machine has.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    run("third", &format!("{}:80", other.local_addr().unwrap().port())).fails(125, "address already in use");
}

#[test]
fn udp_answers_come_from_where_they_were_asked() {
    let engine = Engine::with_busybox();
    engine.docker(&["run", "-d", "--name", "echo", "-p", "53/udp", BUSYBOX, "sleep", "1000"]).ok();
    let number = port(&engine, "echo", "53/udp");
    let pid = engine.docker(&["inspect", "--format", "{{.State.Pid}}", "echo"]).ok();
    // busybox has no UDP server: a thread of this test, in the container's network namespace, is one.
    std::thread::spawn(move || {
        setns(File::open(format!("/proc/{pid}/ns/net")).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let socket = UdpSocket::bind("0.0.0.0:53").unwrap();
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            if &buffer[..count] == b"end" {
                return;
            }
            let _ = socket.send_to(&buffer[..count], from);
        }
    });
    let mut addresses = vec!["127.0.0.1".to_string(), "[::1]".into()];
    addresses.extend(own_address().map(|address| address.to_string()));
    for address in addresses {
        let target: SocketAddr = format!("{address}:{number}").parse().unwrap();
        let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        // A connected socket takes answers from that address alone.
        socket.connect(target).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut buffer = [0; 2048];
        eventually(10, &format!("{target} answers"), || {
            socket.send(b"hello").ok()?;
            let count = socket.recv(&mut buffer).ok()?;
            (&buffer[..count] == b"hello").then_some(())
        });
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let _ = socket.send_to(b"end", ("127.0.0.1", number));
}

#[test]
fn ranges_and_every_exposed_port() {
    let engine = Engine::with_busybox();
    engine
        .docker(&["run", "-d", "--name", "box", "-P", "--expose", "80", "--expose", "53/udp", BUSYBOX, "sleep", "1000"])
        .ok();
    assert!(port(&engine, "box", "80") > 0 && port(&engine, "box", "53/udp") > 0);
    let json = engine.docker(&["inspect", "--format", "{{json .NetworkSettings.Ports}}", "box"]).ok();
    let ports: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(ports["80/tcp"][0]["HostPort"], ports["80/tcp"][1]["HostPort"], "IPv4 and IPv6: {json}");
    engine.docker(&["run", "--rm", "-p", "99999:80", BUSYBOX, "true"]).fails(125, "99999");
    engine.docker(&["port", "box", "81"]).fails(1, "No public port '81' published for box");
}
