//! What is known of a container, as container.json keeps it.

use crate::error::{Context, Result};
use bollard_stubs::models;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    path::Path,
};

/// container.json
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    /// Without the slash that the API shows.
    pub name: String,
    pub created: DateTime<Utc>,
    /// `sha256:…`
    pub image_id: String,
    /// The image's configuration and the request's, merged.
    pub config: models::ContainerConfig,
    pub host_config: models::HostConfig,
    /// By name of the network, as asked for; with addresses while it runs.
    pub networks: BTreeMap<String, models::EndpointSettings>,
    /// Binds, volumes and tmpfs, resolved.
    pub mounts: Vec<MountRecord>,
    pub state: State,
    pub restart_count: u64,
    /// It was stopped by a person: `unless-stopped` leaves it alone.
    #[serde(default)]
    pub stopped_by_user: bool,
    /// inception-init is PID 1 in it, and is waited for before the first signal.
    #[serde(default)]
    pub has_inception_init: bool,
}

/// A mount of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountRecord {
    pub target: String,
    pub kind: MountKind,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub propagation: Option<String>,
}

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    Bind {
        source: String,
    },
    Volume {
        name: String,
        /// Fill it from the image on first use.
        copy: bool,
    },
    Tmpfs {
        options: Vec<String>,
    },
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    /// Ended, and waiting to be started again.
    Restarting,
    Exited,
    /// Being removed.
    Removing,
}

/// A container's state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    pub pid: i32,
    pub exit_code: i32,
    pub error: String,
    pub oom_killed: bool,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    /// The shim's pid and start time, while it runs.
    pub shim: Option<(i32, u64)>,
    /// Ports as they were published.
    #[serde(default)]
    pub ports: Vec<crate::network::PublishedPort>,
    #[serde(skip)]
    pub health: Option<models::Health>,
}

impl Status {
    /// As the API says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
            Status::Removing => "removing",
        }
    }
}

impl State {
    pub fn is_running(&self) -> bool {
        self.status == Status::Running
    }
}

/// A time as the API shows it; Go's zero time where there is none.
pub fn api_time(time: Option<DateTime<Utc>>) -> String {
    time.map_or_else(|| "0001-01-01T00:00:00Z".into(), |time| time.to_rfc3339_opts(SecondsFormat::Nanos, true))
}

impl Record {
    /// The record in `folder`; None where there is none.
    pub fn read(folder: &Path) -> Result<Option<Record>> {
        let path = folder.join("container.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.at("read", &path)?,
        };
        serde_json::from_slice(&text).map(Some).map_err(std::io::Error::from).at("understand", &path)
    }

    /// Writes it whole or not at all. What a reboot removes anyway (`--rm`) need not reach the disk now.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("container.json");
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).at("encode", &path)?;
        let temporary = folder.join("container.json.new");
        let mut file = fs::File::create(&temporary).at("create", &temporary)?;
        file.write_all(&text).at("write", &temporary)?;
        if !self.host_config.auto_remove.unwrap_or(false) {
            file.sync_data().at("write", &temporary)?;
        }
        fs::rename(&temporary, &path).at("write", &path)
    }

    /// Names of the volumes it uses.
    pub fn volume_names(&self) -> Vec<String> {
        self.mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Volume { name, .. } => Some(name.clone()),
                _ => None,
            })
            .collect()
    }

    /// `default` is the bridge.
    pub fn network_mode(&self) -> &str {
        match self.host_config.network_mode.as_deref() {
            None | Some("" | "default") => "bridge",
            Some(mode) => mode,
        }
    }

    pub fn hostname(&self) -> String {
        self.config.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| self.id[..12].to_string())
    }

    pub fn labels(&self) -> HashMap<String, String> {
        self.config.labels.clone().unwrap_or_default()
    }

    /// The command line: what `Path` and `Args` show.
    pub fn command(&self) -> Vec<String> {
        let mut command = self.config.entrypoint.clone().unwrap_or_default();
        command.extend(self.config.cmd.clone().unwrap_or_default());
        command
    }
}
