//! The network helper: name service and port proxies, in a process of its own that outlives the daemon.
//!
//! One process an engine, one thread. The daemon tells it what each container is given ([`Member`]); the helper holds
//! that until the daemon takes it back or the container's shim has ended, whichever comes first: its sockets inside a
//! container's network namespace would otherwise keep that namespace alive. It ends by itself when it holds nothing and
//! no daemon is connected.
//!
//! The protocol, over EXEC_ROOT/network-helper.sock: one request a line, one answer a line, JSON. A connection that asks
//! nothing says that a daemon lives.

mod client;
mod dns;
mod forward;
mod names;
mod ports;
mod quota;
mod server;
mod sockets;
mod tcp_proxy;
mod udp_proxy;

#[cfg(test)]
mod tests;

pub use client::Helper;
pub use server::serve;

use super::PublishedPort;
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// What the helper holds for one container.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Member {
    pub container_id: String,
    /// The shim, whose network namespace is the container's and whose end is the end of everything here.
    pub pid: i32,
    /// The shim's start time ([`crate::shim::start_time`]).
    pub started: u64,
    /// In the order in which names are looked up: the first network that knows a name answers.
    pub attachments: Vec<Attachment>,
    /// Name servers that are asked for everything else, from the host's namespace.
    pub servers: Vec<IpAddr>,
    /// Serve names on 127.0.0.11 in the shim's namespace. Only for a container whose namespace is its own.
    pub resolver: bool,
    pub ports: Vec<Proxy>,
}

/// A container's place on one network.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Attachment {
    pub network_id: String,
    pub address: Ipv4Addr,
    /// In lower case. The first is also the address's name (PTR). Empty on networks without names.
    pub names: Vec<String>,
}

/// A published port and where it leads.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Proxy {
    pub port: PublishedPort,
    /// The container's address and port, as reached from the host's namespace.
    pub target: SocketAddr,
}

#[derive(Serialize, Deserialize, Debug)]
enum Request {
    Set(Member),
    Release(String),
    Members,
}

#[derive(Serialize, Deserialize, Debug)]
enum Reply {
    Done,
    Ports(Vec<PublishedPort>),
    Members(Vec<String>),
    /// A port that can't be had, in Docker's words.
    Refused(String),
    Failed(String),
}

fn socket_path(exec_root: &Path) -> PathBuf {
    exec_root.join("network-helper.sock")
}

/// Holds "PID START-TIME" and, as long as the helper lives, its lock.
fn pidfile_path(exec_root: &Path) -> PathBuf {
    exec_root.join("network-helper.pid")
}
