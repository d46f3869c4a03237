//! A route's service, ready to use.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use http::HeaderValue;
use http::uri::{PathAndQuery, Uri};
use slipway_protocol::v1::Route;

const NONCE_BYTES: usize = 12;

/// Where requests of a route go first. One that cannot be used (a URL or a secret that makes no sense) is still there:
/// the route is closed rather than open to everybody.
pub struct RouteService {
    target: Option<ServiceTarget>,
    cipher: Option<Aes256Gcm>,
    /// Binds what is sealed to this route.
    route: String,
}

/// A service's address.
#[derive(Debug)]
pub struct ServiceTarget {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `https`.
    pub tls: bool,
    /// For `Host`.
    pub authority: HeaderValue,
    /// What is asked for there.
    pub path: PathAndQuery,
}

impl std::fmt::Debug for RouteService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteService").field("route", &self.route).finish_non_exhaustive()
    }
}

impl RouteService {
    /// The service of a route, if it has one.
    #[must_use]
    pub fn of(route: &Route) -> Option<Self> {
        if route.route_service_url.is_empty() {
            return None;
        }
        let key: Option<[u8; 32]> = route.route_service_secret.as_ref().try_into().ok();
        let target = target_of(&route.route_service_url);
        if key.is_none() || target.is_none() {
            tracing::warn!(route.id, "the route's service cannot be used; requests to it are refused");
        }
        let cipher = key.map(|key| Aes256Gcm::new(&Key::<Aes256Gcm>::from(key)));
        Some(Self { target, cipher, route: route.id.clone() })
    }

    /// Where it is.
    #[must_use]
    pub fn target(&self) -> Option<&ServiceTarget> {
        self.target.as_ref()
    }

    /// Seals a note: nonce and sealed form.
    #[must_use]
    pub fn seal(&self, note: &[u8]) -> Option<([u8; NONCE_BYTES], Vec<u8>)> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: note, aad: self.route.as_bytes() };
        let sealed = self.cipher.as_ref()?.encrypt(&Nonce::from(nonce), payload).ok()?;
        Some((nonce, sealed))
    }

    /// Opens a note that a router sealed for this route.
    #[must_use]
    pub fn open(&self, nonce: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        self.cipher.as_ref()?.decrypt(&Nonce::from(nonce), Payload { msg: sealed, aad: self.route.as_bytes() }).ok()
    }
}

fn target_of(url: &str) -> Option<ServiceTarget> {
    let uri: Uri = url.parse().ok()?;
    let tls = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let host = uri.host().filter(|host| !host.is_empty())?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16();
    // Without a user: that is no part of `Host`.
    let name = uri.host()?;
    let authority = port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
    Some(ServiceTarget {
        host,
        port: port.unwrap_or(if tls { 443 } else { 80 }),
        tls,
        authority: HeaderValue::from_str(&authority).ok()?,
        path: uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")),
    })
}
