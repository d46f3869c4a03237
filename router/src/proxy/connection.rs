//! One client connection: its limits in time, and its end when the router drains.
//!
//! hyper's own header timer also runs while a connection is idle between requests and costs a timer operation per
//! request. Here one timer per connection wakes now and then and looks at the phase.

use std::cell::Cell;
use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use slipway_chassis::chain;

use super::core::Core;
use super::service;

/// A request's head must be complete within this, or slow clients could hold every connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection without a request is closed after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Who is at the other end.
pub(crate) struct Client {
    pub(crate) remote: SocketAddr,
    /// Its address alone, as `X-Forwarded-For` wants it.
    pub(crate) address: HeaderValue,
    /// It came by TLS.
    pub(crate) secure: bool,
    pub(crate) phase: Arc<Phase>,
}

impl Client {
    pub(crate) fn new(remote: SocketAddr, secure: bool, stall: Duration) -> Self {
        let address = HeaderValue::from_str(&remote.ip().to_canonical().to_string());
        Self {
            remote,
            address: address.unwrap_or(HeaderValue::from_static("unknown")),
            secure,
            phase: Arc::new(Phase::new(stall)),
        }
    }
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const REQUEST: u8 = 2;

/// What a connection is doing, and since when. Atomic only because hyper wants its transports `Send`.
pub(crate) struct Phase {
    phase: AtomicU8,
    born: Instant,
    /// Milliseconds after birth.
    since: AtomicU64,
    /// How long the client may keep the router waiting in a request.
    stall: Duration,
    /// It does not take what is written: since when.
    unread: Waiting,
    /// It does not send what is wanted of a body: since when.
    unsent: Waiting,
    /// The last time that bytes moved while one of the two waited. Milliseconds after birth.
    moved: AtomicU64,
}

/// Milliseconds after birth, and one; 0 while nobody waits.
#[derive(Default)]
struct Waiting(AtomicU64);

impl Waiting {
    /// When it began.
    fn since(&self) -> Option<Duration> {
        self.0.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
    }
}

impl Phase {
    fn new(stall: Duration) -> Self {
        Self {
            // A connection that sends nothing at all has the time of a head.
            phase: AtomicU8::new(HEAD),
            born: Instant::now(),
            since: AtomicU64::new(0),
            stall,
            unread: Waiting::default(),
            unsent: Waiting::default(),
            moved: AtomicU64::new(0),
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_millis() as u64
    }

    fn enter(&self, phase: u8, now: Instant) {
        self.since.store(self.millis(now), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// The endpoint wants more of the request's body; `pending` when the client has not sent it.
    pub(crate) fn body(&self, pending: bool) {
        self.waits(&self.unsent, pending);
    }

    /// The clock is read only when something waits, or has waited.
    fn waits(&self, what: &Waiting, pending: bool) {
        let waiting = what.since().is_some();
        if pending && !waiting {
            what.0.store(self.millis(Instant::now()) + 1, Ordering::Relaxed);
        } else if !pending && waiting {
            what.0.store(0, Ordering::Relaxed);
        }
    }

    /// Bytes moved, in any direction: a client that sends a large body before it reads is slow, not gone.
    fn bytes_moved(&self) {
        if self.unread.since().is_some() || self.unsent.since().is_some() {
            self.moved.store(self.millis(Instant::now()), Ordering::Relaxed);
        }
    }

    /// Until when the client must go on, when the router waits for it.
    fn stalled(&self) -> Option<Instant> {
        let since = match (self.unread.since(), self.unsent.since()) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        };
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        Some(self.born + since.max(moved) + self.stall)
    }

    pub(crate) fn in_request(&self) {
        self.phase.store(REQUEST, Ordering::Relaxed);
    }

    pub(crate) fn idle(&self, now: Instant) {
        self.enter(IDLE, now);
    }

    fn bytes_came(&self) {
        if self.phase.load(Ordering::Relaxed) == IDLE {
            self.enter(HEAD, Instant::now());
        }
    }

    /// When to look at the connection next: it may begin to stall long before its present deadline.
    fn look(&self, now: Instant) -> Instant {
        self.deadline(now).min(now + self.stall)
    }

    /// When the connection is to be closed, or looked at again.
    fn deadline(&self, now: Instant) -> Instant {
        // Also behind a request: the last bytes of its answer may still be on their way.
        if let Some(stalled) = self.stalled() {
            return stalled;
        }
        let since = self.born + Duration::from_millis(self.since.load(Ordering::Relaxed));
        match self.phase.load(Ordering::Relaxed) {
            IDLE => since + IDLE_TIMEOUT,
            HEAD => since + HEAD_TIMEOUT,
            _ => now + HEAD_TIMEOUT.min(self.stall),
        }
    }
}

/// Notices the first bytes of a request, and whether the client takes what is written.
struct Watched<T> {
    io: T,
    phase: Arc<Phase>,
}

impl<T: Read + Unpin> Read for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() {
            self.phase.bytes_came();
            self.phase.bytes_moved();
        }
        polled
    }
}

impl<T> Watched<T> {
    fn wrote(&self, polled: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        self.phase.waits(&self.phase.unread, polled.is_pending());
        if polled.is_ready() {
            self.phase.bytes_moved();
        }
        polled
    }
}

impl<T: Write + Unpin> Write for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        // Moves nothing when there is nothing, as often as it is asked.
        self.phase.waits(&self.phase.unread, polled.is_pending());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(polled)
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

/// Serves a connection until either side ends it, it takes too long, or the router drains.
pub(crate) async fn serve<T>(core: Rc<Core>, io: T, client: Client)
where
    T: Read + Write + Unpin + Send + 'static,
{
    let client = Rc::new(client);
    let phase = Arc::clone(&client.phase);
    let io = Watched { io, phase: Arc::clone(&phase) };
    let remote = client.remote;
    let limit = core.shared.max_header_bytes;
    let for_requests = Rc::clone(&core);
    let service = service_fn(move |request| service::handle(Rc::clone(&for_requests), Rc::clone(&client), request));
    let connection = http1::Builder::new()
        .max_buf_size(limit.max(8192))
        .max_header_size(limit)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut drain = pin!(core.drain.cancelled());
    let mut timer = pin!(tokio::time::sleep_until(phase.look(Instant::now()).into()));
    let draining = Cell::new(false);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            if let Err(error) = result {
                tracing::debug!(%remote, error = %chain(&error), "client connection ended");
            }
            return Poll::Ready(());
        }
        if !draining.get() && drain.as_mut().poll(cx).is_ready() {
            draining.set(true);
            connection.as_mut().graceful_shutdown();
            // It acts on that when it is polled next.
            cx.waker().wake_by_ref();
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let deadline = phase.deadline(now);
            if deadline <= now {
                tracing::debug!(%remote, "a client kept the router waiting for too long");
                return Poll::Ready(());
            }
            timer.as_mut().reset(phase.look(now).into());
        }
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(60);

    #[test]
    fn only_a_client_that_keeps_the_router_waiting_is_cut_off() {
        let phase = Phase::new(STALL);
        phase.in_request();
        let late = phase.born + Duration::from_secs(3600);
        assert!(phase.deadline(late) > late, "a slow app");
        phase.body(true);
        let cut = phase.deadline(late);
        assert!(cut <= Instant::now() + STALL, "it owes its body");
        phase.waits(&phase.unread, true);
        assert_eq!(phase.deadline(late), cut, "the older of two counts");
        phase.moved.store(1_000_000, Ordering::Relaxed);
        assert_eq!(phase.deadline(late), phase.born + Duration::from_secs(1000) + STALL, "but it goes on");
        phase.body(false);
        phase.waits(&phase.unread, false);
        assert!(phase.deadline(late) > late);
    }

    #[test]
    fn a_stall_is_found_in_time_on_a_connection_whose_deadline_is_far() {
        let phase = Phase::new(Duration::from_secs(1));
        let born = phase.born;
        assert_eq!(phase.deadline(born), born + HEAD_TIMEOUT);
        assert_eq!(phase.look(born), born + Duration::from_secs(1));
    }

    #[test]
    fn a_slow_head_and_a_long_idleness_end_a_connection_but_not_a_request() {
        let phase = Phase::new(STALL);
        let born = phase.born;
        assert_eq!(phase.deadline(born), born + HEAD_TIMEOUT);
        phase.in_request();
        let late = born + Duration::from_secs(3600);
        assert!(phase.deadline(late) > late);
        phase.idle(late);
        assert_eq!(phase.deadline(late), late + IDLE_TIMEOUT);
        phase.bytes_came();
        assert!(phase.deadline(late) <= Instant::now() + HEAD_TIMEOUT);
    }
}
