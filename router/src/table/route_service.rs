//! A route's service, ready to use.

use http::HeaderValue;
use http::uri::{PathAndQuery, Uri};
use slipway_protocol::v1::Route;
use slipway_seal::{NONCE_BYTES, SealKey};

/// Where requests of a route go first. One that cannot be used (a URL or a secret that makes no sense) is still there:
/// the route is closed rather than open to everybody.
pub struct RouteService {
    target: Option<ServiceTarget>,
    key: Option<SealKey>,
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
        let key = SealKey::try_from(&*route.route_service_secret).ok();
        let target = target_of(&route.route_service_url);
        if key.is_none() || target.is_none() {
            tracing::warn!(route.id, "the route's service cannot be used; requests to it are refused");
        }
        Some(Self { target, key, route: route.id.clone() })
    }

    /// Where it is.
    #[must_use]
    pub fn target(&self) -> Option<&ServiceTarget> {
        self.target.as_ref()
    }

    /// Seals a note: nonce and cipher text, which go out in two headers.
    #[must_use]
    pub fn seal(&self, note: &[u8]) -> Option<([u8; NONCE_BYTES], Vec<u8>)> {
        let mut sealed = self.key.as_ref()?.seal(self.route.as_bytes(), note).ok()?;
        let text = sealed.split_off(NONCE_BYTES);
        Some((sealed.try_into().ok()?, text))
    }

    /// Opens a note that a router sealed for this route.
    #[must_use]
    pub fn open(&self, nonce: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        // Cut elsewhere, the two would be the same bytes together.
        let nonce: &[u8; NONCE_BYTES] = nonce.try_into().ok()?;
        self.key.as_ref()?.open(self.route.as_bytes(), &[nonce.as_slice(), sealed].concat()).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by a version that had a cipher of its own: routers of several versions answer for one route.
    #[test]
    fn notes_of_earlier_versions_open() {
        let service = RouteService::of(&Route {
            id: "r".into(),
            route_service_url: "https://s.test".into(),
            route_service_secret: vec![7; 32].into(),
            ..Route::default()
        });
        let service = service.expect("a service");
        let nonce = hex::decode("7886dede3c0577fbc0c1b58d").expect("hex");
        let sealed = hex::decode("46ee68ca4e85cba229060ba94588f59e41a4b584d893").expect("hex");
        assert_eq!(service.open(&nonce, &sealed).expect("opened"), b"a note");
        let (shifted, rest) = (&nonce[..11], [&nonce[11..], &sealed].concat());
        assert!(service.open(shifted, &rest).is_none(), "a nonce has 12 bytes");
        let (nonce, sealed) = service.seal(b"a note").expect("sealed");
        assert_eq!(service.open(&nonce, &sealed).expect("opened"), b"a note");
    }
}
