//! A container's part in the networks, from its start to its end: addresses, routes, names, published ports.

use super::{
    Joining, Networks, PublishedPort, addresses,
    endpoint::{self, Attachment, Endpoints},
    link,
    record::{Addressing, Medium, Network},
    resolver::Resolver,
    state::{RECENT, Recent, State},
};
use crate::{
    engine::random_id,
    error::{Error, Result},
    shim,
};
use bollard_stubs::models;
use ipnet::Ipv4Net;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

impl Networks {
    /// Joins a container to network `reference`: addresses, route, names. The endpoint as `docker inspect` shows it.
    pub async fn connect(&self, reference: &str, joining: Joining<'_>) -> Result<models::EndpointSettings> {
        let network = self.get_record(reference)?;
        let Some((medium, addressing)) = network.medium.as_ref().zip(network.addressing()) else {
            return Err(Error::Invalid(format!("container cannot be connected to network {}", network.name)));
        };
        if let Medium::Bridge(bridge) = medium
            && !network.internal
        {
            self.0.check_forwarding(&bridge.interface).await?;
        }
        let settings = joining.settings.clone();
        let (attachment, gateway, replaced) = self.reserve(&network, addressing, &joining)?;
        let station = link::Station {
            interface: joining.interface.into(),
            mac: addresses::parse_mac(&attachment.mac)?,
            address: Ipv4Net::new(attachment.address, addressing.gateway.prefix_len())
                .map_err(|error| Error::Failed(error.to_string()))?,
            gateway,
        };
        let joined = async {
            // A veth pair that is left of the container's last run.
            if let Some(old) = replaced {
                link::wait_until_gone(&self.0.handle, &old).await?;
            }
            let (handle, shim) = (&self.0.handle, joining.shim);
            match medium {
                Medium::Bridge(bridge) => {
                    let host_end = attachment.host_interface.as_deref().unwrap_or_default();
                    link::make_veth(handle, bridge, host_end, shim, &station).await?;
                }
                Medium::Macvlan(macvlan) => link::make_macvlan(handle, macvlan, shim, &station).await?,
            }
            link::give_addresses(shim, station).await?;
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
            gateway: Some(if network.internal { String::new() } else { addressing.gateway.addr().to_string() }),
            ip_address: Some(attachment.address.to_string()),
            ip_prefix_len: Some(i64::from(addressing.gateway.prefix_len())),
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
        addressing: &Addressing,
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
        let mut taken = addressing.own_addresses();
        taken.extend(state.containers_of(&network.id).map(|(_, attachment)| attachment.address));
        let (subnet, range) = (addressing.subnet(), addressing.range.unwrap_or(addressing.subnet()));
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
            host_interface: network.bridge().map(|_| format!("veth{}", &endpoint_id[..10])),
            interface: joining.interface.into(),
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
        let has_way_out = state.endpoints.get(id).is_some_and(|it| it.gateway(&state.networks).is_some());
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
        let replaced = before.filter(|before| before.address == address).and_then(|before| before.host_interface);
        Ok((attachment, outward.then(|| addressing.gateway.addr()), replaced))
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
            endpoints.and_then(|it| Some((it.pid, it.gateway(&state.networks)?)))
        };
        match next {
            Some((pid, gateway)) => link::ensure_default_route(pid, gateway).await,
            None => Ok(()),
        }
    }

    async fn leave(&self, network_id: &str, container_id: &str) -> Result<()> {
        let gone = {
            let mut state = self.state();
            let Some(endpoints) = state.endpoints.get_mut(container_id) else { return Ok(()) };
            let at = endpoints.attachments.iter().position(|attachment| attachment.network_id == network_id);
            let gone = at.map(|at| endpoints.attachments.remove(at));
            endpoints.write(&self.0.endpoints_folder)?;
            gone.map(|attachment| (attachment, endpoints.pid))
        };
        if let Some((attachment, pid)) = gone {
            match attachment.host_interface {
                Some(interface) => link::remove(&self.0.handle, &interface).await?,
                None => link::remove_inside(pid, attachment.interface).await?,
            }
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
