//! Makes the engine's state what the file says: networks, volumes, images, containers; only what differs is touched.

use super::{
    base, build,
    client::{self, Progress, failed, is_status},
    create::{creation, hash},
    model::{Condition, Project, Service},
    objects, wait,
};
use crate::error::{Error, Result};
use bollard::{
    Docker,
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder},
};
use bollard_stubs::models::{ContainerInspectResponse, ContainerSummary, NetworkConnectRequest};
use futures_util::future::try_join_all;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

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
    /// Told of each service's name and container once it runs.
    pub started: Option<mpsc::UnboundedSender<(String, String)>>,
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
    objects::ensure(docker, project, &services.values().copied().collect::<Vec<_>>(), progress).await?;
    let deadline = options.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let channels: BTreeMap<&str, watch::Sender<Stage>> =
        services.keys().map(|name| (*name, watch::Sender::new(Stage::Nothing))).collect();
    let work = Work { docker, project, options, progress, existing: &existing, channels: &channels, deadline };
    let ids = try_join_all(services.values().map(|service| work.service(service))).await?;
    Ok(services.keys().map(|name| name.to_string()).zip(ids).collect())
}

/// Makes all ready for one more container of `service` (that of `run`): what it depends on runs, and its image, networks
/// and volumes are there. The container whose network it shares, if it does.
pub async fn prepare(
    docker: &Docker,
    project: &Project,
    service: &Service,
    options: &Options,
    progress: &Progress,
) -> Result<Option<String>> {
    let before: Vec<String> = match options.no_deps {
        true => Vec::new(),
        false => service.before().filter(|name| project.service(name).is_some()).map(str::to_owned).collect(),
    };
    let mut ids = BTreeMap::new();
    if !before.is_empty() {
        ids = up(docker, project, &before, options, progress).await?;
    }
    images(docker, project, &BTreeMap::from([(service.name.as_str(), service)]), options, progress).await?;
    objects::ensure(docker, project, &[service], progress).await?;
    for (other, dependency) in &service.depends_on {
        if let Some(id) = ids.get(other).filter(|_| dependency.condition != Condition::Started) {
            let reached = wait::until(docker, other, id, dependency.condition, false, None).await;
            match reached {
                Err(error) if dependency.required => return Err(error),
                Err(error) => log::warn!("{error}"),
                Ok(_) => {}
            }
        }
    }
    let Some(other) = service.network_mode.as_ref().and_then(|mode| mode.strip_prefix("service:")) else {
        return Ok(None);
    };
    if let Some(id) = ids.get(other) {
        return Ok(Some(id.clone()));
    }
    let existing = client::containers(docker, &project.name, false).await?;
    let shared = existing.iter().find(|container| client::label(container, client::SERVICE) == other);
    let missing =
        || Error::Failed(format!("service {} shares the network of {other}, which has no container", service.name));
    shared.map(client::id).map(Some).ok_or_else(missing)
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
        let state = wait::until(docker, name, id, Condition::Healthy, true, deadline).await?;
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

/// How far a service is, for those that wait for it.
#[derive(Debug, Clone, PartialEq)]
enum Stage {
    Nothing,
    Created(String),
    /// Also whether its container is a new one.
    Started(String, bool),
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
            Some(other) => Some(self.reach(other, false).await?.0),
            None => None,
        };
        let (id, running, made) = self.container(service, &name, shared.as_deref(), &task).await?;
        self.tell(service, Stage::Created(id.clone()));
        if self.options.no_start {
            task.done(if made { "Created" } else { "Present" });
            return Ok(id);
        }
        let mut outdated = false;
        for (other, dependency) in &service.depends_on {
            if !self.channels.contains_key(other.as_str()) {
                continue;
            }
            let (container, is_new) = self.reach(other, true).await?;
            outdated |= running && is_new && dependency.restart;
            if (running && !outdated) || dependency.condition == Condition::Started {
                continue;
            }
            task.doing(&format!("waiting for {other}"));
            let reached = wait::until(self.docker, other, &container, dependency.condition, false, self.deadline).await;
            match reached {
                Ok(_) => {}
                Err(error) if !dependency.required => log::warn!("{error}"),
                Err(error) => return Err(Error::Failed(format!("service {} can't start: {error}", service.name))),
            }
        }
        if running && outdated {
            task.doing("restarting");
            let doing = format!("restart service {}", service.name);
            self.docker.restart_container(&id, None).await.map_err(failed(doing))?;
            task.done("Restarted");
        } else if running {
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
        self.tell(service, Stage::Started(id.clone(), made));
        Ok(id)
    }

    fn tell(&self, service: &Service, stage: Stage) {
        if let (Stage::Started(id, _), Some(started)) = (&stage, &self.options.started) {
            // Who has stopped listening need not be told.
            let _ = started.send((service.name.clone(), id.clone()));
        }
        if let Some(channel) = self.channels.get(service.name.as_str()) {
            channel.send_replace(stage);
        }
    }

    /// Waits until another service of this run is created, or started; its container, and whether that is new.
    async fn reach(&self, other: &str, started: bool) -> Result<(String, bool)> {
        let gone = || Error::Failed(format!("the service {other} is not part of this run"));
        let mut channel = self.channels.get(other).ok_or_else(gone)?.subscribe();
        let stage = channel
            .wait_for(|stage| match stage {
                Stage::Nothing => false,
                Stage::Created(_) => !started,
                Stage::Started(..) => true,
            })
            .await
            .map_err(|_| gone())?;
        match &*stage {
            Stage::Created(id) => Ok((id.clone(), false)),
            Stage::Started(id, is_new) => Ok((id.clone(), *is_new)),
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
            let details = client::steady(async || docker.inspect_container(&id, None).await)
                .await
                .map_err(failed(format!("inspect the container {name}")))?;
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
