//! `POST /containers/create`: the image's configuration and the request's become a container.

use super::{Container, Containers, mounts, ports, record::Record};
use crate::{
    engine::{Engine, random_id, spec},
    error::{Context, Error, Result},
    image::Image,
};
use bollard_stubs::models;
use chrono::Utc;
use std::{collections::BTreeMap, fs, os::unix::fs::DirBuilderExt, sync::Arc};

/// A request to create a container.
pub struct Create {
    /// None: a random one.
    pub name: Option<String>,
    pub config: models::ContainerConfig,
    pub host_config: models::HostConfig,
    pub networking: models::NetworkingConfig,
}

/// The label of images that have inception-init as their entrypoint's first word.
pub const INIT_LABEL: &str = "org.inception.init";

impl Engine {
    /// Creates a container. Blocking.
    pub fn create_container(&self, request: Create) -> Result<Arc<Container>> {
        let reference = request.config.image.clone().unwrap_or_default();
        let image = self.images.get(&reference).map_err(|error| match error {
            Error::NotFound { .. } => Error::not_found("image", with_tag(&reference)),
            other => other,
        })?;
        let mut host_config = request.host_config;
        spec::refuse_unsupported(&host_config)?;
        check_restart(&host_config)?;
        for entry in host_config.extra_hosts.iter().flatten() {
            super::files::extra_host(entry)?;
        }
        if let Some(name) = host_config.runtime.as_deref().filter(|name| !name.is_empty())
            && !self.config.runtimes.contains_key(name)
        {
            return Err(Error::Invalid(format!("unknown or invalid runtime name: {name}")));
        }
        let mut config = merge(request.config, &image);
        self.share_namespace(&mut config, &mut host_config)?;
        if let Some(signal) = config.stop_signal.as_deref().filter(|signal| !signal.is_empty()) {
            super::parse_signal(signal)?;
        }
        ports::asked(&config, &host_config)?;
        if config.entrypoint.as_ref().is_none_or(Vec::is_empty) && config.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::Invalid("no command specified".into()));
        }
        if host_config.network_mode.as_deref().unwrap_or_default().is_empty() {
            host_config.network_mode = Some("default".into());
        }
        // One name a network, however it was asked for; one that does not exist is an error at the start, as with dockerd.
        let named = |name: String| self.network_name(&name).unwrap_or(name);
        let networks = networks(&host_config, request.networking);
        let networks = networks.into_iter().map(|(name, settings)| (named(name), settings)).collect();
        let id = random_id()?;
        let name = match request.name.as_deref().map(|name| name.trim_start_matches('/')) {
            None | Some("") => random_name()?,
            Some(name) => checked_name(name)?.to_string(),
        };
        let mounts = mounts::resolve(&config, &host_config, &self.volumes, |name| {
            Ok(self.other(name)?.record().mounts.clone())
        })?;
        let has_inception_init = host_config.init.unwrap_or(false)
            || image.document.config.labels.as_ref().is_some_and(|labels| labels.contains_key(INIT_LABEL))
            || config.entrypoint.iter().flatten().next().is_some_and(|word| word.ends_with("/inception-init"));
        defaults(&mut host_config, &self.config.default_runtime);
        let record = Record {
            id: id.clone(),
            name,
            created: Utc::now(),
            image_id: image.id.clone(),
            config,
            host_config,
            networks,
            mounts,
            state: Default::default(),
            restart_count: 0,
            stopped_by_user: false,
            has_inception_init,
        };
        let container = self.containers.insert(record)?;
        self.tell(&container, "create", &[]);
        Ok(container)
    }
}

impl Engine {
    /// A container that a request for another one names. Not 404, by which clients understand that the image is missing.
    fn other(&self, reference: &str) -> Result<Arc<Container>> {
        self.containers.get(reference).map_err(Error::invalid)
    }

    /// What `--network host` and `--network container:NAME` mean for the container's own name, and what they exclude.
    fn share_namespace(&self, config: &mut models::ContainerConfig, host: &mut models::HostConfig) -> Result<()> {
        let named = config.hostname.as_deref().is_some_and(|name| !name.is_empty());
        let mode = host.network_mode.clone().unwrap_or_default();
        if mode == "host" && !named {
            config.hostname = nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned());
        }
        let Some(other) = mode.strip_prefix("container:") else { return Ok(()) };
        let publishes = host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty());
        let asked = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let conflicts = [
            (named, "hostname and the network mode"),
            (asked(&host.dns), "dns and the network mode"),
            (asked(&host.extra_hosts), "custom host-to-IP mapping and the network mode"),
            (
                publishes || host.publish_all_ports.unwrap_or(false),
                "port publishing and the container type network mode",
            ),
        ];
        if let Some((_, what)) = conflicts.iter().find(|(conflict, _)| *conflict) {
            return Err(Error::Invalid(format!("conflicting options: {what}")));
        }
        let other = self.other(other)?;
        config.hostname = Some(other.record().hostname());
        host.network_mode = Some(format!("container:{}", other.id));
        Ok(())
    }
}

/// What a request leaves open, as `inspect` is to show it.
fn defaults(host: &mut models::HostConfig, runtime: &str) {
    let set = |value: &mut Option<String>, default: &str| {
        if value.as_deref().unwrap_or_default().is_empty() {
            *value = Some(default.into());
        }
    };
    set(&mut host.runtime, runtime);
    set(&mut host.ipc_mode, "private");
    set(&mut host.log_config.get_or_insert_default().typ, "json-file");
    host.shm_size = host.shm_size.filter(|size| *size > 0).or(Some(64 << 20));
    // Clients send -1 for "not asked".
    host.memory_swappiness = host.memory_swappiness.filter(|value| *value != -1);
    host.pids_limit = host.pids_limit.filter(|limit| *limit > 0);
}

impl Containers {
    /// Adds a container whose name is free.
    fn insert(&self, record: Record) -> Result<Arc<Container>> {
        let mut all = self.all_mut();
        if let Some(other) = all.values().find(|other| other.record().name == record.name) {
            return Err(Error::Conflict(format!(
                "Conflict. The container name \"/{}\" is already in use by container \"{}\". You have to remove (or rename) that container to be able to reuse that name.",
                record.name, other.id
            )));
        }
        let folder = self.root.join(&record.id);
        fs::DirBuilder::new().mode(0o711).create(&folder).at("create", &folder)?;
        record.write(&folder)?;
        let container = Arc::new(Container::new(folder, record));
        all.insert(container.id.clone(), Arc::clone(&container));
        Ok(container)
    }

    /// Gives a container another name.
    pub fn rename(&self, container: &Container, name: &str) -> Result<()> {
        let name = checked_name(name.trim_start_matches('/'))?;
        if container.record().name == name {
            return Err(Error::Invalid("Renaming a container with the same name as its current name".into()));
        }
        let all = self.all_mut();
        if all.values().any(|other| other.id != container.id && other.record().name == name) {
            return Err(Error::Conflict(format!("Conflict. The container name \"/{name}\" is already in use.")));
        }
        container.update(|record| record.name = name.into())
    }
}

fn with_tag(reference: &str) -> String {
    let has_tag = reference.rsplit('/').next().is_some_and(|last| last.contains(':')) || reference.contains('@');
    if has_tag { reference.into() } else { format!("{reference}:latest") }
}

fn checked_name(name: &str) -> Result<&str> {
    let mut characters = name.chars();
    let good = characters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() > 1
        && characters.all(|other| other.is_ascii_alphanumeric() || "_.-".contains(other));
    if good {
        return Ok(name);
    }
    Err(Error::Invalid(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
}

fn check_restart(host: &models::HostConfig) -> Result<()> {
    use models::RestartPolicyNameEnum as Policy;
    let Some(policy) = &host.restart_policy else { return Ok(()) };
    let asked = !matches!(policy.name, None | Some(Policy::EMPTY | Policy::NO));
    if asked && host.auto_remove.unwrap_or(false) {
        return Err(Error::Invalid("can't create 'AutoRemove' container with restart policy".into()));
    }
    if policy.maximum_retry_count.unwrap_or(0) != 0 && policy.name != Some(Policy::ON_FAILURE) {
        return Err(Error::Invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'".into(),
        ));
    }
    Ok(())
}

/// The networks that are asked for: the mode's own, and those of the networking configuration.
fn networks(
    host: &models::HostConfig,
    networking: models::NetworkingConfig,
) -> BTreeMap<String, models::EndpointSettings> {
    let mut all: BTreeMap<String, models::EndpointSettings> = networking
        .endpoints_config
        .unwrap_or_default()
        .into_iter()
        .map(|(name, settings)| (if name == "default" { "bridge".into() } else { name }, settings))
        .collect();
    let mode = match host.network_mode.as_deref().unwrap_or_default() {
        "" | "default" => "bridge",
        mode => mode,
    };
    if !mode.starts_with("container:") {
        all.entry(mode.into()).or_default();
    }
    all
}

/// What the request leaves open comes from the image, by Docker's rules: an entrypoint in the request also drops the
/// image's command; environment, labels, ports and volumes are joined.
fn merge(mut config: models::ContainerConfig, image: &Image) -> models::ContainerConfig {
    let from = image.document.config.clone();
    if config.entrypoint.is_none() {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd = from.cmd;
        }
        config.entrypoint = from.entrypoint;
    } else if config.entrypoint.as_ref().is_some_and(|words| words.iter().all(String::is_empty)) {
        // `--entrypoint ""` takes the image's away.
        config.entrypoint = None;
    }
    let name_of = |entry: &str| entry.split('=').next().unwrap_or_default().to_string();
    let mut environment = config.env.take().unwrap_or_default();
    for entry in from.env.unwrap_or_default() {
        if !environment.iter().any(|own| name_of(own) == name_of(&entry)) {
            environment.push(entry);
        }
    }
    config.env = Some(environment);
    let mut labels = from.labels.unwrap_or_default();
    labels.extend(config.labels.take().unwrap_or_default());
    config.labels = Some(labels);
    let join = |own: Option<Vec<String>>, more: Option<Vec<String>>| {
        let mut all = own.unwrap_or_default();
        all.extend(more.unwrap_or_default());
        all.sort();
        all.dedup();
        (!all.is_empty()).then_some(all)
    };
    config.exposed_ports = join(config.exposed_ports, from.exposed_ports);
    config.volumes = join(config.volumes, from.volumes);
    let or = |own: Option<String>, other: Option<String>| own.filter(|text| !text.is_empty()).or(other);
    config.user = or(config.user, from.user);
    config.working_dir = or(config.working_dir, from.working_dir);
    config.stop_signal = or(config.stop_signal, from.stop_signal);
    config.healthcheck = merge_health(config.healthcheck, from.healthcheck);
    config
}

/// Times that the request leaves open (0) are the image's.
fn merge_health(
    own: Option<models::HealthConfig>,
    image: Option<models::HealthConfig>,
) -> Option<models::HealthConfig> {
    let (Some(own), Some(image)) = (own.clone(), image.clone()) else { return own.or(image) };
    let or = |own: Option<i64>, other: Option<i64>| own.filter(|value| *value != 0).or(other);
    Some(models::HealthConfig {
        test: own.test.filter(|test| !test.is_empty()).or(image.test),
        interval: or(own.interval, image.interval),
        timeout: or(own.timeout, image.timeout),
        retries: or(own.retries, image.retries),
        start_period: or(own.start_period, image.start_period),
        start_interval: or(own.start_interval, image.start_interval),
    })
}

/// Two words, as `patient_otter`; the namespace is small, so a few digits come with it.
fn random_name() -> Result<String> {
    const HOW: [&str; 16] = [
        "brave", "calm", "clever", "eager", "gentle", "happy", "kind", "lively", "merry", "nimble", "patient", "proud",
        "quick", "quiet", "sunny", "wise",
    ];
    const WHO: [&str; 16] = [
        "badger", "beaver", "crane", "falcon", "fox", "hare", "heron", "lynx", "marten", "otter", "owl", "raven",
        "seal", "swan", "tern", "wren",
    ];
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| Error::Failed(format!("get random bytes: {error}")))?;
    let number = u16::from_be_bytes([bytes[2], bytes[3]]);
    Ok(format!("{}_{}{number}", HOW[usize::from(bytes[0] % 16)], WHO[usize::from(bytes[1] % 16)]))
}
