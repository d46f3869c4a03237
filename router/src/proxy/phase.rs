//! What a client's connection is doing, since when, and how long that may last.
//!
//! hyper's own header timer also runs while a connection is idle between requests and costs a timer operation per
//! request. Here one timer per connection wakes now and then and looks at the phase.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::fair::turn_is_over;
use super::linger::Linger;
use super::pieces::read_piece;
use crate::heads::{HeadRoom, Heads};

/// A request's head must be complete within this, or slow clients could hold every connection.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection without a request is closed after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// A client that owes its body is told so first, if no answer has begun.
const LAST_WORD: Duration = Duration::from_secs(5);

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const REQUEST: u8 = 2;

/// What a connection is doing, and since when. Atomic only because hyper wants its transports `Send`.
pub(crate) struct Phase {
    phase: AtomicU8,
    /// Requests under way. More than one only where the protocol has streams.
    requests: AtomicU32,
    /// It speaks HTTP/2: bytes come also between requests, and several bodies come at a time.
    streams: AtomicBool,
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
    /// A request was answered before its body was read to the end.
    unfinished: AtomicBool,
    /// Room that the heads of its requests take.
    room: HeadRoom,
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
    pub(crate) fn new(stall: Duration, heads: &Arc<Heads>) -> Self {
        Self {
            // A connection that sends nothing at all has the time of a head.
            phase: AtomicU8::new(HEAD),
            requests: AtomicU32::new(0),
            streams: AtomicBool::new(false),
            born: Instant::now(),
            since: AtomicU64::new(0),
            stall,
            unread: Waiting::default(),
            unsent: Waiting::default(),
            moved: AtomicU64::new(0),
            unfinished: AtomicBool::new(false),
            room: HeadRoom::new(heads),
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_millis() as u64
    }

    fn enter(&self, phase: u8, now: Instant) {
        self.since.store(self.millis(now), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// From here on it speaks HTTP/2.
    pub(crate) fn has_streams(&self) {
        self.streams.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.streams.load(Ordering::Relaxed)
    }

    /// The endpoint wants more of the request's body; `pending` when the client has not sent it. A stream may be silent
    /// for as long as both ends like: that is what it is for.
    pub(crate) fn body(&self, pending: bool) {
        if !self.is_http2() {
            self.waits(&self.unsent, pending);
        }
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
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        let unread = self.unread.since().map(|since| since.max(moved));
        let unsent = self.unsent.since().map(|since| since.max(moved) + LAST_WORD);
        let since = match (unread, unsent) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        };
        Some(self.born + since + self.stall)
    }

    pub(crate) fn request_began(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.phase.store(REQUEST, Ordering::Relaxed);
        self.unfinished.store(false, Ordering::Relaxed);
    }

    pub(crate) fn request_ended(&self, now: Instant) {
        if self.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.enter(IDLE, now);
            self.room.give_back();
        }
    }

    /// The request's body is not read to its end.
    pub(crate) fn left_unread(&self) {
        self.unfinished.store(true, Ordering::Relaxed);
    }

    /// Whether the client may be sending when the connection ends: the rest of a body, or of what is no request.
    fn lingers(&self, heard: bool) -> bool {
        let head = heard && self.phase.load(Ordering::Relaxed) == HEAD;
        !self.is_http2() && (head || self.unfinished.load(Ordering::Relaxed))
    }

    /// Whether what was written by HTTP/1.1 waits for the client to take it.
    pub(crate) fn is_behind(&self) -> bool {
        self.unread.since().is_some() && !self.is_http2()
    }

    /// Whether there is room for a head of which so much has come.
    fn has_room(&self, bytes: usize) -> bool {
        self.room.grow(bytes)
    }

    pub(crate) fn in_request(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == REQUEST
    }

    fn bytes_came(&self) {
        // By HTTP/2 they may belong to no request: answers to pings, say.
        if self.phase.load(Ordering::Relaxed) == IDLE && !self.is_http2() {
            self.enter(HEAD, Instant::now());
        }
    }

    /// When to look at the connection next: it may begin to stall long before its present deadline.
    pub(crate) fn look(&self, now: Instant) -> Instant {
        self.deadline(now).min(now + self.stall)
    }

    /// When the connection is to be closed, or looked at again.
    pub(crate) fn deadline(&self, now: Instant) -> Instant {
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

/// A client's stream that records the first bytes of a request and whether the client reads what is written. Keeps reading
/// at the end, see [`Linger`].
pub(crate) struct MonitoredStream<T> {
    io: T,
    phase: Arc<Phase>,
    /// Something has come.
    heard: bool,
    /// Bytes of the head that is coming.
    head: usize,
    linger: Option<Linger>,
}

impl<T> MonitoredStream<T> {
    pub(crate) fn new(io: T, phase: Arc<Phase>) -> Self {
        Self { io, phase, heard: false, head: 0, linger: None }
    }
}

/// For a head that is larger than most, while the router has many of that kind.
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nX-Cf-RouterError: too_many_large_headers\r\nConnection: close\r\n\
    Content-Length: 0\r\n\r\n";

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for MonitoredStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        if turn_is_over() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let came = ready!(read_piece(&mut this.io, cx, buf));
        this.heard = true;
        this.phase.bytes_came();
        // By HTTP/2 a client can send pings for ever and never read.
        if !this.phase.is_http2() {
            this.phase.bytes_moved();
            if this.phase.phase.load(Ordering::Relaxed) == HEAD {
                this.head += came.as_ref().map_or(0, |came| *came);
                if !this.phase.has_room(this.head) {
                    // Nothing else is being written: no request is under way. If it cannot be told at once it is not.
                    let _ = Pin::new(&mut this.io).poll_write(cx, NO_ROOM);
                    return Poll::Ready(Err(std::io::ErrorKind::OutOfMemory.into()));
                }
            } else {
                this.head = 0;
            }
        }
        Poll::Ready(came.map(drop))
    }
}

impl<T> MonitoredStream<T> {
    fn wrote(&self, polled: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        self.phase.waits(&self.phase.unread, polled.is_pending());
        if polled.is_ready() {
            self.phase.bytes_moved();
        }
        polled
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MonitoredStream<T> {
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
        let this = &mut *self;
        if this.linger.is_none() {
            let shut = ready!(Pin::new(&mut this.io).poll_shutdown(cx));
            if shut.is_err() || !this.phase.lingers(this.heard) {
                return Poll::Ready(shut);
            }
        }
        this.linger.get_or_insert_with(Linger::new).poll(&mut this.io, cx).map(Ok)
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

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(60);

    #[test]
    fn only_a_client_that_keeps_the_router_waiting_is_cut_off() {
        let phase = Phase::new(STALL, &Arc::default());
        phase.request_began();
        let late = phase.born + Duration::from_secs(3600);
        assert!(phase.deadline(late) > late, "a slow app");
        phase.body(true);
        let owing = phase.deadline(late);
        assert!(
            owing > late.min(phase.born + STALL) && owing <= Instant::now() + STALL + LAST_WORD,
            "it owes its body"
        );
        phase.waits(&phase.unread, true);
        let cut = phase.deadline(late);
        assert!(cut < owing && cut <= Instant::now() + STALL, "it takes nothing");
        phase.moved.store(1_000_000, Ordering::Relaxed);
        assert_eq!(phase.deadline(late), phase.born + Duration::from_secs(1000) + STALL, "but it goes on");
        phase.body(false);
        phase.waits(&phase.unread, false);
        assert!(phase.deadline(late) > late);
    }

    #[test]
    fn a_stall_is_found_in_time_on_a_connection_whose_deadline_is_far() {
        let phase = Phase::new(Duration::from_secs(1), &Arc::default());
        let born = phase.born;
        assert_eq!(phase.deadline(born), born + HEAD_TIMEOUT);
        assert_eq!(phase.look(born), born + Duration::from_secs(1));
    }

    #[test]
    fn a_slow_head_and_a_long_idleness_end_a_connection_but_not_a_request() {
        let phase = Phase::new(STALL, &Arc::default());
        let born = phase.born;
        assert_eq!(phase.deadline(born), born + HEAD_TIMEOUT);
        phase.request_began();
        let late = born + Duration::from_secs(3600);
        assert!(phase.deadline(late) > late);
        phase.request_ended(late);
        assert_eq!(phase.deadline(late), late + IDLE_TIMEOUT);
        phase.bytes_came();
        assert!(phase.deadline(late) <= Instant::now() + HEAD_TIMEOUT);
    }

    #[test]
    fn streams_of_a_connection_end_it_only_after_the_last() {
        let phase = Phase::new(STALL, &Arc::default());
        phase.has_streams();
        phase.request_began();
        phase.request_began();
        phase.body(true);
        let late = phase.born + Duration::from_secs(3600);
        assert!(phase.deadline(late) > late, "a client may be silent in a stream");
        phase.request_ended(late);
        assert!(phase.in_request() && phase.deadline(late) > late, "one goes on");
        phase.request_ended(late);
        assert_eq!(phase.deadline(late), late + IDLE_TIMEOUT);
        phase.bytes_came();
        assert_eq!(phase.deadline(late), late + IDLE_TIMEOUT, "a ping is no request");
    }
}
