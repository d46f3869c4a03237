//! Who the peer of a session is, and which of its announced addresses are accepted. Controllers and routers dial the address
//! that a member announces, so it must be one that the cluster's authority certified, or the one that it connects from: a
//! host that was broken into cannot redirect the others.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::Ipv4Net;
use slipway_protocol::{PeerIdentity, Role, v1};
use tonic::{Request, Status};
use uuid::Uuid;

/// Port of slot 0 in `host-port` mode.
pub(crate) const FIRST_HOST_PORT: u32 = 61_000;
/// The widest network of instances: room for the slots of the largest host, and as much again.
const WIDEST_NETWORK: u8 = 19;

/// The id of the member behind a request, of this cluster.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(crate) fn member<T>(request: &Request<T>, role: Role, cluster: Uuid) -> Result<Uuid, Status> {
    let peer = PeerIdentity::of_request(request, role)?;
    if peer.cluster != cluster {
        return Err(Status::permission_denied(format!(
            "this is cluster {cluster}; the certificate is of {}",
            peer.cluster
        )));
    }
    Ok(peer.id)
}

/// A member behind a request.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its id.
    pub(crate) id: Uuid,
    /// Where it comes from, and what its certificate names.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

impl Peer {
    /// The member of this role and cluster.
    ///
    /// # Errors
    /// [`Status`] `unauthenticated` or `permission_denied`.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    pub(crate) fn of<T>(request: &Request<T>, role: Role, cluster: Uuid) -> Result<Self, Status> {
        let id = member(request, role, cluster)?;
        let mut addresses: BTreeSet<IpAddr> =
            request.remote_addr().map(|from| from.ip().to_canonical()).into_iter().collect();
        if let Some(certificate) = request.peer_certs().as_ref().and_then(|chain| chain.first()) {
            addresses.extend(PeerIdentity::addresses(certificate));
        }
        Ok(Self { id, addresses })
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address.to_canonical())
    }

    /// The address of its Query service; empty when it has none.
    ///
    /// # Errors
    /// When it is not the peer's own.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    pub(crate) fn query_address(&self, announced: &str) -> Result<String, Status> {
        if announced.is_empty() {
            return Ok(String::new());
        }
        match announced.parse::<SocketAddr>() {
            Ok(address) if self.has(address.ip()) => Ok(announced.to_owned()),
            _ => Err(self.refused("query address", announced)),
        }
    }

    /// Where routers reach the cell's instances.
    ///
    /// # Errors
    /// When a host is not the peer's own, or a network is not one of instances.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    pub(crate) fn endpoints(&self, info: &v1::CellInfo) -> Result<Endpoints, Status> {
        match info.advertise_mode.as_str() {
            "host-port" => match info.advertise_host.parse::<IpAddr>() {
                Ok(host) if self.has(host) => Ok(Endpoints::HostPort { host, slots: info.slots }),
                _ => Err(self.refused("advertised host", &info.advertise_host)),
            },
            "direct" => match info.instance_network.parse::<Ipv4Net>() {
                Ok(network) if network.prefix_len() >= WIDEST_NETWORK && network.network().is_private() => {
                    Ok(Endpoints::Direct { network })
                }
                _ => Err(Status::invalid_argument(format!(
                    "hello: the network of instances {:?} is not a private IPv4 network of /{WIDEST_NETWORK} or smaller",
                    info.instance_network
                ))),
            },
            other => {
                Err(Status::invalid_argument(format!("hello: advertise mode {other:?}; it is host-port or direct")))
            }
        }
    }

    fn refused(&self, what: &str, announced: &str) -> Status {
        let own: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        Status::permission_denied(format!(
            "hello: the {what} {announced:?} is not this member's: its certificate and its connection say {}; issue its \
             certificate with that address",
            own.join(", ")
        ))
    }
}

/// The endpoints that a cell may report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// Ports of the host, one for each slot.
    HostPort {
        /// The host.
        host: IpAddr,
        /// How many.
        slots: u32,
    },
    /// Addresses on the cell's own bridge.
    Direct {
        /// Of all instances.
        network: Ipv4Net,
    },
}

impl Endpoints {
    /// Whether an instance of this cell can be there.
    pub(crate) fn include(&self, endpoint: &v1::Endpoint) -> bool {
        let Ok(address) = endpoint.host.parse::<IpAddr>() else { return false };
        match self {
            Self::HostPort { host, slots } => {
                address == *host && (FIRST_HOST_PORT..FIRST_HOST_PORT + slots).contains(&endpoint.port)
            }
            Self::Direct { network } => match address {
                IpAddr::V4(address) => network.contains(&address) && (1..=65_535).contains(&endpoint.port),
                IpAddr::V6(_) => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        let addresses = ["127.0.0.1", "10.1.2.3"].map(|text| text.parse().expect("an address"));
        Peer { id: Uuid::nil(), addresses: addresses.into() }
    }

    fn info(mode: &str, host: &str, network: &str) -> v1::CellInfo {
        v1::CellInfo {
            slots: 64,
            advertise_mode: mode.into(),
            advertise_host: host.into(),
            instance_network: network.into(),
            ..v1::CellInfo::default()
        }
    }

    #[test]
    fn a_member_is_asked_at_its_own_addresses_only() {
        for good in ["", "127.0.0.1:7", "10.1.2.3:65535"] {
            assert_eq!(peer().query_address(good).expect(good), good);
        }
        for bad in ["10.1.2.4:7", "169.254.169.254:80", "localhost:7", "10.1.2.3", "[::1]:7", "rubbish"] {
            let refused = peer().query_address(bad).expect_err(bad);
            assert!(refused.message().contains(bad) && refused.message().contains("10.1.2.3"), "{refused}");
        }
    }

    #[test]
    fn endpoints_are_ports_of_the_host_or_addresses_of_its_network() {
        let endpoint = |host: &str, port| v1::Endpoint { host: host.into(), port };
        let ports = peer().endpoints(&info("host-port", "10.1.2.3", "")).expect("its own host");
        assert!(ports.include(&endpoint("10.1.2.3", 61_000)) && ports.include(&endpoint("10.1.2.3", 61_063)));
        for (host, port) in [("10.1.2.3", 61_064), ("10.1.2.3", 22), ("10.1.2.4", 61_000), ("a.test", 61_000)] {
            assert!(!ports.include(&endpoint(host, port)), "{host}:{port}");
        }
        let direct = peer().endpoints(&info("direct", "127.0.0.1", "10.62.0.0/20")).expect("a private network");
        assert!(direct.include(&endpoint("10.62.0.2", 8080)));
        for (host, port) in [("10.63.0.2", 8080), ("127.0.0.1", 8080), ("::1", 8080), ("10.62.0.2", 0)] {
            assert!(!direct.include(&endpoint(host, port)), "{host}:{port}");
        }
        for (mode, host, network) in [
            ("host-port", "10.1.2.4", ""),
            ("host-port", "", ""),
            ("direct", "127.0.0.1", "0.0.0.0/0"),
            ("direct", "127.0.0.1", "10.0.0.0/8"),
            ("direct", "127.0.0.1", "169.254.0.0/24"),
            ("direct", "127.0.0.1", ""),
            ("", "127.0.0.1", ""),
        ] {
            assert!(peer().endpoints(&info(mode, host, network)).is_err(), "{mode} {host} {network}");
        }
    }
}
