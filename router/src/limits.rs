//! How many connections there may be, and who is refused first.
//!
//! A process that runs out of descriptors or memory fails everywhere at once, so connections are refused before. Whoever
//! holds many is refused first: one app, or one client, may hold at most as many as are still free. One that takes all it
//! can gets half of them and leaves the other half; two get a third each. A neighbour with few connections always gets one,
//! and no list has to be searched for the largest holder.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Listeners, logs, journal, runtimes and the like.
const OWN_USE: usize = 64;
/// When the limit cannot be read.
const FALLBACK: usize = 1024;
/// What a connection may cost at the worst, and the part of the host's memory that all may cost.
const CONNECTION_BYTES: usize = 64 << 10;
const MEMORY_SHARE: usize = 8;
/// Also a small host serves so many.
const FEWEST: usize = 1024;

/// Counts connections against what the process may have.
#[derive(Clone, Debug)]
pub(crate) struct Descriptors {
    used: Arc<AtomicUsize>,
    most: usize,
}

/// What one app, or one client address, holds.
#[derive(Debug, Default)]
pub(crate) struct Holder(AtomicUsize);

/// One descriptor in use.
#[derive(Debug)]
pub(crate) struct Descriptor {
    used: Arc<AtomicUsize>,
    held: Option<HeldConnection>,
}

/// One piece on a holder's account.
#[derive(Debug)]
pub(crate) struct HeldConnection(Arc<Holder>);

impl HeldConnection {
    pub(crate) fn new(holder: &Arc<Holder>) -> Self {
        holder.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(holder))
    }
}

impl Drop for HeldConnection {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Descriptors {
    /// Raises the soft limit to the hard one. The last tenth stays free. `most` counts instead where it is less and not 0.
    pub(crate) fn claim(most: usize) -> Self {
        let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
            Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
                Ok(()) => hard,
                Err(_) => soft,
            },
            Ok((soft, _)) => soft,
            Err(_) => FALLBACK as u64,
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let wanted = if most == 0 { by_memory() } else { most + OWN_USE };
        Self::with_most((limit - limit / 10).min(wanted))
    }

    fn with_most(most: usize) -> Self {
        Self { used: Arc::new(AtomicUsize::new(OWN_USE)), most }
    }

    /// On nobody's account: the platform's own.
    pub(crate) fn take(&self) -> Descriptor {
        self.count(None)
    }

    /// On a holder's account, whatever it has.
    pub(crate) fn hold(&self, holder: &Arc<Holder>) -> Descriptor {
        self.count(Some(HeldConnection::new(holder)))
    }

    fn count(&self, held: Option<HeldConnection>) -> Descriptor {
        self.used.fetch_add(1, Ordering::Relaxed);
        Descriptor { used: Arc::clone(&self.used), held }
    }

    /// On a holder's account, unless it has its share.
    pub(crate) fn share(&self, holder: &Arc<Holder>) -> Option<Descriptor> {
        self.has_share(holder).then(|| self.hold(holder))
    }

    /// Whether a holder may have one more.
    pub(crate) fn has_share(&self, holder: &Holder) -> bool {
        !self.scarce() && holder.0.load(Ordering::Relaxed) < self.most.saturating_sub(self.used())
    }

    /// True when nobody is taken any more. A request needs a second descriptor toward its endpoint.
    pub(crate) fn scarce(&self) -> bool {
        self.used() + 2 > self.most
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.held.take();
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the host's memory is good for.
fn by_memory() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    total.map_or(usize::MAX, |kib: usize| (kib.saturating_mul(1024) / MEMORY_SHARE / CONNECTION_BYTES).max(FEWEST))
}

/// Holders by name, for as long as somebody knows them. Asked when a connection is opened, not for each request.
#[derive(Debug)]
pub(crate) struct Holders<K>(Mutex<HashMap<K, Weak<Holder>>>);

impl<K> Default for Holders<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Holders<K> {
    pub(crate) fn get(&self, key: K) -> Arc<Holder> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = all.get(&key).and_then(Weak::upgrade) {
            return holder;
        }
        if all.len() == all.capacity() {
            all.retain(|_, holder| holder.strong_count() > 0);
            // Where most are still there, the next look is as far away.
            let left = all.len();
            all.reserve(left);
        }
        let holder = Arc::<Holder>::default();
        all.insert(key, Arc::downgrade(&holder));
        holder
    }
}

/// Who a client is taken for: by IPv6 everybody has a whole network of addresses.
pub(crate) fn client_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_connections_before_the_limit() {
        let all = Descriptors::with_most(90);
        let mut held = Vec::new();
        while !all.scarce() {
            held.push(all.take());
        }
        assert_eq!(all.used(), 89);
        held.clear();
        assert!(!all.scarce());
        assert_eq!(all.used(), OWN_USE);
    }

    fn fill(all: &Descriptors, holder: &Arc<Holder>) -> Vec<Descriptor> {
        std::iter::from_fn(|| all.share(holder)).collect()
    }

    #[test]
    fn the_largest_is_refused_and_the_others_find_room() {
        let all = Descriptors::with_most(OWN_USE + 1000);
        let holders = Holders::<&str>::default();
        let (one, other) = (holders.get("one"), holders.get("other"));
        assert!(Arc::ptr_eq(&one, &holders.get("one")));
        let first = fill(&all, &one);
        assert_eq!(first.len(), 500, "half, and half is free");
        let second = fill(&all, &other);
        assert_eq!(second.len(), 250, "half of the rest");
        assert!(!all.scarce() && all.share(&holders.get("small")).is_some());
        drop(second);
        assert!(all.share(&one).is_none(), "it has as many as are free");
        drop(first);
        assert_eq!((all.used(), one.0.load(Ordering::Relaxed)), (OWN_USE, 0));
    }

    #[test]
    fn holders_without_connections_are_forgotten() {
        let holders = Holders::default();
        for number in 0..10_000 {
            holders.get(number);
        }
        assert!(holders.0.lock().expect("lock").len() < 100);
    }

    #[test]
    fn a_network_by_ipv6_is_one_client() {
        let key = |text: &str| client_key(text.parse().expect("an address"));
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), key("2001:db8:1:2::1"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }
}
