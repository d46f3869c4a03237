//! A request, phase by phase.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, request};
use hyper::body::{Body as _, Incoming};
use slipway_chassis::{chain, clock};

use super::answer::LocalReply;
use super::body::{BodyReturn, ProxyBody, RequestBody};
use super::choose::{Decision, NoDecision, RoutingHints, SelectionInput, decide};
use super::connection::Client;
use super::core::Core;
use super::endpoint::{EndpointLease, EndpointState};
use super::exchange::{AccessRecord, Exchange};
use super::failure::{Cause, Failure, is_unseen};
use super::route_service::{self, Arrival};
use super::target::{hints, target};
use super::tunnel::tunnel;
use super::upstream::{self, ConnectError, Sender};
use super::{choose, forwarding, headers, sticky};
use crate::limits::Descriptor;
use crate::table::{EndpointKey, RouteService};

/// Tries for one request. More would let one bad request visit every instance of an app.
const MAX_TRIES: usize = 3;
/// When every endpoint failed, they may be tried again after these pauses: one that refuses a connection, or resets it,
/// often takes the next.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];

/// Serves one request of a client.
pub(crate) async fn handle(
    core: Rc<Core>,
    client: Rc<Client>,
    mut request: Request<Incoming>,
) -> Result<Response<ProxyBody>, Infallible> {
    let mut exchange = Exchange::begin(&core, &client);
    let upgrade = headers::wanted_upgrade(request.headers());
    let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    let has_body = !body.is_end_stream();
    // One connection by HTTP/2 brings many requests.
    if head.version == Version::HTTP_2 {
        exchange.place = client.place(&core.shared.descriptors);
        if exchange.place.is_none() {
            core.metrics.turned_away.fetch_add(1, Ordering::Relaxed);
            return Ok(LocalReply::Full.into_response(exchange, has_body));
        }
    }
    let version = head.version;
    let asks = headers::asks_first(&mut head.headers, version, has_body);
    if has_body {
        exchange.body_return = Some(Rc::new(BodyReturn::new(body, Arc::clone(&client.phase), asks)));
    }
    let host = match target(&mut head) {
        Ok(host) => host,
        Err(answer) => return Ok(answer.into_response(exchange, true)),
    };
    // By HTTP/1.1 the connection has counted.
    if version == Version::HTTP_2 && !exchange.has_room(&head.headers) {
        return Ok(LocalReply::NoRoom.into_response(exchange, has_body));
    }
    headers::join_cookies(&mut head.headers);
    let hints = match hints(&head.headers) {
        Ok(hints) => hints,
        Err(answer) => return Ok(answer.into_response(exchange, has_body)),
    };
    let switches = upgrade.is_some();
    // Before what a stranger says is taken away: it may be the route's service.
    let claims = head.headers.contains_key(route_service::SIGNATURE).then(|| forwarding::claims(&head.headers));
    headers::prepare_request(
        &mut head.headers,
        &core.shared.forwarding,
        &client,
        has_body,
        upgrade,
        &exchange.request_id,
    );
    let tried = Vec::with_capacity(MAX_TRIES);
    let mut proxied = ProxyRequest {
        core: &core,
        host: &host,
        version,
        hints,
        tried,
        tries: 0,
        pauses: PAUSES.iter(),
        last: None,
        switches,
        claims,
        address: &client.address,
    };
    match proxied.run(head, &mut exchange).await {
        Ok(answered) => Ok(finish(&core, answered, exchange, client_side)),
        Err(answer) => Ok(answer.into_response(exchange, has_body)),
    }
}

/// One request and its attempts, at most [`MAX_TRIES`].
struct ProxyRequest<'a> {
    core: &'a Rc<Core>,
    host: &'a str,
    /// What the client speaks.
    version: Version,
    hints: RoutingHints,
    /// Not to be chosen again before the next pause.
    tried: Vec<EndpointKey>,
    tries: usize,
    pauses: std::slice::Iter<'a, Duration>,
    /// How the last try failed.
    last: Option<Failure>,
    /// Another protocol is asked for.
    switches: bool,
    /// What a request that may come from the route's service said of others.
    claims: Option<HeaderMap>,
    /// The client's.
    address: &'a HeaderValue,
}

struct UpstreamResponse {
    response: Response<Incoming>,
    sender: Sender,
    /// None when a route service answered.
    lease: Option<EndpointLease>,
    /// The route's path, below which a session is.
    path: String,
}

/// How sending on one connection failed.
enum SendFailure {
    /// Nothing reached the endpoint: here is the request.
    Unsent(Box<request::Parts>, Failure),
    /// The endpoint may have acted on it, but it may be sent again: it is idempotent or the endpoint says that it has not
    /// acted, and its body is whole.
    Seen(Box<request::Parts>, Failure),
    /// The endpoint may have acted on it.
    Final(LocalReply),
}

impl ProxyRequest<'_> {
    async fn run(&mut self, mut head: request::Parts, exchange: &mut Exchange) -> Result<UpstreamResponse, LocalReply> {
        loop {
            let now = Instant::now();
            let asked = SelectionInput {
                host: self.host,
                path: head.uri.path(),
                headers: &head.headers,
                hints: &self.hints,
                tried: &self.tried,
                now,
            };
            let Decision { route, state } = match (decide(self.core, &asked), self.last.take()) {
                (Ok(decision), _) => decision,
                (Err(NoDecision::LocalReply(answer)), None) => {
                    if let Some(app_id) = choose::app_of(self.core, self.host, head.uri.path()) {
                        exchange.note(&self.access_record(&head), &app_id, None);
                    }
                    return Err(answer);
                }
                (Err(NoDecision::LocalReply(_)), Some(failure)) => return Err(LocalReply::EndpointFailure(failure)),
                (Err(NoDecision::Exhausted), last) => {
                    let failure = last.unwrap_or_else(|| Failure::new(Cause::Gone, "no endpoint is left to try"));
                    let Some(pause) = self.pauses.next() else { return Err(LocalReply::EndpointFailure(failure)) };
                    tokio::time::sleep(*pause).await;
                    self.tried.clear();
                    self.last = Some(failure);
                    continue;
                }
            };
            if self.tries == 0
                && let Some(service) = &route.service
            {
                match route_service::arrival(service, &head.headers, &head.uri, clock::unix_ms())? {
                    Arrival::Back => {
                        route_service::strip(&mut head.headers);
                        if let Some(claims) = self.claims.take() {
                            forwarding::restore(&mut head.headers, claims, self.address);
                        }
                    }
                    Arrival::Fresh if self.switches => return Err(LocalReply::RouteServiceUpgrade),
                    Arrival::Fresh => {
                        exchange.note(&self.access_record(&head), &state.endpoint.app_id, None);
                        let descriptor = state.claim(&self.core.shared.descriptors).ok_or(LocalReply::AppLimit)?;
                        return self.through(service, descriptor, head, exchange).await;
                    }
                }
            }
            if exchange.recorded() {
                exchange.moved(&state.endpoint);
            } else if !route.route.system {
                exchange.note(&self.access_record(&head), &state.endpoint.app_id, Some(&state.endpoint));
            }
            headers::name_instance(&mut head.headers, &state.endpoint);
            self.tried.push(state.endpoint.key);
            self.tries += 1;
            match self.attempt(&state, head, exchange).await {
                Ok(answered) => return Ok(UpstreamResponse { path: route.route.path.clone(), ..answered }),
                Err(SendFailure::Unsent(_, failure) | SendFailure::Seen(_, failure)) if self.tries >= MAX_TRIES => {
                    return Err(LocalReply::EndpointFailure(failure));
                }
                Err(SendFailure::Unsent(back, failure) | SendFailure::Seen(back, failure)) => {
                    self.core.metrics.retries.fetch_add(1, Ordering::Relaxed);
                    head = *back;
                    self.last = Some(failure);
                }
                Err(SendFailure::Final(answer)) => return Err(answer),
            }
        }
    }

    fn access_record<'r>(&'r self, head: &'r request::Parts) -> AccessRecord<'r> {
        AccessRecord {
            host: self.host,
            method: &head.method,
            uri: &head.uri,
            version: self.version,
            headers: &head.headers,
        }
    }

    /// To the route's service, which sends the request back, or answers itself. Tried once: it may have acted on it.
    async fn through(
        &self,
        service: &RouteService,
        descriptor: Descriptor,
        mut head: request::Parts,
        exchange: &mut Exchange,
    ) -> Result<UpstreamResponse, LocalReply> {
        route_service::address(service, &mut head, clock::unix_ms())?;
        let sender = route_service::connect(self.core, service, descriptor)
            .await
            .map_err(|error| LocalReply::RouteServiceFailure(error.failure()))?;
        let began = Instant::now();
        let sent = self.send(sender, head, exchange).await;
        exchange.upstream_s += began.elapsed().as_secs_f64();
        match sent {
            Ok((response, sender)) => Ok(UpstreamResponse { response, sender, lease: None, path: String::new() }),
            Err(SendFailure::Final(LocalReply::EndpointFailure(failure))) => {
                Err(LocalReply::RouteServiceFailure(failure))
            }
            Err(SendFailure::Final(answer)) => Err(answer),
            Err(SendFailure::Unsent(_, failure) | SendFailure::Seen(_, failure)) => {
                Err(LocalReply::RouteServiceFailure(failure))
            }
        }
    }

    /// One endpoint: open connections first. One that died while it was idle says nothing about the endpoint, so the
    /// next is taken, and at last a new one. When the endpoint may have seen the request, that was a try, and the next
    /// is, by HTTP/1.1, on a new connection: the other idle ones may be as dead, or the request be one that ends them.
    async fn attempt(
        &mut self,
        state: &Rc<EndpointState>,
        mut head: request::Parts,
        exchange: &mut Exchange,
    ) -> Result<UpstreamResponse, SendFailure> {
        let lease = EndpointLease::new(state);
        let began = Instant::now();
        let mut fresh = false;
        // HTTP/2 has no switch of protocols; who offers one speaks HTTP/1.1 as well.
        let http2 = state.endpoint.http2 && !self.switches;
        loop {
            let open = if fresh { None } else { state.take_open(http2) };
            let reused = open.is_some();
            let sender = match open {
                Some(sender) => sender,
                None => match upstream::connect(self.core, state, http2).await {
                    Ok(sender) => sender,
                    Err(ConnectError::Share(_)) => return Err(SendFailure::Final(LocalReply::AppLimit)),
                    Err(error) => {
                        // Expected while instances come and go; said aloud when it is the last try.
                        tracing::debug!(error = %chain(&error), "no connection to an endpoint");
                        // There may be too many because the endpoint works, if slowly; and what several waited for failed
                        // once, which the one who tried has counted.
                        if !matches!(error, ConnectError::Full(_) | ConnectError::Together { .. }) {
                            state.failed(Instant::now());
                        }
                        return Err(SendFailure::Unsent(Box::new(head), error.failure()));
                    }
                },
            };
            let sent = self.send(sender, head, exchange).await;
            if sent.as_ref().is_err_and(SendFailure::is_overload) {
                state.streams.lower(Instant::now());
            }
            match sent {
                Ok((response, sender)) => {
                    state.worked();
                    exchange.upstream_s += began.elapsed().as_secs_f64();
                    return Ok(UpstreamResponse { response, sender, lease: Some(lease), path: String::new() });
                }
                Err(SendFailure::Unsent(back, _)) if reused => head = *back,
                Err(SendFailure::Seen(back, _)) if reused && self.tries < MAX_TRIES => {
                    self.core.metrics.retries.fetch_add(1, Ordering::Relaxed);
                    self.tries += 1;
                    // Of those by HTTP/2 the one that has ended is not there any more.
                    fresh = !http2;
                    head = *back;
                }
                Err(failure) => {
                    // One that speaks HTTP/2 alone cannot switch protocols, and is well.
                    let unable = state.endpoint.http2 && self.switches;
                    if !reused && !unable && failure.blames_endpoint() {
                        state.failed(Instant::now());
                    }
                    exchange.upstream_s += began.elapsed().as_secs_f64();
                    return Err(failure);
                }
            }
        }
    }

    async fn send(
        &self,
        mut sender: Sender,
        mut head: request::Parts,
        exchange: &Exchange,
    ) -> Result<(Response<Incoming>, Sender), SendFailure> {
        let http2 = sender.is_http2();
        let body = match &exchange.body_return {
            None => RequestBody::empty(),
            Some(body_return) => body_return.lend(http2).ok_or_else(|| {
                let failure = Failure::new(Cause::Other, "the request's body is not there any more");
                SendFailure::Final(LocalReply::EndpointFailure(failure))
            })?,
        };
        // An idempotent request may be sent again even if the endpoint has seen its head; any one perhaps by HTTP/1.1.
        let known_length = head.headers.contains_key(CONTENT_LENGTH);
        let idempotent = head.method.is_idempotent();
        let copy = (idempotent || http2).then(|| head.clone());
        if http2 {
            headers::for_http2(&mut head).map_err(SendFailure::Final)?;
        }
        let mut request = Request::from_parts(head, body);
        if let Some(decision) =
            exchange.body_return.as_ref().and_then(|body_return| body_return.decision()).filter(|_| !http2)
        {
            let decision = Arc::clone(decision);
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    decision.wanted();
                }
            });
        }
        let sending = sender.send(request);
        let sending = tokio::time::timeout(self.core.shared.response_timeout, sending);
        // One connection of a client could otherwise keep hundreds toward apps by bodies that never come. Between two ends
        // that speak HTTP/2 silence is theirs.
        let stalled = async {
            match &exchange.body_return {
                Some(body_return) if !exchange.by_http2() || !http2 => {
                    body_return.stalled(self.core.shared.client_stall).await
                }
                _ => std::future::pending().await,
            }
        };
        let slow = async {
            match &exchange.body_return {
                Some(body_return) if known_length => body_return.too_slow(self.core.shared.client_stall).await,
                _ => std::future::pending().await,
            }
        };
        let sent = tokio::select! {
            sent = sending => sent,
            () = slow => return Err(SendFailure::Final(LocalReply::BodyTimeout)),
            () = stalled => return Err(SendFailure::Final(LocalReply::BodyTimeout)),
        };
        match sent {
            Ok(Ok(response)) => Ok((response, sender)),
            Err(_) => Err(SendFailure::Final(LocalReply::Timeout)),
            Ok(Err(mut error)) => {
                let unseen = is_unseen(error.error());
                let mut failure = Failure::of(error.error());
                // By HTTP/2 the endpoint's side only says that the request was given up.
                if exchange.body_return.as_ref().is_some_and(|body_return| body_return.broken.get()) {
                    failure.cause = Cause::Client;
                }
                tracing::debug!(error = %chain(error.error()), "an endpoint did not answer");
                // Destructuring the request gives its body back for the retry.
                let unsent = error.take_message().map(|request| request.into_parts().0);
                let whole = exchange.body_return.as_ref().is_none_or(|body_return| body_return.is_whole());
                Err(match (unsent, copy) {
                    (Some(_), Some(head)) | (Some(head), None) if whole => SendFailure::Unsent(Box::new(head), failure),
                    (None, Some(head)) if whole && (unseen || idempotent && failure.cause != Cause::StreamReset) => {
                        SendFailure::Seen(Box::new(head), failure)
                    }
                    _ => SendFailure::Final(LocalReply::EndpointFailure(failure)),
                })
            }
        }
    }
}

impl SendFailure {
    fn is_overload(&self) -> bool {
        match self {
            Self::Unsent(_, failure) | Self::Seen(_, failure) | Self::Final(LocalReply::EndpointFailure(failure)) => {
                failure.cause == Cause::Overloaded
            }
            Self::Final(_) => false,
        }
    }

    /// Slowness is no failure, and a client that broke off is not the endpoint's.
    fn blames_endpoint(&self) -> bool {
        match self {
            Self::Unsent(..) | Self::Seen(..) => true,
            Self::Final(LocalReply::EndpointFailure(failure)) => {
                !matches!(failure.cause, Cause::Client | Cause::StreamReset | Cause::Overloaded)
            }
            Self::Final(_) => false,
        }
    }
}

fn finish(
    core: &Rc<Core>,
    answered: UpstreamResponse,
    mut exchange: Exchange,
    client_side: Option<hyper::upgrade::OnUpgrade>,
) -> Response<ProxyBody> {
    let UpstreamResponse { response, mut sender, lease, path } = answered;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        sender.exchange_ended();
        return match (client_side, lease) {
            (Some(client_side), Some(lease)) => tunnel(core, response, lease, exchange, client_side),
            _ => {
                let failure = Failure::new(Cause::Invalid, "it switched to a protocol that nobody asked for");
                LocalReply::EndpointFailure(failure).into_response(exchange, true)
            }
        };
    }
    let (mut head, body) = response.into_parts();
    let unusable = match (headers::is_plain(&head.headers), exchange.has_room(&head.headers)) {
        (true, true) => None,
        (false, _) => Some((Cause::Invalid, "the Transfer-Encoding of its answer is more than chunked")),
        (true, false) => Some((Cause::Other, "too many answers with large headers are under way")),
    };
    if let Some((cause, detail)) = unusable {
        return LocalReply::EndpointFailure(Failure::new(cause, detail)).into_response(exchange, true);
    }
    exchange.status = head.status.as_u16();
    headers::prepare_response(&mut head.headers, head.status, &exchange.request_id);
    // Whether the body comes after all nobody can know, so nothing else comes on this connection.
    if !exchange.by_http2() && exchange.body_return.as_ref().is_some_and(|body_return| body_return.is_unwanted()) {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(lease) = &lease {
        sticky::remember(&mut head.headers, lease.assignment_id(), &path);
    }
    head.version = Version::HTTP_11;
    head.extensions.clear();
    Response::from_parts(head, ProxyBody::streaming(body, Some(sender), lease, exchange))
}
