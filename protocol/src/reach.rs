//! Where the platform connects to because a developer says so: drains, route services. It does so from inside: without a
//! limit that is a way to its own loopback, to the metadata service of a cloud, to the cells and to every instance on them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

/// Special-purpose IPv4 networks (IANA's registry): none of them is a place on the internet.
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

/// Public addresses, and what the configuration allows besides.
#[derive(Clone, Debug, Default)]
pub struct Reach(Vec<Place>);

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Every port of these.
    Network(IpNet),
    /// One port: a door of the platform itself, whose host has others.
    Door(SocketAddr),
}

impl Reach {
    /// These besides the public ones: networks (`10.8.0.0/16`, `::1/128`), and single ports (`127.0.0.1:8443`,
    /// `[::1]:8443`). The text of the first that is neither comes back.
    ///
    /// # Errors
    /// When one is neither.
    pub fn new(places: &[String]) -> Result<Self, String> {
        let place = |text: &String| {
            let network = text.parse().map(Place::Network).ok();
            network.or_else(|| text.parse().map(Place::Door).ok()).ok_or_else(|| text.clone())
        };
        places.iter().map(place).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a developer may send the platform there.
    #[must_use]
    pub fn covers(&self, peer: SocketAddr) -> bool {
        // An IPv4 address in the clothes of IPv6 is what it is.
        let address = peer.ip().to_canonical();
        let allows = |place: &Place| match place {
            Place::Network(network) => network.contains(&address),
            Place::Door(door) => door.ip().to_canonical() == address && door.port() == peer.port(),
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
        // A translator makes an IPv4 address of it.
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
    fn without_more_only_public_addresses_are_reached() {
        let reach = Reach::default();
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert!(reach.covers(address(text)), "{text}");
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
            assert!(!reach.covers(address(text)), "{text}");
        }
    }

    #[test]
    fn the_configuration_allows_more() {
        let reach = Reach::new(&["10.8.0.0/16".to_owned(), "::1/128".to_owned()]).expect("networks");
        assert!(reach.covers(address("10.8.3.4")) && reach.covers(address("::1")) && reach.covers(address("8.8.8.8")));
        assert!(reach.covers(address("::ffff:10.8.3.4")));
        assert!(!reach.covers(address("10.9.0.1")) && !reach.covers(address("127.0.0.1")));
        assert_eq!(Reach::new(&["10.8.0.0/16".to_owned(), "10.9".to_owned()]).map(drop), Err("10.9".to_owned()));
        // A door is one port of an address, not the address.
        let reach = Reach::new(&["127.0.0.1:443".to_owned(), "[::1]:8443".to_owned()]).expect("doors");
        assert!(reach.covers(address("127.0.0.1")) && reach.covers(address("::ffff:127.0.0.1")));
        assert!(!reach.covers("127.0.0.1:22".parse().expect("a port")) && !reach.covers(address("127.0.0.2")));
        assert!(reach.covers("[::1]:8443".parse().expect("a port")) && !reach.covers(address("::1")));
    }
}
