//! What containers are told about each other.

use super::{super::forward::Transport, Scene, Shim, attachment, upstream};
use crate::network::helper::names::{Decision, Turns, decide};
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use std::{
    net::UdpSocket,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message
}

/// The answer to a query from inside `shim`'s namespace.
pub fn ask(shim: &Shim, transport: Transport, name: &str, kind: RecordType) -> Message {
    let query = query(name, kind);
    let packet = query.to_vec().unwrap();
    let answer = shim.inside(move || upstream::exchange("127.0.0.11:53".parse().unwrap(), transport, &packet).unwrap());
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.id, query.id);
    assert_eq!(answer.queries, query.queries);
    answer
}

/// The answer's addresses and names, in their order.
pub fn data(answer: &Message) -> Vec<String> {
    let text = |record: &hickory_proto::rr::Record| match &record.data {
        RData::A(address) => address.0.to_string(),
        RData::PTR(name) => name.0.to_string(),
        other => panic!("a record that nobody asked for: {other}"),
    };
    answer.answers.iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn names_addresses_and_turns_on_the_same_network_only() {
    let scene = Scene::new().await;
    let (web, one, two, far) = (Shim::new(), Shim::new(), Shim::new(), Shim::new());
    let mut member = web.member("web");
    member.attachments = vec![attachment("net", 2, &["web"])];
    member.resolver = true;
    scene.helper().set(&member).await.unwrap();
    for (shim, id, attachment) in [
        (&one, "one", attachment("net", 3, &["one", "0123456789ab", "app_db"])),
        (&two, "two", attachment("net", 4, &["two", "app_db"])),
        (&far, "far", attachment("other", 5, &["far", "app_db"])),
    ] {
        let mut member = shim.member(id);
        member.attachments = vec![attachment];
        scene.helper().set(&member).await.unwrap();
    }
    for transport in [Transport::Udp, Transport::Tcp] {
        let answer = ask(&web, transport, "One.", RecordType::A);
        assert_eq!((answer.response_code, data(&answer)), (ResponseCode::NoError, vec!["198.18.0.3".into()]));
        assert_eq!(answer.answers[0].ttl, 600);
        assert!(answer.recursion_available && answer.recursion_desired);
        assert_eq!(data(&ask(&web, transport, "0123456789ab.", RecordType::A)), ["198.18.0.3"]);
        assert_eq!(data(&ask(&web, transport, "web.", RecordType::A)), ["198.18.0.2"]);

        let first = data(&ask(&web, transport, "app_db.", RecordType::A));
        let second = data(&ask(&web, transport, "app_db.", RecordType::A));
        let third = data(&ask(&web, transport, "app_db.", RecordType::A));
        assert_eq!((first.len(), &first), (2, &third));
        assert_eq!([&first[0], &first[1]], [&second[1], &second[0]]);

        for kind in [RecordType::AAAA, RecordType::MX, RecordType::HTTPS] {
            let answer = ask(&web, transport, "one.", kind);
            assert_eq!((answer.response_code, data(&answer)), (ResponseCode::NoError, vec![]));
        }
        assert_eq!(data(&ask(&web, transport, "4.0.18.198.in-addr.arpa.", RecordType::PTR)), ["two."]);
        // Without name servers to ask: no such single label, and nothing known of the rest.
        assert_eq!(ask(&web, transport, "far.", RecordType::A).response_code, ResponseCode::NXDomain);
        for name in ["5.0.18.198.in-addr.arpa.", "www.example.org."] {
            assert_eq!(ask(&web, transport, name, RecordType::PTR).response_code, ResponseCode::ServFail);
        }
    }
    // The others have no resolver, and their names go when they do.
    one.inside(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        socket.send(b"x").unwrap();
        assert_eq!(socket.recv(&mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    });
    scene.helper().release("one").await.unwrap();
    assert_eq!(data(&ask(&web, Transport::Udp, "app_db.", RecordType::A)), ["198.18.0.4"]);
    scene.helper().release("two").await.unwrap();
    assert_eq!(ask(&web, Transport::Udp, "two.", RecordType::A).response_code, ResponseCode::NXDomain);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn garbage_is_ignored_and_others_are_still_answered() {
    let scene = Scene::new().await;
    let shim = Shim::new();
    let mut member = shim.member("a");
    member.attachments = vec![attachment("net", 2, &["a"])];
    member.resolver = true;
    scene.helper().set(&member).await.unwrap();
    shim.inside(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // An answer, a name that points to itself, and noise: none of them is a query.
        let mut answer = query("a.", RecordType::A);
        answer.metadata.message_type = hickory_proto::op::MessageType::Response;
        let looping = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1];
        for packet in [answer.to_vec().unwrap(), looping.to_vec(), vec![], vec![0xff; 11], vec![0xff; 4000]] {
            socket.send_to(&packet, "127.0.0.11:53").unwrap();
            assert_eq!(socket.recv(&mut [0; 512]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        }
        // A connection that says nothing, one that breaks off: neither keeps the next from being served.
        let _silent = std::net::TcpStream::connect("127.0.0.11:53").unwrap();
        let mut broken = std::net::TcpStream::connect("127.0.0.11:53").unwrap();
        std::io::Write::write_all(&mut broken, &[1, 0, 7]).unwrap();
    });
    assert_eq!(data(&ask(&shim, Transport::Tcp, "a.", RecordType::A)), ["198.18.0.2"]);
    // The container's own name survives a change of its networks; its sockets are the same.
    member.attachments = vec![attachment("new", 9, &["a"])];
    scene.helper().set(&member).await.unwrap();
    assert_eq!(data(&ask(&shim, Transport::Udp, "a.", RecordType::A)), ["198.18.0.9"]);
    member.resolver = false;
    scene.helper().set(&member).await.unwrap();
    shim.inside(|| {
        assert!(std::net::TcpStream::connect("127.0.0.11:53").is_err());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_container_that_floods_keeps_nobody_else_waiting() {
    let scene = Scene::new().await;
    let (loud, quiet) = (Shim::new(), Shim::new());
    for (shim, id) in [(&loud, "loud"), (&quiet, "quiet")] {
        let mut member = shim.member(id);
        member.attachments = vec![attachment("net", 2, &[id])];
        member.resolver = true;
        scene.helper().set(&member).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let (namespace, stop) = (loud.namespace(), Arc::clone(&stop));
            std::thread::spawn(move || {
                super::enter(namespace);
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let packet = query("loud.", RecordType::A).to_vec().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    socket.send_to(&packet, "127.0.0.11:53").unwrap();
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..20 {
        assert_eq!(data(&ask(&quiet, Transport::Udp, "quiet.", RecordType::A)), ["198.18.0.2"]);
        scene.helper().members().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
}

#[test]
fn an_answer_that_does_not_fit_says_so() {
    let shim = Shim::new();
    let mut asker = shim.member("a");
    asker.attachments = (0..200).map(|last| attachment("net", last, &["many"])).collect();
    let packet = query("many.", RecordType::A).to_vec().unwrap();
    let answer = |transport| match decide(&packet, transport, &asker, std::iter::once(&asker), &Turns::default()) {
        Decision::Answer(answer) => answer,
        other => panic!("{other:?}"),
    };
    let (udp, tcp) = (answer(Transport::Udp), answer(Transport::Tcp));
    assert!(udp.len() <= 512);
    let (udp, tcp) = (Message::from_vec(&udp).unwrap(), Message::from_vec(&tcp).unwrap());
    assert!(udp.truncation && !udp.answers.is_empty());
    assert_eq!((tcp.truncation, tcp.answers.len()), (false, 200));
}
