//! Networks: bridges, addresses, names, published ports.
//!
//! State: `DATA_ROOT/network/ID.json`, one file a network, and `EXEC_ROOT/network/CONTAINER.json`, one file a running
//! container. The network helper (`inception network-helper`, one for each engine) answers names on 127.0.0.11 inside
//! each container's namespace and proxies published ports; it outlives the daemon. The kernel does the rest: bridges, veth
//! pairs and macvlans (`link`), NAT and isolation (`firewall`).

mod addresses;
mod endpoint;
mod firewall;
pub mod helper;
mod link;
mod membership;
mod record;
pub mod resolver;
mod state;

pub use membership::forget_addresses;
pub use record::{bridge_name, is_predefined};

use crate::{
    engine::config::Config,
    error::{Context, Error, Result},
};
use bollard_stubs::models;
use endpoint::Endpoints;
use ipnet::Ipv4Net;
use record::{Medium, Network};
use state::{Inner, State, read_networks};
use std::{
    fs::{self},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::Notify;

/// Every network of this engine.
#[derive(Clone)]
pub struct Networks(Arc<Inner>);

/// A container that is to join a network.
#[derive(Debug, Clone)]
pub struct Joining<'a> {
    pub container_id: &'a str,
    /// Without the slash: answered by name on user-defined networks.
    pub container_name: &'a str,
    pub hostname: &'a str,
    /// Its shim, whose network namespace it is.
    pub shim: i32,
    /// Name servers of its own (`--dns`); none: the machine's.
    pub dns: &'a [String],
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
    /// first use, and starts the helper where running containers need it.
    pub async fn open(config: &Config) -> Result<Networks> {
        let folder = config.data_root.join("network");
        fs::create_dir_all(&folder).at("create", &folder)?;
        let handle = link::connect()?;
        let memory = config.exec_root.join("forwarding.json");
        let uplinks = firewall::turn_forwarding_on(&memory, link::interfaces(&handle).await?)?;
        let endpoints_folder = config.exec_root.join("network");
        let state = State {
            networks: read_networks(&folder)?,
            endpoints: Endpoints::read_all(&endpoints_folder)?,
            ..State::default()
        };
        let networks = Networks(Arc::new(Inner {
            instance: config.instance(),
            folder,
            endpoints_folder,
            exec_root: config.exec_root.clone(),
            pools: config.default_address_pools.clone(),
            handle,
            uplinks,
            state: Mutex::new(state),
            helper: tokio::sync::Mutex::new(None),
            helper_started: Notify::new(),
            firewall: tokio::sync::Mutex::new(()),
        }));
        tokio::spawn(Inner::watch_helper(Arc::clone(&networks.0)));
        networks.make_predefined(config).await?;
        let bridges: Vec<_> =
            networks.state().networks.values().filter_map(|network| network.bridge().cloned()).collect();
        for bridge in bridges {
            networks.0.set_up(&bridge).await?;
        }
        networks.0.write_firewall().await?;
        if networks.state().endpoints.values().any(|endpoints| endpoints.member(None).is_some()) {
            networks.0.restore_helper().await?;
        }
        Ok(networks)
    }

    async fn make_predefined(&self, config: &Config) -> Result<()> {
        let has = |name: &str| self.state().networks.values().any(|network| network.name == name);
        for (name, driver) in [("host", "host"), ("none", "null")] {
            if !has(name) {
                self.keep(Network::without_medium(name, driver)?)?;
            }
        }
        let existing = self.get_record("bridge").ok();
        let current = existing.as_ref().and_then(Network::addressing).map(|addressing| addressing.gateway);
        let wanted = match (current, config.bip) {
            (Some(_), None) => return Ok(()),
            (Some(current), Some(bip)) if current == bip => return Ok(()),
            (_, Some(bip)) => bip,
            (None, None) => {
                let _turn = self.0.turn().await?;
                let subnet = addresses::free_subnet(&config.default_address_pools, &self.0.taken().await?.routes)?;
                let first = subnet.hosts().next().unwrap_or(subnet.network());
                Ipv4Net::new(first, subnet.prefix_len()).map_err(|error| Error::Failed(error.to_string()))?
            }
        };
        let interface = format!("inc0-{}", self.0.instance);
        match existing {
            None => self.keep(Network::default_bridge(interface, wanted)?),
            // --bip says something new.
            Some(mut network) => {
                if self.state().endpoints.values().any(|it| it.attachments.iter().any(|at| at.network_id == network.id))
                {
                    return Err(Error::Conflict(format!(
                        "--bip {wanted}: containers run on the default bridge, whose address is another one; stop them first"
                    )));
                }
                link::remove(&self.0.handle, &interface).await?;
                if let Some(Medium::Bridge(bridge)) = &mut network.medium {
                    bridge.addressing.gateway = wanted;
                }
                self.keep(network)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }

    /// Writes a network down and knows it from then on.
    fn keep(&self, network: Network) -> Result<()> {
        network.write(&self.0.folder)?;
        self.state().networks.insert(network.id.clone(), network);
        Ok(())
    }

    pub async fn create(&self, request: models::NetworkCreateRequest) -> Result<String> {
        let _turn = self.0.turn().await?;
        let name = request.name.clone();
        let same = |networks: &Networks| networks.state().networks.values().any(|network| network.name == name);
        if same(self) {
            return Err(Error::Conflict(format!("network with name {name} already exists")));
        }
        let network = Network::from_request(request, &self.0.pools, &self.0.taken().await?)?;
        let id = network.id.clone();
        let medium = network.medium.clone();
        self.keep(network)?;
        let made = async {
            match &medium {
                Some(Medium::Bridge(bridge)) => self.0.set_up(bridge).await?,
                Some(Medium::Macvlan(macvlan)) => {
                    link::check_parent(&self.0.handle, &macvlan.parent).await.map(drop)?
                }
                None => {}
            }
            self.0.write_firewall().await
        };
        if let Err(error) = made.await {
            if let Err(error) = self.forget(&id).await {
                log::warn!("undo the creation of network {name}: {error}");
            }
            return Err(error);
        }
        Ok(id)
    }

    /// By name, id or unique prefix of an id.
    fn get_record(&self, reference: &str) -> Result<Network> {
        self.state().find(reference).cloned()
    }

    /// By name, id or unique prefix of an id; with the containers that run on it.
    pub fn get(&self, reference: &str) -> Result<models::NetworkInspect> {
        let state = self.state();
        state.find(reference).map(|network| state.model(network))
    }

    /// The predefined ones first, then by age.
    pub fn list(&self) -> Vec<models::NetworkInspect> {
        let state = self.state();
        let mut networks: Vec<_> = state.networks.values().collect();
        networks.sort_by_key(|network| (!network.is_predefined(), network.created));
        networks.into_iter().map(|network| state.model(network)).collect()
    }

    /// Refused with Conflict while endpoints are active.
    pub async fn remove(&self, reference: &str) -> Result<()> {
        let network = self.get_record(reference)?;
        if network.is_predefined() {
            return Err(Error::Conflict(format!("{} is a pre-defined network and cannot be removed", network.name)));
        }
        if self.state().containers_of(&network.id).next().is_some() {
            return Err(Error::Conflict(format!(
                "error while removing network: network {} id {} has active endpoints",
                network.name, network.id
            )));
        }
        self.forget(&network.id).await
    }

    /// The file goes first: what is left after a crash is a bridge that no network knows, and that `--teardown` and the next
    /// boot remove.
    async fn forget(&self, id: &str) -> Result<()> {
        let path = self.0.folder.join(format!("{id}.json"));
        fs::remove_file(&path).at("remove", &path)?;
        let network = self.state().networks.remove(id);
        if let Some(Medium::Bridge(bridge)) = network.and_then(|network| network.medium) {
            self.state().blocked.remove(&bridge.interface);
            link::remove(&self.0.handle, &bridge.interface).await?;
            firewall::dismiss(&self.0.instance, &bridge.interface).await?;
        }
        self.0.write_firewall().await
    }

    /// What the engine has made on this machine, removed; nothing of the data root is. Containers must have ended.
    pub async fn tear_down(config: &Config) -> Result<()> {
        let handle = link::connect()?;
        let instance = config.instance();
        for network in read_networks(&config.data_root.join("network"))?.into_values() {
            if let Some(bridge) = network.bridge() {
                link::remove(&handle, &bridge.interface).await?;
                firewall::dismiss(&instance, &bridge.interface).await?;
            }
        }
        firewall::remove(&instance).await
    }
}
