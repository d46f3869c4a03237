//! One client connection: which HTTP it speaks, its limits in time, and its end when the router drains.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use slipway_chassis::chain;
use tokio::io::{AsyncRead, AsyncWrite};

use super::core::Core;
use super::fair::{Flow, InFlow};
use super::forwarding::Trust;
use super::phase::{MonitoredStream, Phase};
use super::service;
use crate::limits::{Descriptor, Descriptors, HeldConnection, Holder, client_key};

/// Requests at a time on one connection by HTTP/2, as Cloud Foundry's router has it.
const MAX_STREAMS: u32 = 250;
/// Fields of one head by HTTP/1. Each parse fills room for as many: a thousand took a seventh of all the router's time.
/// HAProxy and Envoy take a hundred, so no app or client that is known comes near. By HTTP/2 the size alone counts.
pub(super) const MAX_FIELDS: usize = 256;
/// What a client may send of one body before the endpoint has taken it, and of all bodies of a connection: one that is not
/// taken must not hold up the others.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// What waits here of one answer until the client takes it. Its endpoint's window holds as much again.
const SEND_BUFFER: usize = 32 << 10;
/// A connection by HTTP/2 that is closed has this long to be told so.
const FAREWELL: Duration = Duration::from_secs(5);

/// Who is at the other end.
pub(crate) struct Client {
    pub(crate) remote: SocketAddr,
    /// Its address alone, as `X-Forwarded-For` wants it.
    pub(crate) address: HeaderValue,
    /// It came by TLS.
    pub(crate) secure: bool,
    /// How much its word about others counts.
    pub(crate) trust: Trust,
    /// What its address holds.
    pub(crate) holder: Arc<Holder>,
    pub(crate) phase: Arc<Phase>,
}

impl Client {
    pub(crate) fn new(core: &Core, remote: SocketAddr, secure: bool) -> Self {
        let address = HeaderValue::from_str(&remote.ip().to_canonical().to_string());
        Self {
            remote,
            address: address.unwrap_or(HeaderValue::from_static("unknown")),
            secure,
            trust: core.shared.forwarding.trust(remote.ip()),
            holder: core.shared.clients.get(client_key(remote.ip())),
            phase: Arc::new(Phase::new(core.shared.client_stall, &core.shared.heads)),
        }
    }
}

impl Client {
    /// A descriptor for its connection. `None` when its address has its share; a load balancer brings many clients.
    pub(crate) fn claim(&self, all: &Descriptors) -> Option<Descriptor> {
        match self.trust {
            Trust::Proxy => (!all.scarce()).then(|| all.take()),
            Trust::Anybody | Trust::Stranger => all.share(&self.holder),
        }
    }

    /// Whose turn its tasks wait for. `None` for a load balancer: its turn would be that of all who come through it.
    pub(crate) fn flow(&self, core: &Core) -> Option<Rc<Flow>> {
        (self.trust != Trust::Proxy).then(|| core.fair.flow(client_key(self.remote.ip())))
    }

    /// A place for one more of the many requests that one connection may bring; each needs a connection to its endpoint.
    pub(crate) fn place(&self, all: &Descriptors) -> Option<HeldConnection> {
        let has = if self.trust == Trust::Proxy { !all.scarce() } else { all.has_share(&self.holder) };
        has.then(|| HeldConnection::new(&self.holder))
    }
}

/// Counts a connection or tunnel as active for as long as it lives.
pub(crate) struct Active(Rc<Core>);

impl Active {
    pub(crate) fn new(core: &Rc<Core>) -> Self {
        core.active.set(core.active.get() + 1);
        Self(Rc::clone(core))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

/// The protocol of a connection, once it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Serves a connection until either side ends it, it takes too long, or the router drains.
pub(crate) async fn serve<T>(core: Rc<Core>, io: T, client: Client, protocol: Protocol)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = Rc::new(client);
    let phase = Arc::clone(&client.phase);
    let io = TokioIo::new(MonitoredStream::new(io, Arc::clone(&phase)));
    let remote = client.remote;
    let flow = client.flow(&core);
    let limit = core.shared.max_header_bytes;
    let for_requests = Rc::clone(&core);
    let service = service_fn(move |request| service::handle(Rc::clone(&for_requests), Rc::clone(&client), request));
    let ended = match protocol {
        Protocol::Http1 => {
            let connection = http1::Builder::new()
                .max_buf_size(limit.max(8192))
                .max_header_size(limit)
                .max_headers(MAX_FIELDS)
                .serve_connection(io, service)
                .with_upgrades();
            watch(&core, &phase, connection, |connection| connection.graceful_shutdown(), None).await
        }
        Protocol::Http2 => {
            phase.has_streams();
            // Without pings: an answer to one waits behind all that is on its way to a slow client. Clients that have
            // vanished are found as those by HTTP/1 are, by the kernel's.
            let connection = http2::Builder::new(InFlow(flow))
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(u32::try_from(limit).unwrap_or(u32::MAX))
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .serve_connection(io, service);
            watch(&core, &phase, connection, |connection| connection.graceful_shutdown(), Some(FAREWELL)).await
        }
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%remote, error = %chain(&error), "client connection ended"),
        None => tracing::debug!(%remote, "a client kept the router waiting for too long"),
    }
}

/// Drives a connection to its end. `None` when it took too long; where there is a `farewell`, an idle one is told first:
/// its client could else be sending a request just then.
async fn watch<C>(
    core: &Core,
    phase: &Phase,
    connection: C,
    close: impl Fn(Pin<&mut C>),
    mut farewell: Option<Duration>,
) -> Option<hyper::Result<()>>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut drain = pin!(core.drain.cancelled());
    let mut timer = pin!(tokio::time::sleep_until(phase.look(Instant::now()).into()));
    let mut draining = false;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        if !draining && drain.as_mut().poll(cx).is_ready() {
            draining = true;
            close(connection.as_mut());
            // It acts on that when it is polled next.
            cx.waker().wake_by_ref();
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if phase.deadline(now) > now {
                timer.as_mut().reset(phase.look(now).into());
                continue;
            }
            let Some(time) = farewell.take().filter(|_| !phase.in_request()) else { return Poll::Ready(None) };
            close(connection.as_mut());
            cx.waker().wake_by_ref();
            timer.as_mut().reset((now + time).into());
        }
        Poll::Pending
    })
    .await
}
