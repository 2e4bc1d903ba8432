//! Networks: bridges, addresses, names, published ports.
//!
//! State: `DATA_ROOT/network/ID.json`, one file a network, endpoints included. The network helper (`inception
//! network-helper`, one for each engine) answers names on 127.0.0.11 inside each container's namespace and proxies
//! published ports; it outlives the daemon.

pub mod helper;

use crate::{engine::config::Config, error::Result};
use bollard_stubs::models;
use std::{net::IpAddr, path::Path};

/// Every network of this engine.
pub struct Networks {}

/// A container that is to join a network.
#[derive(Debug, Clone)]
pub struct Joining<'a> {
    pub container_id: &'a str,
    /// Without the slash: answered by name on user-defined networks.
    pub container_name: &'a str,
    pub hostname: &'a str,
    /// Its network namespace: /proc/SHIM/ns/net.
    pub namespace: &'a Path,
    /// Aliases, a fixed address, a MAC address.
    pub settings: models::EndpointSettings,
    /// `eth0`, `eth1`, …
    pub interface: &'a str,
}

/// A published port, resolved: one for each host address and port.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PublishedPort {
    pub host_ip: IpAddr,
    /// 0 asks for a free one; the answer carries the real one.
    pub host_port: u16,
    pub container_port: u16,
    /// "tcp" or "udp"
    pub protocol: String,
}

impl Networks {
    /// Loads the networks, restores bridges and firewall rules that are missing, makes `bridge`, `host` and `none` on
    /// first use, and starts the helper unless it runs already.
    pub async fn open(_config: &Config) -> Result<Networks> {
        todo!()
    }
    pub async fn create(&self, _request: models::NetworkCreateRequest) -> Result<String> {
        todo!()
    }
    /// By name, id or unique prefix of an id.
    pub fn get(&self, _reference: &str) -> Result<models::NetworkInspect> {
        todo!()
    }
    pub fn list(&self) -> Vec<models::NetworkInspect> {
        todo!()
    }
    /// Refused with Conflict while endpoints are active.
    pub async fn remove(&self, _reference: &str) -> Result<()> {
        todo!()
    }
    /// Brings `lo` up in `namespace`; for every container with a namespace of its own.
    pub async fn loopback(&self, _namespace: &Path) -> Result<()> {
        todo!()
    }
    /// Joins a container to network `reference`: addresses, route, names. The endpoint as `docker inspect` shows it.
    pub async fn connect(&self, _reference: &str, _joining: Joining<'_>) -> Result<models::EndpointSettings> {
        todo!()
    }
    /// Takes the container out of one network; its address is free again.
    pub async fn disconnect(&self, _reference: &str, _container_id: &str) -> Result<()> {
        todo!()
    }
    /// Publishes ports of a connected container (its address on its first bridge network). A taken port is a Conflict-like
    /// error in Docker's words, and nothing is left published.
    pub async fn publish(&self, _container_id: &str, _ports: &[PublishedPort]) -> Result<Vec<PublishedPort>> {
        todo!()
    }
    /// Everything the network side holds for a container, released: endpoints, names, ports.
    pub async fn release(&self, _container_id: &str) -> Result<()> {
        todo!()
    }
    /// What /etc/resolv.conf of a container says: 127.0.0.11 on user-defined networks, else the host's servers (the
    /// real ones behind a 127.0.0.53 stub).
    pub fn resolv_conf(&self, _user_defined: bool, _dns: &[String], _search: &[String], _options: &[String]) -> String {
        todo!()
    }
}
