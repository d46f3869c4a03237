//! Names below `localhost` are this machine, whatever the resolver of the system thinks: RFC 6761 says so, many
//! resolvers do not, and the default platform lives at `api.slipway.localhost`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Whether a host name means this machine.
pub(super) fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// The system's resolver, except for names below `localhost`.
pub(super) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        Box::pin(async move {
            if is_localhost(&host) {
                let addresses =
                    [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
                return Ok(Box::new(addresses.into_iter()) as Addrs);
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
            let name: Name = host.parse().expect("a name");
            let all: Vec<_> = Resolver.resolve(name).await.expect("resolved").collect();
            assert!(all.iter().all(|address| address.ip().is_loopback()) && all.len() == 2, "{host}");
        }
        for host in ["localhost.example.com", "notlocalhost", "example.com"] {
            assert!(!is_localhost(host), "{host}");
        }
    }
}
