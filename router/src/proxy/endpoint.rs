//! What one core knows about one endpoint: requests under way, failures, idle connections.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::streams::Connections;
use super::upstream::{Http1, Sender};
use crate::limits::{Descriptor, Descriptors, Holder};
use crate::table::Endpoint;

/// A failed endpoint is avoided for this long, doubled with each failure in a row. Lower sends more requests into a
/// dead one, each of which costs a retry; higher leaves one that is back without work.
const FIRST_AVOID: Duration = Duration::from_secs(5);
const LONGEST_AVOID: Duration = Duration::from_secs(30);
/// Idle connections kept for one endpoint by one core.
const MAX_IDLE: usize = 64;

/// State of one endpoint on one core.
pub(crate) struct EndpointState {
    pub(crate) endpoint: Arc<Endpoint>,
    in_flight: Cell<u32>,
    failures: Cell<u32>,
    avoid_until: Cell<Option<Instant>>,
    /// By HTTP/1.1.
    idle: RefCell<VecDeque<(Instant, Http1)>>,
    /// By HTTP/2.
    pub(crate) streams: Rc<Connections>,
    /// What its app holds; `None` for the platform's own.
    app: Option<Arc<Holder>>,
    /// The endpoint has left the table: nothing is kept for it.
    gone: Cell<bool>,
}

impl EndpointState {
    pub(crate) fn new(endpoint: Arc<Endpoint>, app: Option<Arc<Holder>>) -> Self {
        Self {
            endpoint,
            app,
            in_flight: Cell::new(0),
            failures: Cell::new(0),
            avoid_until: Cell::new(None),
            idle: RefCell::default(),
            streams: Rc::default(),
            gone: Cell::new(false),
        }
    }

    /// A descriptor for one more connection, on its app's account. `None` when the app has its share.
    pub(crate) fn claim(&self, all: &Descriptors) -> Option<Descriptor> {
        match &self.app {
            Some(app) => all.share(app),
            None => (!all.scarce()).then(|| all.take()),
        }
    }

    /// Requests under way from this core.
    pub(crate) fn load(&self) -> u32 {
        self.in_flight.get()
    }

    pub(crate) fn avoided(&self, now: Instant) -> bool {
        self.avoid_until.get().is_some_and(|until| now < until)
    }

    pub(crate) fn failed(&self, now: Instant) {
        let failures = self.failures.get();
        self.failures.set(failures.saturating_add(1));
        let pause = FIRST_AVOID.saturating_mul(1 << failures.min(8)).min(LONGEST_AVOID);
        self.avoid_until.set(Some(now + pause));
    }

    pub(crate) fn worked(&self) {
        if self.avoid_until.take().is_some() {
            self.failures.set(0);
        }
    }

    /// A connection that is there; by HTTP/1.1 the idle one that was used last, for the others may time out.
    pub(crate) fn take_open(&self, http2: bool) -> Option<Sender> {
        if http2 {
            return self.streams.take().map(Sender::Http2);
        }
        let mut idle = self.idle.borrow_mut();
        idle.retain(|(_, sender)| !sender.is_closed());
        let at = idle.iter().rposition(|(_, sender)| sender.is_ready())?;
        idle.remove(at).map(|(_, sender)| Sender::Http1(sender))
    }

    /// Closes connections idle since before `then`.
    pub(crate) fn close_idle(&self, then: Instant) {
        self.idle.borrow_mut().retain(|(since, sender)| *since >= then && !sender.is_closed());
        self.streams.close_idle(then);
    }

    pub(crate) fn close(&self) {
        self.gone.set(true);
        self.idle.borrow_mut().clear();
        self.streams.close();
    }

    pub(crate) fn idle_count(&self) -> usize {
        self.idle.borrow().len() + self.streams.idle_count()
    }
}

/// Counts one request as under way for as long as it lives.
pub(crate) struct EndpointLease(Rc<EndpointState>);

impl EndpointLease {
    pub(crate) fn new(state: &Rc<EndpointState>) -> Self {
        state.in_flight.set(state.in_flight.get() + 1);
        state.endpoint.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Rc::clone(state))
    }

    /// A descriptor on its app's account, whatever the app has: it is there already.
    pub(crate) fn hold(&self, all: &Descriptors) -> Descriptor {
        self.0.app.as_ref().map_or_else(|| all.take(), |app| all.hold(app))
    }

    pub(crate) fn assignment_id(&self) -> &str {
        &self.0.endpoint.assignment_id
    }

    /// Keeps a connection for the next request. It may still be busy for a moment, see [`EndpointState::take_open`].
    pub(crate) fn give_back(&self, sender: Sender) {
        // By HTTP/2 it was there for others all the time.
        let Sender::Http1(sender) = sender else { return };
        let mut idle = self.0.idle.borrow_mut();
        if !self.0.gone.get() && !sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push_back((Instant::now(), sender));
        }
    }
}

impl Drop for EndpointLease {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.endpoint.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_avoided_longer_and_forgotten() {
        let endpoint = Endpoint {
            key: 1,
            under_way: Arc::default(),
            pool_id: "p".into(),
            assignment_id: String::new(),
            index: 0,
            address: ([127, 0, 0, 1], 1).into(),
            tls: false,
            http2: false,
            app_id: "".into(),
            headers: None,
        };
        let state = EndpointState::new(Arc::new(endpoint), None);
        let now = Instant::now();
        for seconds in [5, 10, 20, 30, 30] {
            state.failed(now);
            assert!(state.avoided(now + Duration::from_millis(seconds * 1000 - 1)), "{seconds}");
            assert!(!state.avoided(now + Duration::from_secs(seconds)), "{seconds}");
        }
        state.worked();
        assert!(!state.avoided(now));
        state.failed(now);
        assert!(!state.avoided(now + FIRST_AVOID));
    }
}
