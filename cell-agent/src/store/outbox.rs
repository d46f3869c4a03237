//! Observations on their way to the controllers: numbered, sent in order, kept until acknowledged.
//!
//! An acknowledgement covers every lower number, so a number may be sent only when all lower ones have been written
//! and published: numbers that were reserved and are still being written hold the later ones back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prost::Message as _;
use slipway_protocol::v1::Observation;
use tokio::sync::watch;
use uuid::Uuid;

/// Bytes of observations that go together. The result of one build may be tens of megabytes; a message with several of
/// them would be refused by the controller, and be sent again for ever.
const TOGETHER: usize = 4 << 20;

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    last: u64,
    reserved: BTreeSet<u64>,
    pending: BTreeMap<u64, Observation>,
}

impl Outbox {
    /// An outbox that goes on after `last`, the highest number ever given out.
    #[must_use]
    pub fn new(last: u64) -> Self {
        let inner = Inner { last, reserved: BTreeSet::new(), pending: BTreeMap::new() };
        Self { inner: Mutex::new(inner), changed: watch::Sender::new(0) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many observations no controller has acknowledged.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner().pending.len()
    }

    /// Takes the next number; nothing later is sent until it is published or released.
    pub fn reserve(&self) -> u64 {
        let mut inner = self.inner();
        inner.last += 1;
        let counter = inner.last;
        inner.reserved.insert(counter);
        counter
    }

    /// Holds back a number that an earlier run of the agent gave out.
    pub fn restore(&self, counter: u64) {
        let mut inner = self.inner();
        inner.last = inner.last.max(counter);
        inner.reserved.insert(counter);
    }

    /// Sends an observation under the number it carries.
    pub fn publish(&self, observation: Observation) {
        let mut inner = self.inner();
        inner.reserved.remove(&observation.counter);
        inner.pending.insert(observation.counter, observation);
        drop(inner);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Gives a number up: nothing is told under it.
    pub fn release(&self, counter: u64) {
        self.inner().reserved.remove(&counter);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Takes observations back that newer ones made superfluous. Their numbers stay unused.
    pub fn withdraw(&self, counters: &[u64]) {
        let mut inner = self.inner();
        for counter in counters {
            inner.reserved.remove(counter);
            inner.pending.remove(counter);
        }
        drop(inner);
        self.changed.send_modify(|count| *count += 1);
    }

    /// At most `limit` observations above `after` that may be sent now, in order; few enough for one message.
    #[must_use]
    pub fn after(&self, after: u64, limit: usize) -> Vec<Observation> {
        let inner = self.inner();
        let bound = inner.reserved.first().copied().unwrap_or(u64::MAX);
        if after.saturating_add(1) >= bound {
            return Vec::new();
        }
        let mut bytes = 0;
        let fits = |observation: &&Observation| {
            let first = bytes == 0;
            bytes += observation.encoded_len();
            first || bytes <= TOGETHER
        };
        let sendable = inner.pending.range(after + 1..bound).take(limit).map(|(_, observation)| observation);
        sendable.take_while(fits).cloned().collect()
    }

    /// Everything up to `counter` is recorded. Returns whose observations went.
    pub fn ack(&self, counter: u64) -> BTreeSet<Uuid> {
        let mut inner = self.inner();
        let later = inner.pending.split_off(&counter.saturating_add(1));
        let done = std::mem::replace(&mut inner.pending, later);
        done.values().filter_map(|observation| observation.assignment_id.parse().ok()).collect()
    }

    /// The highest number given out.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.inner().last
    }

    /// Changes when something may have become sendable.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observation(counter: u64) -> Observation {
        Observation { counter, assignment_id: Uuid::from_u128(1).to_string(), ..Observation::default() }
    }

    fn counters(outbox: &Outbox, after: u64) -> Vec<u64> {
        outbox.after(after, 100).iter().map(|observation| observation.counter).collect()
    }

    #[test]
    fn a_number_that_is_being_written_holds_later_ones_back() {
        let outbox = Outbox::new(4);
        let (first, second, third) = (outbox.reserve(), outbox.reserve(), outbox.reserve());
        assert_eq!((first, second, third), (5, 6, 7));
        outbox.publish(observation(second));
        assert!(counters(&outbox, 0).is_empty());
        outbox.publish(observation(first));
        assert_eq!(counters(&outbox, 0), [5, 6]);
        outbox.release(third);
        outbox.publish(observation(outbox.reserve()));
        assert_eq!(counters(&outbox, 5), [6, 8]);
        assert_eq!(outbox.ack(6), BTreeSet::from([Uuid::from_u128(1)]));
        assert_eq!(counters(&outbox, 0), [8]);
        assert!(outbox.ack(6).is_empty());
    }

    #[test]
    fn withdrawn_observations_are_not_sent_and_do_not_delay_others() {
        let outbox = Outbox::new(0);
        outbox.restore(3);
        outbox.publish(observation(outbox.reserve()));
        outbox.publish(observation(outbox.reserve()));
        assert!(counters(&outbox, 0).is_empty(), "3 was not published yet");
        outbox.withdraw(&[3, 4]);
        assert_eq!(counters(&outbox, 0), [5]);
        assert_eq!(outbox.last(), 5);
        assert_eq!(outbox.ack(5).len(), 1);
    }

    #[test]
    fn large_observations_go_alone_and_small_ones_together() {
        let outbox = Outbox::new(0);
        let with = |counter, size: usize| Observation { reason: "x".repeat(size), ..observation(counter) };
        for size in [10, TOGETHER * 2, TOGETHER * 2, TOGETHER / 3, TOGETHER / 3, 10] {
            let counter = outbox.reserve();
            outbox.publish(with(counter, size));
        }
        assert_eq!(counters(&outbox, 0), [1]);
        assert_eq!(counters(&outbox, 1), [2]);
        assert_eq!(counters(&outbox, 2), [3]);
        assert_eq!(counters(&outbox, 3), [4, 5, 6]);
    }
}
