//! The validated project: one value that nothing changes any more. As JSON it is what `config` prints, and what the
//! label `config-hash` is taken of.

use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf};

/// A whole project, every path absolute, every variable replaced.
#[derive(Debug, Clone, Serialize)]
pub struct Project {
    pub name: String,
    pub services: BTreeMap<String, Service>,
    pub networks: BTreeMap<String, Network>,
    pub volumes: BTreeMap<String, Volume>,
    pub secrets: BTreeMap<String, Item>,
    pub configs: BTreeMap<String, Item>,
    #[serde(skip)]
    pub directory: PathBuf,
    #[serde(skip)]
    pub files: Vec<PathBuf>,
    /// Services that a profile leaves out; they are still there when asked for by name.
    #[serde(skip)]
    pub inactive: BTreeMap<String, Service>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Service {
    #[serde(skip)]
    pub name: String,
    pub image: Option<String>,
    pub build: Option<Build>,
    pub command: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub environment: BTreeMap<String, String>,
    pub depends_on: BTreeMap<String, Dependency>,
    pub healthcheck: Option<Healthcheck>,
    pub secrets: Vec<Grant>,
    pub configs: Vec<Grant>,
    pub networks: BTreeMap<String, Membership>,
    pub network_mode: Option<String>,
    pub volumes: Vec<Mount>,
    pub tmpfs: Vec<String>,
    pub ports: Vec<Port>,
    pub expose: Vec<String>,
    pub init: Option<bool>,
    pub stop_signal: Option<String>,
    /// Seconds.
    pub stop_grace_period: Option<i64>,
    pub restart: Option<String>,
    pub profiles: Vec<String>,
    /// Bytes.
    pub mem_limit: Option<i64>,
    pub mem_reservation: Option<i64>,
    /// Bytes of memory and swap together; -1 without a limit.
    pub memswap_limit: Option<i64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<i64>,
    pub cpu_shares: Option<i64>,
    pub cpuset: Option<String>,
    pub pids_limit: Option<i64>,
    pub shm_size: Option<i64>,
    pub labels: BTreeMap<String, String>,
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub working_dir: Option<String>,
    pub read_only: bool,
    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: Vec<String>,
    pub extra_hosts: Vec<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_opt: Vec<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub container_name: Option<String>,
    pub ulimits: BTreeMap<String, (i64, i64)>,
    pub sysctls: BTreeMap<String, String>,
    pub tty: bool,
    pub stdin_open: bool,
    pub pid: Option<String>,
    pub ipc: Option<String>,
    pub logging: Option<Logging>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Build {
    pub context: PathBuf,
    pub dockerfile: Option<String>,
    pub args: BTreeMap<String, String>,
    pub target: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub network: Option<String>,
    pub extra_hosts: Vec<String>,
    pub tags: Vec<String>,
    pub no_cache: bool,
    pub pull: bool,
}

/// What of another service is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Condition {
    #[serde(rename = "service_started")]
    Started,
    #[serde(rename = "service_healthy")]
    Healthy,
    #[serde(rename = "service_completed_successfully")]
    CompletedSuccessfully,
}

impl Condition {
    /// The file's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Condition::Started => "service_started",
            Condition::Healthy => "service_healthy",
            Condition::CompletedSuccessfully => "service_completed_successfully",
        }
    }

    /// What the file's word means.
    pub fn named(name: &str) -> Option<Condition> {
        [Condition::Started, Condition::Healthy, Condition::CompletedSuccessfully]
            .into_iter()
            .find(|condition| condition.name() == name)
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Dependency {
    pub condition: Condition,
    pub required: bool,
    /// Whether the service is made anew when the other one was.
    pub restart: bool,
}

/// Times in nanoseconds, as the API has them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Healthcheck {
    /// `NONE` alone switches the image's own off.
    pub test: Option<Vec<String>>,
    pub interval: Option<i64>,
    pub timeout: Option<i64>,
    pub start_period: Option<i64>,
    pub start_interval: Option<i64>,
    pub retries: Option<i64>,
}

/// A secret or a config in a service: its name in the project and the file in the container.
#[derive(Debug, Clone, Serialize)]
pub struct Grant {
    pub source: String,
    pub target: String,
}

/// Where a secret or a config comes from.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Item {
    pub file: Option<PathBuf>,
    /// The variable that holds it; its value is in no output and no hash.
    pub environment: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Membership {
    pub aliases: Vec<String>,
    pub ipv4_address: Option<String>,
    pub ipv6_address: Option<String>,
    pub mac_address: Option<String>,
    pub priority: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    Bind,
    Volume,
    Tmpfs,
}

#[derive(Debug, Clone, Serialize)]
pub struct Mount {
    #[serde(rename = "type")]
    pub kind: MountKind,
    pub source: Option<String>,
    pub target: String,
    pub read_only: bool,
    pub nocopy: bool,
    pub create_host_path: bool,
    pub propagation: Option<String>,
    pub size: Option<i64>,
    pub mode: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    pub host_ip: Option<String>,
    /// Nothing: the engine picks one.
    pub published: Option<String>,
    pub target: u16,
    pub protocol: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Logging {
    pub driver: Option<String>,
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Network {
    /// The engine's name of it.
    pub name: String,
    pub external: bool,
    pub driver: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub internal: bool,
    pub attachable: bool,
    pub enable_ipv6: bool,
    pub labels: BTreeMap<String, String>,
    pub subnets: Vec<Subnet>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Subnet {
    pub subnet: Option<String>,
    pub gateway: Option<String>,
    pub ip_range: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Volume {
    /// The engine's name of it.
    pub name: String,
    pub external: bool,
    pub driver: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

impl Project {
    /// A service, whether a profile leaves it out or not.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name).or_else(|| self.inactive.get(name))
    }

    /// The reference that a service's image has.
    pub fn image_of(&self, service: &Service) -> String {
        service.image.clone().unwrap_or_else(|| format!("{}-{}", self.name, service.name))
    }

    /// The name of a service's one container.
    pub fn container_of(&self, service: &Service) -> String {
        service.container_name.clone().unwrap_or_else(|| format!("{}-{}-1", self.name, service.name))
    }
}
