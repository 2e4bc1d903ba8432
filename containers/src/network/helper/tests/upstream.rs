//! Everything else is asked of name servers: fakes on loopback addresses of the host.

use super::{
    super::forward::Transport,
    Scene, Shim, attachment,
    names::{ask, data},
};
use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{RData, Record, RecordType},
};
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Sends `packet` to a name server and takes one answer.
pub fn exchange(server: SocketAddr, transport: Transport, packet: &[u8]) -> io::Result<Vec<u8>> {
    let patience = Some(Duration::from_secs(8));
    match transport {
        Transport::Udp => {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_read_timeout(patience)?;
            socket.connect(server)?;
            socket.send(packet)?;
            let mut buffer = vec![0; 65536];
            let length = socket.recv(&mut buffer)?;
            buffer.truncate(length);
            Ok(buffer)
        }
        Transport::Tcp => {
            let mut stream = TcpStream::connect(server)?;
            stream.set_read_timeout(patience)?;
            send(&mut stream, packet)?;
            receive(&mut stream)
        }
    }
}

fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(&(message.len() as u16).to_be_bytes())?;
    stream.write_all(message)
}

fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// A loopback address that nobody else uses.
fn own_address() -> Ipv4Addr {
    let mut random = [0; 3];
    getrandom::fill(&mut random).unwrap();
    Ipv4Addr::new(127, 64 + random[0] % 64, random[1], 1 + random[2] % 200)
}

/// A name server on port 53 of an address of its own; its threads last as long as the test's process. It counts the
/// queries by UDP and by TCP.
struct Upstream {
    address: IpAddr,
    asked: Arc<[AtomicUsize; 2]>,
}

impl Upstream {
    /// `code`: what it answers to every query but the silent one's.
    fn new(code: ResponseCode) -> Upstream {
        let address = own_address();
        let asked = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let udp = UdpSocket::bind((address, 53)).unwrap();
        let tcp = TcpListener::bind((address, 53)).unwrap();
        let counts = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                counts[0].fetch_add(1, Ordering::SeqCst);
                let Some(answer) = answer(&buffer[..length], Transport::Udp, code) else { continue };
                // First what an attacker might send: a wrong id, another question.
                let mut forged = answer.clone();
                forged[0] ^= 1;
                udp.send_to(&forged, client).unwrap();
                let mut forged = answer.clone();
                forged[13] ^= 1;
                udp.send_to(&forged, client).unwrap();
                udp.send_to(&answer, client).unwrap();
            }
        });
        let counts = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                counts[1].fetch_add(1, Ordering::SeqCst);
                let query = receive(&mut stream).unwrap();
                if let Some(answer) = answer(&query, Transport::Tcp, code) {
                    send(&mut stream, &answer).unwrap();
                }
            }
        });
        Upstream { address: address.into(), asked }
    }

    fn asked(&self) -> [usize; 2] {
        [self.asked[0].load(Ordering::SeqCst), self.asked[1].load(Ordering::SeqCst)]
    }
}

fn answer(query: &[u8], transport: Transport, code: ResponseCode) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).unwrap();
    let name = query.queries[0].name.clone();
    let count = match (name.to_string().split('.').next().unwrap(), transport) {
        ("silent", _) => return None,
        ("cut", Transport::Udp) | ("huge", Transport::Udp) => 0,
        ("cut", Transport::Tcp) => 20,
        ("huge", Transport::Tcp) => 2000,
        _ => 1,
    };
    let mut answer = query.clone();
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.response_code = code;
    answer.metadata.truncation = count == 0;
    let address = Ipv4Addr::new(192, 0, 2, 7);
    answer.answers = vec![Record::from_rdata(name, 30, RData::A(address.into())); count];
    Some(answer.to_vec().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn queries_for_others_go_to_the_servers_and_come_back_whole() {
    let scene = Scene::new().await;
    let shim = Shim::new();
    let server = Upstream::new(ResponseCode::NoError);
    let broken = Upstream::new(ResponseCode::ServFail);
    let mut member = shim.member("a");
    member.attachments = vec![attachment("net", 2, &["a"])];
    member.resolver = true;
    // Nobody listens on the first, the second fails: both cost no time.
    member.servers = vec![own_address().into(), broken.address, server.address];
    scene.helper().set(&member).await.unwrap();
    let start = Instant::now();
    for name in ["www.example.org.", "single.", "7.2.0.192.in-addr.arpa."] {
        assert_eq!(data(&ask(&shim, Transport::Udp, name, RecordType::A)), ["192.0.2.7"]);
    }
    assert_eq!((broken.asked(), server.asked()), ([3, 0], [3, 0]));
    assert_eq!(data(&ask(&shim, Transport::Tcp, "www.example.org.", RecordType::A)), ["192.0.2.7"]);
    assert_eq!((broken.asked(), server.asked()), ([3, 1], [3, 1]));
    // Cut off by UDP: the whole where it fits, else the asker is left to ask by TCP.
    assert_eq!(data(&ask(&shim, Transport::Udp, "cut.example.org.", RecordType::A)).len(), 20);
    let answer = ask(&shim, Transport::Udp, "huge.example.org.", RecordType::A);
    assert!(answer.truncation && answer.answers.is_empty());
    assert_eq!(data(&ask(&shim, Transport::Tcp, "huge.example.org.", RecordType::A)).len(), 2000);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // What is known is not asked.
    let before = server.asked();
    ask(&shim, Transport::Udp, "a.", RecordType::A);
    ask(&shim, Transport::Udp, "a.", RecordType::AAAA);
    assert_eq!(server.asked(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn silence_is_a_failure_in_time_and_keeps_nobody_waiting() {
    let scene = Scene::new().await;
    let shim = Shim::new();
    let server = Upstream::new(ResponseCode::NoError);
    let mut member = shim.member("a");
    member.attachments = vec![attachment("net", 2, &["a"])];
    member.resolver = true;
    member.servers = vec![server.address];
    scene.helper().set(&member).await.unwrap();
    std::thread::scope(|scope| {
        let start = Instant::now();
        let shim = &shim;
        let silent = [Transport::Udp, Transport::Tcp]
            .map(|transport| scope.spawn(move || ask(shim, transport, "silent.example.org.", RecordType::A)));
        assert_eq!(data(&ask(shim, Transport::Udp, "a.", RecordType::A)), ["198.18.0.2"]);
        assert!(start.elapsed() < Duration::from_secs(2));
        for silent in silent {
            assert_eq!(silent.join().unwrap().response_code, ResponseCode::ServFail);
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
    // Packets get lost: asked twice.
    assert_eq!(server.asked()[0], 2);
}
