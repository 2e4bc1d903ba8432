//! Makes the engine's state what the file says: networks, volumes, images, containers; only what differs is touched.

use super::{
    base, build,
    client::{self, Progress, failed, is_status},
    create::{creation, hash},
    model::{Condition, Network, Project, Service, Volume},
};
use crate::error::{Error, Result};
use bollard::{
    Docker,
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder},
};
use bollard_stubs::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, HealthStatusEnum, Ipam, IpamConfig,
    NetworkConnectRequest, NetworkCreateRequest, VolumeCreateRequest,
};
use futures_util::future::try_join_all;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How often a container that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What `up` is asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub build: bool,
    pub no_build: bool,
    pub force_recreate: bool,
    pub no_recreate: bool,
    pub no_deps: bool,
    pub remove_orphans: bool,
    /// Make the containers, start none.
    pub no_start: bool,
    /// Seconds to wait for what is waited for.
    pub timeout: Option<u64>,
}

/// The services asked for and those that they need; all active ones when none is named.
pub fn select<'a>(project: &'a Project, names: &[String], no_deps: bool) -> Result<BTreeMap<&'a str, &'a Service>> {
    let mut found = BTreeMap::new();
    let mut open: Vec<&str> = match names.is_empty() {
        true => project.services.keys().map(String::as_str).collect(),
        false => names.iter().map(String::as_str).collect(),
    };
    while let Some(name) = open.pop() {
        let Some(service) = project.service(name) else {
            let known: Vec<&str> = project.services.keys().chain(project.inactive.keys()).map(String::as_str).collect();
            return Err(Error::invalid(format!("there is no service {name}; there are {}", known.join(", "))));
        };
        if found.insert(service.name.as_str(), service).is_none() && !no_deps {
            let is_there = |name: &&str| project.service(name).is_some();
            open.extend(service.before().filter(is_there));
        }
    }
    Ok(found)
}

/// The containers that run (or ran to their end), by service.
pub async fn up(
    docker: &Docker,
    project: &Project,
    names: &[String],
    options: &Options,
    progress: &Progress,
) -> Result<BTreeMap<String, String>> {
    let services = select(project, names, options.no_deps)?;
    images(docker, project, &services, options, progress).await?;
    let existing = client::containers(docker, &project.name, false).await?;
    orphans(docker, project, &existing, options, progress).await?;
    let keys: BTreeSet<&String> = services.values().flat_map(|service| service.networks.keys()).collect();
    try_join_all(
        keys.iter().filter_map(|key| Some(network(docker, project, key, project.networks.get(*key)?, progress))),
    )
    .await?;
    let keys: BTreeSet<&String> =
        services.values().flat_map(|service| &service.volumes).filter_map(|mount| mount.source.as_ref()).collect();
    try_join_all(
        keys.iter().filter_map(|key| Some(volume(docker, project, key, project.volumes.get(*key)?, progress))),
    )
    .await?;
    let deadline = options.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let channels: BTreeMap<&str, watch::Sender<Stage>> =
        services.keys().map(|name| (*name, watch::Sender::new(Stage::Nothing))).collect();
    let work = Work { docker, project, options, progress, existing: &existing, channels: &channels, deadline };
    let ids = try_join_all(services.values().map(|service| work.service(service))).await?;
    Ok(services.keys().map(|name| name.to_string()).zip(ids).collect())
}

/// Waits until all of `ids` run, healthy where they have a check; the ones that ended well are done.
pub async fn settle(
    docker: &Docker,
    project: &Project,
    ids: &BTreeMap<String, String>,
    timeout: Option<u64>,
    progress: &Progress,
) -> Result<()> {
    let deadline = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    try_join_all(ids.iter().map(|(name, id)| async move {
        let container = project.service(name).map_or_else(|| name.clone(), |service| project.container_of(service));
        let task = progress.task(format!("Container {container}"));
        task.doing("waiting");
        let state = wait(docker, name, id, Condition::Healthy, true, deadline).await?;
        task.done(state);
        Ok(())
    }))
    .await
    .map(|_: Vec<()>| ())
}

async fn images(
    docker: &Docker,
    project: &Project,
    services: &BTreeMap<&str, &Service>,
    options: &Options,
    progress: &Progress,
) -> Result<()> {
    let mut to_build = Vec::new();
    // An image that one service builds, others may use.
    let built: BTreeSet<String> =
        services.values().filter(|service| service.build.is_some()).map(|service| project.image_of(service)).collect();
    for service in services.values() {
        let image = project.image_of(service);
        if service.build.is_none() && built.contains(&image) {
            continue;
        }
        match (&service.build, options.build) {
            (Some(_), true) => to_build.push(*service),
            (build, _) => {
                let is_there = match docker.inspect_image(&image).await {
                    Ok(_) => true,
                    Err(error) if is_status(&error, 404) => false,
                    Err(error) => return Err(failed(format!("look for the image {image}"))(error)),
                };
                match build {
                    _ if is_there => {}
                    Some(_) if options.no_build => {
                        return Err(Error::Failed(format!(
                            "the image {image} of service {} is not built: leave out --no-build",
                            service.name
                        )));
                    }
                    Some(_) => to_build.push(*service),
                    None => {
                        let task = progress.task(format!("Image {image}"));
                        base::ensure(docker, &image, &|line: &str| task.doing(line)).await?;
                        task.done("Present");
                    }
                }
            }
        }
    }
    build::build(docker, project, &to_build, &build::Options::default(), progress).await
}

async fn orphans(
    docker: &Docker,
    project: &Project,
    existing: &[ContainerSummary],
    options: &Options,
    progress: &Progress,
) -> Result<()> {
    let orphans: Vec<&ContainerSummary> = existing
        .iter()
        .filter(|container| project.service(client::label(container, client::SERVICE)).is_none())
        .collect();
    if orphans.is_empty() {
        return Ok(());
    }
    if !options.remove_orphans {
        let names: Vec<String> = orphans.iter().map(|container| client::name(container)).collect();
        log::warn!(
            "containers of services that the file no longer has: {} (--remove-orphans removes them)",
            names.join(", ")
        );
        return Ok(());
    }
    try_join_all(orphans.into_iter().map(|container| remove(docker, container, None, true, progress))).await.map(|_| ())
}

/// Stops and removes one container.
pub async fn remove(
    docker: &Docker,
    container: &ContainerSummary,
    timeout: Option<i32>,
    volumes: bool,
    progress: &Progress,
) -> Result<()> {
    let (id, name) = (client::id(container), client::name(container));
    let task = progress.task(format!("Container {name}"));
    if client::is_running(container) {
        task.doing("stopping");
        stop(docker, &id, &name, timeout).await?;
    }
    task.doing("removing");
    let options = RemoveContainerOptionsBuilder::new().force(true).v(volumes).build();
    match docker.remove_container(&id, Some(options)).await {
        Err(error) if !is_status(&error, 404) => return Err(failed(format!("remove {name}"))(error)),
        _ => task.done("Removed"),
    }
    Ok(())
}

/// Stops one container; one that is stopped or gone is no error.
pub async fn stop(docker: &Docker, id: &str, name: &str, timeout: Option<i32>) -> Result<()> {
    let options = timeout.map(|seconds| StopContainerOptionsBuilder::new().t(seconds).build());
    match docker.stop_container(id, options).await {
        Err(error) if !is_status(&error, 304) && !is_status(&error, 404) => Err(failed(format!("stop {name}"))(error)),
        _ => Ok(()),
    }
}

fn owned(project: &Project, kind: &str, key: &str, labels: &BTreeMap<String, String>) -> HashMap<String, String> {
    let own = [(client::PROJECT, project.name.as_str()), (kind, key), (client::VERSION, client::SPOKEN_VERSION)];
    let own = own.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned()));
    labels.clone().into_iter().chain(own).collect()
}

async fn network(docker: &Docker, project: &Project, key: &str, network: &Network, progress: &Progress) -> Result<()> {
    let name = &network.name;
    match docker.inspect_network(name, None).await {
        Ok(_) => return Ok(()),
        Err(error) if !is_status(&error, 404) => return Err(failed(format!("look for the network {name}"))(error)),
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
        labels: Some(owned(project, client::NETWORK, key, &network.labels)),
        ..NetworkCreateRequest::default()
    };
    docker.create_network(request).await.map_err(failed(format!("create the network {name}")))?;
    progress.line(&format!("Network {name} Created"));
    Ok(())
}

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

/// How far a service is, for those that wait for it.
#[derive(Debug, Clone, PartialEq)]
enum Stage {
    Nothing,
    Created(String),
    Started(String),
}

struct Work<'a> {
    docker: &'a Docker,
    project: &'a Project,
    options: &'a Options,
    progress: &'a Progress,
    existing: &'a [ContainerSummary],
    channels: &'a BTreeMap<&'a str, watch::Sender<Stage>>,
    deadline: Option<Instant>,
}

impl Work<'_> {
    /// Makes and starts one service's container, in its turn; the container's id.
    async fn service(&self, service: &Service) -> Result<String> {
        let name = self.project.container_of(service);
        let task = self.progress.task(format!("Container {name}"));
        let shared = match service.network_mode.as_ref().and_then(|mode| mode.strip_prefix("service:")) {
            Some(other) => Some(self.reach(other, false).await?),
            None => None,
        };
        let (id, running, made) = self.container(service, &name, shared.as_deref(), &task).await?;
        self.tell(service, Stage::Created(id.clone()));
        if self.options.no_start {
            task.done(if made { "Created" } else { "Present" });
            return Ok(id);
        }
        for (other, dependency) in &service.depends_on {
            if !self.channels.contains_key(other.as_str()) {
                continue;
            }
            let container = self.reach(other, true).await?;
            if running || dependency.condition == Condition::Started {
                continue;
            }
            task.doing(&format!("waiting for {other}"));
            let reached = wait(self.docker, other, &container, dependency.condition, false, self.deadline).await;
            match reached {
                Ok(_) => {}
                Err(error) if !dependency.required => log::warn!("{error}"),
                Err(error) => return Err(Error::Failed(format!("service {} can't start: {error}", service.name))),
            }
        }
        if running {
            task.done("Running");
        } else {
            task.doing("starting");
            match self.docker.start_container(&id, None).await {
                Err(error) if !is_status(&error, 304) => {
                    return Err(failed(format!("start service {}", service.name))(error));
                }
                _ => task.done(if made { "Created and started" } else { "Started" }),
            }
        }
        self.tell(service, Stage::Started(id.clone()));
        Ok(id)
    }

    fn tell(&self, service: &Service, stage: Stage) {
        if let Some(channel) = self.channels.get(service.name.as_str()) {
            channel.send_replace(stage);
        }
    }

    /// Waits until another service of this run is created, or started; its container.
    async fn reach(&self, other: &str, started: bool) -> Result<String> {
        let gone = || Error::Failed(format!("the service {other} is not part of this run"));
        let mut channel = self.channels.get(other).ok_or_else(gone)?.subscribe();
        let stage = channel
            .wait_for(|stage| match stage {
                Stage::Nothing => false,
                Stage::Created(_) => !started,
                Stage::Started(_) => true,
            })
            .await
            .map_err(|_| gone())?;
        match &*stage {
            Stage::Created(id) | Stage::Started(id) => Ok(id.clone()),
            Stage::Nothing => Err(gone()),
        }
    }

    /// The service's container as the file has it: the one that is there, or a new one. Also whether it runs, and
    /// whether it is new.
    async fn container(
        &self,
        service: &Service,
        name: &str,
        shared: Option<&str>,
        task: &client::Task<'_>,
    ) -> Result<(String, bool, bool)> {
        let (docker, project) = (self.docker, self.project);
        let hash = hash(project, service)?;
        let mut creation = creation(project, service, &hash, false, shared)?;
        let existing = self.existing.iter().find(|container| client::label(container, client::SERVICE) == service.name);
        if let Some(container) = existing {
            let id = client::id(container);
            let image = project.image_of(service);
            let wanted = docker.inspect_image(&image).await.map_err(failed(format!("look for the image {image}")))?;
            let bare = |id: &Option<String>| id.as_deref().unwrap_or_default().trim_start_matches("sha256:").to_owned();
            let details =
                docker.inspect_container(&id, None).await.map_err(failed(format!("inspect the container {name}")))?;
            let is_same = client::label(container, client::HASH) == hash
                && bare(&wanted.id) == bare(&details.image)
                && shared.is_none_or(|shared| is_shared(&details, shared));
            if (is_same || self.options.no_recreate) && !self.options.force_recreate {
                return Ok((id, client::is_running(container), false));
            }
            task.doing("making it anew");
            keep_anonymous_volumes(&mut creation.body, &details);
            stop(docker, &id, name, None).await?;
            let options = RemoveContainerOptionsBuilder::new().force(true).build();
            docker.remove_container(&id, Some(options)).await.map_err(failed(format!("remove {name}")))?;
        }
        task.doing("creating");
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let doing = format!("create the container of service {}", service.name);
        let made = docker.create_container(Some(options), creation.body).await.map_err(failed(&doing))?;
        for (network, settings) in creation.more_networks {
            let request = NetworkConnectRequest { container: made.id.clone(), endpoint_config: Some(settings) };
            docker
                .connect_network(&network, request)
                .await
                .map_err(failed(format!("connect service {} to {network}", service.name)))?;
        }
        Ok((made.id, false, true))
    }
}

fn is_shared(details: &ContainerInspectResponse, shared: &str) -> bool {
    let mode = details.host_config.as_ref().and_then(|config| config.network_mode.as_deref());
    mode == Some(format!("container:{shared}").as_str())
}

/// A container made anew keeps the volumes that no name was given to.
fn keep_anonymous_volumes(body: &mut bollard_stubs::models::ContainerCreateBody, old: &ContainerInspectResponse) {
    let Some(config) = body.host_config.as_mut() else { return };
    let is_taken = |target: &str| {
        let by_bind = config.binds.iter().flatten().any(|bind| bind.split(':').nth(1) == Some(target));
        by_bind || config.mounts.iter().flatten().any(|mount| mount.target.as_deref() == Some(target))
    };
    let kept: Vec<String> = old
        .mounts
        .iter()
        .flatten()
        .filter_map(|mount| {
            let (name, target) = (mount.name.as_ref()?, mount.destination.as_ref()?);
            let is_anonymous = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            (is_anonymous && !is_taken(target)).then(|| format!("{name}:{target}"))
        })
        .collect();
    if !kept.is_empty() {
        config.binds.get_or_insert_default().extend(kept);
    }
}

/// Waits for a condition of a container; how it is now. With `lenient` a container without a check is healthy once it
/// runs, and one that ended well is done.
async fn wait(
    docker: &Docker,
    service: &str,
    id: &str,
    condition: Condition,
    lenient: bool,
    deadline: Option<Instant>,
) -> Result<&'static str> {
    loop {
        let details = docker.inspect_container(id, None).await.map_err(failed(format!("look at service {service}")))?;
        let state = details.state.unwrap_or_default();
        let health = state.health.as_ref().and_then(|health| health.status);
        let code = state.exit_code.unwrap_or_default();
        let restarts = details
            .host_config
            .and_then(|config| config.restart_policy)
            .and_then(|policy| policy.name)
            .is_some_and(|name| !matches!(name.to_string().as_str(), "no" | ""));
        let ended = matches!(state.status, Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD));
        let running = state.status == Some(ContainerStateStatusEnum::RUNNING);
        match condition {
            Condition::Started if running => return Ok("Started"),
            Condition::CompletedSuccessfully if ended && code == 0 => return Ok("Exited"),
            Condition::Healthy => match health {
                Some(HealthStatusEnum::HEALTHY) => return Ok("Healthy"),
                Some(HealthStatusEnum::UNHEALTHY) => {
                    let log = state.health.and_then(|health| health.log).unwrap_or_default();
                    let output = log.last().and_then(|entry| entry.output.clone()).unwrap_or_default();
                    let output: String = output.trim().lines().map(|line| format!("\n  | {line}")).collect();
                    return Err(Error::Failed(format!("service {service} is unhealthy; its check said:{output}")));
                }
                None | Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) if running => {
                    if lenient {
                        return Ok("Running");
                    }
                    return Err(Error::invalid(format!(
                        "service {service} has no healthcheck, so `condition: service_healthy` never comes"
                    )));
                }
                _ if ended && lenient && code == 0 => return Ok("Exited"),
                _ => {}
            },
            _ => {}
        }
        if ended && (!restarts || condition == Condition::CompletedSuccessfully) {
            let lines = client::last_lines(docker, id).await;
            let why =
                state.error.filter(|error| !error.is_empty()).map(|error| format!(": {error}")).unwrap_or_default();
            return Err(Error::Failed(format!("service {service} ended with code {code}{why}{lines}")));
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            let lines = client::last_lines(docker, id).await;
            return Err(Error::Failed(format!("service {service} was not ready in time; its last lines:{lines}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}
