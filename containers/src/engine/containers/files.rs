//! The files that are bound into a container: /etc/hosts, /etc/hostname, /etc/resolv.conf.

use super::Record;
use crate::{
    error::{Context, Error, Result},
    network::{self, resolver::Resolver},
};
use std::{fmt::Write, fs, path::Path};

/// Writes hostname and resolv.conf, which do not wait for an address.
pub fn write(record: &Record, folder: &Path) -> Result<()> {
    let user_defined = record.networks.keys().any(|name| !network::is_predefined(name));
    let host = &record.host_config;
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let resolver = || Resolver::for_container(&list(&host.dns), &list(&host.dns_search), &list(&host.dns_options));
    let resolv = if record.network_mode() == "host" && host.dns.as_ref().is_none_or(Vec::is_empty) {
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
    } else {
        let resolver = resolver();
        resolver.text(resolver.is_named(user_defined))
    };
    for (name, text) in [("resolv.conf", resolv), ("hostname", format!("{}\n", record.hostname()))] {
        let path = folder.join(name);
        fs::write(&path, text).at("write", &path)?;
    }
    hosts(record, folder, &[])
}

/// Writes the hosts file; again, once addresses are known. Written in place: it is bound into the container.
pub fn hosts(record: &Record, folder: &Path, addresses: &[(String, String)]) -> Result<()> {
    let path = folder.join("hosts");
    if record.network_mode() == "host" {
        let text = fs::read_to_string("/etc/hosts").unwrap_or_default();
        return fs::write(&path, text).at("write", &path);
    }
    let name = record.hostname();
    let names = match record.config.domainname.as_deref().filter(|domain| !domain.is_empty()) {
        Some(domain) => format!("{name}.{domain} {name}"),
        None => name,
    };
    let extra = record.host_config.extra_hosts.as_deref().unwrap_or_default();
    fs::write(&path, hosts_text(extra, addresses, &names)?).at("write", &path)
}

/// What /etc/hosts says in a network namespace of the container's own. `addresses`: of its interfaces, each with its
/// gateway; `names`: the container's own.
pub fn hosts_text(extra: &[String], addresses: &[(String, String)], names: &str) -> Result<String> {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for entry in extra {
        let (name, address) = extra_host(entry)?;
        let address = match address {
            // Docker's word for the host as the container sees it.
            "host-gateway" => addresses.first().map(|(_, gateway)| gateway.as_str()).unwrap_or_default(),
            other => other,
        };
        if !address.is_empty() {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    for (address, _) in addresses {
        let _ = writeln!(text, "{address}\t{names}");
    }
    Ok(text)
}

/// `name:address`; the address may be IPv6.
pub fn extra_host(entry: &str) -> Result<(&str, &str)> {
    entry
        .split_once([':', '='])
        .filter(|(name, address)| {
            !name.is_empty()
                && (*address == "host-gateway" || address.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok())
        })
        .map(|(name, address)| (name, address.trim_matches(['[', ']'])))
        .ok_or_else(|| Error::Invalid(format!("invalid IP address in add-host: {entry:?}")))
}
