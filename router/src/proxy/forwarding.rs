//! Headers about the clients that a request came through: `X-Forwarded-For` and similar. Whether they are trusted depends on
//! who sent them.
//!
//! Without `trusted_proxies` it is as on Cloud Foundry: a load balancer with an unknown address may be in front, so these
//! headers are trusted from everybody, except the certificate that a client is said to have shown: apps grant access by it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");
/// Of these there is one. An app that looks at another line than its neighbour could be told two things.
const SINGLE: [HeaderName; 4] = [
    FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    REQUEST_START,
];

/// Whom the router believes.
#[derive(Clone, Debug, Default)]
pub struct Forwarding {
    proxies: Option<Vec<IpNet>>,
    force_https: bool,
}

/// How much one client is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A load balancer that was named.
    Proxy,
    /// Nobody was named: perhaps a load balancer.
    Anybody,
    /// Others were named.
    Stranger,
}

impl Forwarding {
    /// With `proxies` only these networks are believed; `force_https` tells apps that all came by HTTPS.
    ///
    /// # Errors
    /// The text of the first that is no network.
    pub fn new(proxies: Option<&[String]>, force_https: bool) -> Result<Self, String> {
        let parse = |text: &String| text.parse::<IpNet>().map_err(|_| text.clone());
        let proxies = proxies.map(|all| all.iter().map(parse).collect::<Result<_, _>>()).transpose()?;
        Ok(Self { proxies, force_https })
    }

    /// How much a client at this address is believed.
    #[must_use]
    pub fn trust(&self, address: IpAddr) -> Trust {
        let address = address.to_canonical();
        match &self.proxies {
            None => Trust::Anybody,
            Some(proxies) if proxies.iter().any(|network| network.contains(&address)) => Trust::Proxy,
            Some(_) => Trust::Stranger,
        }
    }

    /// Makes of what a request says what its app is to hear. `address` is the client's, `secure` whether it came by TLS.
    pub fn apply(&self, headers: &mut HeaderMap, trust: Trust, address: &HeaderValue, secure: bool) {
        match trust {
            Trust::Proxy => {}
            Trust::Anybody => drop(headers.remove(CLIENT_CERT)),
            Trust::Stranger => {
                let claims: Vec<_> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
                for name in claims {
                    headers.remove(name);
                }
            }
        }
        for name in SINGLE {
            keep_first(headers, &name);
        }
        append_address(headers, address);
        // A load balancer before a plain listener says what its own client spoke; a TLS listener knows.
        let forwarded = headers.get(FORWARDED_PROTO).is_some_and(|value| value == "https" || value == "http");
        if self.force_https {
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
        } else if secure || !forwarded {
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if secure { "https" } else { "http" }));
        }
    }
}

fn is_claim(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("x-forwarded-") || matches!(text, "forwarded" | "x-real-ip" | "x-request-start")
}

/// What a request says, as it came.
pub(crate) fn claims(headers: &HeaderMap) -> HeaderMap {
    headers.iter().filter(|(name, _)| is_claim(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Believes after all what was said: the request has proved that it comes from the route's service, which got it from
/// this router.
pub(crate) fn restore(headers: &mut HeaderMap, claims: HeaderMap, address: &HeaderValue) {
    for name in claims.keys() {
        headers.remove(name);
        for value in claims.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    for name in SINGLE {
        keep_first(headers, &name);
    }
    if claims.contains_key(FORWARDED_FOR) {
        append_address(headers, address);
    }
}

fn keep_first(headers: &mut HeaderMap, name: &HeaderName) {
    let mut all = headers.get_all(name).iter();
    if let (Some(first), Some(_)) = (all.next(), all.next()) {
        let first = first.clone();
        headers.insert(name, first);
    }
}

fn append_address(headers: &mut HeaderMap, address: &HeaderValue) {
    let mut list = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    let value = if list.is_empty() {
        address.clone()
    } else {
        list.extend_from_slice(address.as_bytes());
        // Made of valid values, so it is one.
        HeaderValue::from_maybe_shared(bytes::Bytes::from(list)).unwrap_or_else(|_| address.clone())
    };
    headers.insert(FORWARDED_FOR, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    const SAID: [(&str, &str); 9] = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a.test"),
        ("x-forwarded-host", "b.test"),
        ("x-forwarded-client-cert", "forged"),
        ("forwarded", "for=6.6.6.6"),
        ("x-request-start", "1"),
        ("x-other", "stays"),
    ];

    fn heard(forwarding: &Forwarding, from: &str) -> HeaderMap {
        let mut headers = map(&SAID);
        let trust = forwarding.trust(from.parse().expect("an address"));
        forwarding.apply(&mut headers, trust, &from.parse().expect("a value"), false);
        headers
    }

    #[test]
    fn without_trusted_proxies_all_headers_count_but_the_certificate() {
        let expected = map(&[
            ("x-forwarded-for", "6.6.6.6, 10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.test"),
            ("forwarded", "for=6.6.6.6"),
            ("x-request-start", "1"),
            ("x-other", "stays"),
        ]);
        assert_eq!(heard(&Forwarding::default(), "10.0.0.1"), expected);
    }

    #[test]
    fn with_trusted_proxies_only_their_headers_count() {
        let networks = ["10.0.0.0/24".to_owned(), "fd00::/8".to_owned()];
        let forwarding = Forwarding::new(Some(&networks), false).expect("networks");
        assert_eq!(heard(&forwarding, "10.0.0.7")["x-forwarded-client-cert"], "forged");
        assert_eq!(heard(&forwarding, "10.0.0.7")["x-forwarded-for"], "6.6.6.6, 10.0.0.7");
        assert_eq!(forwarding.trust("::ffff:10.0.0.7".parse().expect("an address")), Trust::Proxy);
        let stranger = map(&[("x-forwarded-for", "10.0.1.7"), ("x-forwarded-proto", "http"), ("x-other", "stays")]);
        assert_eq!(heard(&forwarding, "10.0.1.7"), stranger);
        let nobody = Forwarding::new(Some(&[]), true).expect("none");
        assert_eq!(heard(&nobody, "10.0.1.7")["x-forwarded-proto"], "https", "forced");
        assert_eq!(Forwarding::new(Some(&["10.0.0".to_owned()]), false).expect_err("no network"), "10.0.0");
    }

    #[test]
    fn headers_count_when_a_route_service_sends_a_request_back() {
        let forwarding = Forwarding::new(Some(&[]), false).expect("none");
        let mut headers = map(&SAID);
        let said = claims(&headers);
        let service = HeaderValue::from_static("10.0.0.9");
        forwarding.apply(&mut headers, Trust::Stranger, &service, false);
        restore(&mut headers, said, &service);
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 10.0.0.9");
        assert_eq!(headers["x-forwarded-client-cert"], "forged");
        assert_eq!(headers.get_all("x-forwarded-proto").iter().collect::<Vec<_>>(), ["https"]);
    }
}
