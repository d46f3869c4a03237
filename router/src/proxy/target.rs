//! What a request asks for, from its head alone.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri, Version, request};

use super::answer::LocalReply;
use super::choose::RoutingHints;
use super::{headers, sticky};
use crate::table::normal_host;

/// The host that is asked for; the target becomes the path alone, and `Host` agrees with it.
///
/// # Errors
/// The answer to a request that no app can take.
pub(super) fn target(head: &mut request::Parts) -> Result<String, LocalReply> {
    if head.method == Method::CONNECT {
        return Err(LocalReply::Unsupported);
    }
    // hyper takes one of the two and closes afterwards; if ever both come through, the next hop might take the other.
    if head.headers.contains_key(CONTENT_LENGTH) && head.headers.contains_key(TRANSFER_ENCODING) {
        return Err(LocalReply::Unsupported);
    }
    if !headers::is_plain(&head.headers) {
        return Err(LocalReply::UnknownCoding);
    }
    // HTTP/2 lets two equal ones pass, which apps refuse.
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(LocalReply::Unsupported);
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(LocalReply::BadHost);
    }
    let text = match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => first.and_then(|value| value.to_str().ok()).ok_or(LocalReply::BadHost)?,
    };
    let host = normal_host(text).map_err(|_| LocalReply::BadHost)?.into_owned();
    if head.uri.authority().is_some() {
        let value = http::HeaderValue::from_str(text).map_err(|_| LocalReply::BadHost)?;
        head.headers.insert(HOST, value);
        let path = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
    }
    // Toward the endpoint it is 1.1, or what `headers::for_http2` makes of it; hyper answers a client as that one expects.
    head.version = Version::HTTP_11;
    Ok(host)
}

/// What a request asks for beyond host and path.
///
/// # Errors
/// The answer to one that asks in words that make no sense.
pub(super) fn hints(headers: &HeaderMap) -> Result<RoutingHints, LocalReply> {
    let instance = match headers.get("x-cf-app-instance") {
        None => None,
        Some(value) => {
            let parsed = value.to_str().ok().and_then(|text| text.split_once(':'));
            let (app, index) = parsed.ok_or(LocalReply::BadInstance)?;
            Some((app.to_owned(), index.parse().map_err(|_| LocalReply::BadInstance)?))
        }
    };
    let process = match headers.get("x-cf-process-instance") {
        None => None,
        Some(value) => {
            let text = value.to_str().ok().filter(|text| !text.is_empty()).ok_or(LocalReply::BadProcess)?;
            Some(match text.split_once(':') {
                None => (text.to_owned(), None),
                Some((process, index)) => {
                    (process.to_owned(), Some(index.parse().map_err(|_| LocalReply::BadProcess)?))
                }
            })
        }
    };
    Ok(RoutingHints { instance, process, sticky: sticky::wanted(headers) })
}
