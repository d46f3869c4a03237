//! Names below `localhost` are this machine, whatever the resolver of the system thinks: RFC 6761 says so, many
//! resolvers do not, and the default platform lives at `api.slipway.localhost`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Whether a host name means this machine.
pub(super) fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// The system's resolver, except for names below `localhost`: those are at this address, or at the loopback ones.
pub(super) struct Resolver(pub(super) Option<IpAddr>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (host, local) = (name.as_str().to_owned(), self.0);
        Box::pin(async move {
            if is_localhost(&host) {
                let usual = || vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                let addresses = local.map_or_else(usual, |address| vec![address]).into_iter();
                return Ok(Box::new(addresses.map(|address| SocketAddr::new(address, 0))) as Addrs);
            }
            let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_below_localhost_are_this_machine() {
        for host in ["localhost", "api.slipway.localhost", "API.Slipway.LOCALHOST", "a.localhost."] {
            let name = || host.parse::<Name>().expect("a name");
            let all: Vec<_> = Resolver(None).resolve(name()).await.expect("resolved").collect();
            assert!(all.iter().all(|address| address.ip().is_loopback()) && all.len() == 2, "{host}");
            let own = IpAddr::from([10, 1, 2, 3]);
            let all: Vec<_> = Resolver(Some(own)).resolve(name()).await.expect("resolved").collect();
            assert_eq!(all, [SocketAddr::new(own, 0)], "{host}");
        }
        for host in ["localhost.example.com", "notlocalhost", "example.com"] {
            assert!(!is_localhost(host), "{host}");
        }
    }
}
