//! Requests to registries: to those that the operator names with their credentials, to where they send us without.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, ETAG, IF_NONE_MATCH, LOCATION};
use reqwest::{Certificate, Client, Response, StatusCode, redirect};
use slipway_protocol::reach::Reach;
use url::{Host, Url};

use super::credential::Credential;
use super::fault::Fault;
use crate::staging::host_settings::WayOut;

const CONNECT: Duration = Duration::from_secs(10);
/// Without a byte.
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_REDIRECTS: usize = 5;
/// Tries at a connection.
const TRIES: usize = 2;

/// A registry that the operator names.
#[derive(Debug)]
pub(super) struct Registry {
    /// For people: `npm`, `npm scope @corp`, `pypi`.
    pub(super) name: String,
    /// With a slash at its end.
    pub(super) base: Url,
    pub(super) credential: Credential,
    /// See [`super::file::Place::file_hosts`].
    pub(super) file_hosts: Vec<String>,
}

impl Registry {
    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Whether the operator has named this host, at whatever address it is.
    fn is_named(&self, url: &Url) -> bool {
        self.is_own(url) || {
            let host = url.host_str().unwrap_or_default();
            let with_port = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
            url.scheme() == "https" && self.file_hosts.iter().any(|named| *named == host || *named == with_port)
        }
    }
}

/// The one client for all of them.
#[derive(Debug)]
pub(super) struct Upstream {
    client: Client,
}

impl Upstream {
    /// `named`: hosts whose addresses may be private.
    pub(super) fn new(way_out: &WayOut, registries: &[Arc<Registry>]) -> Result<Self, reqwest::Error> {
        // Another part of the same program may have installed a provider already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let hosts = registries.iter().flat_map(|registry| {
            let files = registry.file_hosts.iter().map(|host| format!("https://{host}/"));
            std::iter::once(registry.base.to_string()).chain(files)
        });
        let named = hosts.chain(way_out.proxies.iter().cloned()).filter_map(|text| host_of(&text)).collect();
        let mut client = Client::builder()
            .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(PATIENCE)
            .dns_resolver(Resolver { named: Arc::new(named) })
            // Each step is looked at here: a credential is for its own registry.
            .redirect(redirect::Policy::none())
            .tls_certs_merge(Certificate::from_pem_bundle(&way_out.bundle)?);
        if let Some(proxy) = &way_out.configured_proxy {
            client = client.proxy(reqwest::Proxy::all(proxy)?);
        }
        Ok(Self { client: client.build()? })
    }

    /// The answer to a request, after redirects; any status but a redirect's.
    pub(super) async fn get(
        &self,
        registry: &Registry,
        url: &Url,
        accept: &str,
        etag: Option<&str>,
    ) -> Result<Response, Fault> {
        let mut url = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            admit(registry, &url)?;
            let response = self.send(registry, &url, accept, etag).await?;
            let status = response.status();
            let is_redirect = status.is_redirection() && status != StatusCode::NOT_MODIFIED;
            let Some(next) = response.headers().get(LOCATION).filter(|_| is_redirect) else {
                if is_redirect {
                    return Err(Fault::upstream(registry, format!("answered {status} and does not say where to")));
                }
                return Ok(response);
            };
            let next = next.to_str().ok().and_then(|next| url.join(next).ok());
            let next = next.ok_or_else(|| Fault::upstream(registry, "sends to an address that is none"))?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Fault::upstream(
                    registry,
                    "sends from https to plain http, where nobody knows who answers",
                ));
            }
            url = next;
        }
        Err(Fault::upstream(registry, format!("sends on more than {MOST_REDIRECTS} times")))
    }

    async fn send(&self, registry: &Registry, url: &Url, accept: &str, etag: Option<&str>) -> Result<Response, Fault> {
        let mut tries = 0;
        loop {
            let mut request = self.client.get(url.clone()).header(ACCEPT, accept);
            if let Some(etag) = etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            if registry.is_own(url)
                && let Some(value) = registry.credential.header().map_err(|text| {
                    tracing::error!(registry = registry.name, problem = text, "a registry cannot be logged in to");
                    Fault::upstream(registry, "cannot be asked: its credential cannot be read on the platform's side")
                })?
            {
                request = request.header(AUTHORIZATION, value);
            }
            tries += 1;
            match request.send().await {
                Err(error) if error.is_connect() && tries < TRIES => {}
                Err(error) => {
                    let error = error.without_url();
                    let cause = slipway_chassis::chain(&error).to_string();
                    tracing::warn!(
                        registry = registry.name,
                        host = url.host_str(),
                        error = cause,
                        "a registry does not answer"
                    );
                    return Err(Fault::away(registry, format!("cannot be reached: {cause}")));
                }
                Ok(response) => return Ok(response),
            }
        }
    }
}

/// Its word on whether it has changed since.
pub(super) fn etag_of(response: &Response) -> Option<String> {
    let etag = response.headers().get(ETAG)?.to_str().ok()?;
    (etag.len() < 1024).then(|| etag.to_owned())
}

/// Whether this may be asked at all. What a registry names beside itself is in public and speaks TLS, or the operator has named it:
/// a page is no way to this host's own ports, nor to the credentials that clouds tell their machines.
fn admit(registry: &Registry, url: &Url) -> Result<(), Fault> {
    if registry.is_named(url) {
        return Ok(());
    }
    let refused = |why: &str| {
        let host = url.host_str().unwrap_or_default();
        Err(Fault::upstream(registry, format!("leads to {host}, {why}")))
    };
    if url.scheme() != "https" {
        return refused("without TLS");
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
        Some(Host::Domain(name)) if name == "localhost" || name.ends_with(".localhost") => {
            return refused("which is this machine");
        }
        _ => return Ok(()),
    };
    if Reach::default().covers(SocketAddr::new(address, 443)) {
        return Ok(());
    }
    refused("which is not a public address (the operator may name it in file_hosts)")
}

fn host_of(address: &str) -> Option<String> {
    let url = Url::parse(address).ok().filter(|url| url.host_str().is_some());
    let url = url.or_else(|| Url::parse(&format!("http://{address}")).ok())?;
    url.host_str().map(str::to_ascii_lowercase)
}

/// Resolves names as the system does. Of those that nobody has named only public addresses count.
#[derive(Clone, Debug)]
struct Resolver {
    named: Arc<BTreeSet<String>>,
}

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let named = self.named.contains(&name.as_str().to_ascii_lowercase());
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let reach = Reach::default();
            let admitted: Vec<SocketAddr> =
                found.into_iter().filter(|address| named || reach.covers(*address)).collect();
            if admitted.is_empty() {
                return Err(format!(
                    "{} has no public address (the operator may name it in file_hosts)",
                    name.as_str()
                )
                .into());
            }
            Ok(Box::new(admitted.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(base: &str, file_hosts: &[&str]) -> Registry {
        Registry {
            name: "pypi".to_owned(),
            base: Url::parse(base).expect("an address"),
            credential: Credential::None,
            file_hosts: file_hosts.iter().map(|host| (*host).to_owned()).collect(),
        }
    }

    #[test]
    fn only_registries_and_public_hosts_are_asked() {
        let own = registry("http://10.0.0.7:8080/simple/", &["files.corp", "10.0.0.8:8443"]);
        for (url, admitted) in [
            ("http://10.0.0.7:8080/other", true),
            ("http://10.0.0.7:8081/other", false),
            ("https://10.0.0.7:8080/other", false),
            ("https://files.corp/x", true),
            ("http://files.corp/x", false),
            ("https://10.0.0.8:8443/x", true),
            ("https://10.0.0.8/x", false),
            ("https://files.pythonhosted.org/x", true),
            ("http://files.pythonhosted.org/x", false),
            ("https://1.1.1.1/x", true),
            ("https://169.254.169.254/latest/meta-data", false),
            ("https://127.0.0.1/x", false),
            ("https://[::1]/x", false),
            ("https://[::ffff:127.0.0.1]/x", false),
            ("https://2130706433/x", false),
            ("https://localhost/x", false),
            ("https://a.localhost/x", false),
            ("file:///etc/passwd", false),
            ("ftp://files.corp/x", false),
        ] {
            let url = Url::parse(url).expect(url);
            assert_eq!(admit(&own, &url).is_ok(), admitted, "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_of_a_private_address_must_be_named() {
        use reqwest::dns::Resolve as _;
        let name = || "localhost".parse::<reqwest::dns::Name>().expect("a name");
        let nobody = Resolver { named: Arc::default() };
        let refused = nobody.resolve(name()).await.map(Vec::from_iter).expect_err("loopback");
        assert!(refused.to_string().contains("no public address"), "{refused}");
        let named = Resolver { named: Arc::new(BTreeSet::from(["localhost".to_owned()])) };
        assert!(named.resolve(name()).await.expect("addresses").all(|address| address.ip().is_loopback()));
    }

    #[test]
    fn hosts_of_proxies_are_found_in_whatever_form() {
        for (text, host) in [
            ("http://user:p@proxy.example:3128", "proxy.example"),
            ("proxy.example:3128", "proxy.example"),
            ("PROXY", "proxy"),
            ("socks5://10.0.0.1:1080", "10.0.0.1"),
        ] {
            assert_eq!(host_of(text).as_deref(), Some(host), "{text}");
        }
    }
}
