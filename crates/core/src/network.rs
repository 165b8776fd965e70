//! The network that counts as one client address.
//!
//! The one rule: a client address is an IPv4 address or an IPv6 network of 64 bits, which is what one household or one
//! attacker has (NIST SP 800-63B, 5.2.2, asks for limits by client).

use std::net::{IpAddr, Ipv6Addr};

/// The address or network that limits apply to. An IPv4 address mapped into IPv6 counts as IPv4.
pub fn client_network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => mapped.into(),
            None => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_ipv4_or_an_ipv6_network_of_64_bits() {
        for (address, expected) in
            [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")]
        {
            assert_eq!(client_network(address.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
        }
    }
}
