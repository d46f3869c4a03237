//! Route services: a request of a bound route goes to the service first, with a signature by which the router recognises
//! it when the service sends it back. Then it goes to the app.
//!
//! The signature is the time and the URL, sealed with a key that every router has for this route alone: the service may send
//! the request back to any router, and a signature of one route is not valid for another. Clients cannot make one, and an
//! old one is refused, so that a signature that was seen once does not bypass the service for ever.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, request};
use rustls_pki_types::ServerName;
use slipway_protocol::egress_guard::EgressGuard;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::answer::LocalReply;
use super::core::Core;
use super::failure::{Cause, Failure};
use super::upstream::{self, ConnectError, Sender};
use crate::keepalive::keep_alive;
use crate::limits::Descriptor;
use crate::table::{RouteService, normal_host};

const FORWARDED_URL: HeaderName = HeaderName::from_static("x-cf-forwarded-url");
pub(crate) const SIGNATURE: HeaderName = HeaderName::from_static("x-cf-proxy-signature");
const METADATA: HeaderName = HeaderName::from_static("x-cf-proxy-metadata");

/// How long a service may keep a request.
const EXPIRY_MS: i64 = 60_000;
/// Clocks of routers may differ by this much.
const SKEW_MS: i64 = 5_000;
/// Name look-up, connection and handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a request has been at the route's service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It comes from a client.
    Fresh,
    /// The service sent it back.
    Back,
}

/// No connection to a route service.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("the name {0:?} of a route service cannot be resolved")]
    Name(String, #[source] std::io::Error),
    #[error("the name {0:?} of a route service has no address")]
    NoAddress(String),
    #[error(
        "the route service {host:?} is at {address}, where this platform sends nothing: use a public address, or let the operator add its network to route_service_networks"
    )]
    Closed { host: String, address: IpAddr },
    #[error("no connection to the route service {0:?} in time")]
    Late(String),
    #[error("cannot connect to the route service {0:?}")]
    Io(String, #[source] std::io::Error),
    #[error("the host name of the route service {0:?} is not valid for TLS")]
    TlsName(String, #[source] rustls_pki_types::InvalidDnsNameError),
    #[error(transparent)]
    Http(#[from] ConnectError),
}

impl ServiceError {
    pub(crate) fn failure(&self) -> Failure {
        let otherwise = match self {
            Self::Name(..) | Self::NoAddress(_) | Self::Closed { .. } => Cause::Unreachable,
            Self::Late(_) => Cause::Late,
            Self::TlsName(..) => Cause::Tls,
            Self::Io(..) | Self::Http(_) => Cause::Other,
        };
        Failure::or(otherwise, self)
    }
}

/// Whether a request comes from a client or back from the service.
///
/// # Errors
/// The answer to a request that says it comes back and does not prove it.
pub(crate) fn arrival(
    service: &RouteService,
    headers: &HeaderMap,
    target: &Uri,
    now_ms: i64,
) -> Result<Arrival, LocalReply> {
    let Some(signature) = headers.get(SIGNATURE) else { return Ok(Arrival::Fresh) };
    let decode = |value: Option<&HeaderValue>| hex::decode(value.map_or(&[][..], HeaderValue::as_bytes)).ok();
    let (Some(sealed), Some(nonce)) = (decode(Some(signature)), decode(headers.get(METADATA))) else {
        return Err(LocalReply::BadSignature("it is not complete"));
    };
    let note = service.open(&nonce, &sealed).ok_or(LocalReply::BadSignature("it was not made by this platform"))?;
    let Some((time, url)) = note.split_first_chunk::<8>() else {
        return Err(LocalReply::BadSignature("it is not complete"));
    };
    if headers.get(FORWARDED_URL).map(HeaderValue::as_bytes) != Some(url) {
        return Err(LocalReply::BadSignature("X-CF-Forwarded-Url is not the URL that was signed"));
    }
    if !asks_for(headers, target, url) {
        return Err(LocalReply::BadSignature("the request does not ask for the URL that was signed"));
    }
    let made = i64::from_be_bytes(*time);
    if now_ms.saturating_sub(made) > EXPIRY_MS || made.saturating_sub(now_ms) > SKEW_MS {
        return Err(LocalReply::LateSignature);
    }
    Ok(Arrival::Back)
}

/// Whether the request asks for the very path and query of `url`, at its host. Scheme and port may be others than those by
/// which the first client came.
fn asks_for(headers: &HeaderMap, target: &Uri, url: &[u8]) -> bool {
    let Ok(url) = std::str::from_utf8(url) else { return false };
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else { return false };
    let Some(signed) = rest.strip_suffix(&*target.to_string()) else { return false };
    let asked = headers.get(HOST).and_then(|host| host.to_str().ok()).and_then(|host| normal_host(host).ok());
    asked.is_some() && asked == normal_host(signed).ok()
}

/// Takes the signature away: an app could otherwise use it to go past the service of its route.
pub(crate) fn strip(headers: &mut HeaderMap) {
    for name in [FORWARDED_URL, SIGNATURE, METADATA] {
        headers.remove(name);
    }
}

/// Turns a client's request into the one that the service gets.
///
/// # Errors
/// When the service cannot be used at all.
pub(crate) fn address(service: &RouteService, head: &mut request::Parts, now_ms: i64) -> Result<(), LocalReply> {
    let text = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = if text(&HeaderName::from_static("x-forwarded-proto")) == Some("https") { "https" } else { "http" };
    let url = format!("{scheme}://{}{}", text(&HOST).unwrap_or_default(), head.uri);
    let mut note = now_ms.to_be_bytes().to_vec();
    note.extend_from_slice(url.as_bytes());
    let closed = || {
        LocalReply::RouteServiceFailure(Failure::new(Cause::Gone, "the route's service has no usable URL or secret"))
    };
    let (nonce, sealed) = service.seal(&note).ok_or_else(closed)?;
    let unusable = |_| {
        LocalReply::RouteServiceFailure(Failure::new(Cause::Invalid, "the URL cannot be told to the route's service"))
    };
    let headers = &mut head.headers;
    headers.insert(FORWARDED_URL, HeaderValue::from_str(&url).map_err(unusable)?);
    headers.insert(SIGNATURE, HeaderValue::from_str(&hex::encode(sealed)).map_err(unusable)?);
    headers.insert(METADATA, HeaderValue::from_str(&hex::encode(nonce)).map_err(unusable)?);
    let target = service.target().ok_or_else(closed)?;
    headers.insert(HOST, target.authority.clone());
    head.uri = Uri::from(target.path.clone());
    Ok(())
}

/// Names below `localhost` mean this host (RFC 6761), also where the resolver of the host does not know them: on a
/// platform of one machine the service may be an app of that platform.
async fn resolve(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// Those of the addresses that a developer may send the router to. What is left is what is dialled: the name is not
/// asked about again, it could have another address by then.
fn open(
    egress_guard: &EgressGuard,
    host: &str,
    mut addresses: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, ServiceError> {
    let one = addresses.first().map(SocketAddr::ip);
    addresses.retain(|address| egress_guard.allows(*address));
    match one {
        Some(address) if addresses.is_empty() => Err(ServiceError::Closed { host: host.to_owned(), address }),
        _ => Ok(addresses),
    }
}

/// Opens a connection to the service.
///
/// # Errors
/// When its name, its host or its certificate is not as it should be.
pub(crate) async fn connect(
    core: &Rc<Core>,
    service: &RouteService,
    descriptor: Descriptor,
) -> Result<Sender, ServiceError> {
    let Some(target) = service.target() else { return Err(ServiceError::NoAddress(String::new())) };
    let host = || target.host.clone();
    let dial = async {
        let found = resolve(&target.host, target.port).await.map_err(|error| ServiceError::Name(host(), error))?;
        let addresses = open(&core.shared.service_egress, &target.host, found)?;
        let first = *addresses.first().ok_or_else(|| ServiceError::NoAddress(host()))?;
        let stream = TcpStream::connect(&*addresses).await.map_err(|error| ServiceError::Io(host(), error))?;
        let ready = stream.set_nodelay(true).and_then(|()| keep_alive(&stream));
        ready.map_err(|error| ServiceError::Io(host(), error))?;
        if !target.tls {
            return Ok(upstream::handshake(core, stream, first, descriptor).await?);
        }
        let name = ServerName::try_from(host()).map_err(|error| ServiceError::TlsName(host(), error))?;
        let tls = TlsConnector::from(std::sync::Arc::clone(&core.shared.service_tls));
        let stream = tls.connect(name, stream).await.map_err(|error| ServiceError::Io(host(), error))?;
        Ok(upstream::handshake(core, stream, first, descriptor).await?)
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, dial).await {
        Ok(sender) => sender,
        Err(_) => Err(ServiceError::Late(host())),
    }
}

#[cfg(test)]
mod tests {
    use slipway_protocol::v1::Route;

    use super::*;

    fn service(url: &str, secret: u8) -> RouteService {
        RouteService::of(&Route {
            id: "r".into(),
            route_service_url: url.into(),
            route_service_secret: vec![secret; 32].into(),
            ..Route::default()
        })
        .expect("a service")
    }

    fn signed(service: &RouteService, at: i64) -> HeaderMap {
        let request = http::Request::builder().uri("/a?b").header(HOST, "app.test:8080");
        let (mut head, ()) = request.body(()).expect("a request").into_parts();
        address(service, &mut head, at).expect("addressed");
        assert_eq!(head.uri, "/in?x=1");
        assert_eq!(head.headers[HOST], "service.test:444");
        assert_eq!(head.headers["x-cf-forwarded-url"], "http://app.test:8080/a?b");
        head.headers
    }

    #[tokio::test]
    async fn names_below_localhost_are_this_host() {
        let local: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, 443).into(), (Ipv6Addr::LOCALHOST, 443).into()];
        for name in ["localhost", "service.slipway.localhost", "Service.LOCALHOST."] {
            assert_eq!(resolve(name, 443).await.expect("known"), local, "{name}");
        }
        let other = resolve("192.0.2.1", 443).await.expect("an address");
        assert_eq!(other, [SocketAddr::from(([192, 0, 2, 1], 443))]);
    }

    #[test]
    fn a_service_inside_the_platform_is_not_dialled() {
        let at = |text: &str| text.parse::<SocketAddr>().expect(text);
        let (inside, outside) = (at("10.0.0.5:443"), at("1.1.1.1:443"));
        let found = open(&EgressGuard::default(), "s.test", vec![inside, outside]).expect("one is open");
        assert_eq!(found, [outside]);
        let refused = open(&EgressGuard::default(), "s.test", vec![inside]).expect_err("closed");
        assert_eq!(refused.failure().cause, Cause::Unreachable);
        let text = refused.to_string();
        assert!(text.contains("\"s.test\" is at 10.0.0.5") && text.contains("route_service_networks"), "{text}");
        let allowed = EgressGuard::new(&["10.0.0.0/24".to_owned()]).expect("a network");
        assert_eq!(open(&allowed, "s.test", vec![inside]).expect("open"), [inside]);
        assert!(open(&allowed, "s.test", Vec::new()).expect("nothing").is_empty());
    }

    #[test]
    fn a_request_that_a_route_service_sends_back_is_recognised() {
        let own = service("https://service.test:444/in?x=1", 1);
        let mut headers = signed(&own, 1_000_000);
        let back = Uri::from_static("/a?b");
        headers.insert(HOST, HeaderValue::from_static("APP.test"));
        assert_eq!(arrival(&own, &HeaderMap::new(), &back, 0), Ok(Arrival::Fresh));
        assert_eq!(arrival(&own, &headers, &back, 1_000_000), Ok(Arrival::Back));
        assert_eq!(arrival(&own, &headers, &back, 1_060_000), Ok(Arrival::Back));
        assert_eq!(arrival(&own, &headers, &back, 1_060_001), Err(LocalReply::LateSignature));
        assert_eq!(arrival(&own, &headers, &back, 900_000), Err(LocalReply::LateSignature), "from the future");
    }

    #[test]
    fn forged_signatures_are_refused() {
        let own = service("https://service.test:444/in?x=1", 1);
        let mut good = signed(&own, 1_000_000);
        good.insert(HOST, HeaderValue::from_static("app.test"));
        let refused = |headers: &HeaderMap| {
            matches!(arrival(&own, headers, &Uri::from_static("/a?b"), 1_000_000), Err(LocalReply::BadSignature(_)))
        };
        assert!(refused(&signed(&service("https://service.test:444/in?x=1", 2), 1_000_000)), "of another route");
        for (name, value) in [
            ("x-cf-forwarded-url", "http://app.test:8080/admin"),
            ("x-cf-proxy-signature", "00"),
            ("x-cf-proxy-signature", "no hex"),
            ("x-cf-proxy-metadata", ""),
            ("x-cf-proxy-metadata", "00"),
        ] {
            let mut headers = good.clone();
            headers.insert(name, HeaderValue::from_static(value));
            assert!(refused(&headers), "{name}: {value}");
        }
        let mut headers = good;
        headers.remove(METADATA);
        assert!(refused(&headers), "without metadata");
    }

    #[test]
    fn a_signature_is_good_for_the_request_it_was_made_for() {
        let own = service("https://service.test:444/in?x=1", 1);
        let mut headers = signed(&own, 1_000_000);
        for (host, target, good) in [
            ("app.test", "/a?b", true),
            ("app.test:443", "/a?b", true),
            ("app.test", "/admin", false),
            ("app.test", "/a", false),
            ("app.test", "/a?b=1", false),
            ("app.test", "/", false),
            ("other.test", "/a?b", false),
            ("test", "/a?b", false),
            ("", "/a?b", false),
        ] {
            headers.insert(HOST, HeaderValue::from_static(host));
            let arrived = arrival(&own, &headers, &target.parse().expect("a target"), 1_000_000);
            assert_eq!(arrived.is_ok(), good, "{host} {target}: {arrived:?}");
        }
    }

    #[test]
    fn a_malformed_service_closes_the_route() {
        for url in ["", "service.test", "ftp://service.test", "https://"] {
            let route =
                Route { route_service_url: url.into(), route_service_secret: vec![1; 32].into(), ..Route::default() };
            let service = RouteService::of(&route);
            assert_eq!(service.is_some(), !url.is_empty(), "{url:?}");
            assert!(service.is_none_or(|service| service.target().is_none()), "{url:?}");
        }
        let route = Route { route_service_url: "https://x.test".into(), ..Route::default() };
        let service = RouteService::of(&route).expect("a service");
        assert!(service.seal(b"x").is_none(), "without a secret nothing goes out");
    }
}
