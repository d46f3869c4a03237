//! The builds that may use the proxy, known by address: for as long as a build's sandbox has the address.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::fault::Fault;
use super::server::ReportLine;

/// Connections of one build. npm opens fifteen.
const CONNECTIONS: usize = 64;
/// Fetches of one build that are under way at a time.
const FETCHES: usize = 16;
/// Lines about faults in the log of one build.
const LINES: usize = 20;

/// What all phases of one build have together: what one of them began goes on when it has ended.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) fetches: Arc<Semaphore>,
    /// Bytes on the disk of what is being fetched for it, and of answers that it has not read.
    pub(super) fetched: AtomicU64,
    pub(super) answers: AtomicU64,
}

impl Share {
    pub(super) fn new() -> Self {
        Self { fetches: Arc::new(Semaphore::new(FETCHES)), fetched: AtomicU64::new(0), answers: AtomicU64::new(0) }
    }
}

/// One phase of a build, for as long as it may ask.
pub(super) struct Guest {
    pub(super) build: Uuid,
    say: ReportLine,
    /// Its connections end with it: the next one at its address is somebody else.
    pub(super) ended: CancellationToken,
    pub(super) connections: Arc<Semaphore>,
    pub(super) share: Arc<Share>,
    reported: Mutex<BTreeSet<String>>,
}

impl Guest {
    pub(super) fn new(build: Uuid, share: Arc<Share>, say: ReportLine) -> Self {
        Self {
            build,
            say,
            ended: CancellationToken::new(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            share,
            reported: Mutex::default(),
        }
    }

    /// Reports a fault in the build's log, because package managers hide some. Each once, up to a limit.
    pub(super) fn report(&self, fault: &Fault) {
        let line = format!("registry proxy: {}", fault.text);
        if fault.is_reported() && self.is_news(&line) {
            (self.say)(self.build, &line);
        }
    }

    fn is_news(&self, line: &str) -> bool {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.len() < LINES && reported.insert(line.to_owned())
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("build", &self.build).finish_non_exhaustive()
    }
}

/// All of them.
pub(super) struct Guests {
    inner: Mutex<Inner>,
    say: ReportLine,
}

#[derive(Debug, Default)]
struct Inner {
    present: HashMap<Ipv4Addr, Arc<Guest>>,
    /// Faults that were reported to builds that have ended, until they are taken.
    reported: HashMap<Uuid, BTreeSet<String>>,
    /// For as long as a phase or a fetch has it.
    shares: HashMap<Uuid, Weak<Share>>,
}

impl Inner {
    fn share(&mut self, build: Uuid) -> Arc<Share> {
        if let Some(share) = self.shares.get(&build).and_then(Weak::upgrade) {
            return share;
        }
        self.shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share::new());
        self.shares.insert(build, Arc::downgrade(&share));
        share
    }
}

impl std::fmt::Debug for Guests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guests").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Guests {
    pub(super) fn new(say: ReportLine) -> Self {
        Self { inner: Mutex::default(), say }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the faults that were reported to a build.
    pub(super) fn take_reported(&self, build: Uuid) -> BTreeSet<String> {
        self.lock().reported.remove(&build).unwrap_or_default()
    }

    /// Whose address this is.
    pub(super) fn at(&self, address: IpAddr) -> Option<Arc<Guest>> {
        let IpAddr::V4(address) = address else { return None };
        self.lock().present.get(&address).cloned()
    }

    /// Lets a build ask until the value is dropped.
    pub(super) fn admit(self: &Arc<Self>, address: Ipv4Addr, build: Uuid) -> Admission {
        let mut inner = self.lock();
        let guest = Arc::new(Guest::new(build, inner.share(build), Arc::clone(&self.say)));
        let former = inner.present.insert(address, Arc::clone(&guest));
        drop(inner);
        if let Some(former) = former {
            former.ended.cancel();
        }
        Admission { guests: Arc::clone(self), address, guest }
    }
}

/// A build may ask while this is held.
#[derive(Debug)]
pub struct Admission {
    guests: Arc<Guests>,
    address: Ipv4Addr,
    guest: Arc<Guest>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.guest.ended.cancel();
        let reported = std::mem::take(&mut *self.guest.reported.lock().unwrap_or_else(PoisonError::into_inner));
        let mut guests = self.guests.lock();
        if guests.present.get(&self.address).is_some_and(|guest| Arc::ptr_eq(guest, &self.guest)) {
            guests.present.remove(&self.address);
        }
        if !reported.is_empty() {
            guests.reported.entry(self.guest.build).or_default().extend(reported);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guests() -> Arc<Guests> {
        Arc::new(Guests::new(Arc::new(|_, _| ())))
    }

    #[test]
    fn an_address_is_admitted_for_as_long_as_its_build_has_it() {
        let guests = guests();
        let address = Ipv4Addr::new(10, 62, 0, 2);
        let at = |build: Uuid| guests.at(address.into()).is_some_and(|guest| guest.build == build);
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(guests.at(address.into()).is_none());
        let one = guests.admit(address, first);
        let held = guests.at(address.into()).expect("a guest");
        assert!(at(first) && guests.at(Ipv4Addr::LOCALHOST.into()).is_none());
        let two = guests.admit(address, second);
        assert!(held.ended.is_cancelled() && at(second));
        drop(one);
        assert!(at(second), "the end of an earlier one takes nothing from the next");
        drop(two);
        assert!(guests.at(address.into()).is_none());
    }

    #[test]
    fn the_phases_of_a_build_have_its_turns_together() {
        let guests = guests();
        let phase = |build| guests.admit(Ipv4Addr::LOCALHOST, Uuid::from_u128(build)).guest.share.clone();
        let detect = phase(1);
        let going_on = Arc::clone(&detect.fetches).try_acquire_many_owned(10).expect("turns");
        assert_eq!(phase(1).fetches.available_permits(), FETCHES - 10);
        assert_eq!(phase(2).fetches.available_permits(), FETCHES, "another build");
        drop((going_on, detect));
        assert_eq!(phase(1).fetches.available_permits(), FETCHES);
        drop(phase(3));
        assert_eq!(guests.lock().shares.len(), 1, "nothing is left of builds that have ended");
    }

    #[test]
    fn faults_are_reported_to_a_build_once_and_with_a_limit() {
        let guests = guests();
        let build = Uuid::from_u128(1);
        let admission = guests.admit(Ipv4Addr::LOCALHOST, build);
        let guest = &admission.guest;
        assert!(guest.is_news("x") && !guest.is_news("x"));
        assert_eq!((0..1000).filter(|number| guest.is_news(&number.to_string())).count(), LINES - 1);
        drop(admission);
        let reported = guests.take_reported(build);
        assert!(reported.len() == LINES && reported.contains("x"), "{reported:?}");
        assert!(guests.take_reported(build).is_empty());
    }
}
