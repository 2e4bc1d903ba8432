//! `inception network`.

use super::{
    Globals, block_on,
    connect::connect,
    inspect, output,
    project::{self, Without},
};
use crate::{
    compose::client::{self, failed},
    error::{Error, Result},
};
use argh::{ArgsInfo, FromArgs};
use bollard::{Docker, query_parameters::ListNetworksOptionsBuilder};
use bollard_stubs::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest,
    NetworkDisconnectRequest,
};

/// Networks: containers on the same one reach each other by name.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "network",
    example = "inception network ls\ninception network create --subnet 198.18.5.0/24 back"
)]
pub struct Network {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
enum Command {
    List(List),
    Create(Create),
    Inspect(Inspect),
    Remove(Remove),
    Connect(Connect),
    Disconnect(Disconnect),
}

/// List networks.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "ls", example = "inception network ls --filter type=custom")]
struct List {
    /// only ids
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// as the engine tells it
    #[argh(switch)]
    json: bool,
    /// name=PART, label=NAME[=VALUE], driver=NAME or type=custom|builtin; repeatable
    #[argh(option)]
    filter: Vec<String>,
}

/// Create a network, and print its id.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "create",
    example = "inception network create back\ninception network create --internal --subnet 198.18.5.0/24 --gateway 198.18.5.1 back"
)]
struct Create {
    /// the driver (default: bridge)
    #[argh(option, short = 'd')]
    driver: Option<String>,
    /// an option of the driver, NAME=VALUE; repeatable
    #[argh(option, short = 'o')]
    opt: Vec<String>,
    /// a label, NAME=VALUE; repeatable
    #[argh(option)]
    label: Vec<String>,
    /// addresses, as 198.18.5.0/24 (default: the engine's choice); repeatable
    #[argh(option)]
    subnet: Vec<String>,
    /// the gateway's address, one a subnet; repeatable
    #[argh(option)]
    gateway: Vec<String>,
    /// the part of the subnet that containers get, one a subnet; repeatable
    #[argh(option)]
    ip_range: Vec<String>,
    /// no way out
    #[argh(switch)]
    internal: bool,
    /// containers outside of a cluster's services may join
    #[argh(switch)]
    attachable: bool,
    /// IPv6 addresses, too
    #[argh(switch)]
    ipv6: bool,
    /// its name
    #[argh(positional, arg_name = "name")]
    name: String,
}

/// Show all about networks as a JSON array.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "inspect", example = "inception network inspect back")]
struct Inspect {
    /// networks
    #[argh(positional, arg_name = "network")]
    names: Vec<String>,
}

/// Remove networks. One with running containers is refused.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "rm", example = "inception network rm back")]
struct Remove {
    /// one that is not there is no error
    #[argh(switch, short = 'f')]
    force: bool,
    /// networks
    #[argh(positional, arg_name = "network")]
    names: Vec<String>,
}

/// Connect a container to a further network.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "connect", example = "inception network connect --alias db back mariadb")]
struct Connect {
    /// a further name for it there; repeatable
    #[argh(option)]
    alias: Vec<String>,
    /// its IPv4 address there
    #[argh(option)]
    ip: Option<String>,
    /// its IPv6 address there
    #[argh(option)]
    ip6: Option<String>,
    /// the network
    #[argh(positional, arg_name = "network")]
    network: String,
    /// a service of the project here, or a container's name or id
    #[argh(positional, arg_name = "service|container")]
    container: String,
}

/// Take a container off a network.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "disconnect", example = "inception network disconnect back mariadb")]
struct Disconnect {
    /// also one that is gone
    #[argh(switch, short = 'f')]
    force: bool,
    /// the network
    #[argh(positional, arg_name = "network")]
    network: String,
    /// a service of the project here, or a container's name or id
    #[argh(positional, arg_name = "service|container")]
    container: String,
}

impl Network {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        match self.command {
            Command::List(list) => block_on(list.go(globals)),
            Command::Create(create) => block_on(create.go(globals)),
            Command::Inspect(inspect) => inspect::show(globals, &["network"], &inspect.names),
            Command::Remove(remove) => block_on(remove.go(globals)),
            Command::Connect(connect) => block_on(connect.go(globals)),
            Command::Disconnect(disconnect) => block_on(disconnect.go(globals)),
        }
    }
}

impl List {
    async fn go(self, globals: &Globals) -> Result<u8> {
        let filters = super::filters(&self.filter)?;
        let docker = connect(globals).await?;
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let mut networks = docker.list_networks(Some(options)).await.map_err(failed("list networks"))?;
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        if self.json {
            output::json(&networks)?;
        } else if self.quiet {
            output::print(
                &networks.iter().map(|network| output::short(&text(&network.id)) + "\n").collect::<String>(),
            )?;
        } else {
            let row = |network: &bollard_stubs::models::Network| {
                let ranges = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
                let subnets: Vec<String> = ranges.filter_map(|range| range.subnet.clone()).collect();
                let labels = network.labels.as_ref();
                let project = labels.and_then(|labels| labels.get(client::PROJECT)).cloned().unwrap_or_default();
                vec![
                    text(&network.name),
                    output::short(&text(&network.id)),
                    text(&network.driver),
                    subnets.join(", "),
                    project,
                ]
            };
            let rows: Vec<Vec<String>> = networks.iter().map(row).collect();
            output::table(&["NAME", "ID", "DRIVER", "SUBNET", "PROJECT"], &rows)?;
        }
        Ok(0)
    }
}

impl Create {
    async fn go(self, globals: &Globals) -> Result<u8> {
        let docker = connect(globals).await?;
        let request = self.request()?;
        let made = docker.create_network(request).await.map_err(failed(format!("create the network {}", self.name)))?;
        if !made.warning.is_empty() {
            log::warn!("{}", made.warning);
        }
        output::print(&format!("{}\n", made.id))?;
        Ok(0)
    }

    fn request(&self) -> Result<NetworkCreateRequest> {
        if self.gateway.len() > self.subnet.len() || self.ip_range.len() > self.subnet.len() {
            return Err(Error::invalid("--gateway and --ip-range are of a subnet: give --subnet for each, too"));
        }
        let subnets = self.subnet.iter().enumerate().map(|(at, subnet)| IpamConfig {
            subnet: Some(subnet.clone()),
            gateway: self.gateway.get(at).cloned(),
            ip_range: self.ip_range.get(at).cloned(),
            ..IpamConfig::default()
        });
        if let Some(subnet) = self.subnet.iter().find(|subnet| subnet.parse::<ipnet::IpNet>().is_err()) {
            return Err(Error::invalid(format!("--subnet {subnet}: write it as 198.18.5.0/24")));
        }
        Ok(NetworkCreateRequest {
            name: self.name.clone(),
            driver: self.driver.clone().or(Some("bridge".into())),
            internal: Some(self.internal),
            attachable: Some(self.attachable),
            enable_ipv6: Some(self.ipv6),
            ipam: (!self.subnet.is_empty()).then(|| Ipam {
                driver: Some("default".into()),
                config: Some(subnets.collect()),
                options: None,
            }),
            options: Some(super::pairs("--opt", &self.opt)?),
            labels: Some(super::pairs("--label", &self.label)?),
            ..NetworkCreateRequest::default()
        })
    }
}

impl Remove {
    async fn go(self, globals: &Globals) -> Result<u8> {
        if self.names.is_empty() {
            return Err(Error::invalid("rm needs networks: inception network rm NETWORK..."));
        }
        let docker = connect(globals).await?;
        super::each_name(&self.names, async |name| match docker.remove_network(name).await {
            Err(error) if self.force && client::is_status(&error, 404) => Ok(()),
            Err(error) => Err(failed(format!("remove the network {name}"))(error)),
            Ok(()) => output::print(&format!("{name}\n")),
        })
        .await
    }
}

impl Connect {
    async fn go(self, globals: &Globals) -> Result<u8> {
        let docker = connect(globals).await?;
        for container in ids(&docker, globals, &self.container).await? {
            let settings = EndpointSettings {
                aliases: (!self.alias.is_empty()).then(|| self.alias.clone()),
                ipam_config: (self.ip.is_some() || self.ip6.is_some()).then(|| EndpointIpamConfig {
                    ipv4_address: self.ip.clone(),
                    ipv6_address: self.ip6.clone(),
                    ..EndpointIpamConfig::default()
                }),
                ..EndpointSettings::default()
            };
            let request = NetworkConnectRequest { container, endpoint_config: Some(settings) };
            let doing = format!("connect {} to the network {}", self.container, self.network);
            docker.connect_network(&self.network, request).await.map_err(failed(doing))?;
        }
        Ok(0)
    }
}

impl Disconnect {
    async fn go(self, globals: &Globals) -> Result<u8> {
        let docker = connect(globals).await?;
        let found = match ids(&docker, globals, &self.container).await {
            // The network may remember what is gone.
            Err(_) if self.force => vec![self.container.clone()],
            found => found?,
        };
        for container in found {
            let request = NetworkDisconnectRequest { container, force: Some(self.force) };
            let doing = format!("take {} off the network {}", self.container, self.network);
            docker.disconnect_network(&self.network, request).await.map_err(failed(doing))?;
        }
        Ok(0)
    }
}

async fn ids(docker: &Docker, globals: &Globals, name: &String) -> Result<Vec<String>> {
    let found = project::containers(docker, globals, std::slice::from_ref(name), Without::Everything).await?;
    Ok(found.iter().map(client::id).collect())
}
