//! Asks the host's name servers what the name service itself does not know. Queries and answers pass as they are, so
//! that record types and options which nobody here has heard of work too.

use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};

/// How long the servers are asked. Below 5 s, after which the C library gives up on us and asks again.
const PATIENCE: Duration = Duration::from_millis(4500);

/// How long one server has the word before the next is asked as well. UDP packets get lost: a single server is asked
/// again.
const STAGGER: Duration = Duration::from_millis(1500);

const HEADER: usize = 12;
/// Second byte of the flags: response code.
const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// The answer to `query` by one of `servers`; None when none answers in time. `limit`: what the one who asked takes by
/// UDP, in bytes.
pub async fn forward(query: &[u8], servers: &[IpAddr], transport: Transport, limit: usize) -> Option<Vec<u8>> {
    let answer = timeout(PATIENCE, ask(query, servers, transport)).await.ok().flatten()?;
    if transport == Transport::Udp && is_truncated(&answer) {
        // The one who asked may not know how to ask again by TCP (old musl): spare it that where the whole fits.
        let whole = timeout(PATIENCE, ask(query, servers, Transport::Tcp)).await.ok().flatten();
        return Some(whole.filter(|whole| whole.len() <= limit).unwrap_or(answer));
    }
    Some(answer)
}

/// Asks in the servers' order, the next one whenever one fails or is slow; the first good answer wins.
async fn ask(query: &[u8], servers: &[IpAddr], transport: Transport) -> Option<Vec<u8>> {
    // The second round is for those that keep silent.
    let mut order: VecDeque<IpAddr> = servers.iter().chain(servers).copied().collect();
    let mut pending = FuturesUnordered::new();
    let mut bad = None;
    loop {
        match order.pop_front() {
            Some(server) => pending.push(async move {
                let server_address = SocketAddr::new(server, 53);
                let answer = match transport {
                    Transport::Udp => by_udp(query, server_address).await,
                    Transport::Tcp => by_tcp(query, server_address).await,
                };
                (server, answer)
            }),
            None if pending.is_empty() => return bad,
            None => {}
        }
        tokio::select! {
            Some((server, answer)) = pending.next() => match answer {
                Ok(answer) if !matches!(answer[3] & 0xf, SERVFAIL | REFUSED) => return Some(answer),
                Ok(answer) => {
                    bad = Some(answer);
                    order.retain(|other| *other != server);
                }
                Err(error) => log::debug!("name server {server}: {error}"),
            },
            () = sleep(STAGGER), if !order.is_empty() => {}
        }
    }
}

async fn by_udp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    // A socket for each query: its port is a random one, which answers forged from afar would have to guess.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let (sent, id) = with_new_id(query)?;
    socket.send(&sent).await?;
    loop {
        // An error alone ("connection refused") does not make a socket readable in tokio's eyes.
        if socket.ready(Interest::READABLE | Interest::ERROR).await?.is_error() {
            return Err(socket.take_error()?.unwrap_or_else(|| io::ErrorKind::Other.into()));
        }
        match receive(&socket) {
            Ok(mut answer) if answers(&sent, &answer) => {
                answer[..2].copy_from_slice(&id);
                return Ok(answer);
            }
            Ok(_) => log::debug!("name server {server}: an answer to something else"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Takes a datagram that is there. Not async, so that the buffer is on the stack and not in each waiting query.
fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 1 << 16];
    let length = socket.try_recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

async fn by_tcp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let (sent, id) = with_new_id(query)?;
    write_message(&mut stream, &sent).await?;
    let mut answer = read_message(&mut stream).await?;
    if !answers(&sent, &answer) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to something else"));
    }
    answer[..2].copy_from_slice(&id);
    Ok(answer)
}

/// Reads a message behind its length (RFC 1035, 4.2.2).
pub async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message behind its length, in one piece.
pub async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// `query` under a random id, and the id that it had.
fn with_new_id(query: &[u8]) -> io::Result<(Vec<u8>, [u8; 2])> {
    let mut sent = query.to_vec();
    let id = sent.first_chunk_mut::<2>().ok_or(io::ErrorKind::InvalidData)?;
    let old = *id;
    getrandom::fill(id).map_err(io::Error::other)?;
    Ok((sent, old))
}

/// Whether `answer` is one to `query`: id, direction, question. Servers that refuse may leave the question out.
fn answers(query: &[u8], answer: &[u8]) -> bool {
    let (Some(asked), Some(head)) = (question(query), answer.get(..HEADER)) else { return false };
    let same_id = head[..2] == query[..2];
    let is_answer = head[2] & 0x80 != 0;
    let no_question = head[4..6] == [0, 0] && head[3] & 0xf != 0;
    same_id && is_answer && (no_question || question(answer).is_some_and(|told| told.eq_ignore_ascii_case(asked)))
}

/// The first question's bytes: name, type, class.
fn question(message: &[u8]) -> Option<&[u8]> {
    let mut end = HEADER;
    loop {
        match *message.get(end)? {
            0 => return message.get(HEADER..end + 5),
            length @ 1..64 => end += 1 + usize::from(length),
            // No compression before there was a name.
            _ => return None,
        }
    }
}

fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 2 != 0)
}
