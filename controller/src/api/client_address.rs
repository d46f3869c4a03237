//! The address of a client, as far as it can be trusted.
//!
//! A router appends the address of its client to `X-Forwarded-For`; the client itself may have sent the entries before. So
//! the last entry counts, and only on a connection with a router's certificate: other clients of the API's own port may
//! send anything. With a load balancer in front of the routers, the last entry is the load balancer's, and
//! `trusted_proxies` makes the entry before it count.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::request::Parts;
use ipnet::IpNet;

use crate::context::Context;
use crate::members::FromRouter;

/// The address of the client of this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl FromRequestParts<Context> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        // Without one, everybody is the same client: that only costs fairness.
        let peer = peer.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).to_canonical();
        Ok(Self(of(peer, parts, &trusted(&context.config.trusted_proxies))))
    }
}

fn of(peer: IpAddr, parts: &Parts, trusted: &[IpNet]) -> IpAddr {
    if parts.extensions.get::<FromRouter>().is_none() {
        return peer;
    }
    let lines = parts.headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    believed(peer, lines.flat_map(|line| line.split(',')), trusted)
}

/// The configuration was checked when it was loaded.
fn trusted(networks: &[String]) -> Vec<IpNet> {
    networks.iter().filter_map(|text| text.parse().ok()).collect()
}

/// From the last entry on, the first that is no trusted proxy. What is no address ends the search: nobody of ours wrote it.
fn believed<'a>(router: IpAddr, entries: impl Iterator<Item = &'a str>, trusted: &[IpNet]) -> IpAddr {
    let entries: Vec<&str> = entries.collect();
    let mut client = router;
    for entry in entries.iter().rev() {
        let Ok(address) = entry.trim().parse::<IpAddr>() else { break };
        client = address.to_canonical();
        if !trusted.iter().any(|network| network.contains(&client)) {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_count_only_from_a_router() {
        let peer = "192.0.2.1".parse().expect("an address");
        let request = http::Request::builder().header("x-forwarded-for", "203.0.113.7");
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        assert_eq!(super::of(peer, &parts, &[]), peer);
        parts.extensions.insert(FromRouter);
        assert_eq!(super::of(peer, &parts, &[]).to_string(), "203.0.113.7");
    }

    fn of(line: &str, proxies: &[&str]) -> String {
        let proxies = trusted(&proxies.iter().map(ToString::to_string).collect::<Vec<_>>());
        believed("10.0.0.9".parse().expect("an address"), line.split(','), &proxies).to_string()
    }

    #[test]
    fn the_last_entry_is_the_router_s_own_and_counts() {
        assert_eq!(of("198.51.100.1, 203.0.113.7", &[]), "203.0.113.7");
        assert_eq!(of("203.0.113.7", &[]), "203.0.113.7");
        assert_eq!(of("::ffff:203.0.113.7", &[]), "203.0.113.7");
        assert_eq!(of("2001:db8::1", &[]), "2001:db8::1");
        // Without one the router asks for itself.
        assert_eq!(of("", &[]), "10.0.0.9");
        assert_eq!(of("198.51.100.1, unknown", &[]), "10.0.0.9");
    }

    #[test]
    fn only_trusted_proxies_are_skipped_in_forwarded_addresses() {
        let balancer = ["192.0.2.0/24"];
        assert_eq!(of("198.51.100.1, 203.0.113.7, 192.0.2.4", &balancer), "203.0.113.7");
        assert_eq!(of("203.0.113.7, 192.0.2.5, 192.0.2.4", &balancer), "203.0.113.7");
        assert_eq!(of("192.0.2.4", &balancer), "192.0.2.4");
        assert_eq!(of("rubbish, 192.0.2.4", &balancer), "192.0.2.4");
        assert_eq!(of("192.0.2.4, 203.0.113.7", &balancer), "203.0.113.7");
    }
}
