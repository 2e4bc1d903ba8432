//! `GET /containers/{id}/json`.

use super::{Container, Status, ports, record::MountKind, record::api_time};
use crate::{engine::Engine, network::PublishedPort};
use bollard_stubs::models;
use std::collections::HashMap;

impl Engine {
    /// Everything that is known of a container. Blocking only as far as the volumes' records go.
    pub fn inspect_container(&self, container: &Container, size: bool) -> models::ContainerInspectResponse {
        let record = container.record().clone();
        let state = &record.state;
        let running = state.is_running() || state.status == Status::Restarting;
        let file = |name: &str| Some(container.folder.join(name).display().to_string());
        let command = record.command();
        let (size_rw, size_root_fs) = if size { self.sizes(&record, container) } else { (None, None) };
        let mut networks: HashMap<String, models::EndpointSettings> = record.networks.clone().into_iter().collect();
        for (name, endpoint) in &mut networks {
            if let Ok(network) = self.networks.get(name) {
                endpoint.network_id = network.id;
            }
        }
        models::ContainerInspectResponse {
            id: Some(record.id.clone()),
            created: Some(record.created),
            path: command.first().cloned(),
            args: Some(command.iter().skip(1).cloned().collect()),
            state: Some(models::ContainerState {
                status: state.status.as_str().parse().ok(),
                running: Some(running),
                paused: Some(false),
                restarting: Some(state.status == Status::Restarting),
                oom_killed: Some(state.oom_killed),
                dead: Some(false),
                pid: Some(i64::from(state.pid)),
                exit_code: Some(i64::from(state.exit_code)),
                error: Some(state.error.clone()),
                started_at: Some(api_time(state.started_at)),
                finished_at: Some(api_time(state.finished_at)),
                health: state.health.clone(),
            }),
            image: Some(record.image_id.clone()),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path: file(&format!("{}-json.log", record.id)),
            name: Some(format!("/{}", record.name)),
            restart_count: Some(record.restart_count as i64),
            driver: Some("overlay2".into()),
            platform: Some("linux".into()),
            mount_label: Some(String::new()),
            process_label: Some(String::new()),
            app_armor_profile: Some(String::new()),
            exec_ids: Some(self.execs.of(&record.id)),
            host_config: Some(record.host_config.clone()),
            graph_driver: Some(models::DriverData {
                name: "overlay2".into(),
                data: ["upper", "work", "merged"]
                    .map(|name| {
                        let key = format!("{}{}Dir", &name[..1].to_uppercase(), &name[1..]);
                        (key, container.folder.join(name).display().to_string())
                    })
                    .into_iter()
                    .collect(),
            }),
            size_rw,
            size_root_fs,
            mounts: Some(self.mount_points(container)),
            config: Some(models::ContainerConfig { hostname: Some(record.hostname()), ..record.config.clone() }),
            network_settings: Some(models::NetworkSettings {
                sandbox_id: Some(String::new()),
                sandbox_key: state.shim.map(|(pid, _)| format!("/proc/{pid}/ns/net")),
                ports: Some(if state.is_running() { ports::map(&record.config, &state.ports) } else { HashMap::new() }),
                networks: Some(networks),
            }),
            ..Default::default()
        }
    }

    /// Bytes of the container's own layer, and with its image's.
    pub(super) fn sizes(&self, record: &super::Record, container: &Container) -> (Option<i64>, Option<i64>) {
        let files = walkdir::WalkDir::new(container.folder.join("upper")).into_iter().filter_map(|entry| entry.ok());
        let own: u64 = files
            .filter(|entry| entry.file_type().is_file())
            .filter_map(|entry| Some(entry.metadata().ok()?.len()))
            .sum();
        let image = self.images.get(&record.image_id).map_or(0, |image| image.size);
        (Some(own as i64), Some((own + image) as i64))
    }

    /// The mounts as `inspect` and `ps` show them.
    pub(super) fn mount_points(&self, container: &Container) -> Vec<models::MountPoint> {
        let mounts = container.record().mounts.clone();
        let point = |mount: super::record::MountRecord| {
            let mut point = models::MountPoint {
                destination: Some(mount.target),
                mode: Some(String::new()),
                rw: Some(!mount.read_only),
                propagation: mount.propagation.or(Some(String::new())),
                ..Default::default()
            };
            match mount.kind {
                MountKind::Bind { source } => {
                    point.typ = Some("bind".into());
                    point.source = Some(source);
                    point.propagation = point.propagation.filter(|it| !it.is_empty()).or(Some("rprivate".into()));
                }
                MountKind::Volume { name, .. } => {
                    point.typ = Some("volume".into());
                    point.source = self.volumes.get(&name).ok().map(|volume| volume.mountpoint);
                    point.name = Some(name);
                    point.driver = Some("local".into());
                }
                MountKind::Tmpfs { .. } => point.typ = Some("tmpfs".into()),
            }
            point
        };
        mounts.into_iter().map(point).collect()
    }
}

/// Ports as `ps` shows them.
pub(super) fn port_summaries(
    config: &models::ContainerConfig,
    published: &[PublishedPort],
) -> Vec<models::PortSummary> {
    let kind = |protocol: &str| protocol.parse::<models::PortSummaryTypeEnum>().ok();
    let mut list: Vec<models::PortSummary> = published
        .iter()
        .map(|port| models::PortSummary {
            ip: Some(port.host_ip.to_string()),
            private_port: port.container_port,
            public_port: Some(port.host_port),
            typ: kind(&port.protocol),
        })
        .collect();
    for key in config.exposed_ports.iter().flatten() {
        let Ok((port, protocol)) = ports::exposed(key) else { continue };
        if !published.iter().any(|other| other.container_port == port && other.protocol == protocol) {
            list.push(models::PortSummary { private_port: port, typ: kind(protocol), ..Default::default() });
        }
    }
    list
}
