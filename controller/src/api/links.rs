//! Absolute links, as seen by the client: clients follow only absolute ones, and may come by another name or scheme
//! than this controller listens on.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use slipway_api_types::Link;
use slipway_api_types::common::Links;

use crate::context::Context;
use slipway_placement::system_names::is_system_name;

/// `http://api.slipway.localhost:8080`: scheme and host of this request, no trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// A base that is known.
    pub fn new(base: impl Into<String>) -> Self {
        Self(base.into().trim_end_matches('/').to_owned())
    }

    /// `base/path`; the path begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// A link to be read.
    #[must_use]
    pub fn link(&self, path: &str) -> Link {
        Link::get(self.url(path))
    }

    /// A link to be posted to.
    #[must_use]
    pub fn post(&self, path: &str) -> Link {
        Link::post(self.url(path))
    }

    /// Links to be read, by name and path.
    #[must_use]
    pub fn links(&self, paths: &[(&str, String)]) -> Links {
        paths.iter().map(|(name, path)| ((*name).to_owned(), self.link(path))).collect()
    }

    /// The base itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Base of a neighbour, `login` or `log-cache`, of the same platform: the host `api.<system domain>[:port]` gives
    /// `login.<system domain>[:port]`. Under any other host (an address, a tunnel) everything is here.
    #[must_use]
    pub fn neighbour(&self, name: &str, system_domain: &str) -> String {
        let Some((scheme, authority)) = self.0.split_once("://") else { return self.0.clone() };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => (host, format!(":{port}")),
            _ => (authority, String::new()),
        };
        if is_system_name(host, system_domain) {
            format!("{scheme}://{name}.{system_domain}{port}")
        } else {
            self.0.clone()
        }
    }

    fn of(parts: &Parts, public_url: &str) -> Self {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let host = parts.uri.authority().map(http::uri::Authority::as_str).or_else(|| header("host"));
        let Some(host) = host.filter(|host| is_host(host)) else { return Self::new(public_url) };
        // The first of a list is what the client used.
        let scheme = header("x-forwarded-proto").and_then(|value| value.split(',').next()).map(str::trim);
        let scheme = if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) { "https" } else { "http" };
        Self(format!("{scheme}://{host}"))
    }
}

/// Nothing but what a host and port consist of: it is written into every link.
fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 261
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'))
}

impl FromRequestParts<Context> for BaseUrl {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Infallible> {
        Ok(Self::of(parts, &context.config.public_url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(headers: &[(&str, &str)]) -> String {
        let mut request = http::Request::builder().uri("/v3/apps");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        BaseUrl::of(&parts, "http://public.test:80/").0
    }

    #[test]
    fn the_request_decides() {
        assert_eq!(base(&[("host", "api.x.test:8080")]), "http://api.x.test:8080");
        assert_eq!(base(&[("host", "api.x.test"), ("x-forwarded-proto", "HTTPS, http")]), "https://api.x.test");
        assert_eq!(base(&[]), "http://public.test:80");
        assert_eq!(base(&[("host", "a/b\"c")]), "http://public.test:80");
    }

    #[test]
    fn neighbours_share_scheme_and_port() {
        let of = |base: &str| BaseUrl::new(base).neighbour("login", "x.test");
        assert_eq!(of("https://api.x.test:8443"), "https://login.x.test:8443");
        assert_eq!(of("http://api.x.test"), "http://login.x.test");
        assert_eq!(of("http://127.0.0.1:1234"), "http://127.0.0.1:1234");
        assert_eq!(of("http://api.other.test"), "http://api.other.test");
    }
}
