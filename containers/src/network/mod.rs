//! Networks: bridges, addresses, names, published ports.
//!
//! State: `DATA_ROOT/network/ID.json`, one file a network, and `EXEC_ROOT/network/CONTAINER.json`, one file a running
//! container. The network helper (`inception network-helper`, one for each engine) answers names on 127.0.0.11 inside
//! each container's namespace and proxies published ports; it outlives the daemon. The kernel does the rest: bridges and
//! veth pairs (`link`), NAT and isolation (`firewall`).

mod addresses;
mod endpoint;
mod firewall;
pub mod helper;
mod link;
mod record;
pub mod resolver;

use crate::{
    engine::{config::Config, random_id},
    error::{Context, Error, Result},
    shim,
};
use bollard_stubs::models;
use endpoint::{Attachment, Endpoints};
use helper::Helper;
use ipnet::Ipv4Net;
use record::Network;
use resolver::Resolver;
use rtnetlink::Handle;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Every network of this engine.
#[derive(Clone)]
pub struct Networks(Arc<Inner>);

struct Inner {
    /// This engine's own short name.
    instance: String,
    /// DATA_ROOT/network
    folder: PathBuf,
    /// EXEC_ROOT/network
    endpoints_folder: PathBuf,
    exec_root: PathBuf,
    pools: Vec<(Ipv4Net, u8)>,
    handle: Handle,
    /// Interfaces between which nothing is forwarded; `firewall::turn_forwarding_on` says why.
    uplinks: Vec<String>,
    state: Mutex<State>,
    helper: tokio::sync::Mutex<Option<Helper>>,
    helper_started: Notify,
    /// Tables are written one after the other, each from the newest state.
    firewall: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    networks: BTreeMap<String, Network>,
    /// By container.
    endpoints: BTreeMap<String, Endpoints>,
    /// Bridges whose packets another firewall drops.
    blocked: BTreeSet<String>,
    /// The last addresses given out: a container that starts again gets the one it had, where that is still free.
    recent: VecDeque<Recent>,
}

struct Recent {
    container_id: String,
    network_id: String,
    address: Ipv4Addr,
    host_interface: String,
}

/// Addresses remembered for containers that start again.
const RECENT: usize = 512;

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
        let bridges: Vec<_> = networks.state().networks.values().filter_map(|network| network.bridge.clone()).collect();
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
                self.keep(Network::without_bridge(name, driver)?)?;
            }
        }
        let existing = self.get_record("bridge").ok();
        let current = existing.as_ref().and_then(|network| network.bridge.as_ref()).map(|bridge| bridge.gateway);
        let wanted = match (current, config.bip) {
            (Some(_), None) => return Ok(()),
            (Some(current), Some(bip)) if current == bip => return Ok(()),
            (_, Some(bip)) => bip,
            (None, None) => {
                let _turn = self.0.turn().await?;
                let subnet = addresses::free_subnet(&config.default_address_pools, &self.0.taken().await?)?;
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
                if let Some(bridge) = &mut network.bridge {
                    bridge.gateway = wanted;
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
        let bridge = network.bridge.clone();
        self.keep(network)?;
        let made = async {
            if let Some(bridge) = &bridge {
                self.0.set_up(bridge).await?;
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
        let bridge = self.state().networks.remove(id).and_then(|network| network.bridge);
        if let Some(bridge) = bridge {
            self.state().blocked.remove(&bridge.interface);
            link::remove(&self.0.handle, &bridge.interface).await?;
            firewall::dismiss(&self.0.instance, &bridge.interface).await?;
        }
        self.0.write_firewall().await
    }

    /// Brings `lo` up in the namespace of a shim; for every container with a namespace of its own.
    pub async fn loopback(&self, shim: i32) -> Result<()> {
        link::loopback(shim).await
    }

    /// Joins a container to network `reference`: addresses, route, names. The endpoint as `docker inspect` shows it.
    pub async fn connect(&self, reference: &str, joining: Joining<'_>) -> Result<models::EndpointSettings> {
        let network = self.get_record(reference)?;
        let Some(bridge) = &network.bridge else {
            return Err(Error::Invalid(format!("container cannot be connected to network {}", network.name)));
        };
        if !network.internal {
            self.0.check_forwarding(&bridge.interface).await?;
        }
        let settings = joining.settings.clone();
        let (attachment, gateway, replaced) = self.reserve(&network, bridge, &joining)?;
        let port = link::Port {
            bridge: bridge.interface.clone(),
            host_interface: attachment.host_interface.clone(),
            interface: joining.interface.into(),
            mac: addresses::parse_mac(&attachment.mac)?,
            address: Ipv4Net::new(attachment.address, bridge.gateway.prefix_len())
                .map_err(|error| Error::Failed(error.to_string()))?,
            gateway,
            mtu: bridge.mtu,
        };
        let joined = async {
            if let Some(old) = replaced {
                link::wait_until_gone(&self.0.handle, &old).await?;
            }
            link::attach(&self.0.handle, joining.shim, port).await?;
            self.0.tell_helper(joining.container_id).await.map(drop)
        };
        if let Err(error) = joined.await {
            if let Err(error) = self.leave(&network.id, joining.container_id).await {
                log::warn!("take container {} out of network {}: {error}", joining.container_id, network.name);
            }
            return Err(error);
        }
        Ok(models::EndpointSettings {
            network_id: Some(network.id.clone()),
            endpoint_id: Some(attachment.endpoint_id),
            gateway: Some(if network.internal { String::new() } else { bridge.gateway.addr().to_string() }),
            ip_address: Some(attachment.address.to_string()),
            ip_prefix_len: Some(i64::from(bridge.gateway.prefix_len())),
            mac_address: Some(attachment.mac),
            dns_names: (!attachment.names.is_empty()).then_some(attachment.names),
            ..settings
        })
    }

    /// Finds an address and writes down that it is the container's. Also: where its default route leads, and the interface
    /// that had the address before.
    fn reserve(
        &self,
        network: &Network,
        bridge: &record::Bridge,
        joining: &Joining<'_>,
    ) -> Result<(Attachment, Option<Ipv4Addr>, Option<String>)> {
        let id = joining.container_id;
        let mut state = self.state();
        if state.endpoints.get(id).is_some_and(|it| it.attachments.iter().any(|at| at.network_id == network.id)) {
            return Err(Error::Conflict(format!("container {id} is connected to network {} already", network.name)));
        }
        let aliases = joining.settings.aliases.clone().unwrap_or_default();
        endpoint::check_aliases(&aliases)?;
        let fixed = joining.settings.ipam_config.as_ref();
        if fixed.and_then(|fixed| fixed.ipv6_address.as_ref()).is_some_and(|address| !address.is_empty()) {
            return Err(Error::NotImplemented("a fixed IPv6 address (--ip6)".into()));
        }
        if joining.settings.links.as_ref().is_some_and(|links| !links.is_empty()) {
            return Err(Error::NotImplemented(
                "links (--link): names of containers on the same network are answered".into(),
            ));
        }
        let fixed = fixed.and_then(|fixed| fixed.ipv4_address.as_deref()).filter(|address| !address.is_empty());
        if network.is_predefined() && (fixed.is_some() || !aliases.is_empty()) {
            return Err(Error::Invalid(
                "a fixed address and aliases are for user-defined networks: docker network create NAME".into(),
            ));
        }
        let mut taken = bridge.own_addresses();
        taken.extend(state.containers_of(&network.id).map(|(_, attachment)| attachment.address));
        let (subnet, range) = (bridge.subnet(), bridge.range.unwrap_or(bridge.subnet()));
        let before = state.recent.iter().rposition(|it| it.container_id == id && it.network_id == network.id);
        let before = before.and_then(|at| state.recent.remove(at));
        let address = match (fixed, &before) {
            (Some(text), _) => {
                let address = text.parse::<Ipv4Addr>().ok().filter(|address| subnet.contains(address));
                let address = address.ok_or_else(|| Error::Invalid(format!("{text} is not an address in {subnet}")))?;
                if taken.contains(&address) {
                    return Err(Error::Conflict(format!("Address already in use: {address}")));
                }
                address
            }
            (None, Some(before)) if subnet.contains(&before.address) && !taken.contains(&before.address) => {
                before.address
            }
            (None, _) => {
                let last = state.recent.iter().rev().find(|it| it.network_id == network.id).map(|it| it.address);
                addresses::free_address(range, subnet, last, &taken).ok_or_else(|| {
                    Error::Failed(format!("network {}: no available addresses in {range}", network.name))
                })?
            }
        };
        let mac = match joining.settings.mac_address.as_deref().filter(|mac| !mac.is_empty()) {
            Some(mac) => addresses::parse_mac(mac)?,
            None => addresses::mac_of(address),
        };
        let endpoint_id = random_id()?;
        let dns = joining.dns;
        let resolver = Resolver::for_container(dns, &[], &[]);
        let named = resolver.is_named(!network.is_predefined());
        let attachment = Attachment {
            network_id: network.id.clone(),
            host_interface: format!("veth{}", &endpoint_id[..10]),
            endpoint_id,
            address,
            mac: addresses::show_mac(mac),
            names: match network.is_predefined() {
                true => Vec::new(),
                false => endpoint::names(id, joining.container_name, joining.hostname, &aliases, &network.name),
            },
        };
        let new = || Endpoints {
            container_id: id.into(),
            container_name: joining.container_name.into(),
            pid: joining.shim,
            started: shim::start_time(joining.shim).unwrap_or_default(),
            servers: resolver.servers.clone(),
            named: false,
            attachments: Vec::new(),
            ports: Vec::new(),
        };
        let has_way_out = state.endpoints.get(id).is_some_and(|it| it.target(&state.networks).is_some());
        let outward = !network.internal && !has_way_out;
        let endpoints = state.endpoints.entry(id.into()).or_insert_with(new);
        endpoints.named |= named;
        endpoints.attachments.push(attachment.clone());
        endpoints.write(&self.0.endpoints_folder)?;
        if state.recent.len() == RECENT {
            state.recent.pop_front();
        }
        state.recent.push_back(Recent {
            container_id: id.into(),
            network_id: network.id.clone(),
            address,
            host_interface: attachment.host_interface.clone(),
        });
        let replaced = before.filter(|before| before.address == address).map(|before| before.host_interface);
        Ok((attachment, outward.then(|| bridge.gateway.addr()), replaced))
    }

    /// Takes a running container out of one network; its address is free again. What is left of its way to the outside
    /// goes by another of its networks.
    pub async fn disconnect(&self, reference: &str, container_id: &str) -> Result<()> {
        let network = self.get_record(reference)?;
        if !self.state().containers_of(&network.id).any(|(endpoints, _)| endpoints.container_id == container_id) {
            return Err(Error::Conflict(format!(
                "container {container_id} is not connected to network {}",
                network.name
            )));
        }
        self.leave(&network.id, container_id).await?;
        let next = {
            let state = self.state();
            let endpoints = state.endpoints.get(container_id);
            let gateway = |attachment: &Attachment| {
                let network = state.networks.get(&attachment.network_id).filter(|network| !network.internal)?;
                network.bridge.as_ref().map(|bridge| bridge.gateway.addr())
            };
            endpoints.and_then(|it| Some((it.pid, it.attachments.iter().find_map(gateway)?)))
        };
        match next {
            Some((pid, gateway)) => link::ensure_default_route(pid, gateway).await,
            None => Ok(()),
        }
    }

    async fn leave(&self, network_id: &str, container_id: &str) -> Result<()> {
        let interface = {
            let mut state = self.state();
            let Some(endpoints) = state.endpoints.get_mut(container_id) else { return Ok(()) };
            let at = endpoints.attachments.iter().position(|attachment| attachment.network_id == network_id);
            let gone = at.map(|at| endpoints.attachments.remove(at));
            endpoints.write(&self.0.endpoints_folder)?;
            gone.map(|attachment| attachment.host_interface)
        };
        if let Some(interface) = interface {
            link::remove(&self.0.handle, &interface).await?;
        }
        self.0.tell_helper(container_id).await.map(drop)?;
        self.0.write_firewall().await
    }

    /// Has a running container answered under its new name instead of its old one.
    pub async fn rename(&self, container_id: &str, old: &str, new: &str) -> Result<()> {
        {
            let mut state = self.state();
            let State { networks, endpoints, .. } = &mut *state;
            let Some(endpoints) = endpoints.get_mut(container_id) else { return Ok(()) };
            endpoints.container_name = new.into();
            for attachment in &mut endpoints.attachments {
                let Some(network) = networks.get(&attachment.network_id) else { continue };
                let called = |name: &str| [name.to_lowercase(), format!("{name}.{}", network.name).to_lowercase()];
                for (name, fresh) in called(old).into_iter().zip(called(new)) {
                    for known in attachment.names.iter_mut().filter(|known| **known == name) {
                        *known = fresh.clone();
                    }
                }
            }
            endpoints.write(&self.0.endpoints_folder)?;
        }
        self.0.tell_helper(container_id).await.map(drop)
    }

    /// Publishes ports of a connected container (its address on its first bridge network). A taken port is an error in
    /// Docker's words, and nothing is left published.
    pub async fn publish(&self, container_id: &str, ports: &[PublishedPort]) -> Result<Vec<PublishedPort>> {
        // A machine without IPv6 has no "every address" there; an address that was asked for is an error.
        let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
        let every_ipv6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let wanted = ports.iter().filter(|port| has_ipv6 || port.host_ip != every_ipv6).cloned().collect();
        let published = self.hold(container_id, wanted).await?;
        if let Err(error) = self.0.write_firewall().await {
            self.hold(container_id, Vec::new()).await?;
            return Err(error);
        }
        Ok(published)
    }

    /// Has the helper listen on `ports` and on no others for this container; with their real numbers.
    async fn hold(&self, container_id: &str, ports: Vec<PublishedPort>) -> Result<Vec<PublishedPort>> {
        let set = |ports: Vec<PublishedPort>| {
            let mut state = self.state();
            let endpoints = state.endpoints.get_mut(container_id).ok_or_else(|| {
                Error::Failed(format!("container {container_id} is on no network to publish ports of"))
            })?;
            endpoints.ports = ports;
            endpoints.write(&self.0.endpoints_folder)
        };
        set(ports)?;
        match self.0.tell_helper(container_id).await {
            Ok(real) => set(real.clone()).map(|()| real),
            Err(error) => {
                set(Vec::new())?;
                let state = self.state();
                let endpoints = state.endpoints.get(container_id);
                let name = endpoints.map_or("", |endpoints| endpoints.container_name.as_str());
                let id = endpoints.and_then(|it| it.attachments.first()).map_or("", |it| it.endpoint_id.as_str());
                Err(Error::Failed(format!(
                    "driver failed programming external connectivity on endpoint {name} ({id}): Error starting userland proxy: {error}"
                )))
            }
        }
    }

    /// Everything the network side holds for a container, released: endpoints, names, ports.
    pub async fn release(&self, container_id: &str) -> Result<()> {
        let Some(endpoints) = self.state().endpoints.remove(container_id) else { return Ok(()) };
        Endpoints::remove(&self.0.endpoints_folder, container_id)?;
        if endpoints.member(None).is_some() {
            // One that is not there holds nothing; it is not started to be told so.
            let helper = self.0.helper.lock().await.clone();
            if let Some(helper) = helper {
                helper.release(container_id).await?;
            }
        }
        if !endpoints.ports.is_empty() {
            self.0.write_firewall().await?;
        }
        Ok(())
    }

    /// What the engine has made on this machine, removed; nothing of the data root is. Containers must have ended.
    pub async fn tear_down(config: &Config) -> Result<()> {
        let handle = link::connect()?;
        let instance = config.instance();
        for network in read_networks(&config.data_root.join("network"))?.into_values() {
            if let Some(bridge) = network.bridge {
                link::remove(&handle, &bridge.interface).await?;
                firewall::dismiss(&instance, &bridge.interface).await?;
            }
        }
        firewall::remove(&instance).await
    }
}

impl State {
    fn find(&self, reference: &str) -> Result<&Network> {
        let reference = if reference == "default" { "bridge" } else { reference };
        let exact = self.networks.get(reference);
        if let Some(found) = exact.or_else(|| self.networks.values().find(|network| network.name == reference)) {
            return Ok(found);
        }
        let start = self.networks.range(reference.to_string()..);
        let mut matches = start.map(|(_, network)| network).take_while(|network| network.id.starts_with(reference));
        match (matches.next(), matches.next()) {
            (Some(found), None) if !reference.is_empty() => Ok(found),
            (Some(_), Some(_)) if !reference.is_empty() => {
                Err(Error::Invalid(format!("network {reference} is ambiguous: several ids begin so")))
            }
            _ => Err(Error::not_found("network", reference)),
        }
    }

    fn containers_of(&self, network_id: &str) -> impl Iterator<Item = (&Endpoints, &Attachment)> {
        self.endpoints.values().flat_map(move |endpoints| {
            let attached = endpoints.attachments.iter().filter(move |attachment| attachment.network_id == network_id);
            attached.map(move |attachment| (endpoints, attachment))
        })
    }

    fn model(&self, network: &Network) -> models::NetworkInspect {
        let length = network.bridge.as_ref().map_or(32, |bridge| bridge.gateway.prefix_len());
        let containers = self.containers_of(&network.id).map(|(endpoints, attachment)| {
            (endpoints.container_id.clone(), attachment.resource(&endpoints.container_name, length))
        });
        models::NetworkInspect { containers: Some(containers.collect()), ..network.model() }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a subnet is chosen and its bridge made, by every engine on this machine: none takes what another one is
    /// about to.
    async fn turn(&self) -> Result<nix::fcntl::Flock<File>> {
        let path = Path::new("/run/inception-subnets.lock");
        let mut file = File::create(path).at("create", path)?;
        loop {
            match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
                Err((_, error)) => return Err(error).at("lock", path),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Subnets that a new network must keep clear of: those of the machine's routes, and of this engine's networks, whose
    /// bridges may be gone.
    async fn taken(&self) -> Result<Vec<Ipv4Net>> {
        let mut taken = link::routed_subnets(&self.handle).await?;
        let state = self.state();
        taken.extend(state.networks.values().filter_map(|network| Some(network.bridge.as_ref()?.subnet())));
        Ok(taken)
    }

    /// Makes a network's bridge, where it is missing, and has its packets forwarded.
    async fn set_up(&self, bridge: &record::Bridge) -> Result<()> {
        link::ensure_bridge(&self.handle, &bridge.interface, bridge.gateway, bridge.mtu).await?;
        if let Err(error) = firewall::admit(&self.instance, &bridge.interface).await {
            log::warn!("{error}");
            self.state().blocked.insert(bridge.interface.clone());
        }
        Ok(())
    }

    /// Refuses a bridge whose packets another firewall drops; the user may have allowed them meanwhile.
    async fn check_forwarding(&self, bridge: &str) -> Result<()> {
        if !self.state().blocked.contains(bridge) {
            return Ok(());
        }
        firewall::admit(&self.instance, bridge).await?;
        self.state().blocked.remove(bridge);
        Ok(())
    }

    /// Brings the table up to what is known now.
    async fn write_firewall(&self) -> Result<()> {
        let _turn = self.firewall.lock().await;
        let rules = {
            let state = self.state();
            let bridge = |network: &Network| {
                let bridge = network.bridge.as_ref()?;
                Some(firewall::Bridge {
                    interface: bridge.interface.clone(),
                    subnet: bridge.subnet(),
                    internal: network.internal,
                    masquerade: bridge.masquerade,
                })
            };
            let ports = state.endpoints.values().flat_map(|endpoints| {
                let target = endpoints.target(&state.networks);
                endpoints.ports.iter().filter_map(move |port| Some((port.clone(), target?)))
            });
            firewall::Rules {
                bridges: state.networks.values().filter_map(bridge).collect(),
                ports: ports.collect(),
                uplinks: self.uplinks.clone(),
            }
        };
        firewall::apply(&self.instance, &rules).await
    }

    /// Tells the helper what it is to hold for a container; the published ports with their real numbers.
    async fn tell_helper(self: &Arc<Self>, container_id: &str) -> Result<Vec<PublishedPort>> {
        let member = {
            let state = self.state();
            let endpoints = state.endpoints.get(container_id);
            endpoints.and_then(|endpoints| endpoints.member(endpoints.target(&state.networks)))
        };
        match member {
            None => Ok(Vec::new()),
            Some(member) => self.running_helper().await?.set(&member).await,
        }
    }

    /// The helper, started at its first use.
    async fn running_helper(self: &Arc<Self>) -> Result<Helper> {
        let mut slot = self.helper.lock().await;
        if let Some(helper) = &*slot {
            return Ok(helper.clone());
        }
        let helper = Helper::start(&self.exec_root).await?;
        log::debug!("network helper: pid {}", helper.pid());
        *slot = Some(helper.clone());
        self.helper_started.notify_one();
        Ok(helper)
    }

    /// Starts another helper whenever one has ended.
    async fn watch_helper(inner: Arc<Inner>) {
        loop {
            inner.helper_started.notified().await;
            let helper = inner.helper.lock().await.clone();
            let Some(helper) = helper else { continue };
            helper.ended().await;
            log::warn!("the network helper has ended; starting another one");
            *inner.helper.lock().await = None;
            // One that ends at once must not keep the machine busy.
            tokio::time::sleep(Duration::from_millis(50)).await;
            if let Err(error) = inner.restore_helper().await {
                log::error!("names and published ports are not served: {error}");
            }
        }
    }

    /// Brings the helper, one that ran already or a new one, to what is known here.
    async fn restore_helper(self: &Arc<Self>) -> Result<()> {
        let ids: Vec<String> = self.state().endpoints.keys().cloned().collect();
        let helper = self.running_helper().await?;
        for id in helper.members().await? {
            if !ids.contains(&id) {
                helper.release(&id).await?;
            }
        }
        for id in ids {
            // One port that someone else has taken meanwhile is no reason to serve no others.
            if let Err(error) = self.tell_helper(&id).await {
                log::error!("container {id}: {error}");
            }
        }
        Ok(())
    }
}

/// What an endpoint had while its container ran; what was asked for stays.
pub fn forget_addresses(endpoint: &mut models::EndpointSettings) {
    let address = endpoint.ip_address.take().and_then(|text| text.parse().ok());
    if endpoint.mac_address == address.map(|address| addresses::show_mac(addresses::mac_of(address))) {
        endpoint.mac_address = None;
    }
    endpoint.gateway = None;
    endpoint.endpoint_id = None;
    endpoint.ip_prefix_len = None;
    endpoint.dns_names = None;
}

fn read_networks(folder: &Path) -> Result<BTreeMap<String, Network>> {
    let mut networks = BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(networks),
        other => other.at("list", folder)?,
    };
    for entry in entries {
        let path = entry.at("list", folder)?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read(&path).at("read", &path)?;
        match serde_json::from_slice::<Network>(&text) {
            Ok(network) => drop(networks.insert(network.id.clone(), network)),
            // Nothing is deleted that can't be understood.
            Err(error) => log::error!("understand {}: {error}", path.display()),
        }
    }
    Ok(networks)
}
