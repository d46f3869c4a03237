//! Headers on their way through: what belongs to one connection stays there, what apps expect is added.

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, request};
use slipway_chassis::clock;

use super::answer::LocalReply;
use super::connection::Client;
use super::forwarding::Forwarding;
use crate::table::Endpoint;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-vcap-request-id");
const APPLICATION: HeaderName = HeaderName::from_static("x-cf-applicationid");
const INSTANCE: HeaderName = HeaderName::from_static("x-cf-instanceid");
const INDEX: HeaderName = HeaderName::from_static("x-cf-instanceindex");

/// The protocol a client wants to switch to; `h2c` is not passed on, because the requests inside such a tunnel would go
/// past the routing table.
pub(crate) fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(UPGRADE)?;
    let asked = headers.get_all(CONNECTION).iter().any(|value| has_token(value, b"upgrade"));
    let h2c = has_token(upgrade, b"h2c");
    (asked && !h2c).then(|| upgrade.clone())
}

/// Whether the client waits to be told that its body is wanted. Who speaks HTTP/1.0 does not (RFC 9110, section 10.1.1).
/// What else may be expected is the app's affair.
pub(crate) fn asks_first(headers: &mut HeaderMap, version: Version, has_body: bool) -> bool {
    let Some(value) = headers.get(EXPECT) else { return false };
    if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
        return false;
    }
    let asks = has_body && version >= Version::HTTP_11;
    if !asks {
        headers.remove(EXPECT);
    }
    asks
}

/// Whether chunks are all that the message was put into. What else it names is known to its two ends alone, and the router
/// does not pass the name on.
pub(crate) fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let first = codings.next();
    codings.next().is_none() && first.is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// Takes away what belongs to the client's connection, and what only the router may say; adds what the app is to know.
pub(crate) fn prepare_request(
    headers: &mut HeaderMap,
    forwarding: &Forwarding,
    client: &Client,
    has_body: bool,
    upgrade: Option<HeaderValue>,
    request_id: &HeaderValue,
) {
    let trailers = headers.get_all(TE).iter().any(|value| has_token(value, b"trailers"));
    strip_hop_by_hop(headers);
    headers.remove(HTTP2_SETTINGS);
    remove_instance(headers);
    // Without a word about it hyper sends a GET without its body, because a GET seldom has one.
    if has_body && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
    forwarding.apply(headers, client.trust, &client.address, client.secure);
    if !headers.contains_key(REQUEST_START) {
        headers.insert(REQUEST_START, HeaderValue::from(clock::unix_ms()));
    }
    headers.insert(REQUEST_ID, request_id.clone());
}

/// HTTP/2 lets a client send its cookies in several fields; elsewhere there is one (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(COOKIE).iter();
    let (Some(first), Some(_)) = (all.next(), all.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for value in headers.get_all(COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(value.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(COOKIE, value);
    }
}

/// Makes a request as HTTP/2 wants it: the host in the target, and nothing about the connection.
///
/// # Errors
/// When the host cannot be in a target.
pub(crate) fn for_http2(head: &mut request::Parts) -> Result<(), LocalReply> {
    head.headers.remove(TRANSFER_ENCODING);
    // An app's word about it would not come through: hyper's client by HTTP/2 drops it.
    head.headers.remove(EXPECT);
    let host = head.headers.remove(HOST).ok_or(LocalReply::BadHost)?;
    let path = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let target = Uri::builder().scheme(Scheme::HTTP).authority(host.as_bytes()).path_and_query(path).build();
    head.uri = target.map_err(|_| LocalReply::BadHost)?;
    head.version = Version::HTTP_2;
    Ok(())
}

/// Tells the app which of its instances was chosen; what an earlier try said about that goes.
pub(crate) fn name_instance(headers: &mut HeaderMap, endpoint: &Endpoint) {
    if let Some(instance) = &endpoint.headers {
        headers.insert(APPLICATION, instance.app.clone());
        headers.insert(INSTANCE, instance.instance.clone());
        headers.insert(INDEX, instance.index.clone());
    } else {
        remove_instance(headers);
    }
}

fn remove_instance(headers: &mut HeaderMap) {
    for name in [APPLICATION, INSTANCE, INDEX] {
        headers.remove(name);
    }
}

/// Takes away what belongs to the endpoint's connection. A switch of protocols keeps its two headers.
pub(crate) fn prepare_response(headers: &mut HeaderMap, status: StatusCode, request_id: &HeaderValue) {
    let keep = matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
    let upgrade = if keep { headers.get(UPGRADE).cloned() } else { None };
    strip_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    headers.insert(REQUEST_ID, request_id.clone());
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            .collect();
        for name in named {
            // A client must not take away what the message itself needs, nor what the router vouches for.
            let vital = name == HOST || name == CONTENT_LENGTH || name.as_str().starts_with("x-forwarded-");
            if !vital {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    // Chunks say where the body ends; a length beside them would be believed by whoever reads the message next.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    for name in [TE, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION] {
        headers.remove(name);
    }
}

fn has_token(value: &HeaderValue, token: &[u8]) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
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

    #[test]
    fn hop_by_hop_headers_end_here() {
        let mut headers = map(&[
            ("connection", "close, X-Mine"),
            ("connection", "Content-Length, x-forwarded-for"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("content-length", "3"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-other", "stays"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3"), ("x-forwarded-for", "1.2.3.4"), ("x-other", "stays")]));
    }

    #[test]
    fn upgrades_must_be_asked_for() {
        let websocket = [("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")];
        assert!(wanted_upgrade(&map(&websocket)).is_some());
        assert!(wanted_upgrade(&map(&websocket[..1])).is_none());
        assert!(wanted_upgrade(&map(&websocket[1..])).is_none());
        assert!(wanted_upgrade(&map(&[("upgrade", "h2c"), ("connection", "upgrade")])).is_none());
    }

    #[test]
    fn cookies_come_as_one() {
        let joined = |pairs| {
            let mut headers = map(pairs);
            join_cookies(&mut headers);
            headers
        };
        assert_eq!(joined(&[("cookie", "a=1; b=2"), ("cookie", "c=3")]), map(&[("cookie", "a=1; b=2; c=3")]));
        assert_eq!(joined(&[("cookie", "a=1")]), map(&[("cookie", "a=1")]));
        assert_eq!(joined(&[]), map(&[]));
    }

    #[test]
    fn a_request_by_http2_has_its_host_in_the_target() {
        let head = |uri: &str| {
            let request = http::Request::builder().method("OPTIONS").uri(uri).header(HOST, "app.test:8080");
            let request = request.header(TRANSFER_ENCODING, "chunked").header(TE, "trailers");
            request.body(()).expect("a request").into_parts().0
        };
        let mut path = head("/a?b");
        for_http2(&mut path).expect("made");
        assert_eq!(path.uri, "http://app.test:8080/a?b");
        assert_eq!(path.headers, map(&[("te", "trailers")]));
        let mut whole = head("*");
        for_http2(&mut whole).expect("made");
        assert_eq!(whole.uri.path(), "*");
        let mut none = head("/");
        none.headers.remove(HOST);
        assert_eq!(for_http2(&mut none), Err(LocalReply::BadHost));
    }
}
