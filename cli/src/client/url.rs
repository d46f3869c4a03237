//! Addresses: reading what people type, putting paths and queries together.

use url::Url;
use url::form_urlencoded::{Serializer, parse};

use super::error::ClientError;

/// The address of an API as typed: `https://` is assumed, a path is refused.
pub(crate) fn api_url(text: &str) -> Result<Url, ClientError> {
    let bad = || ClientError::Address { address: text.to_owned() };
    let text = text.trim();
    if text.starts_with('/') {
        return Err(bad());
    }
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&full).map_err(|_| bad())?;
    let plain = url.path() == "/" && url.query().is_none() && url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !plain {
        return Err(bad());
    }
    Ok(url)
}

/// `path` below `base`; the host always stays that of `base`.
pub(super) fn join(base: &Url, path: &str) -> Result<Url, ClientError> {
    let bad = || ClientError::Address { address: path.to_owned() };
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    if !path.starts_with('/') || path.starts_with("//") {
        return Err(bad());
    }
    let mut url = base.clone();
    url.set_path(path);
    url.set_query(query);
    Ok(url)
}

/// Path and query of an absolute link of the platform.
pub(super) fn path_of(href: &str) -> Option<String> {
    let url = Url::parse(href).ok()?;
    Some(match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    })
}

/// A path with a query. The value of `names` is a comma list, so a name's own comma is written `%2C` first.
pub(crate) fn query(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = Serializer::new(String::new());
    for (key, value) in parameters {
        if *key == "names" {
            query.append_pair(key, &value.replace('%', "%25").replace(',', "%2C"));
        } else {
            query.append_pair(key, value);
        }
    }
    format!("{path}?{}", query.finish())
}

/// Text as it is encoded in a form or in a warning header.
pub(super) fn decode_form(text: &str) -> String {
    parse(format!("x={}", text.trim().replace('&', "%26")).as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_type_them() {
        for (text, url) in [
            ("api.example.com", "https://api.example.com/"),
            ("http://api.slipway.localhost:8080", "http://api.slipway.localhost:8080/"),
            (" https://api.example.com/ ", "https://api.example.com/"),
        ] {
            assert_eq!(api_url(text).expect(text).as_str(), url);
        }
        for text in ["", "ftp://x", "https://u:p@x", "https://x/v3", "https://", "not a host", "/v3"] {
            assert!(api_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_host_cannot_be_changed_by_a_path() {
        let base = api_url("https://api.test").expect("url");
        assert_eq!(join(&base, "/v3/apps?names=a%2Cb").expect("path").as_str(), "https://api.test/v3/apps?names=a%2Cb");
        for path in ["//evil.test/v3", "https://evil.test/", "v3"] {
            assert!(join(&base, path).is_err(), "{path}");
        }
        assert_eq!(path_of("https://evil.test/v3/jobs/1?x=y").as_deref(), Some("/v3/jobs/1?x=y"));
    }

    #[test]
    fn names_with_commas_stay_one_name() {
        assert_eq!(
            query("/v3/apps", &[("names", "a,b"), ("space_guids", "g")]),
            "/v3/apps?names=a%252Cb&space_guids=g"
        );
    }

    #[test]
    fn warnings_are_decoded() {
        assert_eq!(decode_form("stack+is%20old%2C+100%25"), "stack is old, 100%");
    }
}
