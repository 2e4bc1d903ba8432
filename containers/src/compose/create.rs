//! A service as the body of `POST /containers/create`.

use super::{
    client,
    model::{Item, MountKind, Network, Project, Service},
};
use crate::error::{Context, Error, Result};
use bollard_stubs::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
    MountBindOptions, MountTmpfsOptions, MountType, MountVolumeOptions, NetworkingConfig, PortBinding,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
};

/// A container to be made: its body, with one network in it, and the networks that are connected afterwards.
pub struct Creation {
    pub body: ContainerCreateBody,
    pub more_networks: Vec<(String, EndpointSettings)>,
}

/// The hash that tells whether a container is still what the file asks for.
pub fn hash(project: &Project, service: &Service) -> Result<String> {
    hash_of(&(
        &project.name,
        service,
        &project.networks_of(service),
        &project.volumes_of(service),
        &project.items_of(service),
    ))
}

fn hash_of(value: &impl serde::Serialize) -> Result<String> {
    let json = serde_json::to_vec(value).map_err(|error| Error::Failed(format!("describe the project: {error}")))?;
    Ok(Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Network {
    /// The hash that tells whether a network is still what the file asks for.
    pub fn hash(&self) -> Result<String> {
        hash_of(self)
    }
}

impl Project {
    fn networks_of(&self, service: &Service) -> Vec<&Network> {
        service.networks.keys().filter_map(|key| self.networks.get(key)).collect()
    }

    fn volumes_of(&self, service: &Service) -> Vec<&String> {
        let keys = service.volumes.iter().filter_map(|mount| mount.source.as_ref());
        keys.filter_map(|key| Some(&self.volumes.get(key)?.name)).collect()
    }

    /// Where its secrets and configs come from; what is in them takes effect without a new container.
    fn items_of(&self, service: &Service) -> Vec<&Item> {
        let secrets = service.secrets.iter().filter_map(|grant| self.secrets.get(&grant.source));
        secrets.chain(service.configs.iter().filter_map(|grant| self.configs.get(&grant.source))).collect()
    }

    /// The labels of a container of this project.
    fn labels(&self, service: &Service, hash: &str, oneoff: bool) -> HashMap<String, String> {
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        let depends: Vec<String> = service
            .before()
            .map(|name| match service.depends_on.get(name) {
                Some(dependency) => format!("{name}:{}:{}", dependency.condition.name(), dependency.restart),
                None => format!("{name}:{}:false", super::model::Condition::Started.name()),
            })
            .collect();
        let own = [
            (client::PROJECT, self.name.clone()),
            (client::SERVICE, service.name.clone()),
            (client::NUMBER, "1".into()),
            (client::HASH, hash.to_owned()),
            (client::ONEOFF, if oneoff { "True" } else { "False" }.into()),
            (client::VERSION, client::SPOKEN_VERSION.into()),
            (client::DIRECTORY, self.directory.display().to_string()),
            (client::FILES, files.join(",")),
            (client::DEPENDS_ON, depends.join(",")),
        ];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
        service.labels.clone().into_iter().chain(own).collect()
    }
}

/// The body for a service's container. `shared` is the container whose network `network_mode: service:X` means.
pub fn creation(
    project: &Project,
    service: &Service,
    hash: &str,
    oneoff: bool,
    shared: Option<&str>,
) -> Result<Creation> {
    let list = |values: &[String]| (!values.is_empty()).then(|| values.to_vec());
    let (binds, mounts) = mounts(project, service)?;
    let mut networks = endpoints(project, service, oneoff);
    let first = (!networks.is_empty()).then(|| networks.remove(0));
    let mode = match (&service.network_mode, &first) {
        (Some(mode), _) if mode.starts_with("service:") => Some(format!("container:{}", shared.unwrap_or_default())),
        (Some(mode), _) => Some(mode.clone()),
        (None, Some((name, _))) => Some(name.clone()),
        (None, None) => None,
    };
    let mut exposed: Vec<String> = service
        .expose
        .iter()
        .map(|port| if port.contains('/') { port.clone() } else { format!("{port}/tcp") })
        .collect();
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &service.ports {
        let key = format!("{}/{}", port.target, port.protocol);
        if !exposed.contains(&key) {
            exposed.push(key.clone());
        }
        let binding =
            PortBinding { host_ip: port.host_ip.clone(), host_port: port.published.clone().or(Some(String::new())) };
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    let host_config = HostConfig {
        binds: list(&binds),
        mounts: (!mounts.is_empty()).then_some(mounts),
        network_mode: mode,
        port_bindings: (!bindings.is_empty()).then_some(bindings),
        restart_policy: service.restart.as_deref().filter(|_| !oneoff).map(restart),
        init: service.init,
        memory: service.mem_limit,
        memory_reservation: service.mem_reservation,
        memory_swap: service.memswap_limit,
        nano_cpus: service.nano_cpus,
        cpu_shares: service.cpu_shares,
        cpuset_cpus: service.cpuset.clone(),
        pids_limit: service.pids_limit,
        shm_size: service.shm_size,
        cap_add: list(&service.cap_add),
        cap_drop: list(&service.cap_drop),
        security_opt: list(&service.security_opt),
        extra_hosts: list(&service.extra_hosts),
        dns: list(&service.dns),
        dns_search: list(&service.dns_search),
        dns_options: list(&service.dns_opt),
        group_add: list(&service.group_add),
        privileged: service.privileged.then_some(true),
        readonly_rootfs: service.read_only.then_some(true),
        pid_mode: service.pid.clone(),
        ipc_mode: service.ipc.clone(),
        sysctls: (!service.sysctls.is_empty()).then(|| service.sysctls.clone().into_iter().collect()),
        tmpfs: (!service.tmpfs.is_empty()).then(|| {
            let split = |entry: &String| {
                let (path, options) = entry.split_once(':').unwrap_or((entry, ""));
                (path.to_owned(), options.to_owned())
            };
            service.tmpfs.iter().map(split).collect()
        }),
        ulimits: (!service.ulimits.is_empty()).then(|| {
            let limit = |(name, (soft, hard)): (&String, &(i64, i64))| ResourcesUlimits {
                name: Some(name.clone()),
                soft: Some(*soft),
                hard: Some(*hard),
            };
            service.ulimits.iter().map(limit).collect()
        }),
        log_config: service.logging.as_ref().map(|logging| HostConfigLogConfig {
            typ: logging.driver.clone().or(Some("json-file".into())),
            config: Some(logging.options.clone().into_iter().collect()),
        }),
        ..HostConfig::default()
    };
    let body = ContainerCreateBody {
        image: Some(project.image_of(service)),
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        user: service.user.clone(),
        working_dir: service.working_dir.clone(),
        cmd: service.command.clone(),
        entrypoint: service.entrypoint.clone(),
        env: Some(service.environment.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        exposed_ports: list(&exposed),
        tty: Some(service.tty),
        open_stdin: Some(service.stdin_open),
        healthcheck: service.healthcheck.as_ref().map(|check| HealthConfig {
            test: check.test.clone(),
            interval: check.interval,
            timeout: check.timeout,
            retries: check.retries,
            start_period: check.start_period,
            start_interval: check.start_interval,
        }),
        labels: Some(project.labels(service, hash, oneoff)),
        stop_signal: service.stop_signal.clone(),
        stop_timeout: service.stop_grace_period,
        host_config: Some(host_config),
        networking_config: first
            .map(|(name, settings)| NetworkingConfig { endpoints_config: Some(HashMap::from([(name, settings)])) }),
        ..ContainerCreateBody::default()
    };
    Ok(Creation { body, more_networks: networks })
}

fn restart(text: &str) -> RestartPolicy {
    let (name, count) = text.split_once(':').unwrap_or((text, "0"));
    RestartPolicy {
        name: Some(match name {
            "always" => RestartPolicyNameEnum::ALWAYS,
            "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
            "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
            _ => RestartPolicyNameEnum::NO,
        }),
        maximum_retry_count: count.parse().ok(),
    }
}

/// The networks, the one of the highest priority first, with the service's name as an alias on each.
fn endpoints(project: &Project, service: &Service, oneoff: bool) -> Vec<(String, EndpointSettings)> {
    let mut memberships: Vec<_> = service.networks.iter().collect();
    memberships.sort_by_key(|(_, membership)| -membership.priority);
    let endpoint = |(key, membership): (&String, &super::model::Membership)| {
        let network = project.networks.get(key)?;
        let mut aliases = membership.aliases.clone();
        if !oneoff {
            aliases.insert(0, service.name.clone());
        }
        let is_fixed = !oneoff && (membership.ipv4_address.is_some() || membership.ipv6_address.is_some());
        let settings = EndpointSettings {
            aliases: (!aliases.is_empty()).then_some(aliases),
            mac_address: membership.mac_address.clone(),
            ipam_config: is_fixed.then(|| EndpointIpamConfig {
                ipv4_address: membership.ipv4_address.clone(),
                ipv6_address: membership.ipv6_address.clone(),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        };
        Some((network.name.clone(), settings))
    };
    memberships.into_iter().filter_map(endpoint).collect()
}

/// Volumes, binds, secrets and configs: what Docker's short form can say, and what only the long one can.
fn mounts(project: &Project, service: &Service) -> Result<(Vec<String>, Vec<Mount>)> {
    let (mut binds, mut mounts) = (Vec::new(), Vec::new());
    for mount in &service.volumes {
        let source = match (mount.kind, &mount.source) {
            (MountKind::Volume, Some(key)) => project.volumes.get(key).map(|volume| volume.name.clone()),
            (_, source) => source.clone(),
        };
        match (mount.kind, source) {
            (MountKind::Bind, Some(source)) if mount.create_host_path => {
                let mut options = vec![if mount.read_only { "ro" } else { "rw" }];
                options.extend(mount.propagation.as_deref());
                binds.push(format!("{source}:{}:{}", mount.target, options.join(",")));
            }
            (MountKind::Volume, Some(source)) => {
                let mut options = vec![if mount.read_only { "ro" } else { "rw" }];
                options.extend(mount.nocopy.then_some("nocopy"));
                binds.push(format!("{source}:{}:{}", mount.target, options.join(",")));
            }
            (kind, source) => mounts.push(Mount {
                typ: Some(match kind {
                    MountKind::Bind => MountType::BIND,
                    MountKind::Volume => MountType::VOLUME,
                    MountKind::Tmpfs => MountType::TMPFS,
                }),
                source,
                target: Some(mount.target.clone()),
                read_only: Some(mount.read_only),
                bind_options: mount.propagation.as_ref().map(|propagation| MountBindOptions {
                    propagation: propagation.parse().ok(),
                    ..MountBindOptions::default()
                }),
                volume_options: mount
                    .nocopy
                    .then(|| MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
                tmpfs_options: (kind == MountKind::Tmpfs).then(|| MountTmpfsOptions {
                    size_bytes: mount.size,
                    mode: mount.mode,
                    ..MountTmpfsOptions::default()
                }),
                ..Mount::default()
            }),
        }
    }
    let secrets = service.secrets.iter().map(|grant| ("secret", grant, project.secrets.get(&grant.source)));
    let configs = service.configs.iter().map(|grant| ("config", grant, project.configs.get(&grant.source)));
    for (kind, grant, item) in secrets.chain(configs) {
        let item = item.ok_or_else(|| Error::invalid(format!("there is no {kind} {}", grant.source)))?;
        let path = match (&item.file, &item.environment) {
            (Some(file), _) if file.exists() => file.clone(),
            (Some(file), _) => {
                return Err(Error::invalid(format!(
                    "the file of the {kind} {} is missing: {}; service {} needs it",
                    grant.source,
                    file.display(),
                    service.name
                )));
            }
            (None, variable) => {
                from_environment(&project.name, kind, &grant.source, variable.as_deref().unwrap_or_default())?
            }
        };
        mounts.push(Mount {
            typ: Some(MountType::BIND),
            source: Some(path.display().to_string()),
            target: Some(grant.target.clone()),
            read_only: Some(true),
            ..Mount::default()
        });
    }
    Ok((binds, mounts))
}

/// Where values of variables lie while a project is up: in memory, the user's alone.
pub fn runtime_folder(project: &str) -> PathBuf {
    let base = match nix::unistd::Uid::effective().is_root() {
        true => PathBuf::from("/run"),
        false => std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from),
    };
    base.join("inception-compose").join(project)
}

fn from_environment(project: &str, kind: &str, name: &str, variable: &str) -> Result<PathBuf> {
    let value = std::env::var_os(variable).ok_or_else(|| {
        Error::invalid(format!("the {kind} {name} is taken from the variable {variable}, which is not set"))
    })?;
    let folder = runtime_folder(project);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).at("make the folder", &folder)?;
    let path = folder.join(format!("{kind}-{name}"));
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).at("write", &path)?;
    file.write_all(std::os::unix::ffi::OsStrExt::as_bytes(value.as_os_str())).at("write", &path)?;
    Ok(path)
}
