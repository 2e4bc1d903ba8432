//! What is known of the networks, and what keeps the kernel's bridges, the firewall table and the helper as it says.

use super::{
    PublishedPort,
    endpoint::{Attachment, Endpoints},
    firewall,
    helper::Helper,
    link,
    record::{self, Network, Taken},
};
use crate::error::{Context, Error, Result};
use bollard_stubs::models;
use ipnet::Ipv4Net;
use rtnetlink::Handle;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Everything that an engine's networks need; shared by those who act on them.
pub struct Inner {
    /// This engine's own short name.
    pub instance: String,
    /// DATA_ROOT/network
    pub folder: PathBuf,
    /// EXEC_ROOT/network
    pub endpoints_folder: PathBuf,
    pub exec_root: PathBuf,
    pub pools: Vec<(Ipv4Net, u8)>,
    pub handle: Handle,
    /// Interfaces between which nothing is forwarded; `firewall::turn_forwarding_on` says why.
    pub uplinks: Vec<String>,
    pub state: Mutex<State>,
    pub helper: tokio::sync::Mutex<Option<Helper>>,
    pub helper_started: Notify,
    /// Tables are written one after the other, each from the newest state.
    pub firewall: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub struct State {
    pub networks: BTreeMap<String, Network>,
    /// By container.
    pub endpoints: BTreeMap<String, Endpoints>,
    /// Bridges whose packets another firewall drops.
    pub blocked: BTreeSet<String>,
    /// The last addresses given out: a container that starts again gets the one it had, where that is still free.
    pub recent: VecDeque<Recent>,
}

pub struct Recent {
    pub container_id: String,
    pub network_id: String,
    pub address: Ipv4Addr,
    pub host_interface: Option<String>,
}

/// Addresses remembered for containers that start again.
pub const RECENT: usize = 512;

impl State {
    pub fn find(&self, reference: &str) -> Result<&Network> {
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

    pub fn containers_of(&self, network_id: &str) -> impl Iterator<Item = (&Endpoints, &Attachment)> {
        self.endpoints.values().flat_map(move |endpoints| {
            let attached = endpoints.attachments.iter().filter(move |attachment| attachment.network_id == network_id);
            attached.map(move |attachment| (endpoints, attachment))
        })
    }

    pub fn model(&self, network: &Network) -> models::NetworkInspect {
        let length = network.addressing().map_or(32, |addressing| addressing.gateway.prefix_len());
        let containers = self.containers_of(&network.id).map(|(endpoints, attachment)| {
            (endpoints.container_id.clone(), attachment.resource(&endpoints.container_name, length))
        });
        models::NetworkInspect { containers: Some(containers.collect()), ..network.model() }
    }
}

impl Inner {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a subnet is chosen and its bridge made, by every engine on this machine: none takes what another one is
    /// about to.
    pub async fn turn(&self) -> Result<nix::fcntl::Flock<File>> {
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
    pub async fn taken(&self) -> Result<Taken> {
        let routes = link::routed_subnets(&self.handle).await?;
        let state = self.state();
        let networks = state.networks.values().filter_map(|network| Some(network.addressing()?.subnet()));
        Ok(Taken { routes, networks: networks.collect() })
    }

    /// Makes a network's bridge, where it is missing, and has its packets forwarded.
    pub async fn set_up(&self, bridge: &record::Bridge) -> Result<()> {
        link::ensure_bridge(&self.handle, &bridge.interface, bridge.addressing.gateway, bridge.mtu).await?;
        if let Err(error) = firewall::admit(&self.instance, &bridge.interface).await {
            log::warn!("{error}");
            self.state().blocked.insert(bridge.interface.clone());
        }
        Ok(())
    }

    /// Refuses a bridge whose packets another firewall drops; the user may have allowed them meanwhile.
    pub async fn check_forwarding(&self, bridge: &str) -> Result<()> {
        if !self.state().blocked.contains(bridge) {
            return Ok(());
        }
        firewall::admit(&self.instance, bridge).await?;
        self.state().blocked.remove(bridge);
        Ok(())
    }

    /// Brings the table up to what is known now.
    pub async fn write_firewall(&self) -> Result<()> {
        let _turn = self.firewall.lock().await;
        let rules = {
            let state = self.state();
            let bridge = |network: &Network| {
                let bridge = network.bridge()?;
                Some(firewall::Bridge {
                    interface: bridge.interface.clone(),
                    subnet: bridge.addressing.subnet(),
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
    pub async fn tell_helper(self: &Arc<Self>, container_id: &str) -> Result<Vec<PublishedPort>> {
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
    pub async fn running_helper(self: &Arc<Self>) -> Result<Helper> {
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
    pub async fn watch_helper(inner: Arc<Inner>) {
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
    pub async fn restore_helper(self: &Arc<Self>) -> Result<()> {
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

pub fn read_networks(folder: &Path) -> Result<BTreeMap<String, Network>> {
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
