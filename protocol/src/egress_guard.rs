//! Which addresses the platform connects to on behalf of a developer: drains and route services.
//!
//! It connects from its own network. Without a limit, a developer could make it connect to its own loopback, to a cloud's
//! metadata service, to cells and to any instance on them (server-side request forgery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

/// Special-purpose IPv4 networks (IANA's registry): none of them is a public address.
const SPECIAL: [([u8; 4], u8); 14] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// Allows public addresses, and the destinations that the configuration adds.
#[derive(Clone, Debug, Default)]
pub struct EgressGuard(Vec<Destination>);

#[derive(Clone, Copy, Debug)]
enum Destination {
    /// Every port of these.
    Network(IpNet),
    /// One port, such as one of the platform itself: other ports of the same address stay closed.
    Port(SocketAddr),
}

impl EgressGuard {
    /// Allows these besides public addresses: networks (`10.8.0.0/16`, `::1/128`) and single ports (`127.0.0.1:8443`,
    /// `[::1]:8443`).
    ///
    /// # Errors
    /// The first text that is neither a network nor a port.
    pub fn new(allowed: &[String]) -> Result<Self, String> {
        let destination = |text: &String| {
            let network = text.parse().map(Destination::Network).ok();
            network.or_else(|| text.parse().map(Destination::Port).ok()).ok_or_else(|| text.clone())
        };
        allowed.iter().map(destination).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the platform may connect to this address for a developer.
    #[must_use]
    pub fn allows(&self, peer: SocketAddr) -> bool {
        // IPv4-mapped IPv6 addresses are treated as IPv4.
        let address = peer.ip().to_canonical();
        let allows = |destination: &Destination| match destination {
            Destination::Network(network) => network.contains(&address),
            Destination::Port(port) => port.ip().to_canonical() == address && port.port() == peer.port(),
        };
        self.0.iter().any(allows)
            || match address {
                IpAddr::V4(address) => public_v4(address),
                IpAddr::V6(address) => public_v6(address),
            }
    }
}

fn public_v4(address: Ipv4Addr) -> bool {
    !SPECIAL.iter().any(|(network, length)| {
        Ipv4Net::new(Ipv4Addr::from(*network), *length).is_ok_and(|network| network.contains(&address))
    })
}

fn public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    if parts[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        // NAT64 translates it to the IPv4 address in its last 32 bits.
        let [a, b] = parts[6].to_be_bytes();
        let [c, d] = parts[7].to_be_bytes();
        return public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Global unicast, without documentation and the tunnels that end at an IPv4 address (Teredo, 6to4).
    let documentation = parts[..2] == [0x2001, 0xdb8] || (parts[0] == 0x3fff && parts[1] < 0x1000);
    let tunnel = parts[..2] == [0x2001, 0] || parts[0] == 0x2002;
    parts[0] & 0xe000 == 0x2000 && !documentation && !tunnel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect(text), 443)
    }

    #[test]
    fn by_default_only_public_addresses_are_allowed() {
        let egress_guard = EgressGuard::default();
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert!(egress_guard.allows(address(text)), "{text}");
        }
        for text in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "10.62.0.9",
            "100.64.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:0:1::1",
            "2001:db8::1",
        ] {
            assert!(!egress_guard.allows(address(text)), "{text}");
        }
    }

    #[test]
    fn the_configuration_adds_networks_and_ports() {
        let egress_guard = EgressGuard::new(&["10.8.0.0/16".to_owned(), "::1/128".to_owned()]).expect("networks");
        assert!(
            egress_guard.allows(address("10.8.3.4"))
                && egress_guard.allows(address("::1"))
                && egress_guard.allows(address("8.8.8.8"))
        );
        assert!(egress_guard.allows(address("::ffff:10.8.3.4")));
        assert!(!egress_guard.allows(address("10.9.0.1")) && !egress_guard.allows(address("127.0.0.1")));
        assert_eq!(EgressGuard::new(&["10.8.0.0/16".to_owned(), "10.9".to_owned()]).map(drop), Err("10.9".to_owned()));
        // A port of an address allows no other port of it.
        let egress_guard = EgressGuard::new(&["127.0.0.1:443".to_owned(), "[::1]:8443".to_owned()]).expect("ports");
        assert!(egress_guard.allows(address("127.0.0.1")) && egress_guard.allows(address("::ffff:127.0.0.1")));
        assert!(
            !egress_guard.allows("127.0.0.1:22".parse().expect("a port")) && !egress_guard.allows(address("127.0.0.2"))
        );
        assert!(egress_guard.allows("[::1]:8443".parse().expect("a port")) && !egress_guard.allows(address("::1")));
    }
}
