//! A container's networks: joined at its start, and joined and left while it runs.

use super::{Container, Record, files, ports};
use crate::{
    engine::{Engine, events::Kind},
    error::{Error, Result},
    network::{Joining, PublishedPort},
    shim::Shim,
};
use bollard_stubs::models;
use std::collections::{BTreeMap, BTreeSet, HashMap};

impl Engine {
    /// Joins every network that the record names and publishes the ports: the endpoints, and the ports as published.
    pub(super) async fn join_networks(
        &self,
        container: &Container,
        record: &Record,
        shim: &Shim,
    ) -> Result<(BTreeMap<String, models::EndpointSettings>, Vec<PublishedPort>)> {
        let mut networks = record.networks.clone();
        // The mode's own network comes first: its gateway is the default route.
        let mode = self.network_name(record.network_mode()).unwrap_or_default();
        let mut names: Vec<String> =
            networks.keys().filter(|name| *name != "none" && *name != "host").cloned().collect();
        names.sort_by_key(|name| *name != mode);
        for (index, name) in names.iter().enumerate() {
            let settings = networks.get(name).cloned().unwrap_or_default();
            let endpoint = self.join(container, record, shim.pid, name, settings, &format!("eth{index}")).await?;
            networks.insert(name.clone(), endpoint);
        }
        files::hosts(record, &container.folder, &addresses(&mode, &networks))?;
        let asked = ports::asked(&record.config, &record.host_config)?;
        let published = match asked.is_empty() || names.is_empty() {
            true => Vec::new(),
            false => self.networks.publish(&container.id, &asked).await?,
        };
        Ok((networks, published))
    }

    async fn join(
        &self,
        container: &Container,
        record: &Record,
        shim: i32,
        network: &str,
        settings: models::EndpointSettings,
        interface: &str,
    ) -> Result<models::EndpointSettings> {
        let joining = Joining {
            container_id: &container.id,
            container_name: &record.name,
            hostname: &record.hostname(),
            shim,
            dns: record.host_config.dns.as_deref().unwrap_or_default(),
            settings,
            interface,
        };
        let endpoint = self.networks.connect(network, joining).await?;
        self.tell_network("connect", network, &container.id);
        Ok(endpoint)
    }

    /// `docker network connect`: now, where it runs, and at each start from now on.
    pub async fn connect_container(
        &self,
        container: &Container,
        network: &str,
        settings: models::EndpointSettings,
    ) -> Result<()> {
        let _step = container.operation.lock().await;
        let record = container.record().clone();
        let network = self.network_name(network)?;
        let mode = record.network_mode();
        if mode == "host" || mode.starts_with("container:") || ["host", "none"].contains(&network.as_str()) {
            return Err(Error::Invalid(format!(
                "a container of network mode {mode} cannot be connected to {network}: the namespace is not its own, or is to have no network"
            )));
        }
        if record.networks.contains_key(&network) {
            return Err(Error::Conflict(format!(
                "endpoint with name {} already exists in network {network}",
                record.name
            )));
        }
        let endpoint = match container.running() {
            Err(_) => settings,
            Ok(shim) => {
                // Numbers of interfaces that were left stay free: the next one is past all that are there.
                let index = record.networks.len();
                self.join(container, &record, shim.pid, &network, settings, &format!("eth{index}")).await?
            }
        };
        container.update(|record| {
            record.networks.remove("none");
            record.networks.insert(network, endpoint);
        })?;
        self.write_hosts(container)
    }

    /// `docker network disconnect`.
    pub async fn disconnect_container(&self, container: &Container, network: &str) -> Result<()> {
        let _step = container.operation.lock().await;
        let network = self.network_name(network)?;
        if !container.record().networks.contains_key(&network) {
            return Err(Error::Conflict(format!("container {} is not connected to network {network}", container.id)));
        }
        if container.running().is_ok() {
            self.networks.disconnect(&network, &container.id).await?;
            self.tell_network("disconnect", &network, &container.id);
        }
        container.update(|record| drop(record.networks.remove(&network)))?;
        self.write_hosts(container)
    }

    fn write_hosts(&self, container: &Container) -> Result<()> {
        let record = container.record().clone();
        files::hosts(&record, &container.folder, &addresses(record.network_mode(), &record.networks))
    }

    /// The name of a network that a request names by name or id.
    pub(super) fn network_name(&self, reference: &str) -> Result<String> {
        let network = self.networks.get(reference)?;
        Ok(network.name.unwrap_or_else(|| reference.into()))
    }

    /// Names of networks that a container, running or not, is or will be on.
    pub fn networks_in_use(&self) -> BTreeSet<String> {
        self.containers.list().iter().flat_map(|container| container.record().networks.clone().into_keys()).collect()
    }

    /// Tells of the networks that a container has left by ending.
    pub(super) fn tell_left(&self, container: &Container) {
        let names: Vec<String> = container.record().networks.keys().cloned().collect();
        for name in names.iter().filter(|name| *name != "none" && *name != "host") {
            self.tell_network("disconnect", name, &container.id);
        }
    }

    fn tell_network(&self, action: &str, network: &str, container_id: &str) {
        let Ok(network) = self.networks.get(network) else { return };
        let attributes = HashMap::from([
            ("container".to_string(), container_id.to_string()),
            ("name".to_string(), network.name.unwrap_or_default()),
            ("type".to_string(), network.driver.unwrap_or_default()),
        ]);
        self.events.emit(Kind::NETWORK, action, &network.id.unwrap_or_default(), attributes);
    }
}

/// Addresses and gateways for /etc/hosts, those of the mode's own network first.
fn addresses(mode: &str, networks: &BTreeMap<String, models::EndpointSettings>) -> Vec<(String, String)> {
    let mut names: Vec<&String> = networks.keys().collect();
    names.sort_by_key(|name| *name != mode);
    let endpoints = names.into_iter().filter_map(|name| networks.get(name));
    let endpoints = endpoints.filter_map(|it| Some((it.ip_address.clone()?, it.gateway.clone().unwrap_or_default())));
    endpoints.filter(|(address, _)| !address.is_empty()).collect()
}
