//! Where the platform connects to because a developer says so: drains, route services. It does so from inside: without a
//! limit that is a way to its own loopback, to the metadata service of a cloud, to the cells and to every instance on them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// Public addresses, and the networks that the configuration allows besides.
#[derive(Clone, Debug, Default)]
pub struct Reach(Vec<IpNet>);

impl Reach {
    /// These networks besides the public ones: `10.8.0.0/16`, `::1/128`. The text of the first that is none comes back.
    ///
    /// # Errors
    /// When one is no network.
    pub fn new(networks: &[String]) -> Result<Self, String> {
        networks.iter().map(|text| text.parse().map_err(|_| text.clone())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a developer may send the platform there.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        // An IPv4 address in the clothes of IPv6 is what it is.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
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

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
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
    }
}
