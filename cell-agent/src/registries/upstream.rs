//! Requests to registries: to those that the operator names with their credentials, to where they send us without.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, ETAG, IF_NONE_MATCH, LOCATION};
use reqwest::{Certificate, Client, NoProxy, Proxy, Response, StatusCode, redirect};
use slipway_protocol::egress_guard::EgressGuard;
use url::{Host, Url};

use super::credential::Credential;
use super::fault::Fault;
use super::file::is_loopback;
use crate::staging::host_settings::OutgoingSettings;

const CONNECT: Duration = Duration::from_secs(10);
/// Without a byte.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;
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
    /// See [`super::file::RegistrySettings::file_hosts`].
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
            // Without a port the usual one is meant: another one may be another program's.
            let is_it = |named: &String| *named == with_port || (*named == host && url.port().is_none());
            url.scheme() == "https" && self.file_hosts.iter().any(is_it)
        }
    }
}

/// The clients for all of them.
#[derive(Debug)]
pub(super) struct Upstream {
    /// For hosts that the operator has named, whose addresses may be private.
    named: Client,
    public: Client,
    /// For this machine itself. By a proxy of another machine the credential would go over the network without TLS.
    direct: Client,
}

impl Upstream {
    pub(super) fn new(way_out: &OutgoingSettings, registries: &[Arc<Registry>]) -> Result<Self, reqwest::Error> {
        // Another part of the same program may have installed a provider already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let hosts = registries.iter().flat_map(|registry| {
            let files = registry.file_hosts.iter().map(|host| format!("https://{host}/"));
            std::iter::once(registry.base.to_string()).chain(files)
        });
        let named: BTreeSet<String> = hosts.filter_map(|text| host_of(&text)).collect();
        let proxies: BTreeSet<String> = way_out.proxies.iter().filter_map(|text| host_of(text)).collect();
        let client = |named: BTreeSet<String>| {
            let client = Client::builder()
                .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .read_timeout(RESPONSE_TIMEOUT)
                .dns_resolver(Resolver { named: Arc::new(named) })
                // Each step is looked at here: a credential is for its own registry.
                .redirect(redirect::Policy::none());
            Ok::<_, reqwest::Error>(client.tls_certs_merge(Certificate::from_pem_bundle(&way_out.bundle)?))
        };
        let by_proxy = |named: BTreeSet<String>| {
            let client = client(named.union(&proxies).cloned().collect())?;
            let Some(proxy) = &way_out.configured_proxy else { return client.build() };
            let past = NoProxy::from_string(&way_out.past_configured_proxy);
            client.proxy(Proxy::all(proxy)?.no_proxy(past)).build()
        };
        Ok(Self {
            named: by_proxy(named.clone())?,
            public: by_proxy(BTreeSet::new())?,
            direct: client(named)?.no_proxy().build()?,
        })
    }

    /// A host that is named for one port or registry is none that others, or its other ports, may lead to at a private address.
    fn client(&self, registry: &Registry, url: &Url) -> &Client {
        match registry.is_named(url) {
            true if is_loopback(url) => &self.direct,
            true => &self.named,
            false => &self.public,
        }
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
        for _ in 0..=MAX_REDIRECTS {
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
            let next = next.ok_or_else(|| Fault::upstream(registry, "redirects to an invalid address"))?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Fault::upstream(
                    registry,
                    "sends from https to plain http, where nobody knows who answers",
                ));
            }
            url = next;
        }
        Err(Fault::upstream(registry, format!("sends on more than {MAX_REDIRECTS} times")))
    }

    async fn send(&self, registry: &Registry, url: &Url, accept: &str, etag: Option<&str>) -> Result<Response, Fault> {
        let mut tries = 0;
        loop {
            let request = self.client(registry, url).get(url.clone());
            // What is kept is read and has a digest as it is.
            let mut request = request.header(ACCEPT, accept).header(ACCEPT_ENCODING, "identity");
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
                    return Err(Fault::unavailable(registry, format!("cannot be reached: {cause}")));
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

/// Whether it is packed, although nobody has asked for that.
pub(super) fn is_coded(response: &Response) -> bool {
    response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity")
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
    if EgressGuard::default().allows(SocketAddr::new(address, 443)) {
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
            let egress_guard = EgressGuard::default();
            let admitted: Vec<SocketAddr> =
                found.into_iter().filter(|address| named || egress_guard.allows(*address)).collect();
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

    #[test]
    fn a_named_host_is_trusted_at_its_own_ports_and_by_its_own_registry() {
        let corp = Arc::new(registry("https://corp.example:8443/npm/", &["files.corp.example"]));
        let other = Arc::new(registry("https://other.example/", &[]));
        let upstream =
            Upstream::new(&OutgoingSettings::default(), &[Arc::clone(&corp), Arc::clone(&other)]).expect("clients");
        for (registry, url, named) in [
            (&corp, "https://corp.example:8443/x", true),
            (&corp, "https://corp.example/x", false),
            (&corp, "https://files.corp.example/x", true),
            (&corp, "https://files.corp.example:9200/x", false),
            (&other, "https://corp.example:8443/x", false),
            (&other, "https://files.corp.example/x", false),
        ] {
            let client = upstream.client(registry, &Url::parse(url).expect("an address"));
            assert_eq!(std::ptr::eq(client, &upstream.named), named, "{url}");
            assert_eq!(std::ptr::eq(client, &upstream.public), !named, "{url}");
        }
    }

    #[tokio::test]
    async fn this_machine_is_asked_past_its_proxy() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listen = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (server, nobody) = (listen().await, listen().await);
        let own = registry(&format!("http://{}/", server.local_addr().expect("an address")), &[]);
        let proxy = format!("http://{}", nobody.local_addr().expect("an address"));
        drop(nobody);
        let _server = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                assert_ne!(stream.read(&mut [0; 4096]).await.expect("a request"), 0);
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("an answer");
            }
        }));
        let way_out = OutgoingSettings {
            configured_proxy: Some(proxy.clone()),
            proxies: vec![proxy],
            ..OutgoingSettings::default()
        };
        let own = Arc::new(own);
        let upstream = Upstream::new(&way_out, &[Arc::clone(&own)]).expect("clients");
        let answer = upstream.get(&own, &own.base, "*/*", None).await.expect("past a proxy that is not there");
        assert_eq!(answer.status(), 204);
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
