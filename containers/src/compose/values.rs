//! The small languages inside a Compose file: durations, sizes, ports, key=value.

use super::yaml::{Node, Value};
use crate::{compose::model::Port, error::Result};
use std::collections::BTreeMap;

/// "1m30s" in nanoseconds; a bare number is seconds.
pub fn duration(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1_000_000_000).filter(|value| *value >= 0);
    }
    let (mut total, mut rest) = (0f64, text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "h" => 3600e9,
                "m" => 60e9,
                "s" => 1e9,
                "ms" => 1e6,
                "us" | "µs" => 1e3,
                "ns" => 1.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (total < 9e18).then_some(total as i64)
}

/// "512m" in bytes, in powers of 1024.
pub fn bytes(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "" | "b" => 1f64,
        "k" | "kb" | "kib" => 1024f64,
        "m" | "mb" | "mib" => 1024f64.powi(2),
        "g" | "gb" | "gib" => 1024f64.powi(3),
        "t" | "tb" | "tib" => 1024f64.powi(4),
        _ => return None,
    };
    let total = number * factor;
    (total < 9e18).then_some(total as i64)
}

/// "[IP:][HOST[-HOST]:]CONTAINER[-CONTAINER][/PROTOCOL]", ranges taken apart.
pub fn ports(text: &str) -> Result<Vec<Port>, String> {
    let wrong = || format!("{text:?} is no port: write it as \"8443:443\", \"127.0.0.1:8443:443/tcp\" or \"443\"");
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let (rest, container) = rest.rsplit_once(':').map_or((None, rest), |(rest, last)| (Some(rest), last));
    let (host_ip, published) = match rest {
        None => (None, None),
        Some(rest) => match rest.rsplit_once(':') {
            None => (None, Some(rest)),
            Some((ip, published)) => {
                let ip = ip.trim_start_matches('[').trim_end_matches(']');
                ip.parse::<std::net::IpAddr>().map_err(|_| wrong())?;
                (Some(ip.to_owned()), Some(published).filter(|published| !published.is_empty()))
            }
        },
    };
    let targets = range(container).ok_or_else(wrong)?;
    let published = published.map(|text| range(text).ok_or_else(wrong)).transpose()?;
    let port = |target, published: Option<u16>| Port {
        host_ip: host_ip.clone(),
        published: published.map(|port| port.to_string()),
        target,
        protocol: protocol.to_owned(),
    };
    match published {
        None => Ok(targets.map(|target| port(target, None)).collect()),
        Some(published) if published.len() == targets.len() => {
            Ok(targets.zip(published).map(|(target, published)| port(target, Some(published))).collect())
        }
        // A range for one port: the engine picks one of it.
        Some(published) if targets.len() == 1 => Ok(vec![Port {
            published: Some(format!("{}-{}", published.start(), published.end())),
            ..port(*targets.start(), None)
        }]),
        Some(_) => Err(format!("{text:?}: the two ranges are not of one length")),
    }
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then_some(first..=last)
}

/// A mapping, or a list of KEY=VALUE; a key without a value has none.
pub fn pairs(node: Option<&Node>, what: &str) -> Result<BTreeMap<String, Option<String>>> {
    let mut found = BTreeMap::new();
    let Some(node) = node else { return Ok(found) };
    match &node.value {
        Value::List(items) => {
            for item in items {
                let text = item.string(what)?;
                let (key, value) = match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (text, None),
                };
                if key.is_empty() {
                    return Err(item.error(format!("{what}: a name must stand before the `=`")));
                }
                found.insert(key, value);
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                let value = match value.is_null() {
                    true => None,
                    false => Some(value.string(&format!("{what}: {}", key.text()))?),
                };
                found.insert(key.text().to_owned(), value);
            }
        }
        Value::Scalar { .. } => return Err(node.error(format!("{what} must be a mapping or a list of KEY=VALUE"))),
    }
    Ok(found)
}

/// As [`pairs`], an absent value empty: labels and driver options.
pub fn labels(node: Option<&Node>, what: &str) -> Result<BTreeMap<String, String>> {
    Ok(pairs(node, what)?.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// One string, or a list of them.
pub fn strings(node: Option<&Node>, what: &str) -> Result<Vec<String>> {
    match node {
        None => Ok(Vec::new()),
        Some(Node { value: Value::List(items), .. }) => items.iter().map(|item| item.string(what)).collect(),
        Some(node) => Ok(vec![node.string(what)?]),
    }
}

/// A command: a list as it is, a string split as a shell would, without running one.
pub fn command(node: &Node, what: &str) -> Result<Vec<String>> {
    match &node.value {
        Value::List(_) => strings(Some(node), what),
        _ => shlex::split(&node.string(what)?)
            .ok_or_else(|| node.error(format!("{what}: a quotation mark is never closed"))),
    }
}

/// HOST:IP or HOST=IP in a list, or a mapping; as HOST:IP.
pub fn hosts(node: Option<&Node>, what: &str) -> Result<Vec<String>> {
    match node {
        Some(Node { value: Value::Map(_), .. }) => {
            Ok(labels(node, what)?.into_iter().map(|(name, ip)| format!("{name}:{ip}")).collect())
        }
        Some(node) => node
            .list(what)?
            .iter()
            .map(|item| {
                let text = item.string(what)?;
                match text.split_once(['=', ':']) {
                    Some((name, ip)) if !name.is_empty() && !ip.is_empty() => Ok(format!("{name}:{ip}")),
                    _ => Err(item.error(format!("{what}: {text:?} must be HOST=ADDRESS"))),
                }
            })
            .collect(),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("1m30s"), Some(90_000_000_000));
        assert_eq!(duration("1.5s"), Some(1_500_000_000));
        assert_eq!(duration("100ms"), Some(100_000_000));
        assert_eq!(duration("10"), Some(10_000_000_000));
        assert_eq!([duration("x"), duration("1y"), duration(""), duration("-1")], [None; 4]);
        assert_eq!(
            [bytes("1.5k"), bytes("64M"), bytes("2gb"), bytes("7")].map(Option::unwrap),
            [1536, 64 << 20, 2 << 30, 7]
        );
        assert_eq!([bytes("x"), bytes("1q"), bytes("")], [None; 3]);
    }

    #[test]
    fn ports_in_every_form() {
        let show = |text: &str| -> Vec<String> {
            ports(text)
                .unwrap()
                .into_iter()
                .map(|p| format!("{:?} {:?} {} {}", p.host_ip, p.published, p.target, p.protocol))
                .collect()
        };
        assert_eq!(show("443"), ["None None 443 tcp"]);
        assert_eq!(show("8443:443/udp"), ["None Some(\"8443\") 443 udp"]);
        assert_eq!(show("127.0.0.1:1:2"), ["Some(\"127.0.0.1\") Some(\"1\") 2 tcp"]);
        assert_eq!(show("[::1]:1:2"), ["Some(\"::1\") Some(\"1\") 2 tcp"]);
        assert_eq!(show("127.0.0.1::2"), ["Some(\"127.0.0.1\") None 2 tcp"]);
        assert_eq!(show("1-2:3-4"), ["None Some(\"1\") 3 tcp", "None Some(\"2\") 4 tcp"]);
        assert_eq!(show("10-20:3"), ["None Some(\"10-20\") 3 tcp"]);
        for text in ["", "x", "1:2:3:x", "0", "70000", "1-3:1-2", "80/http", "2-1"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }
}
