//! Published ports, with real connections.

use super::{Scene, Shim, eventually, proxy};
use crate::error::Error;
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

/// A server that reads all before it answers: without half-close it would wait for ever. One connection a thread.
fn counting_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                stream.write_all(b"welcome\n").unwrap();
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).is_ok() {
                    let sum: u64 = all.iter().map(|byte| u64::from(*byte)).sum();
                    let _ = write!(stream, "{} bytes, sum {sum}", all.len());
                }
            });
        }
    });
    address
}

fn connect(address: impl Into<SocketAddr>) -> TcpStream {
    let stream = TcpStream::connect(address.into()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut welcome = [0; 8];
    (&stream).read_exact(&mut welcome).unwrap();
    assert_eq!(&welcome, b"welcome\n");
    stream
}

/// Sends much, ends its direction, and reads what comes back.
fn talk(mut stream: TcpStream) {
    let data: Vec<u8> = (0..1_000_000u32).map(|index| (index % 251) as u8).collect();
    let sum: u64 = data.iter().map(|byte| u64::from(*byte)).sum();
    stream.write_all(&data).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("1000000 bytes, sum {sum}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tcp_by_both_families_with_half_close() {
    let scene = Scene::new().await;
    let shim = Shim::new();
    let target = counting_server();
    let mut member = shim.member("a");
    member.ports = vec![proxy("0.0.0.0", 0, "tcp", target), proxy("::", 0, "tcp", target)];
    let ports = scene.helper().set(&member).await.unwrap();
    let number = ports[0].host_port;
    assert_ne!(number, 0);
    assert_eq!((ports[1].host_port, ports[1].container_port), (number, target.port()));
    for address in [format!("127.0.0.1:{number}"), format!("127.0.0.9:{number}"), format!("[::1]:{number}")] {
        talk(connect(address.parse::<SocketAddr>().unwrap()));
    }
    // The same again keeps sockets, numbers and connections, with the real numbers or without.
    let open = connect(([127, 0, 0, 1], number));
    assert_eq!(scene.helper().set(&member).await.unwrap(), ports);
    member.ports[0].port.host_port = number;
    assert_eq!(scene.helper().set(&member).await.unwrap(), ports);
    // One goes, the other now leads elsewhere.
    member.ports.pop();
    member.ports[0].target = counting_server();
    scene.helper().set(&member).await.unwrap();
    assert!(TcpStream::connect(format!("[::1]:{number}")).is_err());
    talk(open);
    talk(connect(([127, 0, 0, 1], number)));
    // A container that does not listen: the connection ends.
    member.ports[0].target = ([127, 0, 0, 1], 1).into();
    scene.helper().set(&member).await.unwrap();
    let mut refused = TcpStream::connect(("127.0.0.1", number)).unwrap();
    assert!(matches!(refused.read(&mut [0; 9]), Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn udp_by_sessions_from_the_address_that_was_asked() {
    let scene = Scene::new().await;
    let shim = Shim::new();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = server.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok((length, client)) = server.recv_from(&mut buffer) {
            // Each client comes from another port, and keeps it.
            let text = format!("{} {}", String::from_utf8_lossy(&buffer[..length]), client.port());
            server.send_to(text.as_bytes(), client).unwrap();
        }
    });
    let mut member = shim.member("a");
    member.ports = vec![proxy("0.0.0.0", 0, "udp", target), proxy("::", 0, "udp", target)];
    let number = scene.helper().set(&member).await.unwrap()[0].host_port;
    let client = |address: &str| {
        let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // Connected: an answer from another address than this would not arrive.
        socket.connect(format!("{address}:{number}")).unwrap();
        socket
    };
    let ask = |socket: &UdpSocket, text: &str| {
        socket.send(text.as_bytes()).unwrap();
        let mut buffer = vec![0; 65536];
        let length = socket.recv(&mut buffer).unwrap();
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (echo, port) = answer.rsplit_once(' ').unwrap();
        assert_eq!(echo, text);
        port.to_string()
    };
    let clients = ["127.0.0.1", "127.0.0.2", "[::1]"].map(client);
    let first = clients.each_ref().map(|socket| ask(socket, "hello"));
    let second = clients.each_ref().map(|socket| ask(socket, &"x".repeat(9000)));
    assert_eq!(first, second);
    assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2]);
    // Free at once although there are sessions.
    scene.helper().release("a").await.unwrap();
    UdpSocket::bind(("0.0.0.0", number)).unwrap();
    UdpSocket::bind(("::", number)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_taken_port_is_an_error_and_takes_nothing() {
    let scene = Scene::new().await;
    let shim = Shim::new();
    let target = ([127, 0, 0, 1], 1).into();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let taken_udp = UdpSocket::bind("[::1]:0").unwrap();
    let taken_udp_port = taken_udp.local_addr().unwrap().port();
    let free_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut member = shim.member("a");
    for (proxy, text) in [
        (
            proxy("0.0.0.0", taken_port, "tcp", target),
            format!("listen tcp4 0.0.0.0:{taken_port}: bind: address already in use"),
        ),
        (
            proxy("127.0.0.1", taken_port, "tcp", target),
            format!("listen tcp4 127.0.0.1:{taken_port}: bind: address already in use"),
        ),
        (
            proxy("::", taken_udp_port, "udp", target),
            format!("listen udp6 [::]:{taken_udp_port}: bind: address already in use"),
        ),
        (
            proxy("192.0.2.250", 0, "udp", target),
            "listen udp4 192.0.2.250:0: bind: cannot assign requested address".into(),
        ),
    ] {
        member.ports = vec![super::proxy("127.0.0.1", free_port, "tcp", target), proxy];
        match scene.helper().set(&member).await {
            Err(Error::Conflict(message)) => assert_eq!(message, text),
            other => panic!("{other:?}"),
        }
        TcpListener::bind(("127.0.0.1", free_port)).unwrap();
        assert_eq!(scene.helper().members().await.unwrap(), Vec::<String>::new());
    }
    member.ports = vec![proxy("127.0.0.1", 0, "sctp", target)];
    assert!(matches!(scene.helper().set(&member).await, Err(Error::Failed(_))));
    // A failure leaves what was there before.
    member.ports = vec![proxy("127.0.0.1", free_port, "tcp", target)];
    scene.helper().set(&member).await.unwrap();
    member.ports.push(proxy("127.0.0.1", taken_port, "tcp", target));
    scene.helper().set(&member).await.unwrap_err();
    TcpStream::connect(("127.0.0.1", free_port)).unwrap();
    // And free at once, with connections in TIME_WAIT and open ones.
    let _open = TcpStream::connect(("127.0.0.1", free_port)).unwrap();
    scene.helper().release("a").await.unwrap();
    scene.helper().release("a").await.unwrap();
    TcpListener::bind(("127.0.0.1", free_port)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn everything_of_a_member_goes_with_its_shim() {
    let scene = Scene::new().await;
    let mut shim = Shim::new();
    let target = counting_server();
    let mut member = shim.member("a");
    member.resolver = true;
    member.ports = vec![proxy("127.0.0.1", 0, "tcp", target)];
    let number = scene.helper().set(&member).await.unwrap()[0].host_port;
    assert_eq!(scene.helper().members().await.unwrap(), ["a"]);
    let mut open = connect(([127, 0, 0, 1], number));
    let before = shim.member("a");
    shim.end();
    eventually("the member goes", async || scene.helper().members().await.unwrap().is_empty()).await;
    // The open connection is ended, the port is free.
    assert!(matches!(open.read(&mut [0; 9]), Ok(0) | Err(_)));
    eventually("the port is free", async || TcpListener::bind(("127.0.0.1", number)).is_ok()).await;
    // Neither a process that has ended nor another one under its pid is a shim.
    assert!(matches!(scene.helper().set(&before).await, Err(Error::Failed(_))));
    let mut other = Shim::new();
    let mut wrong = other.member("a");
    wrong.started -= 1;
    assert!(matches!(scene.helper().set(&wrong).await, Err(Error::Failed(_))));
    assert!(scene.helper().members().await.unwrap().is_empty());
    // A container that starts again has a new shim; the end of the old one is not its end.
    let mut new = Shim::new();
    member.ports[0].port.host_port = number;
    (member.pid, member.started) = (other.member("a").pid, other.member("a").started);
    scene.helper().set(&member).await.unwrap();
    (member.pid, member.started) = (new.member("a").pid, new.member("a").started);
    scene.helper().set(&member).await.unwrap();
    other.end();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(scene.helper().members().await.unwrap(), ["a"]);
    connect(([127, 0, 0, 1], number));
    new.inside(|| TcpStream::connect("127.0.0.11:53").map(drop)).unwrap();
    new.end();
    eventually("the member goes", async || scene.helper().members().await.unwrap().is_empty()).await;
}
