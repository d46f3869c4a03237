//! Responses that the router makes itself, with the codes and texts of Cloud Foundry's router, because clients look for them.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use super::body::ProxyBody;
use super::exchange::Exchange;
use super::failure::{Cause, Failure};

/// Why the router responds instead of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LocalReply {
    /// The `Host` is no host name, there are several, or none.
    BadHost,
    /// A method or target that no app can take (`CONNECT`).
    Unsupported,
    /// `Transfer-Encoding` names more than `chunked`, which nobody here can undo.
    UnknownCoding,
    /// Many requests with large heads are under way, and this is one more.
    NoRoom,
    /// Too many connections are open to send this request on another one.
    Full,
    /// No table was ever received: it is not known whether there is a route.
    NoTable,
    /// No route has this host and path.
    UnknownRoute(String),
    /// The route exists and has no endpoint.
    NoEndpoints(String),
    /// Every endpoint that would do has as many requests as one may have: host.
    EndpointLimit(String),
    /// The app holds as many connections as one may hold while others need theirs.
    AppLimit,
    /// Every try that was allowed failed; the last one like this.
    EndpointFailure(Failure),
    /// The endpoint took the request and did not begin to answer in time.
    Timeout,
    /// The client did not go on with its body.
    BodyTimeout,
    /// The route's service did not take the request, or did not answer.
    RouteServiceFailure(Failure),
    /// The request says that it comes back from the route's service, and does not prove it.
    BadSignature(&'static str),
    /// It came back too late.
    LateSignature,
    /// A switch of protocols cannot go through a route service.
    RouteServiceUpgrade,
    /// `X-Cf-App-Instance` is not `guid:index`.
    BadInstance,
    /// `X-Cf-App-Instance` names none that this route has: app, index, host.
    UnknownInstance(String, u32, String),
    /// `X-Cf-Process-Instance` is neither `guid` nor `guid:index`.
    BadProcess,
    /// `X-Cf-Process-Instance` names none that this route has: process, index, host.
    UnknownProcess(String, Option<u32>, String),
}

impl LocalReply {
    /// Status, word for `X-Cf-RouterError`, text.
    fn parts(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::BadHost => {
                (StatusCode::BAD_REQUEST, "empty_host", "400 Bad Request: Request had no usable Host.".into())
            }
            Self::Unsupported => (
                StatusCode::BAD_REQUEST,
                "unsupported_request",
                "400 Bad Request: Unsupported method or target.".into(),
            ),
            Self::UnknownCoding => (
                StatusCode::NOT_IMPLEMENTED,
                "unsupported_transfer_encoding",
                "501 Not Implemented: Transfer-Encoding must be chunked and nothing else.".into(),
            ),
            Self::NoRoom => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_large_headers",
                "503 Service Unavailable: too many requests with large headers are under way, try later.".into(),
            ),
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_connections",
                "503 Service Unavailable: router is full, try later.".into(),
            ),
            Self::NoTable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_routing_table",
                "503 Service Unavailable: The router has no routing table yet, try later.".into(),
            ),
            Self::UnknownRoute(host) => (
                StatusCode::NOT_FOUND,
                "unknown_route",
                format!("404 Not Found: Requested route ('{host}') does not exist. No started app answers there."),
            ),
            Self::NoEndpoints(host) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_endpoints",
                format!("503 Service Unavailable: Requested route ('{host}') has no available endpoints. Its app is starting, crashes, or has no instances."),
            ),
            Self::EndpointLimit(host) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Connection Limit Reached",
                format!("503 Service Unavailable: Requested route ('{host}') has reached the connection limit."),
            ),
            Self::AppLimit => (
                StatusCode::SERVICE_UNAVAILABLE,
                "app_connection_limit",
                "503 Service Unavailable: The app holds its share of the router's connections, try later.".into(),
            ),
            Self::EndpointFailure(failure) => (
                StatusCode::BAD_GATEWAY,
                failure.cause.word(),
                "502 Bad Gateway: Registered endpoint failed to handle the request.".into(),
            ),
            Self::Timeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "endpoint_timeout",
                "504 Gateway Timeout: Registered endpoint did not answer in time.".into(),
            ),
            Self::BodyTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "client_timeout",
                "408 Request Timeout: The rest of the request's body did not come in time.".into(),
            ),
            Self::RouteServiceFailure(failure) => (
                StatusCode::BAD_GATEWAY,
                failure.cause.word(),
                "502 Bad Gateway: The route service of this route failed to handle the request.".into(),
            ),
            Self::BadSignature(reason) => (
                StatusCode::BAD_GATEWAY,
                "invalid_route_service_signature",
                format!("502 Bad Gateway: Failed to validate Route Service Signature: {reason}."),
            ),
            Self::LateSignature => (
                StatusCode::GATEWAY_TIMEOUT,
                "expired_route_service_signature",
                "504 Gateway Timeout: Failed to validate Route Service Signature: request expired.".into(),
            ),
            Self::RouteServiceUpgrade => (
                StatusCode::SERVICE_UNAVAILABLE,
                "route_service_unsupported",
                "503 Service Unavailable: Websocket requests are not supported for routes bound to Route Services."
                    .into(),
            ),
            Self::BadInstance => (
                StatusCode::BAD_REQUEST,
                "invalid_cf_app_instance_header",
                "400 Bad Request: X-Cf-App-Instance must be the app's guid, a colon and an index.".into(),
            ),
            Self::BadProcess => (
                StatusCode::BAD_REQUEST,
                "invalid_cf_process_instance_header",
                "400 Bad Request: X-Cf-Process-Instance must be the process's guid, with or without a colon and an index.".into(),
            ),
            // The word is that of an unknown route, as with Cloud Foundry's router; status and text tell them apart.
            Self::UnknownInstance(app, index, host) => (
                StatusCode::BAD_REQUEST,
                "unknown_route",
                format!(
                    "400 Bad Request: Requested instance ('{index}') with guid ('{app}') does not exist for route \
                     ('{host}')"
                ),
            ),
            Self::UnknownProcess(process, index, host) => (
                StatusCode::BAD_REQUEST,
                "unknown_route",
                format!(
                    "400 Bad Request: Requested instance ('{}') with process guid ('{process}') does not exist for \
                     route ('{host}')",
                    index.map_or_else(|| "any".to_owned(), |index| index.to_string())
                ),
            ),
        }
    }

    /// The response; `close` when the rest of the client's request is not going to be read. By HTTP/2 that ends the
    /// request alone.
    pub(crate) fn into_response(self, mut exchange: Exchange, close: bool) -> Response<ProxyBody> {
        let (status, word, mut text) = self.parts();
        text.push('\n');
        exchange.status = status.as_u16();
        exchange.router_error = Some(word);
        match &self {
            // A client that went away while it sent says nothing about the platform.
            Self::EndpointFailure(failure) | Self::RouteServiceFailure(failure) if failure.cause != Cause::Client => {
                exchange.report(word, &failure.detail);
            }
            Self::BadSignature(reason) => exchange.report(word, reason),
            _ => {}
        }
        let request_id = exchange.request_id.clone();
        let close = close && !exchange.by_http2();
        let mut response = Response::new(ProxyBody::fixed(Bytes::from(text), exchange));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
        headers.insert("x-cf-routererror", HeaderValue::from_static(word));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert("x-vcap-request-id", request_id);
        if close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
