//! The name service of one container, on 127.0.0.11:53 in its network namespace.

use super::{
    forward::{self, Transport},
    names::Decision,
    quota::Quota,
    server::Shared,
    sockets,
};
use crate::error::{Context, Result};
use nix::sys::socket::{SockaddrStorage, recvfrom};
use std::{io, net::SocketAddr, os::fd::AsRawFd, rc::Rc, time::Duration};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// Who asks, and how much of it.
#[derive(Clone)]
struct Service {
    shared: Rc<Shared>,
    container_id: Rc<str>,
    quota: Quota,
}

/// Answers on both sockets until it is dropped.
pub async fn serve(
    shared: Rc<Shared>,
    container_id: Rc<str>,
    quota: Quota,
    (udp, tcp): (std::net::UdpSocket, std::net::TcpListener),
) -> Result<()> {
    let service = Service { shared, container_id, quota };
    let udp = Rc::new(UdpSocket::from_std(udp).doing("watch a socket")?);
    let tcp = TcpListener::from_std(tcp).doing("watch a socket")?;
    tokio::join!(service.serve_udp(udp), service.serve_tcp(tcp));
    Ok(())
}

impl Service {
    async fn serve_udp(&self, socket: Rc<UdpSocket>) {
        let mut asking = JoinSet::new();
        loop {
            while asking.try_join_next().is_some() {}
            // This call, unlike readable(), makes way for others: a container that floods starves nobody else.
            let (packet, client) = match socket.async_io(Interest::READABLE, || receive(&socket)).await {
                Ok(received) => received,
                Err(error) => {
                    log::debug!("receive a query: {error}");
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            match self.shared.decide(&self.container_id, &packet, Transport::Udp) {
                Decision::Ignore => {}
                Decision::Answer(answer) => send(&socket, &answer, client),
                Decision::Forward { servers, limit, failure } => {
                    let Some(permit) = self.quota.take() else {
                        send(&socket, &failure, client);
                        continue;
                    };
                    let socket = Rc::clone(&socket);
                    asking.spawn_local(async move {
                        let answer = forward::forward(&packet, &servers, Transport::Udp, limit.into()).await;
                        send(&socket, &answer.unwrap_or(failure), client);
                        drop(permit);
                    });
                }
            }
        }
    }

    async fn serve_tcp(&self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    let Some(permit) = self.quota.wait().await else { return };
                    let service = self.clone();
                    connections.spawn_local(async move {
                        if let Err(error) = service.converse(stream).await {
                            log::debug!("a query by TCP: {error}");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    log::debug!("accept a query: {error}");
                    sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    /// Answers one query after the other until the client goes.
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let Ok(packet) = timeout(IDLE, forward::read_message(&mut stream)).await else { return Ok(()) };
            let packet = match packet {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                packet => packet?,
            };
            let answer = match self.shared.decide(&self.container_id, &packet, Transport::Tcp) {
                Decision::Ignore => return Ok(()),
                Decision::Answer(answer) => answer,
                Decision::Forward { servers, limit, failure } => {
                    forward::forward(&packet, &servers, Transport::Tcp, limit.into()).await.unwrap_or(failure)
                }
            };
            timeout(IDLE, forward::write_message(&mut stream, &answer)).await??;
        }
    }
}

/// Not async, so that the buffer is on the stack and not in each service.
fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 4096];
    let (length, client) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer)?;
    let client = client.as_ref().and_then(sockets::address_of).ok_or(io::ErrorKind::InvalidData)?;
    Ok((buffer[..length].to_vec(), client))
}

/// Sends what the socket has room for; the client asks again for what gets lost.
fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.try_send_to(answer, client) {
        log::debug!("answer a query: {error}");
    }
}
