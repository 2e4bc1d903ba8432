//! `-p` and `-P`: from the API's map of ports to what is to be published.

use crate::{
    error::{Error, Result},
    network::PublishedPort,
};
use bollard_stubs::models;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Every published port that the configuration asks for; host port 0 asks for a free one. No address: every one, IPv4
/// and IPv6.
pub fn asked(config: &models::ContainerConfig, host: &models::HostConfig) -> Result<Vec<PublishedPort>> {
    let mut ports = Vec::new();
    for (key, bindings) in host.port_bindings.iter().flatten() {
        let (container_port, protocol) = exposed(key)?;
        for binding in bindings.iter().flatten() {
            let text = binding.host_port.as_deref().unwrap_or_default();
            // A range in the API ("8000-8010") means any one of it; clients have taken ranges of both sides apart.
            let first = text.split('-').next().unwrap_or_default();
            let host_port = if first.is_empty() { 0 } else { first.parse::<u16>().map_err(|_| bad_port(text))? };
            for host_ip in addresses(binding.host_ip.as_deref().unwrap_or_default())? {
                ports.push(PublishedPort { host_ip, host_port, container_port, protocol: protocol.into() });
            }
        }
    }
    if host.publish_all_ports.unwrap_or(false) {
        for key in config.exposed_ports.iter().flatten() {
            let (container_port, protocol) = exposed(key)?;
            let asked = |port: &PublishedPort| port.container_port == container_port && port.protocol == protocol;
            if !ports.iter().any(asked) {
                for host_ip in addresses("")? {
                    ports.push(PublishedPort { host_ip, host_port: 0, container_port, protocol: protocol.into() });
                }
            }
        }
    }
    ports.sort_by_key(|port| (port.container_port, port.host_port, port.host_ip));
    Ok(ports)
}

/// `80/tcp`, `80`
pub fn exposed(key: &str) -> Result<(u16, &str)> {
    let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    if !["tcp", "udp"].contains(&protocol) {
        return Err(Error::NotImplemented(format!("port {key}: protocols other than tcp and udp")));
    }
    let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| bad_port(key))?;
    Ok((port, protocol))
}

fn bad_port(text: &str) -> Error {
    Error::Invalid(format!("invalid port specification: {text:?}"))
}

fn addresses(text: &str) -> Result<Vec<IpAddr>> {
    match text.trim_matches(['[', ']']) {
        "" => Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]),
        "localhost" => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
        address => Ok(vec![address.parse().map_err(|_| Error::Invalid(format!("invalid IP address: {text}")))?]),
    }
}

/// The API's map of what is published, with exposed ports that are not as null.
pub fn map(config: &models::ContainerConfig, published: &[PublishedPort]) -> models::PortMap {
    let mut map: models::PortMap = config.exposed_ports.iter().flatten().map(|key| (key.clone(), None)).collect();
    for port in published {
        let binding = models::PortBinding {
            host_ip: Some(port.host_ip.to_string()),
            host_port: Some(port.host_port.to_string()),
        };
        let key = format!("{}/{}", port.container_port, port.protocol);
        map.entry(key).or_default().get_or_insert_default().push(binding);
    }
    map
}
