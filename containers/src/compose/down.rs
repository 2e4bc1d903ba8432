//! Stops and removes, those that are needed by others last.

use super::{
    client::{self, Progress, failed, is_status},
    create::runtime_folder,
    up,
};
use crate::error::Result;
use bollard::{
    Docker,
    query_parameters::{
        ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveImageOptionsBuilder, RemoveVolumeOptionsBuilder,
    },
};
use bollard_stubs::models::ContainerSummary;
use futures_util::future::try_join_all;
use std::collections::{BTreeSet, HashMap};

/// What `down` removes beside containers and networks.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub volumes: bool,
    /// The images to remove, with their names.
    pub images: Vec<String>,
    /// Services of the file; containers of others are orphans, and stay unless `remove_orphans`.
    pub known: Option<BTreeSet<String>>,
    pub remove_orphans: bool,
    pub timeout: Option<i32>,
}

/// Batches of containers: none of a batch is needed by one of a later batch.
pub fn batches(containers: Vec<ContainerSummary>) -> Vec<Vec<ContainerSummary>> {
    let mut open = containers;
    let mut found = Vec::new();
    while !open.is_empty() {
        let needed: BTreeSet<String> = open
            .iter()
            .flat_map(|container| client::label(container, client::DEPENDS_ON).split(','))
            .filter_map(|entry| entry.split(':').next())
            .map(str::to_owned)
            .collect();
        let (later, now): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|container| needed.contains(client::label(container, client::SERVICE)));
        if now.is_empty() {
            // Labels of someone else's making, in a circle.
            found.push(later);
            break;
        }
        found.push(now);
        open = later;
    }
    found
}

/// Removes what a project has made.
pub async fn down(docker: &Docker, project: &str, options: &Options, progress: &Progress) -> Result<()> {
    let (containers, orphans): (Vec<_>, Vec<_>) =
        client::containers(docker, project, true).await?.into_iter().partition(|container| {
            let service = client::label(container, client::SERVICE);
            options.remove_orphans || options.known.as_ref().is_none_or(|known| known.contains(service))
        });
    for batch in batches(containers) {
        try_join_all(batch.iter().map(|container| up::remove(docker, container, options.timeout, true, progress)))
            .await?;
    }
    if !orphans.is_empty() {
        let names: Vec<String> = orphans.iter().map(client::name).collect();
        log::warn!(
            "left: containers of services that the file no longer has: {} (--remove-orphans removes them)",
            names.join(", ")
        );
    }
    let filters = HashMap::from([("label", vec![format!("{}={project}", client::PROJECT)])]);
    let query = ListNetworksOptionsBuilder::new().filters(&filters).build();
    for network in docker.list_networks(Some(query)).await.map_err(failed("list networks"))? {
        let name = network.name.unwrap_or_default();
        match docker.remove_network(&name).await {
            Err(error) if !orphans.is_empty() && (is_status(&error, 403) || is_status(&error, 409)) => {
                log::warn!("the network {name} is still in use");
            }
            Err(error) if !is_status(&error, 404) => return Err(failed(format!("remove the network {name}"))(error)),
            _ => progress.line(&format!("Network {name} Removed")),
        }
    }
    if options.volumes {
        let query = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let list = docker.list_volumes(Some(query)).await.map_err(failed("list volumes"))?;
        for volume in list.volumes.unwrap_or_default() {
            let query = RemoveVolumeOptionsBuilder::new().build();
            docker
                .remove_volume(&volume.name, Some(query))
                .await
                .map_err(failed(format!("remove the volume {}", volume.name)))?;
            progress.line(&format!("Volume {} Removed", volume.name));
        }
    }
    for image in &options.images {
        let query = RemoveImageOptionsBuilder::new().build();
        match docker.remove_image(image, Some(query), None).await {
            Err(error) if is_status(&error, 404) => {}
            Err(error) => return Err(failed(format!("remove the image {image}"))(error)),
            Ok(_) => progress.line(&format!("Image {image} Removed")),
        }
    }
    let folder = runtime_folder(project);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            log::warn!("remove {}: {error}", folder.display());
        }
        _ => {}
    }
    Ok(())
}
