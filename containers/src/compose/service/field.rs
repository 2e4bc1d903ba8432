//! Fields of a service that need nothing but themselves.

use crate::{
    compose::{
        model::{Condition, Dependency, Grant, Healthcheck, Logging, Membership, Port},
        values,
        yaml::{Node, Value, check_keys},
    },
    error::Result,
};
use std::collections::BTreeMap;

pub(super) fn duration(node: &Node, key: &str) -> Result<Option<i64>> {
    node.get(key)
        .map(|value| {
            values::duration(value.text()).ok_or_else(|| value.error(format!("`{key}` is a duration such as 1m30s")))
        })
        .transpose()
}

pub(super) fn bytes(node: &Node, key: &str) -> Result<Option<i64>> {
    node.get(key)
        .map(|value| values::bytes(value.text()).ok_or_else(|| value.error(format!("`{key}` is a size such as 64m"))))
        .transpose()
}

pub(super) fn cpus(node: &Node) -> Result<Option<i64>> {
    node.get("cpus").map(|cpus| Ok((cpus.number::<f64>("cpus")? * 1e9) as i64)).transpose()
}

pub(super) fn depends_on(node: Option<&Node>) -> Result<BTreeMap<String, Dependency>> {
    let Some(node) = node else { return Ok(BTreeMap::new()) };
    let plain = Dependency { condition: Condition::Started, required: true, restart: false };
    if let Value::List(_) | Value::Scalar { .. } = node.value {
        return Ok(node.list("depends_on")?.iter().map(|item| (item.text().to_owned(), plain.clone())).collect());
    }
    let mut found = BTreeMap::new();
    for (key, value) in node.map("depends_on")? {
        check_keys(value, &format!("depends_on {}", key.text()), &["condition", "required", "restart"], &[])?;
        let condition = match value.get("condition") {
            None => Condition::Started,
            Some(condition) => Condition::named(condition.text()).ok_or_else(|| {
                condition.error(format!(
                    "unknown condition {:?}; there are service_started, service_healthy and service_completed_successfully",
                    condition.text()
                ))
            })?,
        };
        let flag = |key: &str| value.get(key).map(|value| value.boolean(key)).transpose();
        let (required, restart) = (flag("required")?.unwrap_or(true), flag("restart")?.unwrap_or_default());
        found.insert(key.text().to_owned(), Dependency { condition, required, restart });
    }
    Ok(found)
}

pub(super) fn healthcheck(node: &Node) -> Result<Healthcheck> {
    check_keys(
        node,
        "healthcheck",
        &["disable", "interval", "retries", "start_interval", "start_period", "test", "timeout"],
        &[],
    )?;
    if node.get("disable").map(|value| value.boolean("disable")).transpose()?.unwrap_or_default() {
        return Ok(Healthcheck { test: Some(vec!["NONE".into()]), ..Healthcheck::default() });
    }
    let test = match node.get("test") {
        None => None,
        Some(test) => match &test.value {
            Value::Scalar { text, .. } => Some(vec!["CMD-SHELL".into(), text.clone()]),
            _ => {
                let words = values::strings(Some(test), "test")?;
                match words.first().map(String::as_str) {
                    Some("NONE" | "CMD" | "CMD-SHELL") => Some(words),
                    _ => return Err(test.error("a test in list form begins with CMD, CMD-SHELL or NONE")),
                }
            }
        },
    };
    Ok(Healthcheck {
        test,
        interval: duration(node, "interval")?,
        timeout: duration(node, "timeout")?,
        start_period: duration(node, "start_period")?,
        start_interval: duration(node, "start_interval")?,
        retries: node.get("retries").map(|value| value.number("retries")).transpose()?,
    })
}

pub(super) fn grants(node: Option<&Node>, what: &str, folder: &str) -> Result<Vec<Grant>> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for item in node.list(what)? {
        let (source, target) = match &item.value {
            Value::Map(_) => {
                // Docker ignores them too where a secret is a file: the file's own owner and mode count.
                for key in ["uid", "gid", "mode"] {
                    if item.get(key).is_some() {
                        log::warn!("{what}: `{key}` has no effect on a file that is mounted; its own counts");
                    }
                }
                check_keys(item, what, &["source", "target", "uid", "gid", "mode"], &[])?;
                let source = item.get("source").ok_or_else(|| item.error(format!("{what} need a `source`")))?;
                (source.string("source")?, item.get("target").map(|value| value.string("target")).transpose()?)
            }
            _ => (item.string(what)?, None),
        };
        let target = target.unwrap_or_else(|| source.clone());
        let target = if target.starts_with('/') { target } else { format!("{folder}{target}") };
        found.push(Grant { source, target });
    }
    Ok(found)
}

pub(super) fn memberships(node: Option<&Node>) -> Result<BTreeMap<String, Membership>> {
    let Some(node) = node else { return Ok(BTreeMap::new()) };
    if let Value::List(items) = &node.value {
        return items.iter().map(|item| Ok((item.string("networks")?, Membership::default()))).collect();
    }
    let mut found = BTreeMap::new();
    for (key, value) in node.map("networks")? {
        check_keys(
            value,
            &format!("network {}", key.text()),
            &["aliases", "ipv4_address", "ipv6_address", "mac_address", "priority"],
            &["driver_opts", "gw_priority", "interface_name", "link_local_ips"],
        )?;
        let text = |key: &str| value.get(key).map(|value| value.string(key)).transpose();
        let address = value.get("ipv4_address");
        if let Some(address) = address.filter(|node| node.text().parse::<std::net::Ipv4Addr>().is_err()) {
            return Err(address.error(format!("{:?} is no IPv4 address", address.text())));
        }
        found.insert(
            key.text().to_owned(),
            Membership {
                aliases: values::strings(value.get("aliases"), "aliases")?,
                ipv4_address: text("ipv4_address")?,
                ipv6_address: text("ipv6_address")?,
                mac_address: text("mac_address")?,
                priority: value.get("priority").map(|value| value.number("priority")).transpose()?.unwrap_or_default(),
            },
        );
    }
    Ok(found)
}

pub(super) fn ports(node: Option<&Node>) -> Result<Vec<Port>> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let mut found: Vec<Port> = Vec::new();
    for item in node.list("ports")? {
        let more = match &item.value {
            Value::Map(_) => {
                check_keys(
                    item,
                    "ports",
                    &["host_ip", "mode", "name", "protocol", "published", "target"],
                    &["app_protocol"],
                )?;
                if let Some(mode) = item.get("mode").filter(|mode| !matches!(mode.text(), "host" | "ingress")) {
                    return Err(mode.error("`mode` is host or ingress"));
                }
                let target = item.get("target").ok_or_else(|| item.error("a port needs a `target`"))?;
                vec![Port {
                    host_ip: item.get("host_ip").map(|value| value.string("host_ip")).transpose()?,
                    published: item.get("published").map(|value| value.string("published")).transpose()?,
                    target: target.number("target")?,
                    protocol: item.get("protocol").map_or(Ok("tcp".into()), |value| value.string("protocol"))?,
                }]
            }
            _ => values::ports(&item.string("ports")?).map_err(|message| item.error(message))?,
        };
        for port in more {
            if !found.contains(&port) {
                found.push(port);
            }
        }
    }
    Ok(found)
}

pub(super) fn ulimits(node: Option<&Node>) -> Result<BTreeMap<String, (i64, i64)>> {
    let Some(node) = node else { return Ok(BTreeMap::new()) };
    let mut found = BTreeMap::new();
    for (key, value) in node.map("ulimits")? {
        let limits = match &value.value {
            Value::Map(_) => {
                check_keys(value, "ulimits", &["soft", "hard"], &[])?;
                let side = |name: &str| {
                    value.get(name).ok_or_else(|| value.error(format!("a limit needs `{name}`")))?.number(name)
                };
                (side("soft")?, side("hard")?)
            }
            _ => (value.number("ulimits")?, value.number("ulimits")?),
        };
        found.insert(key.text().to_owned(), limits);
    }
    Ok(found)
}

pub(super) fn logging(node: &Node) -> Result<Logging> {
    check_keys(node, "logging", &["driver", "options"], &[])?;
    Ok(Logging {
        driver: node.get("driver").map(|value| value.string("driver")).transpose()?,
        options: values::labels(node.get("options"), "options")?,
    })
}
