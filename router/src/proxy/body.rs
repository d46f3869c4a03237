//! Bodies on their way through: never buffered, counted, and able to come back when nothing of them was sent.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::cut::Cut;
use super::endpoint::EndpointLease;
use super::exchange::Exchange;
use super::expect_continue::{ContinueDecision, ContinueWait};
use super::phase::Phase;
use super::streams::StreamPermit;
use super::upstream::Sender;

/// Bytes a second that a body of known length brings at least, while they are waited for. A stream has no such length.
const SLOWEST: f64 = 500.0;

/// Where a request's body waits between attempts.
pub(crate) struct BodyReturn {
    body: RefCell<Option<Incoming>>,
    /// Bytes taken from it so far.
    pub(crate) received: Cell<u64>,
    touched: Cell<bool>,
    /// The client has broken off.
    pub(crate) broken: Cell<bool>,
    /// Since when the client has owed the next piece.
    unsent: Cell<Option<Instant>>,
    /// How long the client was waited for since `mark` bytes had come.
    waited: Cell<Duration>,
    mark: Cell<u64>,
    /// What the app has said of it, when the client asks that first.
    decision: Option<Arc<ContinueDecision>>,
    /// The client that it comes from.
    phase: Arc<Phase>,
}

impl BodyReturn {
    /// With `asks` the client waits to be told that the body is wanted.
    pub(crate) fn new(body: Incoming, phase: Arc<Phase>, asks: bool) -> Self {
        let (body, unsent) = (RefCell::new(Some(body)), Cell::new(None));
        Self {
            body,
            received: Cell::new(0),
            touched: Cell::new(false),
            broken: Cell::new(false),
            unsent,
            waited: Cell::default(),
            mark: Cell::new(0),
            decision: asks.then(Arc::default),
            phase,
        }
    }

    /// Where the app's word about the body belongs, when it is asked for.
    pub(crate) fn decision(&self) -> Option<&Arc<ContinueDecision>> {
        self.decision.as_ref()
    }

    /// The client asked whether its body is wanted, and was not told so.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.decision.is_some() && !self.touched.get()
    }

    /// Nothing of it was taken, and it is here.
    pub(crate) fn is_whole(&self) -> bool {
        !self.touched.get() && self.body.borrow().is_some()
    }

    /// The body for an attempt; `None` when part of it has gone, or is still with an earlier attempt.
    /// With `at_once` nothing is waited for.
    pub(crate) fn lend(self: &Rc<Self>, at_once: bool) -> Option<RequestBody> {
        if self.touched.get() {
            return None;
        }
        let body = self.body.borrow_mut().take()?;
        let continue_wait = self.decision.as_ref().filter(|_| !at_once).map(ContinueWait::new);
        Some(RequestBody { body: Some((body, Rc::clone(self))), continue_wait, _permit: None, cut: None })
    }

    fn waits(&self, pending: bool) {
        self.phase.body(pending);
        if !pending {
            if let Some(since) = self.unsent.take() {
                self.waited.set(self.waited.get() + since.elapsed());
            }
        } else if self.unsent.get().is_none() {
            self.unsent.set(Some(Instant::now()));
        }
    }

    /// Comes back when, of a body of known length, too little has come in the time for which the client was waited for:
    /// `window` in all. Who sends a byte now and then would hold a connection to the app for ever.
    pub(crate) async fn too_slow(&self, window: Duration) {
        loop {
            let waited = self.waited.get() + self.unsent.get().map_or(Duration::ZERO, |since| since.elapsed());
            let Some(left) = window.checked_sub(waited).filter(|left| !left.is_zero()) else {
                let came = self.received.get() - self.mark.get();
                if (came as f64) < SLOWEST * window.as_secs_f64() {
                    return;
                }
                self.mark.set(self.received.get());
                self.waited.set(Duration::ZERO);
                if self.unsent.get().is_some() {
                    self.unsent.set(Some(Instant::now()));
                }
                continue;
            };
            tokio::time::sleep(left).await;
        }
    }

    /// Comes back when the client has not sent what is wanted of the body for so long.
    pub(crate) async fn stalled(&self, limit: Duration) {
        loop {
            let since = self.unsent.get().unwrap_or_else(Instant::now);
            if since.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until((since + limit).into()).await;
        }
    }
}

impl Drop for BodyReturn {
    fn drop(&mut self) {
        if self.body.borrow().as_ref().is_some_and(|body| !body.is_end_stream()) {
            self.phase.left_unread();
        }
    }
}

/// A request's body as the endpoint's connection sees it. When it is dropped unread, the body goes back to the exchange, so that a retry can send it.
pub(crate) struct RequestBody {
    body: Option<(Incoming, Rc<BodyReturn>)>,
    /// Until the app wants it.
    continue_wait: Option<ContinueWait>,
    /// By HTTP/2. It is not free before the body has gone, even if the answer came long ago.
    _permit: Option<Rc<StreamPermit>>,
    /// By HTTP/1.1. What does not come to its end cuts the connection, even if the answer came long ago.
    cut: Option<Cut>,
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self { body: None, continue_wait: None, _permit: None, cut: None }
    }

    pub(super) fn cutting(mut self, cut: Cut) -> Self {
        self.cut = Some(cut);
        self
    }

    pub(crate) fn with_permit(mut self, permit: Rc<StreamPermit>) -> Self {
        self._permit = Some(permit);
        self
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some((body, body_return)) = &mut this.body else { return Poll::Ready(None) };
        if let Some(continue_wait) = &mut this.continue_wait {
            if !ready!(continue_wait.poll(cx)) {
                this.cut.iter().for_each(Cut::set);
                // Less than was announced ends the connection to the app, which has answered.
                return Poll::Ready(None);
            }
            this.continue_wait = None;
        }
        let polled = Pin::new(body).poll_frame(cx);
        // Asked for only while the endpoint takes more, so that a pause here is the client's.
        body_return.waits(polled.is_pending());
        if let Poll::Ready(result) = &polled {
            body_return.touched.set(true);
            if let Some(Err(_)) = result {
                body_return.broken.set(true);
                this.cut.iter().for_each(Cut::set);
            }
            if let Some(Ok(frame)) = result
                && let Some(data) = frame.data_ref()
            {
                body_return.received.set(body_return.received.get() + data.len() as u64);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), |(body, _)| body.size_hint())
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some((body, body_return)) = self.body.take() {
            body_return.waits(false);
            *body_return.body.borrow_mut() = Some(body);
        }
    }
}

/// What the client gets. Its end, or its being dropped, ends the exchange.
pub(crate) enum ProxyBody {
    /// A text of the router's own.
    Fixed(Option<Bytes>, Option<Exchange>),
    /// An endpoint's.
    Stream(Streaming),
}

/// An endpoint's response body with all that hangs on it.
pub(crate) struct Streaming {
    body: Incoming,
    /// Goes back to the idle ones when the body has ended; closed when it has not.
    sender: Option<Sender>,
    /// None for a route service, which is no endpoint of the table.
    lease: Option<EndpointLease>,
    exchange: Exchange,
}

impl ProxyBody {
    pub(crate) fn fixed(text: Bytes, exchange: Exchange) -> Self {
        Self::Fixed(Some(text), Some(exchange))
    }

    /// No body; the exchange goes on elsewhere.
    pub(crate) fn nothing() -> Self {
        Self::Fixed(None, None)
    }

    pub(crate) fn streaming(
        body: Incoming,
        sender: Option<Sender>,
        lease: Option<EndpointLease>,
        exchange: Exchange,
    ) -> Self {
        Self::Stream(Streaming { body, sender, lease, exchange })
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Fixed(text, exchange) => {
                let text = text.take();
                if let Some(exchange) = exchange {
                    exchange.sent += text.as_ref().map_or(0, |text| text.len() as u64);
                }
                Poll::Ready(text.map(|text| Ok(Frame::data(text))))
            }
            Self::Stream(stream) => {
                // hyper asks again as soon as it has written what it has; until then more of it would only lie here.
                if stream.exchange.is_behind() {
                    return Poll::Pending;
                }
                let polled = Pin::new(&mut stream.body).poll_frame(cx);
                match &polled {
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Some(data) = frame.data_ref() {
                            stream.exchange.sent += data.len() as u64;
                        }
                    }
                    Poll::Ready(None) => stream.give_back(),
                    // Cut off: the connection is of no more use.
                    Poll::Ready(Some(Err(_))) => stream.sender = None,
                    Poll::Pending => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Fixed(text, _) => text.is_none(),
            Self::Stream(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(text, _) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Stream(stream) => stream.body.size_hint(),
        }
    }
}

impl Streaming {
    fn give_back(&mut self) {
        if let Some(decision) = self.exchange.body_return.as_ref().and_then(|body_return| body_return.decision()) {
            decision.refused();
        }
        let Some(mut sender) = self.sender.take() else { return };
        sender.exchange_ended();
        if let Some(lease) = &mut self.lease {
            lease.give_back(sender);
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        // A body of known length is not polled again after its last byte, and one without bytes never.
        if self.body.is_end_stream() {
            self.give_back();
        } else if let Some(decision) = self.exchange.body_return.as_ref().and_then(|body_return| body_return.decision())
        {
            decision.refused();
        }
    }
}
