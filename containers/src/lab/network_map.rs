//! What was probed of a network: who has which interfaces, what hangs together, and who reached whom. Lesson 15 draws it.

use serde::{Deserialize, Serialize};

/// The host, the containers, and the probes between them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkMap {
    /// The host's bridge between the containers, and its address.
    pub bridge: Option<Interface>,
    /// In the order in which they are drawn.
    pub containers: Vec<Container>,
    pub probes: Vec<Probe>,
}

/// A container, as it sees itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    pub name: String,
    /// Whether its network namespace is the host's.
    pub is_in_host: bool,
    pub interfaces: Vec<Interface>,
    /// Where its packets go by default; none where there is no such route.
    pub gateway: Option<String>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    /// With its prefix length; none where it has none.
    pub address: Option<String>,
    /// The other end of a veth pair, in the host.
    pub peer: Option<Peer>,
}

/// The host's end of a veth pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub name: String,
    /// The bridge that it is in.
    pub bridge: Option<String>,
}

/// A connection that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// A container's name, or `host`.
    pub from: String,
    pub to: String,
    /// What it asked for: `web:8080`, `127.0.0.1:4711`.
    pub target: String,
    pub reached: bool,
}

/// The lab's own side of a probe.
pub const HOST: &str = "host";

impl Probe {
    /// `probe reached web at web:8080`
    pub fn words(&self) -> String {
        let verb = if self.reached { "reached" } else { "did not reach" };
        format!("{} {verb} {} at {}", self.from, self.to, self.target)
    }
}

impl Container {
    /// Its interfaces in words, one each: `eth0 198.19.0.3/24`.
    pub fn interface_words(&self) -> Vec<String> {
        if self.is_in_host {
            return vec![format!("all {} of the host's", self.interfaces.len())];
        }
        let words = |one: &Interface| match &one.address {
            Some(address) => format!("{} {address}", one.name),
            None => format!("{}, no address", one.name),
        };
        self.interfaces.iter().map(words).collect()
    }

    /// Where its packets go.
    pub fn route_words(&self) -> String {
        match &self.gateway {
            Some(gateway) => format!("default via {gateway}"),
            None => "no default route".into(),
        }
    }

    /// Its address for others, without the prefix length.
    pub fn address(&self) -> Option<String> {
        let outward = self.interfaces.iter().filter(|one| one.name != "lo");
        let address = outward.filter_map(|one| one.address.as_ref()).next()?;
        Some(address.split('/').next().unwrap_or(address).to_owned())
    }

    /// The veth pair that leads out of it: its own end and the host's.
    pub fn cable(&self) -> Option<(&Interface, &Peer)> {
        self.interfaces.iter().find_map(|one| Some((one, one.peer.as_ref()?)))
    }
}
