//! The addresses to which messages may be sent.
//!
//! The one rule: an address is allowed only if it is public. A webhook is named by an account, and whoever names it must
//! not reach services that trust the hub's own networks. So the check is of addresses, at the moment of connecting, and not
//! of names, whose addresses change.
//!
//! The networks of special use are those of IANA's registries (RFC 6890), as of 2026.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 networks that are not public, each by its first address and length.
const SPECIAL_V4: [([u8; 4], u8); 18] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    // Link-local, and the metadata of most clouds.
    ([169, 254, 0, 0], 16),
    // The platform service of Azure, which every machine there reaches.
    ([168, 63, 129, 16], 32),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 31, 196, 0], 24),
    ([192, 52, 193, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([192, 175, 48, 0], 24),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Multicast, reserved, broadcast.
    ([224, 0, 0, 0], 3),
];

/// Networks within 2000::/3 that are not public. Nothing outside of 2000::/3 is.
const SPECIAL_V6: [([u16; 2], u8); 5] = [
    // Teredo, benchmarks, ORCHID and other protocols.
    ([0x2001, 0], 23),
    // Documentation.
    ([0x2001, 0xdb8], 32),
    // 6to4, which leads to an IPv4 address.
    ([0x2002, 0], 16),
    ([0x2620, 0x4f], 48),
    ([0x3fff, 0], 20),
];

/// The networks that the operator allows and refuses.
#[derive(Debug, Clone, Default)]
pub(super) struct NetworkRules {
    pub(super) allowed: Vec<IpNet>,
    pub(super) refused: Vec<IpNet>,
}

impl NetworkRules {
    /// Whether messages may be sent to an address.
    pub(super) fn admit(&self, address: IpAddr) -> bool {
        let address = led_to(address);
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        // The operator's own networks come first: what is refused there is refused although it is public.
        !is_in(&self.refused) && (is_in(&self.allowed) || is_public(address))
    }

    /// Whether the operator has allowed this address by name.
    pub(super) fn names(&self, address: IpAddr) -> bool {
        let address = led_to(address);
        self.allowed.iter().any(|network| network.contains(&address))
    }
}

/// The address to which packets go: that of IPv4 which is mapped into IPv6 (RFC 4291), or translated by the well-known
/// prefix (NAT64, RFC 6052).
fn led_to(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let four = |[high, low]: [u16; 2]| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match six.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four([high, low]),
        _ => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let mut special = SPECIAL_V4.iter();
            !special.any(|(first, length)| {
                Ipv4Net::new(Ipv4Addr::from(*first), *length).is_ok_and(|network| network.contains(&address))
            })
        }
        IpAddr::V6(address) => {
            let first = address.segments().first().copied().unwrap_or(0);
            let mut special = SPECIAL_V6.iter();
            (first & 0xe000) == 0x2000
                && !special.any(|([high, low], length)| {
                    let network = Ipv6Net::new(Ipv6Addr::new(*high, *low, 0, 0, 0, 0, 0, 0), *length);
                    network.is_ok_and(|network| network.contains(&address))
                })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_admitted_in_whatever_spelling() {
        let rules = NetworkRules::default();
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1",
            "2a00:1450:4001::8",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "198.20.0.1",
            "169.253.1.1",
            "223.255.255.255",
        ] {
            assert!(rules.admit(public.parse().unwrap()), "{public}");
        }
        for inner in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "168.63.129.16",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::7f00:1",
            "64:ff9b:0:0:0:1:808:808",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2001:20::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!rules.admit(inner.parse().unwrap()), "{inner}");
        }
    }

    #[test]
    fn the_operator_allows_and_refuses_networks_in_whatever_spelling() {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let rules = NetworkRules {
            allowed: networks(&["10.20.0.0/16", "fd00:1::/64", "5.6.7.0/24"]),
            refused: networks(&["10.20.30.0/24", "5.6.0.0/16", "2a00:1::/32"]),
        };
        for allowed in ["10.20.1.1", "::ffff:10.20.1.1", "64:ff9b::a14:101", "fd00:1::9", "1.1.1.1"] {
            assert!(rules.admit(allowed.parse().unwrap()), "{allowed}");
        }
        for refused in ["10.21.1.1", "10.20.30.1", "::ffff:10.20.30.1", "fd00:2::9", "5.6.8.1", "5.6.7.1", "2a00:1::1"]
        {
            assert!(!rules.admit(refused.parse().unwrap()), "{refused}");
        }
        assert!(rules.names("::ffff:10.20.1.1".parse().unwrap()) && !rules.names("1.1.1.1".parse().unwrap()));
    }
}
