//! What a running container has of the network: addresses, names, published ports.
//!
//! `EXEC_ROOT/network/CONTAINER.json`, one file a container: a daemon that comes back finds them, a reboot ends them.

use super::{PublishedPort, helper, record::Network};
use crate::{
    error::{Context, Error, Result},
    shim,
};
use bollard_stubs::models;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

/// A container's part in the networks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoints {
    pub container_id: String,
    pub container_name: String,
    /// The shim, whose network namespace it is, and its start time.
    pub pid: i32,
    pub started: u64,
    /// Where the name service asks for names that are not the engine's.
    pub servers: Vec<IpAddr>,
    /// Whether the name service answers in this container.
    pub named: bool,
    pub attachments: Vec<Attachment>,
    pub ports: Vec<PublishedPort>,
}

/// Its part in one network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    pub network_id: String,
    pub endpoint_id: String,
    pub address: Ipv4Addr,
    pub mac: String,
    /// The host's end of the veth pair; a macvlan has none.
    pub host_interface: Option<String>,
    /// The container's end: `eth0`, …
    #[serde(default)]
    pub interface: String,
    /// What it is called on this network; empty where names are not answered.
    pub names: Vec<String>,
}

impl Endpoints {
    /// Those that are in `folder`, by container. Those of containers that have ended are removed.
    pub fn read_all(folder: &Path) -> Result<BTreeMap<String, Endpoints>> {
        fs::create_dir_all(folder).at("create", folder)?;
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(folder).at("list", folder)? {
            let path = entry.at("list", folder)?.path();
            let read: Option<Endpoints> = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
            match read.filter(|it| shim::start_time(it.pid) == Some(it.started)) {
                Some(endpoints) => drop(all.insert(endpoints.container_id.clone(), endpoints)),
                None => fs::remove_file(&path).at("remove", &path)?,
            }
        }
        Ok(all)
    }

    /// Whole or not at all. Not forced to the disk: a power failure ends the container too.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = file(folder, &self.container_id);
        let temporary = path.with_extension("new");
        let text = serde_json::to_vec(self).map_err(io::Error::from).at("encode", &path)?;
        fs::write(&temporary, text).at("write", &temporary)?;
        fs::rename(&temporary, &path).at("write", &path)
    }

    pub fn remove(folder: &Path, container_id: &str) -> Result<()> {
        let path = file(folder, container_id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &path),
            _ => Ok(()),
        }
    }

    /// The address that published ports lead to: on the first bridge with a way to the outside. A macvlan is not reached
    /// from the machine.
    pub fn target(&self, networks: &BTreeMap<String, Network>) -> Option<Ipv4Addr> {
        let outward = |attachment: &&Attachment| {
            networks.get(&attachment.network_id).is_some_and(|it| it.bridge().is_some() && !it.internal)
        };
        self.attachments.iter().find(outward).map(|attachment| attachment.address)
    }

    /// Where the default route leads: the gateway of the first network that is not internal.
    pub fn gateway(&self, networks: &BTreeMap<String, Network>) -> Option<Ipv4Addr> {
        self.attachments.iter().find_map(|attachment| {
            let network = networks.get(&attachment.network_id).filter(|network| !network.internal)?;
            Some(network.addressing()?.gateway.addr())
        })
    }

    /// What the helper is told; None where it has nothing to do for this container.
    pub fn member(&self, target: Option<Ipv4Addr>) -> Option<helper::Member> {
        let proxy = |port: &PublishedPort| {
            let target = SocketAddr::new(target?.into(), port.container_port);
            Some(helper::Proxy { port: port.clone(), target })
        };
        let attachment = |it: &Attachment| helper::Attachment {
            network_id: it.network_id.clone(),
            address: it.address,
            names: it.names.clone(),
        };
        (self.named || !self.ports.is_empty()).then(|| helper::Member {
            container_id: self.container_id.clone(),
            pid: self.pid,
            started: self.started,
            attachments: self.attachments.iter().map(attachment).collect(),
            servers: self.servers.clone(),
            resolver: self.named,
            ports: self.ports.iter().filter_map(proxy).collect(),
        })
    }
}

impl Attachment {
    /// As `docker network inspect` lists it.
    pub fn resource(&self, container_name: &str, prefix_len: u8) -> models::EndpointResource {
        models::EndpointResource {
            name: Some(container_name.into()),
            endpoint_id: Some(self.endpoint_id.clone()),
            mac_address: Some(self.mac.clone()),
            ipv4_address: Some(format!("{}/{prefix_len}", self.address)),
            ipv6_address: Some(String::new()),
        }
    }
}

fn file(folder: &Path, container_id: &str) -> std::path::PathBuf {
    folder.join(format!("{container_id}.json"))
}

/// What a container is called on a user-defined network: its name, its short id, its aliases, each with and without the
/// network's name behind it. In lower case: names are compared without regard to it (RFC 4343).
pub fn names(
    container_id: &str,
    container_name: &str,
    hostname: &str,
    aliases: &[String],
    network: &str,
) -> Vec<String> {
    let short = container_id.get(..12).unwrap_or(container_id);
    let mut names: Vec<String> = Vec::new();
    for name in aliases.iter().map(String::as_str).chain([container_name, short, hostname]) {
        for name in [name.to_ascii_lowercase(), format!("{name}.{network}").to_ascii_lowercase()] {
            if !name.starts_with('.') && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// An alias is what a DNS label may be, for it ends up in answers to every container of the network.
pub fn check_aliases(aliases: &[String]) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    match aliases.iter().find(|alias| alias.is_empty() || alias.len() > 253 || !alias.bytes().all(good)) {
        Some(bad) => Err(Error::Invalid(format!("invalid network alias {bad:?}: letters, digits and _-. are allowed"))),
        None => Ok(()),
    }
}
