//! A network as its file keeps it, made from a request that nothing is believed of.

use super::addresses;
use crate::{
    engine::random_id,
    error::{Context, Error, Result},
};
use bollard_stubs::models;
use chrono::{DateTime, Utc};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::Write,
    net::Ipv4Addr,
    path::Path,
};

/// `DATA_ROOT/network/ID.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Network {
    pub id: String,
    pub name: String,
    pub created: DateTime<Utc>,
    /// "bridge", "macvlan", "host" or "null", as Docker names the drivers.
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub labels: HashMap<String, String>,
    pub options: HashMap<String, String>,
    /// None for `host` and `none`.
    #[serde(alias = "bridge")]
    pub medium: Option<Medium>,
}

/// What connects a network's containers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Medium {
    Macvlan(Macvlan),
    Bridge(Bridge),
}

/// A bridge of the network's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bridge {
    pub interface: String,
    /// Its gateway is the bridge's own address.
    #[serde(flatten)]
    pub addressing: Addressing,
    pub masquerade: bool,
    pub mtu: Option<u32>,
}

/// An interface of the machine, on whose network each container is a station of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Macvlan {
    pub parent: String,
    pub mode: Mode,
    /// Its gateway is a router that is there already.
    #[serde(flatten)]
    pub addressing: Addressing,
    pub mtu: Option<u32>,
}

/// Who of a macvlan's stations reaches whom (ip-link(8)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Bridge,
    Private,
    Vepa,
    Passthru,
}

/// The addresses of a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Addressing {
    /// With the subnet's prefix length.
    pub gateway: Ipv4Net,
    /// Where addresses come from; the subnet where None.
    pub range: Option<Ipv4Net>,
    /// Addresses that are never given out (`--aux-address`), by name.
    pub reserved: HashMap<String, Ipv4Addr>,
}

const OPTION_NAME: &str = "com.docker.network.bridge.name";
const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const OPTION_MTU: &str = "com.docker.network.driver.mtu";
const OPTION_PARENT: &str = "parent";
const OPTION_MODE: &str = "macvlan_mode";

/// The three networks that are there from the first start.
const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

/// What the bridge of a network with this id is called, where the network's options don't say.
pub fn bridge_name(id: &str) -> String {
    format!("inc-{}", &id[..10])
}

/// Whether a network of this name is one of them.
pub fn is_predefined(name: &str) -> bool {
    PREDEFINED.contains(&name)
}

impl Network {
    pub fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }

    pub fn bridge(&self) -> Option<&Bridge> {
        match &self.medium {
            Some(Medium::Bridge(bridge)) => Some(bridge),
            _ => None,
        }
    }

    pub fn addressing(&self) -> Option<&Addressing> {
        self.medium.as_ref().map(|medium| match medium {
            Medium::Bridge(bridge) => &bridge.addressing,
            Medium::Macvlan(macvlan) => &macvlan.addressing,
        })
    }

    /// One that connects nothing: `host` or `none`.
    pub fn without_medium(name: &str, driver: &str) -> Result<Network> {
        Ok(Network {
            id: random_id()?,
            name: name.into(),
            created: Utc::now(),
            driver: driver.into(),
            internal: false,
            attachable: false,
            labels: HashMap::new(),
            options: HashMap::new(),
            medium: None,
        })
    }

    /// The default bridge.
    pub fn default_bridge(interface: String, gateway: Ipv4Net) -> Result<Network> {
        let options = HashMap::from([("com.docker.network.bridge.default_bridge".into(), "true".into())]);
        let addressing = Addressing { gateway, range: None, reserved: HashMap::new() };
        let bridge = Bridge { interface, addressing, masquerade: true, mtu: None };
        let plain = Network::without_medium("bridge", "bridge")?;
        Ok(Network { options, medium: Some(Medium::Bridge(bridge)), ..plain })
    }

    /// What a request asks for. `pools`: where a subnet is cut from when the request names none.
    pub fn from_request(
        request: models::NetworkCreateRequest,
        pools: &[(Ipv4Net, u8)],
        taken: &Taken,
    ) -> Result<Network> {
        check_name(&request.name)?;
        let driver = request.driver.filter(|driver| !driver.is_empty()).unwrap_or_else(|| "bridge".into());
        match driver.as_str() {
            "bridge" | "macvlan" => {}
            "host" | "null" => {
                return Err(Error::Invalid(format!("only one instance of \"{driver}\" network is allowed")));
            }
            "ipvlan" => return Err(Error::NotImplemented("networks of driver ipvlan".into())),
            "overlay" => {
                return Err(Error::NotImplemented(
                    "networks of driver overlay: they connect machines, which Docker Swarm does".into(),
                ));
            }
            _ => return Err(Error::not_found("network driver", driver)),
        }
        if request.enable_ipv6.unwrap_or(false) {
            return Err(Error::NotImplemented("networks with IPv6 (published ports do listen on ::)".into()));
        }
        for (asked, name) in [(request.ingress, "--ingress"), (request.config_only, "--config-only")] {
            if asked.unwrap_or(false) {
                return Err(Error::NotImplemented(format!("network create {name}")));
            }
        }
        if request.config_from.and_then(|from| from.network).is_some_and(|name| !name.is_empty()) {
            return Err(Error::NotImplemented("network create --config-from".into()));
        }
        if request.scope.as_deref().is_some_and(|scope| !["", "local"].contains(&scope)) {
            return Err(Error::NotImplemented("networks of a scope other than local".into()));
        }
        let id = random_id()?;
        let options = request.options.unwrap_or_default();
        let ipam = request.ipam.unwrap_or_default();
        let internal = request.internal.unwrap_or(false);
        let medium = match driver.as_str() {
            "macvlan" if internal => return Err(Error::NotImplemented("macvlan networks that are internal".into())),
            // The machine itself has a route to where its parent interface leads.
            "macvlan" => Medium::macvlan(addresses_of(ipam, pools, &taken.networks)?, &options)?,
            _ => {
                let everywhere = [&taken.routes[..], &taken.networks[..]].concat();
                Medium::bridge(bridge_name(&id), addresses_of(ipam, pools, &everywhere)?, &options)?
            }
        };
        Ok(Network {
            id,
            name: request.name,
            created: Utc::now(),
            driver,
            internal,
            attachable: request.attachable.unwrap_or(false),
            labels: request.labels.unwrap_or_default(),
            options,
            medium: Some(medium),
        })
    }

    /// Writes it whole or not at all; it is there after a power failure.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("{}.json", self.id));
        let temporary = path.with_extension("new");
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).at("encode", &path)?;
        let mut file = fs::File::create(&temporary).at("create", &temporary)?;
        file.write_all(&text).at("write", &temporary)?;
        file.sync_data().at("write", &temporary)?;
        fs::rename(&temporary, &path).at("write", &path)
    }

    /// As the API shows it, without its containers.
    pub fn model(&self) -> models::NetworkInspect {
        let config = self.addressing().map(|addressing| models::IpamConfig {
            subnet: Some(addressing.subnet().to_string()),
            ip_range: addressing.range.map(|range| range.to_string()),
            gateway: Some(addressing.gateway.addr().to_string()),
            auxiliary_addresses: (!addressing.reserved.is_empty()).then(|| {
                addressing.reserved.iter().map(|(name, address)| (name.clone(), address.to_string())).collect()
            }),
        });
        models::NetworkInspect {
            name: Some(self.name.clone()),
            id: Some(self.id.clone()),
            created: Some(self.created),
            scope: Some("local".into()),
            driver: Some(self.driver.clone()),
            enable_ipv4: Some(true),
            enable_ipv6: Some(false),
            ipam: Some(models::Ipam {
                driver: Some("default".into()),
                config: Some(config.into_iter().collect()),
                options: None,
            }),
            internal: Some(self.internal),
            attachable: Some(self.attachable),
            ingress: Some(false),
            config_from: Some(models::ConfigReference { network: Some(String::new()) }),
            config_only: Some(false),
            containers: Some(HashMap::new()),
            options: Some(self.options.clone()),
            labels: Some(self.labels.clone()),
            ..Default::default()
        }
    }
}

impl Medium {
    fn bridge(interface: String, addressing: Addressing, options: &HashMap<String, String>) -> Result<Medium> {
        let mut bridge = Bridge { interface, addressing, masquerade: true, mtu: None };
        for (name, value) in options {
            match name.as_str() {
                OPTION_NAME => bridge.interface = interface_name(name, value)?,
                OPTION_MASQUERADE => {
                    bridge.masquerade = value.parse().map_err(|_| bad_option(name, value, "true or false"))?;
                }
                OPTION_MTU => bridge.mtu = Some(mtu(value)?),
                _ => return Err(Error::NotImplemented(format!("network option {name}"))),
            }
        }
        Ok(Medium::Bridge(bridge))
    }

    fn macvlan(addressing: Addressing, options: &HashMap<String, String>) -> Result<Medium> {
        let mut macvlan = Macvlan { parent: String::new(), mode: Mode::default(), addressing, mtu: None };
        for (name, value) in options {
            match name.as_str() {
                OPTION_PARENT => macvlan.parent = interface_name(name, value)?,
                OPTION_MODE => {
                    let mode = serde_json::from_value(value.as_str().into());
                    macvlan.mode = mode.map_err(|_| bad_option(name, value, "bridge, private, vepa or passthru"))?;
                }
                OPTION_MTU => macvlan.mtu = Some(mtu(value)?),
                _ => return Err(Error::NotImplemented(format!("network option {name}"))),
            }
        }
        match macvlan.parent.is_empty() {
            true => Err(Error::NotImplemented(
                "a macvlan network without a parent interface: name one of the machine's (-o parent=eth0)".into(),
            )),
            false => Ok(Medium::Macvlan(macvlan)),
        }
    }
}

/// Subnets that are in use: by the machine's routes, and by this engine's networks.
#[derive(Debug, Default)]
pub struct Taken {
    pub routes: Vec<Ipv4Net>,
    pub networks: Vec<Ipv4Net>,
}

impl Addressing {
    pub fn subnet(&self) -> Ipv4Net {
        self.gateway.trunc()
    }

    /// Addresses that no container gets.
    pub fn own_addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.reserved.values().copied().chain([self.gateway.addr()]).collect()
    }
}

/// The subnet, range, gateway and reserved addresses that are asked for, or free ones.
fn addresses_of(ipam: models::Ipam, pools: &[(Ipv4Net, u8)], taken: &[Ipv4Net]) -> Result<Addressing> {
    if let Some(driver) = ipam.driver.filter(|driver| !["", "default"].contains(&driver.as_str())) {
        return Err(Error::not_found("address management driver", driver));
    }
    let mut configs = ipam.config.unwrap_or_default().into_iter();
    let config = configs.next().unwrap_or_default();
    if configs.next().is_some() {
        return Err(Error::NotImplemented("networks with more than one subnet".into()));
    }
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    let subnet = match text(config.subnet) {
        None => addresses::free_subnet(pools, taken)?,
        Some(text) => {
            let subnet: Ipv4Net = text.parse().map_err(|_| {
                Error::Invalid(format!("invalid subnet {text}: an IPv4 network is written as 198.18.5.0/24"))
            })?;
            if subnet.prefix_len() > 30 || subnet.prefix_len() < 8 {
                return Err(Error::Invalid(format!("invalid subnet {text}: /8 to /30")));
            }
            if let Some(other) = taken.iter().find(|other| addresses::overlap(other, &subnet)) {
                return Err(Error::Conflict(format!(
                    "Pool overlaps with other one on this address space: {subnet} and {other}, which is in use here"
                )));
            }
            subnet.trunc()
        }
    };
    let inside = |what: &str, text: &str| {
        let address = text.parse::<Ipv4Addr>().ok().filter(|address| subnet.contains(address));
        address.ok_or_else(|| Error::Invalid(format!("{what} {text} is not an address in {subnet}")))
    };
    let range = text(config.ip_range)
        .map(|text| {
            let range = text.parse::<Ipv4Net>().ok().map(|range| range.trunc()).filter(|range| subnet.contains(range));
            range.ok_or_else(|| Error::Invalid(format!("IP range {text} is not inside {subnet}")))
        })
        .transpose()?;
    let mut reserved = HashMap::new();
    for (name, address) in config.auxiliary_addresses.unwrap_or_default() {
        let address = inside("auxiliary address", &address)?;
        reserved.insert(name, address);
    }
    let gateway = match text(config.gateway) {
        Some(text) => inside("gateway", &text)?,
        None => {
            let taken = reserved.values().copied().collect();
            let first = addresses::free_address(range.unwrap_or(subnet), subnet, None, &taken);
            first.ok_or_else(|| Error::Invalid(format!("{subnet} has no address for a gateway")))?
        }
    };
    let gateway = Ipv4Net::new(gateway, subnet.prefix_len()).map_err(|error| Error::Failed(error.to_string()))?;
    Ok(Addressing { gateway, range, reserved })
}

fn check_name(name: &str) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let fits =
        name.len() <= 255 && name.bytes().all(good) && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    match fits {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "invalid network name: {name:?}: letters, digits and _.- are allowed, and a letter or digit comes first"
        ))),
    }
}

/// Names go into nft's rules: nothing but what interfaces are usually called.
fn interface_name(option: &str, name: &str) -> Result<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if (1..=15).contains(&name.len()) && name.bytes().all(good) && ![".", ".."].contains(&name) {
        return Ok(name.into());
    }
    Err(bad_option(option, name, "up to 15 letters, digits and _.-"))
}

fn mtu(value: &str) -> Result<u32> {
    let mtu = value.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
    mtu.ok_or_else(|| bad_option(OPTION_MTU, value, "a number from 68 to 65535"))
}

fn bad_option(name: &str, value: &str, expected: &str) -> Error {
    Error::Invalid(format!("network option {name}={value:?}: it takes {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Network> {
        let pools = [("198.18.0.0/20".parse().unwrap(), 24)];
        let taken =
            Taken { routes: vec!["198.18.0.0/24".parse().unwrap()], networks: vec!["198.18.2.0/24".parse().unwrap()] };
        Network::from_request(serde_json::from_str(text).unwrap(), &pools, &taken)
    }

    #[test]
    fn requests_become_networks() {
        let network = request(r#"{"Name":"n"}"#).unwrap();
        let bridge = network.bridge().unwrap();
        assert_eq!(bridge.addressing.gateway.to_string(), "198.18.1.1/24");
        assert!(bridge.interface.len() <= 15, "{}", bridge.interface);
        let text = r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"198.18.9.0/24","IPRange":"198.18.9.128/25",
            "Gateway":"198.18.9.254","AuxiliaryAddresses":{"a":"198.18.9.200"}}]}}"#;
        let network = request(text).unwrap();
        let addressing = network.addressing().unwrap();
        assert_eq!(addressing.gateway.to_string(), "198.18.9.254/24");
        assert_eq!(addressing.own_addresses().len(), 2);
        // On a macvlan, which the machine's own network is, its routes are no reason.
        let text = r#"{"Name":"n","Driver":"macvlan","Options":{"parent":"eth0","macvlan_mode":"vepa"},
            "IPAM":{"Config":[{"Subnet":"198.18.0.0/24","Gateway":"198.18.0.9"}]}}"#;
        match request(text).unwrap().medium {
            Some(Medium::Macvlan(it)) => assert_eq!((it.parent.as_str(), it.mode), ("eth0", Mode::Vepa)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_are_understood_again() {
        let macvlan = r#"{"Name":"n","Driver":"macvlan","Options":{"parent":"eth0"}}"#;
        for text in [r#"{"Name":"n"}"#, macvlan] {
            let network = request(text).unwrap();
            let file = serde_json::to_string(&network).unwrap();
            // As the first version wrote it.
            let older = file.replace("\"medium\"", "\"bridge\"");
            for file in [file, older] {
                let again: Network = serde_json::from_str(&file).unwrap();
                assert_eq!(format!("{again:?}"), format!("{network:?}"));
            }
        }
    }

    #[test]
    fn bad_requests_are_refused_by_name() {
        for (text, said) in [
            (r#"{"Name":"a b"}"#, "invalid network name"),
            (r#"{"Name":"n","Driver":"overlay"}"#, "driver overlay"),
            (r#"{"Name":"n","Driver":"macvlan"}"#, "-o parent="),
            (r#"{"Name":"n","Driver":"macvlan","Internal":true,"Options":{"parent":"e"}}"#, "internal"),
            (r#"{"Name":"n","Driver":"macvlan","Options":{"parent":"a b"}}"#, "up to 15 letters"),
            (r#"{"Name":"n","Driver":"macvlan","Options":{"parent":"e","macvlan_mode":"x"}}"#, "private, vepa"),
            (
                r#"{"Name":"n","Driver":"macvlan","Options":{"parent":"e"},"IPAM":{"Config":[{"Subnet":"198.18.2.0/25"}]}}"#,
                "Pool overlaps",
            ),
            (r#"{"Name":"n","Driver":"nope"}"#, "nope"),
            (r#"{"Name":"n","EnableIPv6":true}"#, "IPv6"),
            (r#"{"Name":"n","Options":{"x":"y"}}"#, "network option x"),
            (r#"{"Name":"n","Options":{"com.docker.network.bridge.name":"a\" drop; #"}}"#, "up to 15 letters"),
            (r#"{"Name":"n","Options":{"com.docker.network.driver.mtu":"1"}}"#, "68 to 65535"),
            (r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"198.18.0.128/25"}]}}"#, "Pool overlaps"),
            (r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"nope"}]}}"#, "invalid subnet nope"),
            (
                r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"198.18.9.0/24","Gateway":"198.18.8.1"}]}}"#,
                "gateway 198.18.8.1",
            ),
            (r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"198.18.9.0/24","IPRange":"198.18.8.0/24"}]}}"#, "IP range"),
        ] {
            let error = request(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
