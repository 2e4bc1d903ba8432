//! The published ports of one container: which are kept, which are new, and the sockets for those.

use super::{
    Proxy, PublishedPort,
    quota::Quota,
    server::stop,
    sockets::{self, Refused},
    tcp_proxy, udp_proxy,
};
use crate::error::{Error, Result};
use nix::errno::Errno;
use std::{
    cell::Cell,
    net::{SocketAddr, TcpListener, UdpSocket},
    rc::Rc,
};
use tokio::task::JoinHandle;

/// How often a port is sought that is free on each of several addresses.
const TRIES: usize = 16;

/// A port that is served.
pub struct Port {
    /// With the real host port.
    pub published: PublishedPort,
    target: Rc<Cell<SocketAddr>>,
    task: JoinHandle<Result<()>>,
}

/// A socket that is bound and not served yet: dropping it frees the port.
pub enum Listener {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Port {
    /// Serves `listener` for `proxy`; `number` is the real host port.
    pub fn serve((listener, number): (Listener, u16), proxy: &Proxy, quota: Quota) -> Port {
        let target = Rc::new(Cell::new(proxy.target));
        let shared = Rc::clone(&target);
        let task = match listener {
            Listener::Tcp(listener) => tokio::task::spawn_local(tcp_proxy::serve(listener, shared, quota)),
            Listener::Udp(socket) => tokio::task::spawn_local(udp_proxy::serve(socket, shared, quota)),
        };
        Port { published: PublishedPort { host_port: number, ..proxy.port.clone() }, target, task }
    }

    /// Leads elsewhere from now on. Connections that are there stay.
    pub fn redirected(mut self, proxy: &Proxy) -> Port {
        self.target.set(proxy.target);
        self.published.container_port = proxy.port.container_port;
        self
    }

    /// Ends the proxy and its connections; the port is free when this returns.
    pub async fn stop(self) {
        stop(self.task).await;
    }
}

impl Listener {
    fn bind(port: &PublishedPort, number: u16) -> Result<(Listener, u16), Refused> {
        let address = SocketAddr::new(port.host_ip, number);
        let (bound, listener) = if port.protocol == "udp" {
            let socket = sockets::listen_udp(address)?;
            (socket.local_addr(), Listener::Udp(socket))
        } else {
            let listener = sockets::listen_tcp(address)?;
            (listener.local_addr(), Listener::Tcp(listener))
        };
        Ok((listener, bound.map_or(number, |bound| bound.port())))
    }
}

/// For each of `wanted`, which of `there` serves it already.
pub fn match_up(wanted: &[Proxy], there: &[Port]) -> Vec<Option<usize>> {
    let mut free = vec![true; there.len()];
    let mut matched = vec![None; wanted.len()];
    // Those with a number first, so that none that asks for any port takes theirs.
    for any in [false, true] {
        for (slot, proxy) in wanted.iter().enumerate().filter(|(_, proxy)| (proxy.port.host_port == 0) == any) {
            matched[slot] = there.iter().enumerate().position(|(index, port)| {
                let (asked, has) = (&proxy.port, &port.published);
                let same_number =
                    if any { asked.container_port == has.container_port } else { asked.host_port == has.host_port };
                free[index] && same_number && asked.host_ip == has.host_ip && asked.protocol == has.protocol
            });
            if let Some(index) = matched[slot] {
                free[index] = false;
            }
        }
    }
    matched
}

/// Binds all of `wanted` or none. Ports without a number that differ only in their host address get one number, as
/// Docker gives them.
pub fn bind(wanted: &[&PublishedPort]) -> Result<Vec<(Listener, u16)>> {
    if let Some(port) = wanted.iter().find(|port| !matches!(port.protocol.as_str(), "tcp" | "udp")) {
        return Err(Error::invalid(format!(
            "publish {}/{}: only tcp and udp ports",
            port.container_port, port.protocol
        )));
    }
    let conflict = |refused: Refused| Error::Conflict(refused.message);
    let mut bound: Vec<Option<(Listener, u16)>> = Vec::new();
    for port in wanted {
        bound.push(match port.host_port {
            0 => None,
            number => Some(Listener::bind(port, number).map_err(conflict)?),
        });
    }
    while let Some(first) = bound.iter().position(Option::is_none) {
        let mut group = vec![first];
        for slot in first + 1..wanted.len() {
            let (port, like) = (wanted[slot], wanted[first]);
            if bound[slot].is_none()
                && (port.container_port, &port.protocol) == (like.container_port, &like.protocol)
                && group.iter().all(|other| wanted[*other].host_ip != port.host_ip)
            {
                group.push(slot);
            }
        }
        let ports: Vec<_> = group.iter().map(|slot| wanted[*slot]).collect();
        for (slot, listener) in group.into_iter().zip(bind_group(&ports).map_err(conflict)?) {
            bound[slot] = Some(listener);
        }
    }
    Ok(bound.into_iter().flatten().collect())
}

/// Binds one free number on the addresses of all of `ports`.
fn bind_group(ports: &[&PublishedPort]) -> Result<Vec<(Listener, u16)>, Refused> {
    let mut tries = 0;
    loop {
        let mut number = 0;
        let all = ports.iter().map(|port| {
            let (listener, bound) = Listener::bind(port, number)?;
            number = bound;
            Ok((listener, bound))
        });
        match all.collect::<Result<Vec<_>, Refused>>() {
            Err(refused) if refused.errno == Errno::EADDRINUSE && tries < TRIES => tries += 1,
            result => return result,
        }
    }
}
