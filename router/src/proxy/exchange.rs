//! One request and its answer, from the first byte to the access line. When it is dropped, wherever that happens, the
//! request is over: it is counted and logged.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use slipway_chassis::clock;

use super::body::BodyReturn;
use super::connection::Client;
use super::core::Core;
use super::fair::Flow;
use crate::access_log::Line;
use crate::heads::{HeadRoom, SMALL};
use crate::limits::{HeldConnection, Holder};
use crate::table::Endpoint;

/// Status of a request whose client went away before it was answered, as in other proxies' logs.
pub(crate) const CLIENT_GONE: u16 = 499;

pub(crate) struct Exchange {
    core: Rc<Core>,
    client: Rc<Client>,
    pub(crate) started: Instant,
    pub(crate) request_id: HeaderValue,
    pub(crate) status: u16,
    pub(crate) sent: u64,
    /// Why the router answers instead of an app.
    pub(crate) router_error: Option<&'static str>,
    /// Its place among its client's, by HTTP/2.
    pub(crate) place: Option<HeldConnection>,
    /// Room that its large head takes, or that of its answer.
    room: Option<HeadRoom>,
    /// Request body, when there is one.
    pub(crate) body_return: Option<Rc<BodyReturn>>,
    /// Time spent in endpoints until the response began, seconds.
    pub(crate) upstream_s: f64,
    line: Option<Box<Line>>,
}

impl Exchange {
    pub(crate) fn begin(core: &Rc<Core>, client: &Rc<Client>) -> Self {
        client.phase.request_began();
        Self {
            core: Rc::clone(core),
            client: Rc::clone(client),
            started: Instant::now(),
            request_id: new_request_id(),
            status: CLIENT_GONE,
            sent: 0,
            router_error: None,
            place: None,
            room: None,
            body_return: None,
            upstream_s: 0.0,
            line: None,
        }
    }

    /// Keeps what the access line of an app needs. Everything is shared, not copied.
    /// Without an endpoint the request goes to the route's service first; `app_id` is empty for the platform's own.
    pub(crate) fn note(&mut self, request: &AccessRecord<'_>, app_id: &Arc<str>, endpoint: Option<&Arc<Endpoint>>) {
        if app_id.is_empty() {
            return;
        }
        let header = |name: &http::HeaderName| request.headers.get(name).cloned();
        self.line = Some(Box::new(Line {
            unix_ns: clock::unix_ns(),
            host: request.host.to_owned(),
            method: request.method.clone(),
            uri: request.uri.clone(),
            version: request.version,
            status: 0,
            received: 0,
            sent: 0,
            referer: header(&REFERER),
            user_agent: header(&USER_AGENT),
            remote: self.client.remote,
            forwarded_for: request.headers.get("x-forwarded-for").cloned(),
            forwarded_proto: request.headers.get("x-forwarded-proto").cloned(),
            request_id: self.request_id.clone(),
            response_time_s: 0.0,
            router_time_s: 0.0,
            app_id: Arc::clone(app_id),
            endpoint: endpoint.cloned(),
            router_error: None,
        }));
    }

    /// Another endpoint than the recorded one took the request.
    pub(crate) fn moved(&mut self, endpoint: &Arc<Endpoint>) {
        if let Some(line) = &mut self.line {
            line.app_id = Arc::clone(&endpoint.app_id);
            line.endpoint = Some(Arc::clone(endpoint));
        }
    }

    /// Says in the router's own log why this request gets an answer of the router's, unless too many just did.
    pub(crate) fn report(&self, word: &'static str, detail: &str) {
        if let Some(left_out) = self.core.log_quota.take(Instant::now()) {
            let request_id = self.request_id.to_str().unwrap_or_default();
            let app = self.line.as_ref().map_or("", |line| &*line.app_id);
            tracing::warn!(request_id, app, word, detail, left_out, "a request was answered with 502");
        }
    }

    /// Whether the client speaks HTTP/2.
    pub(crate) fn by_http2(&self) -> bool {
        self.client.phase.is_http2()
    }

    /// On whose account its client's connection is.
    pub(crate) fn holder(&self) -> &Arc<Holder> {
        &self.client.holder
    }

    /// Whose turn its client's tasks wait for.
    pub(super) fn flow(&self) -> Option<Rc<Flow>> {
        self.client.flow(&self.core)
    }

    /// Whether the client is behind with its answer, by HTTP/1.1.
    pub(crate) fn is_behind(&self) -> bool {
        self.client.phase.is_behind()
    }

    /// Whether there is room for fields of this size; held until the exchange ends.
    pub(crate) fn has_room(&mut self, headers: &HeaderMap) -> bool {
        // A field takes more than its bytes.
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        bytes <= SMALL || self.room.get_or_insert_with(|| HeadRoom::new(&self.core.shared.heads)).grow(bytes)
    }

    pub(crate) fn recorded(&self) -> bool {
        self.line.is_some()
    }
}

/// Parts of a request that its access line shows.
pub(crate) struct AccessRecord<'a> {
    pub(crate) host: &'a str,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) version: Version,
    pub(crate) headers: &'a HeaderMap,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Whichever is noticed first, its end or that of its body.
        if self.by_http2() && self.body_return.as_ref().is_some_and(|body_return| body_return.broken.get()) {
            (self.status, self.router_error) = (CLIENT_GONE, None);
        }
        let now = Instant::now();
        let elapsed = now.duration_since(self.started).as_secs_f64();
        self.client.phase.request_ended(now);
        self.core.metrics.request(self.status, elapsed);
        if let Some(mut line) = self.line.take() {
            line.status = self.status;
            line.router_error = self.router_error;
            line.received = self.body_return.as_ref().map_or(0, |body_return| body_return.received.get());
            line.sent = self.sent;
            line.response_time_s = elapsed;
            line.router_time_s = (elapsed - self.upstream_s).max(0.0);
            self.core.log.add(&line);
        }
    }
}

fn new_request_id() -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("none"))
}
