//! `GET /containers/json`.

use super::{Container, Status, inspect::port_summaries};
use crate::{
    api::filters::Filters,
    engine::Engine,
    error::{Error, Result},
};
use bollard_stubs::models::{self, HealthStatusEnum};
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// Filters that a list of containers knows.
pub const FILTERS: [&str; 13] = [
    "ancestor", "before", "exited", "expose", "health", "id", "label", "name", "network", "publish", "since", "status",
    "volume",
];

/// What is to be listed.
pub struct ListOptions {
    /// Stopped ones too.
    pub all: bool,
    /// So many of the newest, whatever their state.
    pub limit: Option<usize>,
    /// With the bytes that each takes, which is slow.
    pub size: bool,
    pub filters: Filters,
}

impl Engine {
    pub fn list_containers(&self, options: &ListOptions) -> Result<Vec<models::ContainerSummary>> {
        let filters = &options.filters;
        let known = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
        if let Some(unknown) = filters.values("status").iter().find(|status| !known.contains(&status.as_str())) {
            return Err(Error::Invalid(format!("invalid filter 'status={unknown}'")));
        }
        let all = options.all
            || options.limit.is_some()
            || !filters.values("status").is_empty()
            || !filters.values("exited").is_empty();
        let ancestors: Vec<String> = filters
            .values("ancestor")
            .iter()
            .map(|reference| self.images.get(reference).map_or_else(|_| reference.clone(), |image| image.id))
            .collect();
        let time_of = |name: &str| -> Result<Option<DateTime<Utc>>> {
            filters.values(name).first().map(|other| Ok(self.containers.get(other)?.record().created)).transpose()
        };
        let (before, since) = (time_of("before")?, time_of("since")?);
        let listed = self.containers.list().into_iter().filter(|container| {
            let record = container.record();
            let status = record.state.status.as_str();
            let health = health_of(&record.state.health);
            (all || record.state.is_running() || record.state.status == Status::Restarting)
                && before.is_none_or(|time| record.created < time)
                && since.is_none_or(|time| record.created > time)
                && (ancestors.is_empty() || ancestors.contains(&record.image_id))
                && filters.any("status", |asked| asked == status)
                && filters.any("exited", |code| status == "exited" && code.parse() == Ok(record.state.exit_code))
                && filters.any("id", |id| record.id.starts_with(id))
                && filters.any("name", |name| name_matches(name, &record.name))
                && filters.any("network", |network| self.is_in_network(&record, network))
                && filters.any("volume", |volume| {
                    record.volume_names().iter().any(|name| name == volume)
                        || record.mounts.iter().any(|mount| mount.target == volume)
                })
                && filters.any("health", |asked| asked == health)
                && filters
                    .any("expose", |port| record.config.exposed_ports.iter().flatten().any(|key| same_port(key, port)))
                && filters.any("publish", |port| {
                    record
                        .state
                        .ports
                        .iter()
                        .any(|it| same_port(&format!("{}/{}", it.container_port, it.protocol), port))
                })
                && filters.labels(&record.labels())
        });
        Ok(listed
            .take(options.limit.unwrap_or(usize::MAX))
            .map(|container| self.summary(&container, options.size))
            .collect())
    }

    fn is_in_network(&self, record: &super::Record, network: &str) -> bool {
        let id = self.networks.get(network).ok().and_then(|network| network.name);
        record.networks.keys().any(|name| name == network || Some(name) == id.as_ref())
    }

    fn summary(&self, container: &Arc<Container>, size: bool) -> models::ContainerSummary {
        let record = container.record().clone();
        let (size_rw, size_root_fs) = if size { self.sizes(&record, container) } else { (None, None) };
        let state = &record.state;
        models::ContainerSummary {
            id: Some(record.id.clone()),
            names: Some(vec![format!("/{}", record.name)]),
            image: record.config.image.clone(),
            image_id: Some(record.image_id.clone()),
            command: Some(record.command().join(" ")),
            created: Some(record.created.timestamp()),
            ports: Some(port_summaries(&record.config, &state.ports)),
            labels: Some(record.labels()),
            state: state.status.as_str().parse().ok(),
            status: Some(status_text(state)),
            host_config: Some(models::ContainerSummaryHostConfig {
                network_mode: record.host_config.network_mode.clone(),
                annotations: None,
            }),
            network_settings: Some(models::ContainerSummaryNetworkSettings {
                networks: Some(record.networks.clone().into_iter().collect()),
            }),
            mounts: Some(self.mount_points(container)),
            size_rw,
            size_root_fs,
            ..Default::default()
        }
    }
}

/// Docker takes the name filter as a pattern; what people write is a part of a name, or one with `^` and `$`.
fn name_matches(pattern: &str, name: &str) -> bool {
    regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(name) || pattern.is_match(&format!("/{name}")))
}

fn same_port(key: &str, asked: &str) -> bool {
    let full = |text: &str| if text.contains('/') { text.to_string() } else { format!("{text}/tcp") };
    full(key) == full(asked)
}

fn health_of(health: &Option<models::Health>) -> String {
    let status = health.as_ref().and_then(|health| health.status).unwrap_or(HealthStatusEnum::NONE);
    status.to_string()
}

/// "Up 3 minutes (healthy)", "Exited (0) 2 hours ago"
fn status_text(state: &super::State) -> String {
    let since = |time: Option<DateTime<Utc>>| human((Utc::now() - time.unwrap_or_else(Utc::now)).num_seconds());
    match state.status {
        Status::Created => "Created".into(),
        Status::Removing => "Removal In Progress".into(),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Running => {
            let up = format!("Up {}", since(state.started_at));
            match state.health.as_ref().and_then(|health| health.status) {
                None => up,
                Some(HealthStatusEnum::STARTING) => format!("{up} (health: starting)"),
                Some(status) => format!("{up} ({status})"),
            }
        }
    }
}

/// A length of time in the words of docker's client.
fn human(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (minutes + 30) / 60;
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}
