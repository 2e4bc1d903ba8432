//! Which subnet a network gets, and which address an endpoint.

use crate::error::{Error, Result};
use ipnet::Ipv4Net;
use std::{collections::BTreeSet, net::Ipv4Addr};

/// The first subnet of the pools that overlaps nothing in `taken` (the machine's routes, this engine's networks).
pub fn free_subnet(pools: &[(Ipv4Net, u8)], taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    pools
        .iter()
        .flat_map(|(base, size)| base.subnets(*size).into_iter().flatten())
        .find(|subnet| !taken.iter().any(|other| overlap(subnet, other)))
        .ok_or_else(|| {
            Error::Failed(
                "could not find an available, non-overlapping IPv4 address pool: remove networks that are not needed, or give --default-address-pool another range".into(),
            )
        })
}

pub fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// The next free address of `range` after `last`, round and round, so that an address that was just given back is not
/// given out again at once: others may still have it in their ARP caches.
pub fn free_address(
    range: Ipv4Net,
    subnet: Ipv4Net,
    last: Option<Ipv4Addr>,
    taken: &BTreeSet<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let (first, end) = (u32::from(range.network()), u32::from(range.broadcast()));
    let start = last.map(u32::from).filter(|last| (first..end).contains(last)).map_or(first, |last| last + 1);
    (start..=end)
        .chain(first..start)
        .map(Ipv4Addr::from)
        .find(|address| *address != subnet.network() && *address != subnet.broadcast() && !taken.contains(address))
}

/// Docker's rule: 02:42 and the four bytes of the address, so that a new owner of an address has its old MAC address too.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// `02:42:c6:12:00:02`
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let mac: Option<[u8; 6]> = bytes.and_then(|bytes| bytes.try_into().ok());
    // The lowest bit of the first byte marks groups.
    mac.filter(|mac| mac[0] & 1 == 0).ok_or_else(|| Error::Invalid(format!("invalid MAC address: {text}")))
}

pub fn show_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_keep_clear_of_what_is_there() {
        let pools = [(net("198.18.0.0/22"), 24), (net("198.19.0.0/24"), 24)];
        let taken = [net("198.18.0.0/24"), net("198.18.1.128/25"), net("198.18.2.0/23")];
        assert_eq!(free_subnet(&pools, &taken[..1]).unwrap(), net("198.18.1.0/24"));
        assert_eq!(free_subnet(&pools, &taken).unwrap(), net("198.19.0.0/24"));
        assert!(free_subnet(&pools, &[net("198.18.0.0/15")]).is_err());
    }

    #[test]
    fn addresses_go_round() {
        let subnet = net("198.18.5.0/29");
        let mut taken = BTreeSet::from(["198.18.5.1".parse().unwrap()]);
        let next = |last: Option<&str>, taken: &BTreeSet<_>| {
            free_address(subnet, subnet, last.map(|last| last.parse().unwrap()), taken).map(|it| it.to_string())
        };
        assert_eq!(next(None, &taken).unwrap(), "198.18.5.2");
        assert_eq!(next(Some("198.18.5.2"), &taken).unwrap(), "198.18.5.3");
        assert_eq!(next(Some("198.18.5.6"), &taken).unwrap(), "198.18.5.2");
        taken.extend((2..=6).map(|last| Ipv4Addr::new(198, 18, 5, last)));
        assert_eq!(next(None, &taken), None);
    }

    #[test]
    fn mac_addresses() {
        assert_eq!(show_mac(mac_of(Ipv4Addr::new(198, 18, 0, 2))), "02:42:c6:12:00:02");
        assert_eq!(parse_mac("02:42:C6:12:00:02").unwrap(), mac_of(Ipv4Addr::new(198, 18, 0, 2)));
        for bad in ["", "02:42", "01:00:5e:00:00:01", "zz:42:c6:12:00:02"] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }
}
