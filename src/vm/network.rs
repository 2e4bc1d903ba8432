//! The network by static addresses: rtnetlink(7) messages, and /etc/resolv.conf.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

use super::settings::{Address, Settings};
use crate::sys;
use crate::warning;

/// Between two looks for an interface.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Attributes of addresses and routes (linux/if_addr.h, linux/rtnetlink.h).
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

/// A connection to the kernel's routing.
struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    fn open() -> Result<Self, Errno> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        Ok(Self { socket })
    }

    /// Sends one request and waits for its answer. `more`: NLM_F_CREATE and the like.
    fn ask(&self, kind: u16, more: i32, body: &[u8]) -> Result<(), Errno> {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | more) as u16;
        let mut message = Vec::with_capacity(16 + body.len());
        message.extend((16 + body.len() as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        sendto(self.socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let count = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        // NLMSG_ERROR, whose body begins with 0 or the negative error.
        let code = answer[..count].get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
        match code {
            Some(0) => Ok(()),
            Some(code) => Err(Errno::from_raw(-code)),
            None => Err(Errno::EBADMSG),
        }
    }

    fn bring_up(&self, index: u32) -> Result<(), Errno> {
        self.ask(libc::RTM_NEWLINK, 0, &link_body(index))
    }
}

/// struct ifinfomsg: family, pad, type, index, flags, and which flags are meant.
fn link_body(index: u32) -> Vec<u8> {
    let up = (libc::IFF_UP as u32).to_ne_bytes();
    [&[0; 4][..], &index.to_ne_bytes(), &up, &up].concat()
}

/// struct ifaddrmsg, and the address as the interface's own and its peer's; IPv4 with its broadcast address.
fn address_body(index: u32, address: &Address) -> Vec<u8> {
    // No time is spent to ask whether another one has the address (IPv6).
    const IFA_F_NODAD: u8 = 2;
    let (family, flags) = family(address.address);
    let flags = if flags { IFA_F_NODAD } else { 0 };
    let mut body = vec![family, address.prefix, flags, 0];
    body.extend(index.to_ne_bytes());
    let bytes = octets(address.address);
    attribute(&mut body, IFA_LOCAL, &bytes);
    attribute(&mut body, IFA_ADDRESS, &bytes);
    if let IpAddr::V4(own) = address.address
        && address.prefix < 31
    {
        let hosts = u32::MAX.checked_shr(address.prefix.into()).unwrap_or(0);
        attribute(&mut body, IFA_BROADCAST, &(u32::from(own) | hosts).to_be_bytes());
    }
    body
}

/// struct rtmsg of a default route, with its next hop and interface.
fn route_body(index: u32, gateway: IpAddr) -> Vec<u8> {
    const MAIN: u8 = 254;
    const BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    let mut body = vec![family(gateway).0, 0, 0, 0, MAIN, BOOT, 0, UNICAST];
    body.extend([0; 4]);
    attribute(&mut body, RTA_GATEWAY, &octets(gateway));
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    body
}

/// The family's number, and whether it is IPv6.
fn family(address: IpAddr) -> (u8, bool) {
    if address.is_ipv4() { (libc::AF_INET as u8, false) } else { (libc::AF_INET6 as u8, true) }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A length with its own four bytes, a type, the value; all of ours are multiples of four bytes long.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((value.len() as u16 + 4).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

/// How long an interface is waited for that need not be there.
const OPTIONAL_WAIT: Duration = Duration::from_secs(1);

/// lo, the addresses, the default routes.
pub fn configure(settings: &Settings) -> Result<(), String> {
    // A kernel without a network serves who wants none.
    if let Err(error) = sys::vm::bring_up(c"lo")
        && !matches!(error, Errno::EAFNOSUPPORT | Errno::ENODEV)
    {
        return Err(format!("bring lo up: {}", sys::reason(error)));
    }
    if settings.addresses.is_empty() && settings.gateways.is_empty() {
        return Ok(());
    }
    let netlink = Netlink::open().map_err(|error| format!("the kernel has no rtnetlink: {}", sys::reason(error)))?;
    let mut indices = Vec::new();
    for address in &settings.addresses {
        let Address { interface, address: ip, prefix, is_optional } = address;
        let failed = |error: Errno| format!("{interface}: {ip}/{prefix}: {}", sys::reason(error));
        let limit = if *is_optional { settings.wait.min(OPTIONAL_WAIT) } else { settings.wait };
        let Some(index) = wait_for(interface, limit) else {
            let message = format!("{interface}: there is no such interface (is its driver's module loaded?)");
            if *is_optional {
                warning!("{message}");
                continue;
            }
            return Err(message);
        };
        netlink.bring_up(index).map_err(failed)?;
        netlink
            .ask(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &address_body(index, address))
            .map_err(failed)?;
        indices.push((ip.is_ipv4(), index));
    }
    for gateway in &settings.gateways {
        let index = indices.iter().find(|(is_ipv4, _)| *is_ipv4 == gateway.is_ipv4()).map(|(_, index)| *index);
        let Some(index) = index else {
            if settings
                .addresses
                .iter()
                .any(|address| address.is_optional && address.address.is_ipv4() == gateway.is_ipv4())
            {
                continue;
            }
            return Err(format!("gateway {gateway}: no address of its kind is configured"));
        };
        netlink
            .ask(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &route_body(index, *gateway))
            .map_err(|error| format!("gateway {gateway}: {}", sys::reason(error)))?;
    }
    Ok(())
}

fn wait_for(interface: &str, limit: Duration) -> Option<u32> {
    let deadline = sys::now() + limit;
    loop {
        match if_nametoindex(interface) {
            Ok(index) => return Some(index),
            Err(_) if sys::now() >= deadline => return None,
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// /etc/resolv.conf, where name servers or domains are configured.
pub fn write_resolver(settings: &Settings) -> Result<(), String> {
    const FILE: &str = "/etc/resolv.conf";
    const OVER: &str = "/run/resolv.conf";
    if settings.nameservers.is_empty() && settings.search.is_empty() {
        return Ok(());
    }
    let text = resolver(settings);
    let is_link = fs::symlink_metadata(FILE).is_ok_and(|about| about.is_symlink());
    // A link leads to a file of a program that is not there to write it.
    if is_link {
        let _ = fs::remove_file(FILE);
    }
    if fs::write(FILE, &text).is_ok() {
        return Ok(());
    }
    // A root that is read-only or full.
    let none: Option<&str> = None;
    let bound = fs::write(OVER, &text).map_err(|error| error.to_string()).and_then(|()| {
        mount(Some(OVER), FILE, none, MsFlags::MS_BIND, none).map_err(|error| sys::reason(error).to_owned())
    });
    bound.map_err(|error| format!("{FILE} can be neither written nor mounted over: {error}"))
}

fn resolver(settings: &Settings) -> String {
    let mut text = String::new();
    if !settings.search.is_empty() {
        text += &format!("search {}\n", settings.search.join(" "));
    }
    for server in &settings.nameservers {
        text += &format!("nameserver {server}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let address =
            Address { interface: "eth0".into(), address: [10, 0, 2, 15].into(), prefix: 24, is_optional: false };
        let body = address_body(2, &address);
        assert_eq!(body[..8], [2, 24, 0, 0, 2, 0, 0, 0]);
        assert_eq!(body[8..16], [8, 0, 2, 0, 10, 0, 2, 15]);
        assert_eq!(body[24..], [8, 0, 4, 0, 10, 0, 2, 255]);
        let all = Address { prefix: 0, ..address };
        assert_eq!(address_body(2, &all)[24..], [8, 0, 4, 0, 255, 255, 255, 255]);
        let route = route_body(3, "fe80::1".parse().unwrap());
        assert_eq!((route.len(), route[0]), (12 + 20 + 8, 10));
    }

    /// In a network namespace of a thread's own, where this is root.
    #[test]
    fn the_kernel_takes_them() {
        let configured = std::thread::spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            let addresses = ["198.18.77.2", "fd00::2"].map(|address| Address {
                interface: "lo".into(),
                address: address.parse().unwrap(),
                prefix: 64.min(if address.contains(':') { 64 } else { 24 }),
                is_optional: false,
            });
            let settings = Settings {
                addresses: addresses.into(),
                gateways: vec!["198.18.77.1".parse().unwrap()],
                ..Settings::default()
            };
            configure(&settings).unwrap();
            let socket = std::net::UdpSocket::bind("198.18.77.2:0").unwrap();
            assert!(socket.connect("[::]:1").is_err() && socket.connect("198.19.0.1:1").is_ok());
            assert!(std::net::TcpListener::bind("[fd00::2]:0").is_ok());
            let settings = Settings {
                addresses: vec![Address {
                    interface: "none0".into(),
                    address: [10, 0, 0, 1].into(),
                    prefix: 8,
                    is_optional: false,
                }],
                wait: Duration::from_millis(5),
                ..Settings::default()
            };
            assert!(configure(&settings).unwrap_err().contains("no such interface"));
        });
        configured.join().unwrap();
    }
}
