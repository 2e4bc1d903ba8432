//! A project's networks and volumes.

use super::{
    client::{self, Progress, failed, is_status},
    model::{Network, Project, Service, Volume},
};
use crate::error::{Error, Result};
use bollard::Docker;
use bollard_stubs::models::{
    Ipam, IpamConfig, LocalNodeState, NetworkCreateRequest, NetworkDisconnectRequest, VolumeCreateRequest,
};
use futures_util::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Sees to it that all networks and volumes of `services` are there.
pub async fn ensure(docker: &Docker, project: &Project, services: &[&Service], progress: &Progress) -> Result<()> {
    let keys: BTreeSet<&String> = services.iter().flat_map(|service| service.networks.keys()).collect();
    try_join_all(
        keys.iter().filter_map(|key| Some(network(docker, project, key, project.networks.get(*key)?, progress))),
    )
    .await?;
    let keys: BTreeSet<&String> =
        services.iter().flat_map(|service| &service.volumes).filter_map(|mount| mount.source.as_ref()).collect();
    try_join_all(
        keys.iter().filter_map(|key| Some(volume(docker, project, key, project.volumes.get(*key)?, progress))),
    )
    .await?;
    Ok(())
}

fn owned(project: &Project, kind: &str, key: &str, labels: &BTreeMap<String, String>) -> HashMap<String, String> {
    let own = [(client::PROJECT, project.name.as_str()), (kind, key), (client::VERSION, client::SPOKEN_VERSION)];
    let own = own.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned()));
    labels.clone().into_iter().chain(own).collect()
}

/// Sees to it that a network of the project is there, as the file says.
async fn network(docker: &Docker, project: &Project, key: &str, network: &Network, progress: &Progress) -> Result<()> {
    let name = &network.name;
    let hash = network.hash()?;
    match docker.inspect_network(name, None).await {
        Ok(there) if !network.external && is_outdated(there.labels.as_ref(), &project.name, &hash) => {
            remove_outdated(docker, project, name, progress).await?;
        }
        Ok(_) => return Ok(()),
        Err(error) if !is_status(&error, 404) => return Err(failed(format!("look for the network {name}"))(error)),
        // A Swarm's workers learn of a network when the first container joins it.
        Err(_) if network.external && is_in_swarm(docker).await => return Ok(()),
        Err(_) if network.external => {
            return Err(Error::Failed(format!(
                "the external network {name} is not there: inception network create {name}"
            )));
        }
        Err(_) => {}
    }
    let config = network.subnets.iter().map(|subnet| IpamConfig {
        subnet: subnet.subnet.clone(),
        gateway: subnet.gateway.clone(),
        ip_range: subnet.ip_range.clone(),
        ..IpamConfig::default()
    });
    let request = NetworkCreateRequest {
        name: name.clone(),
        driver: network.driver.clone().or(Some("bridge".into())),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        enable_ipv6: Some(network.enable_ipv6),
        ipam: (!network.subnets.is_empty()).then(|| Ipam {
            driver: Some("default".into()),
            config: Some(config.collect()),
            options: None,
        }),
        options: Some(network.driver_opts.clone().into_iter().collect()),
        labels: Some({
            let mut labels = owned(project, client::NETWORK, key, &network.labels);
            labels.insert(client::HASH.into(), hash);
            labels
        }),
        ..NetworkCreateRequest::default()
    };
    docker.create_network(request).await.map_err(failed(format!("create the network {name}")))?;
    progress.line(&format!("Network {name} Created"));
    Ok(())
}

/// Whether the engine is a node of a Docker Swarm.
async fn is_in_swarm(docker: &Docker) -> bool {
    let state = docker.info().await.ok().and_then(|info| info.swarm?.local_node_state);
    state == Some(LocalNodeState::ACTIVE)
}

/// Whether this project made the network from another definition than the file has now.
fn is_outdated(labels: Option<&HashMap<String, String>>, project: &str, hash: &str) -> bool {
    let label = |name: &str| labels.and_then(|labels| labels.get(name)).map(String::as_str);
    label(client::PROJECT) == Some(project) && label(client::HASH).is_some_and(|old| old != hash)
}

/// Removes a network that is to be made anew. The containers on it are stopped: their services are made anew as well, for
/// the network is part of what they are.
async fn remove_outdated(docker: &Docker, project: &Project, name: &str, progress: &Progress) -> Result<()> {
    for container in client::containers(docker, &project.name, true).await? {
        let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        if !networks.is_some_and(|networks| networks.contains_key(name)) {
            continue;
        }
        let (id, container) = (client::id(&container), client::name(&container));
        super::up::stop(docker, &id, &container, None).await?;
        let request = NetworkDisconnectRequest { container: id, force: Some(true) };
        match docker.disconnect_network(name, request).await {
            Err(error) if !is_status(&error, 404) => {
                return Err(failed(format!("take {container} off the network {name}"))(error));
            }
            _ => {}
        }
    }
    docker.remove_network(name).await.map_err(failed(format!("remove the network {name}, which changed")))?;
    progress.line(&format!("Network {name} Removed: it changed"));
    Ok(())
}

/// Sees to it that a volume of the project is there.
async fn volume(docker: &Docker, project: &Project, key: &str, volume: &Volume, progress: &Progress) -> Result<()> {
    let name = &volume.name;
    match docker.inspect_volume(name).await {
        Ok(there) => {
            let options: BTreeMap<String, String> = there.options.into_iter().collect();
            if !volume.external && options != volume.driver_opts && !volume.driver_opts.is_empty() {
                log::warn!(
                    "the volume {name} was made with other driver_opts, and keeps them; remove it to have it made anew"
                );
            }
            return Ok(());
        }
        Err(error) if !is_status(&error, 404) => return Err(failed(format!("look for the volume {name}"))(error)),
        Err(_) if volume.external => {
            return Err(Error::Failed(format!(
                "the external volume {name} is not there: inception volume create {name}"
            )));
        }
        Err(_) => {}
    }
    let request = VolumeCreateRequest {
        name: Some(name.clone()),
        driver: volume.driver.clone().or(Some("local".into())),
        driver_opts: Some(volume.driver_opts.clone().into_iter().collect()),
        labels: Some(owned(project, client::VOLUME, key, &volume.labels)),
        ..VolumeCreateRequest::default()
    };
    docker.create_volume(request).await.map_err(failed(format!("create the volume {name}")))?;
    progress.line(&format!("Volume {name} Created"));
    Ok(())
}
