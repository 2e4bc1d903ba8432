//! Interfaces, addresses and routes, by rtnetlink(7).

use super::record::{Bridge, Macvlan, Mode};
use crate::error::{Context, Error, Result};
use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::{
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, MacVlanMode},
    route::{RouteAddress, RouteAttribute},
};
use nix::sched::{CloneFlags, setns};
use rtnetlink::{
    Handle, LinkBridge, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
};
use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::oneshot;

/// A connection to the kernel in the namespace of the calling thread. Dropping the handle ends it.
pub fn connect() -> Result<Handle> {
    let (connection, handle, _) = new_connection().doing("open a netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Runs `work` on a thread of its own in the network namespace `namespace`: a thread of the runtime's that changed its
/// namespace would take every other task on it along.
async fn inside<T, F, W>(namespace: PathBuf, work: W) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
    W: FnOnce(Handle) -> F + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let body = move || {
        let file = File::open(&namespace).at("open", &namespace)?;
        setns(&file, CloneFlags::CLONE_NEWNET).at("enter", &namespace)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.doing("start a runtime in a network namespace")?.block_on(async { work(connect()?).await })
    };
    std::thread::Builder::new()
        .name("netns".into())
        .stack_size(1 << 20)
        .spawn(move || drop(sender.send(body())))
        .doing("start a thread")?;
    receiver.await.map_err(|_| Error::Failed("the thread in a network namespace ended early".into()))?
}

trait Netlink<T> {
    /// Names the step that the kernel refused, and its reason.
    fn doing_link(self, doing: impl std::fmt::Display) -> Result<T>;
}

impl<T> Netlink<T> for std::result::Result<T, rtnetlink::Error> {
    fn doing_link(self, doing: impl std::fmt::Display) -> Result<T> {
        self.map_err(|error| match error {
            rtnetlink::Error::NetlinkError(message) => Error::Io { doing: doing.to_string(), source: message.to_io() },
            other => Error::Failed(format!("{doing}: {other}")),
        })
    }
}

/// The number of an interface; None where there is none of that name.
async fn index(handle: &Handle, name: &str) -> Result<Option<u32>> {
    match handle.link().get().match_name(name).execute().try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(rtnetlink::Error::NetlinkError(message)) if -message.raw_code() == libc::ENODEV => Ok(None),
        Err(error) => Err(error).doing_link(format_args!("look for interface {name}")),
    }
}

/// Makes the bridge and gives it its address; what is there already is left as it is. Its number.
pub async fn ensure_bridge(handle: &Handle, name: &str, gateway: Ipv4Net, mtu: Option<u32>) -> Result<u32> {
    let existing = match index(handle, name).await? {
        Some(index) => index,
        None => {
            // With an address of its own, a bridge does not change it with each port.
            let mac = super::addresses::mac_of(gateway.addr()).to_vec();
            let mut link = LinkBridge::new(name).address(mac);
            if let Some(mtu) = mtu {
                link = link.mtu(mtu);
            }
            handle.link().add(link.build()).execute().await.doing_link(format_args!("make bridge {name}"))?;
            let made = index(handle, name).await?;
            made.ok_or_else(|| Error::Failed(format!("bridge {name} is gone as soon as it was made")))?
        }
    };
    let added = handle.address().add(existing, IpAddr::V4(gateway.addr()), gateway.prefix_len()).execute().await;
    match added {
        Err(rtnetlink::Error::NetlinkError(message)) if -message.raw_code() == libc::EEXIST => {}
        other => other.doing_link(format_args!("give {name} the address {gateway}"))?,
    }
    let up = LinkUnspec::new_with_index(existing).up().build();
    handle.link().set(up).execute().await.doing_link(format_args!("bring {name} up"))?;
    Ok(existing)
}

/// Removes an interface; one that is not there is fine.
pub async fn remove(handle: &Handle, name: &str) -> Result<()> {
    let Some(index) = index(handle, name).await? else { return Ok(()) };
    match handle.link().del(index).execute().await {
        // It went between the two calls, as a veth pair does with its namespace.
        Err(rtnetlink::Error::NetlinkError(message)) if -message.raw_code() == libc::ENODEV => Ok(()),
        other => other.doing_link(format_args!("remove interface {name}")),
    }
}

/// What a container is to have of a network.
#[derive(Debug, Clone)]
pub struct Station {
    /// `eth0`, …
    pub interface: String,
    pub mac: [u8; 6],
    pub address: Ipv4Net,
    /// Where its default route leads; None for internal networks and all but the first one.
    pub gateway: Option<Ipv4Addr>,
}

/// Makes a veth pair between a bridge and the namespace of process `pid`.
pub async fn make_veth(handle: &Handle, bridge: &Bridge, host_end: &str, pid: i32, station: &Station) -> Result<()> {
    let controller = index(handle, &bridge.interface).await?.ok_or_else(|| {
        Error::Failed(format!("bridge {} is gone: restart the daemon, which makes it again", bridge.interface))
    })?;
    // The peer is born in the container's namespace, under its final name and MAC address, the host's end in the bridge
    // and up: one message instead of five.
    let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(station.interface.as_str())
        .address(station.mac.to_vec())
        .setns_by_pid(pid.unsigned_abs());
    let mut host =
        LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth).name(host_end).controller(controller).up();
    if let Some(mtu) = bridge.mtu {
        (peer, host) = (peer.mtu(mtu), host.mtu(mtu));
    }
    let pair = host.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
    let doing = format!("make the veth pair {host_end} – {}", station.interface);
    handle.link().add(pair).execute().await.doing_link(doing)
}

/// Makes a macvlan of an interface of the machine, in the namespace of process `pid`.
pub async fn make_macvlan(handle: &Handle, macvlan: &Macvlan, pid: i32, station: &Station) -> Result<()> {
    let parent = check_parent(handle, &macvlan.parent).await?;
    let mode = match macvlan.mode {
        Mode::Bridge => MacVlanMode::Bridge,
        Mode::Private => MacVlanMode::Private,
        Mode::Vepa => MacVlanMode::Vepa,
        Mode::Passthru => MacVlanMode::Passthrough,
    };
    let mut link = LinkMacVlan::new(&station.interface, parent, mode)
        .address(station.mac.to_vec())
        .setns_by_pid(pid.unsigned_abs());
    if let Some(mtu) = macvlan.mtu {
        link = link.mtu(mtu);
    }
    let doing = format!("make {} as a macvlan of {}", station.interface, macvlan.parent);
    handle.link().add(link.build()).execute().await.doing_link(doing)
}

/// The number of a macvlan's parent interface.
pub async fn check_parent(handle: &Handle, parent: &str) -> Result<u32> {
    let parent_index = index(handle, parent).await?;
    parent_index
        .ok_or_else(|| Error::Invalid(format!("parent interface {parent} is not there: ip link lists those that are")))
}

/// Gives a container's new interface its address and route, and brings it up.
pub async fn give_addresses(pid: i32, station: Station) -> Result<()> {
    inside(namespace_of(pid), move |handle| async move {
        let name = &station.interface;
        let own = index(&handle, name).await?;
        let own = own.ok_or_else(|| Error::Failed(format!("interface {name} is not in the container's namespace")))?;
        let (address, length) = (station.address.addr(), station.address.prefix_len());
        handle
            .address()
            .add(own, IpAddr::V4(address), length)
            .execute()
            .await
            .doing_link(format_args!("give {name} the address {address}"))?;
        let up = LinkUnspec::new_with_index(own).up().build();
        handle.link().set(up).execute().await.doing_link(format_args!("bring {name} up"))?;
        if let Some(gateway) = station.gateway {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
            handle.route().add(route).execute().await.doing_link(format_args!("route by {gateway}"))?;
        }
        Ok(())
    })
    .await
}

/// Removes an interface of a container's that has no other end on the machine.
pub async fn remove_inside(pid: i32, interface: String) -> Result<()> {
    inside(namespace_of(pid), |handle| async move { remove(&handle, &interface).await }).await
}

/// Gives a container a default route where it has none, as when the network that had it was left.
pub async fn ensure_default_route(pid: i32, gateway: Ipv4Addr) -> Result<()> {
    inside(namespace_of(pid), move |handle| async move {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        match handle.route().add(route).execute().await {
            Err(rtnetlink::Error::NetlinkError(message)) if -message.raw_code() == libc::EEXIST => Ok(()),
            other => other.doing_link(format_args!("route by {gateway}")),
        }
    })
    .await
}

fn namespace_of(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join("ns/net")
}

/// IPv4 subnets that the machine has a route to; the default route is no reason to avoid anything.
pub async fn routed_subnets(handle: &Handle) -> Result<Vec<Ipv4Net>> {
    let mut subnets = Vec::new();
    let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut routes = handle.route().get(query).execute();
    while let Some(route) = routes.try_next().await.doing_link("list routes")? {
        let length = route.header.destination_prefix_length;
        for attribute in &route.attributes {
            if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute
                && length > 0
                && !address.is_loopback()
                && let Ok(subnet) = Ipv4Net::new(*address, length)
            {
                subnets.push(subnet.trunc());
            }
        }
    }
    Ok(subnets)
}

/// Names of the machine's interfaces.
pub async fn interfaces(handle: &Handle) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await.doing_link("list interfaces")? {
        for attribute in link.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Waits, for a moment, until the kernel has taken an interface away with the namespace of its other end.
pub async fn wait_until_gone(handle: &Handle, name: &str) -> Result<()> {
    for _ in 0..50 {
        if index(handle, name).await?.is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    remove(handle, name).await
}
