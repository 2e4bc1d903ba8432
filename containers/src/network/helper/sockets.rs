//! Sockets made by hand: with the options that std has no word for, and inside another network namespace.

use crate::{
    error::{Context, Error, Result},
    network::firewall,
    shim::start_time,
};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
        sockopt::{IpFreebind, Ipv4PacketInfo, Ipv6RecvPacketInfo, Ipv6V6Only, KeepAlive, ReuseAddr},
    },
};
use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
};
use tokio::{net::TcpStream, sync::oneshot};

/// Docker's address of the name service inside a container.
pub const RESOLVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);

/// Stack of the thread that enters a namespace, makes two sockets there and runs nft.
const NAMESPACE_STACK: usize = 256 << 10;

/// Why a published port can't be had.
#[derive(Debug)]
pub struct Refused {
    pub errno: Errno,
    /// In the words of Go's net package, which are Docker's: clients look for them.
    pub message: String,
}

/// A listening TCP socket for a published port. SO_REUSEADDR: connections of a helper that was killed don't hold it.
pub fn listen_tcp(address: SocketAddr) -> Result<TcpListener, Refused> {
    let make = || {
        let fd = bound(address, SockType::Stream)?;
        listen(&fd, Backlog::MAXCONN).map_err(|errno| ("listen", errno))?;
        Ok(TcpListener::from(fd))
    };
    make().map_err(|failure| refused("tcp", address, failure))
}

/// A UDP socket for a published port, which also tells the address that a packet was sent to.
pub fn listen_udp(address: SocketAddr) -> Result<UdpSocket, Refused> {
    let make = || {
        let fd = bound(address, SockType::Datagram)?;
        match address {
            SocketAddr::V4(_) => setsockopt(&fd, Ipv4PacketInfo, &true),
            SocketAddr::V6(_) => setsockopt(&fd, Ipv6RecvPacketInfo, &true),
        }
        .map_err(|errno| ("setsockopt", errno))?;
        Ok(UdpSocket::from(fd))
    };
    make().map_err(|failure| refused("udp", address, failure))
}

fn bound(address: SocketAddr, kind: SockType) -> Result<OwnedFd, (&'static str, Errno)> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
        .map_err(|errno| ("socket", errno))?;
    if kind == SockType::Stream {
        // Never for UDP, where it would let two sockets share a port.
        setsockopt(&fd, ReuseAddr, &true).map_err(|errno| ("setsockopt", errno))?;
    }
    if address.is_ipv6() {
        setsockopt(&fd, Ipv6V6Only, &true).map_err(|errno| ("setsockopt", errno))?;
    }
    if address.ip() == RESOLVER.ip() {
        // Whether `lo` is up yet makes no difference then.
        setsockopt(&fd, IpFreebind, &true).map_err(|errno| ("setsockopt", errno))?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).map_err(|errno| ("bind", errno))?;
    Ok(fd)
}

fn refused(protocol: &str, address: SocketAddr, (call, errno): (&str, Errno)) -> Refused {
    let version = if address.is_ipv4() { 4 } else { 6 };
    // Go writes the C library's texts, all but a capital.
    let text = errno.desc();
    let text = text.get(..1).map(str::to_ascii_lowercase).unwrap_or_default() + text.get(1..).unwrap_or_default();
    Refused { errno, message: format!("listen {protocol}{version} {address}: {call}: {text}") }
}

/// nix's address as std's.
pub fn address_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4(SocketAddrV4::from(*address)));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6(SocketAddrV6::from(*address))))
}

/// What Go's proxy sets too: no wait for more to send, and an end to connections whose peer is gone.
pub fn tune(stream: &TcpStream) {
    // A connection that has just been reset refuses both; the copying will see that.
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(stream, KeepAlive, &true);
}

/// The name service's two sockets, inside the network namespace of process `pid` that started at `started`.
pub async fn resolver_sockets(pid: i32, started: u64) -> Result<(UdpSocket, TcpListener)> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).doing(format_args!("open {path}"))?;
    if start_time(pid) != Some(started) {
        return Err(Error::Failed(format!("process {pid} has ended, and the namespace is another one's")));
    }
    let (sender, receiver) = oneshot::channel();
    // A thread of its own: a thread's namespace can't be trusted to be what it was, so it ends with this work.
    std::thread::Builder::new()
        .name("namespace".into())
        .stack_size(NAMESPACE_STACK)
        .spawn(move || {
            let _ = sender.send(make_resolver_sockets(namespace, &path));
        })
        .doing("start a thread")?;
    receiver.await.map_err(|_| Error::Failed("the thread that makes a container's sockets died".into()))?
}

fn make_resolver_sockets(namespace: File, path: &str) -> Result<(UdpSocket, TcpListener)> {
    setns(namespace, CloneFlags::CLONE_NEWNET).doing(format_args!("enter {path}"))?;
    let failed = |refused: Refused| Error::Failed(format!("serve names in {path}: {}", refused.message));
    // On any port but 53, which a name server in the container may want on every address: what is sent to 53 is led here.
    let anywhere = SocketAddr::new(RESOLVER.ip(), 0);
    let (udp, tcp) = (listen_udp(anywhere).map_err(failed)?, listen_tcp(anywhere).map_err(failed)?);
    let port = |address: std::io::Result<SocketAddr>| {
        address.map(|address| address.port()).at("look at a socket in", path.as_ref())
    };
    redirect(port(udp.local_addr())?, port(tcp.local_addr())?)?;
    Ok((udp, tcp))
}

/// Leads what the container sends to the name service's address to these ports, by a table in its own namespace: that of
/// the calling thread.
fn redirect(udp: u16, tcp: u16) -> Result<()> {
    let (address, port) = (RESOLVER.ip(), RESOLVER.port());
    // A helper that was killed has left its table.
    firewall::nft(&format!(
        "table ip inception_names {{}}\ndelete table ip inception_names\ntable ip inception_names {{\n chain asked {{\n  \
         type nat hook output priority -100; policy accept;\n  \
         ip daddr {address} udp dport {port} dnat to {address}:{udp}\n  \
         ip daddr {address} tcp dport {port} dnat to {address}:{tcp}\n }}\n}}\n"
    ))
}
