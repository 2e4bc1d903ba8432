//! The engine's one nftables table: outbound NAT, published ports, isolation between networks. It is written whole in
//! nft(8)'s own language, in one transaction, from what the engine knows: no rule is ever edited in place.
//!
//! Nothing else on the machine is touched, but for what a packet filter that drops forwarded packets makes needed: one
//! commented pair of rules a network in Docker's chain for users, removed with the network.

use super::PublishedPort;
use crate::{
    api::blocking,
    error::{Context, Error, Result},
};
use ipnet::Ipv4Net;
use std::{
    fmt::Write as _,
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

/// What the rules of a network say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub interface: String,
    pub subnet: Ipv4Net,
    pub internal: bool,
    pub masquerade: bool,
}

/// What the table is made from.
#[derive(Debug, Default)]
pub struct Rules {
    pub bridges: Vec<Bridge>,
    /// A published port and the container's address.
    pub ports: Vec<(PublishedPort, Ipv4Addr)>,
    /// Interfaces between which nothing was forwarded before this engine turned forwarding on.
    pub uplinks: Vec<String>,
}

/// The table's name: one an engine.
pub fn table(instance: &str) -> String {
    format!("inception_{instance}")
}

/// The table as nft(8) reads it; it replaces the one that is there.
fn script(table: &str, rules: &Rules) -> String {
    let quoted =
        |names: &mut dyn Iterator<Item = &str>| names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let ours = quoted(&mut rules.bridges.iter().map(|bridge| bridge.interface.as_str()));
    let mut text = format!("table ip {table} {{}}\ndelete table ip {table}\ntable ip {table} {{\n");
    let mut chain = |name: &str, kind: &str, lines: Vec<String>| {
        let _ = writeln!(text, "  chain {name} {{\n    type {kind}; policy accept;");
        for line in lines {
            let _ = writeln!(text, "    {line}");
        }
        text.push_str("  }\n");
    };

    // What comes from a container itself, and from this machine, goes to the helper's listening socket.
    let mut published = Vec::new();
    if !ours.is_empty() {
        published.push(format!("iifname {{ {ours} }} return"));
    }
    for (port, address) in &rules.ports {
        let IpAddr::V4(host) = port.host_ip else { continue };
        if host.is_loopback() {
            continue;
        }
        let to = if host.is_unspecified() { "fib daddr type local".into() } else { format!("ip daddr {host}") };
        let PublishedPort { host_port, container_port, protocol, .. } = port;
        published.push(format!("{to} {protocol} dport {host_port} dnat to {address}:{container_port}"));
    }
    chain("published", "nat hook prerouting priority dstnat", published);

    let outbound = rules.bridges.iter().filter(|bridge| bridge.masquerade && !bridge.internal);
    let outbound =
        outbound.map(|bridge| format!("ip saddr {} oifname != \"{}\" masquerade", bridge.subnet, bridge.interface));
    chain("outbound", "nat hook postrouting priority srcnat", outbound.collect());

    let mut forwarded = Vec::new();
    for bridge in &rules.bridges {
        let name = &bridge.interface;
        forwarded.push(format!("iifname \"{name}\" oifname \"{name}\" accept"));
        if bridge.internal {
            forwarded.push(format!("iifname \"{name}\" drop"));
            forwarded.push(format!("oifname \"{name}\" drop"));
        }
    }
    if !ours.is_empty() {
        // A network's containers reach another network's by published ports alone, and so do other machines.
        forwarded.push(format!("iifname {{ {ours} }} oifname {{ {ours} }} drop"));
        forwarded.push(format!("oifname {{ {ours} }} ct state established,related accept"));
        forwarded.push(format!("oifname {{ {ours} }} ct status dnat accept"));
        forwarded.push(format!("oifname {{ {ours} }} drop"));
    }
    if !rules.uplinks.is_empty() {
        let uplinks = quoted(&mut rules.uplinks.iter().map(String::as_str));
        forwarded.push(format!("iifname {{ {uplinks} }} oifname {{ {uplinks} }} drop"));
    }
    chain("forwarded", "filter hook forward priority filter", forwarded);
    text.push_str("}\n");
    text
}

/// Replaces the engine's table.
pub async fn apply(instance: &str, rules: &Rules) -> Result<()> {
    let script = script(&table(instance), rules);
    blocking(move || nft(&script)).await
}

/// Removes the engine's table; one that is not there is fine.
pub async fn remove(instance: &str) -> Result<()> {
    let table = table(instance);
    blocking(move || nft(&format!("table ip {table} {{}}\ndelete table ip {table}\n"))).await
}

/// Runs nft(8) on a script, in the network namespace of the calling thread. Blocking.
pub fn nft(script: &str) -> Result<()> {
    let mut child = std::process::Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .doing("run nft, which networks need (on Debian: apt-get install nftables)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).doing("write to nft")?;
    }
    let output = child.wait_with_output().doing("wait for nft")?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Program {
        program: "nft".into(),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim().into(),
    })
}

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Turns IPv4 forwarding on. The interfaces to keep apart all the same: those that are here when this engine turns it
/// on, so that the machine becomes no router for others. `memory` keeps them until the next boot.
pub fn turn_forwarding_on(memory: &Path, interfaces: Vec<String>) -> Result<Vec<String>> {
    let value = fs::read_to_string(IP_FORWARD).doing(format_args!("read {IP_FORWARD}"))?;
    if value.trim() != "0" {
        return Ok(fs::read(memory).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default());
    }
    let uplinks: Vec<String> = interfaces.into_iter().filter(|name| name != "lo").collect();
    // Remembered first: a daemon that is killed between the two steps leaves a list that has no effect.
    let text = serde_json::to_vec(&uplinks).map_err(std::io::Error::from).at("encode", memory)?;
    fs::write(memory, text).at("write", memory)?;
    fs::write(IP_FORWARD, "1").doing(format_args!("turn IPv4 forwarding on ({IP_FORWARD})"))?;
    Ok(uplinks)
}

/// What another packet filter does to forwarded packets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Foreign {
    Passes,
    /// It drops them, and has a chain for rules of users.
    DropsButAsks,
    Drops,
}

/// Sees to it that packets of `bridge` are forwarded, where iptables' FORWARD drops by policy: by a pair of rules in
/// DOCKER-USER; where there is no such chain, the error says what to run.
pub async fn admit(instance: &str, bridge: &str) -> Result<()> {
    let Some(iptables) = iptables() else { return Ok(()) };
    match foreign(&iptables, bridge).await? {
        Foreign::Passes => Ok(()),
        Foreign::DropsButAsks => {
            for direction in ["-i", "-o"] {
                let rule = admission(instance, bridge, direction);
                if !run(&iptables, &[&["-C", "DOCKER-USER"], &words(&rule)[..]].concat()).await?.0 {
                    let (ok, said) = run(&iptables, &[&["-I", "DOCKER-USER"], &words(&rule)[..]].concat()).await?;
                    if !ok {
                        return Err(Error::Failed(format!("add a rule for {bridge} to DOCKER-USER: {said}")));
                    }
                }
            }
            Ok(())
        }
        Foreign::Drops => Err(Error::Failed(format!(
            "a firewall on this machine drops forwarded packets (iptables -S FORWARD: policy DROP), so containers would reach nothing and nobody them. Allow this network, then try again:\n    iptables -I FORWARD -i {bridge} -j ACCEPT && iptables -I FORWARD -o {bridge} -j ACCEPT"
        ))),
    }
}

/// Takes back what [`admit`] added for a bridge.
pub async fn dismiss(instance: &str, bridge: &str) -> Result<()> {
    let Some(iptables) = iptables() else { return Ok(()) };
    for direction in ["-i", "-o"] {
        let rule = admission(instance, bridge, direction);
        // Not there is what is wanted.
        run(&iptables, &[&["-D", "DOCKER-USER"], &words(&rule)[..]].concat()).await?;
    }
    Ok(())
}

fn admission(instance: &str, bridge: &str, direction: &str) -> Vec<String> {
    let comment = format!("inception {instance}");
    [direction, bridge, "-m", "comment", "--comment", &comment, "-j", "ACCEPT"].map(String::from).into()
}

fn words(rule: &[String]) -> Vec<&str> {
    rule.iter().map(String::as_str).collect()
}

async fn foreign(iptables: &Path, bridge: &str) -> Result<Foreign> {
    let (ok, rules) = run(iptables, &["-S"]).await?;
    if !ok || !rules.lines().any(|line| line == "-P FORWARD DROP") {
        return Ok(Foreign::Passes);
    }
    let by_hand = |direction: &str| {
        let rule = format!("-A FORWARD {direction} {bridge} -j ACCEPT");
        rules.lines().any(|line| line == rule)
    };
    Ok(if by_hand("-i") && by_hand("-o") {
        Foreign::Passes
    } else if rules.lines().any(|line| line == "-N DOCKER-USER") {
        Foreign::DropsButAsks
    } else {
        Foreign::Drops
    })
}

fn iptables() -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];
    folders.iter().map(|folder| Path::new(folder).join("iptables")).find(|path| path.exists())
}

async fn run(program: &Path, args: &[&str]) -> Result<(bool, String)> {
    let output = Command::new(program)
        .arg("--wait")
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .doing(format_args!("run {}", program.display()))?;
    let said = if output.status.success() { output.stdout } else { output.stderr };
    Ok((output.status.success(), String::from_utf8_lossy(&said).trim_end().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_forwarded() {
        let bridge = |name: &str, subnet: &str, internal| Bridge {
            interface: name.into(),
            subnet: subnet.parse().unwrap(),
            internal,
            masquerade: true,
        };
        let port = |host_ip: &str, protocol: &str| PublishedPort {
            host_ip: host_ip.parse().unwrap(),
            host_port: 8080,
            container_port: 80,
            protocol: protocol.into(),
        };
        let address = Ipv4Addr::new(198, 18, 0, 2);
        let text = script(
            "t",
            &Rules {
                bridges: vec![bridge("one", "198.18.0.0/24", false), bridge("two", "198.18.1.0/24", true)],
                ports: ["0.0.0.0", "192.0.2.1", "127.0.0.1", "::"].map(|ip| (port(ip, "tcp"), address)).into(),
                uplinks: vec!["eth0".into()],
            },
        );
        for line in [
            "fib daddr type local tcp dport 8080 dnat to 198.18.0.2:80",
            "ip daddr 192.0.2.1 tcp dport 8080 dnat to 198.18.0.2:80",
            "ip saddr 198.18.0.0/24 oifname != \"one\" masquerade",
            "iifname \"two\" drop",
            "iifname { \"one\", \"two\" } oifname { \"one\", \"two\" } drop",
            "iifname { \"eth0\" } oifname { \"eth0\" } drop",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        // Loopback and IPv6 are the helper's, an internal network has no way out.
        assert_eq!(text.matches("dnat to").count(), 2, "{text}");
        assert!(!text.contains("ip saddr 198.18.1.0/24"), "{text}");
    }
}
