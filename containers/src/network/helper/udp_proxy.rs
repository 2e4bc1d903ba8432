//! Proxies the datagrams to a published port: a session, with a socket of its own, for each client.

use super::{quota::Quota, sockets};
use crate::error::{Context, Result};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    rc::{Rc, Weak},
    time::Duration,
};
use tokio::{
    io::Interest,
    net::UdpSocket,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

/// How long a session may be silent; Docker's.
const IDLE: Duration = Duration::from_secs(90);

/// Largest datagram.
const DATAGRAM: usize = 1 << 16;

/// Where a packet came from, where it was sent to, and where its session leads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    client: SocketAddr,
    /// The answer must come from this address, or a client that is connected to it drops it.
    local: IpAddr,
    target: SocketAddr,
}

struct Session {
    socket: UdpSocket,
    last_used: Cell<Instant>,
}

type Sessions = Rc<RefCell<HashMap<Key, Rc<Session>>>>;

/// Proxies until it is dropped. `target` is read for each packet.
pub async fn serve(socket: std::net::UdpSocket, target: Rc<Cell<SocketAddr>>, quota: Quota) -> Result<()> {
    let socket = Rc::new(UdpSocket::from_std(socket).doing("watch a socket")?);
    let sessions = Sessions::default();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (packet, client, local) = match socket.async_io(Interest::READABLE, || receive(&socket)).await {
            Ok(received) => received,
            Err(error) => {
                log::debug!("receive: {error}");
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let key = Key { client, local, target: target.get() };
        let known = sessions.borrow().get(&key).cloned();
        let session = match known {
            Some(session) => session,
            None => {
                let Some(permit) = quota.take() else { continue };
                let session = match connected(key.target) {
                    Ok(socket) => Rc::new(Session { socket, last_used: Cell::new(Instant::now()) }),
                    Err(error) => {
                        log::debug!("a session to {}: {error}", key.target);
                        continue;
                    }
                };
                sessions.borrow_mut().insert(key, Rc::clone(&session));
                // Weak: the port is free at once when this proxy is dropped, not when its sessions have ended.
                let (socket, sessions) = (Rc::downgrade(&socket), Rc::clone(&sessions));
                let answering = Rc::clone(&session);
                tasks.spawn_local(async move {
                    answer(&socket, &answering, key).await;
                    sessions.borrow_mut().remove(&key);
                    drop(permit);
                });
                session
            }
        };
        session.last_used.set(Instant::now());
        // The first call may only tell that the container refused an earlier packet, and send nothing.
        if session.socket.send(&packet).await.is_err()
            && let Err(error) = session.socket.send(&packet).await
        {
            log::debug!("send to {}: {error}", key.target);
        }
    }
}

/// Passes a session's answers on until it has been silent for long.
async fn answer(socket: &Weak<UdpSocket>, session: &Session, key: Key) {
    loop {
        match timeout_at(session.last_used.get() + IDLE, session.socket.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) if session.last_used.get().elapsed() >= IDLE => return,
            // It was used in the other direction meanwhile.
            Err(_) => continue,
        }
        let Some(socket) = socket.upgrade() else { return };
        match pass_on(&socket, session, key) {
            Ok(()) => session.last_used.set(Instant::now()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // "Connection refused": the container does not listen yet, or no more.
            Err(error) => log::debug!("receive from {}: {error}", key.target),
        }
    }
}

/// Not async, so that the buffer is on the stack and not in each session.
fn pass_on(socket: &UdpSocket, session: &Session, key: Key) -> io::Result<()> {
    let mut buffer = [0; DATAGRAM];
    let length = session.socket.try_recv(&mut buffer)?;
    if let Err(error) = socket.try_io(Interest::WRITABLE, || send(socket, &buffer[..length], key)) {
        log::debug!("send to a client: {error}");
    }
    Ok(())
}

fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// A datagram, who sent it and to which of this host's addresses.
fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr, IpAddr)> {
    let mut buffer = [0; DATAGRAM];
    let mut space = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let client = message.address.as_ref().and_then(sockets::address_of).ok_or(io::ErrorKind::InvalidData)?;
    let local = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(IpAddr::V4(u32::from_be(info.ipi_spec_dst.s_addr).into())),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(info.ipi6_addr.s6_addr.into())),
        _ => None,
    });
    let local = local.ok_or(io::ErrorKind::InvalidData)?;
    let length = message.bytes;
    Ok((buffer[..length].to_vec(), client, local))
}

/// Sends to the session's client from the address that the client had sent to.
fn send(socket: &UdpSocket, packet: &[u8], key: Key) -> io::Result<()> {
    let client = SockaddrStorage::from(key.client);
    let (v4, v6);
    let from = match key.local {
        IpAddr::V4(local) => {
            let address = libc::in_addr { s_addr: u32::from(local).to_be() };
            v4 = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: libc::in_addr { s_addr: 0 } };
            ControlMessage::Ipv4PacketInfo(&v4)
        }
        IpAddr::V6(local) => {
            v6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 };
            ControlMessage::Ipv6PacketInfo(&v6)
        }
    };
    let parts = [IoSlice::new(packet)];
    sendmsg(socket.as_raw_fd(), &parts, &[from], MsgFlags::MSG_DONTWAIT, Some(&client)).map(drop).map_err(Into::into)
}
