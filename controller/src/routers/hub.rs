//! Which routers have a session, what they have acknowledged, and what that proves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use slipway_api_types::RouterId;
use slipway_chassis::driver::Wake;
use slipway_protocol::v1::Version;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::publisher::Tables;
use crate::context::{Proof, RouterProof};
use slipway_placement::RouterProgress;

/// A router that is behind for longer is no member of the live set: commands name it and do not wait for it.
const LAGGARD: Duration = Duration::from_secs(5);

/// All sessions with routers.
#[derive(Debug)]
pub struct RouterHub {
    routers: Mutex<BTreeMap<RouterId, Live>>,
    changed: watch::Sender<u64>,
    /// Records what was acknowledged.
    recording: Wake,
    tables: Arc<Tables>,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    session: Uuid,
    applied: Version,
    durable: Version,
    /// Since when it has not had what was newest; `None` when it is level.
    behind_since: Option<Instant>,
    recorded: bool,
}

impl RouterHub {
    /// Proves against these tables, and wakes whoever records what was acknowledged.
    #[must_use]
    pub fn new(tables: Arc<Tables>, recording: Wake) -> Self {
        Self { routers: Mutex::default(), changed: watch::Sender::new(0), recording, tables }
    }

    fn routers(&self) -> MutexGuard<'_, BTreeMap<RouterId, Live>> {
        self.routers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        self.recording.wake();
    }

    /// A session has begun.
    pub fn enter(&self, router: RouterId, session: Uuid, applied: Version, durable: Version) {
        let live = Live { session, applied, durable, behind_since: Some(Instant::now()), recorded: true };
        self.routers().insert(router, live);
        self.tell();
    }

    /// A session has ended; ignored when another one has begun since.
    pub fn leave(&self, router: RouterId, session: Uuid) {
        let mut routers = self.routers();
        if routers.get(&router).is_some_and(|live| live.session == session) {
            routers.remove(&router);
        }
        drop(routers);
        self.tell();
    }

    /// Something newer was sent to it.
    pub fn sent(&self, router: RouterId, version: Version) {
        if let Some(live) = self.routers().get_mut(&router)
            && live.applied < version
        {
            live.behind_since.get_or_insert_with(Instant::now);
        }
    }

    /// It acknowledged.
    pub fn acknowledged(&self, router: RouterId, applied: Version, durable: Version) {
        let newest = self.tables.newest().map(|table| table.version);
        if let Some(live) = self.routers().get_mut(&router) {
            live.recorded &= applied <= live.applied && durable <= live.durable;
            live.applied = live.applied.max(applied);
            live.durable = live.durable.max(durable);
            // Every step forward starts the clock again: a router that follows is not a laggard.
            live.behind_since = newest.is_some_and(|newest| live.applied < newest).then(Instant::now);
        }
        self.tell();
    }

    /// What was acknowledged since the last call.
    #[must_use]
    pub fn unrecorded(&self) -> Vec<RouterProgress> {
        let mut routers = self.routers();
        let new = routers.iter_mut().filter(|(_, live)| !live.recorded).map(|(id, live)| {
            live.recorded = true;
            RouterProgress { id: *id, applied: live.applied, durable: live.durable }
        });
        new.collect()
    }

    /// Recording failed: these are to be recorded again.
    pub fn not_recorded(&self, progress: &[RouterProgress]) {
        let mut routers = self.routers();
        for one in progress {
            if let Some(live) = routers.get_mut(&one.id) {
                live.recorded = false;
            }
        }
    }

    /// Sessions now, with what they have acknowledged: for keeping "last seen" alive.
    #[must_use]
    pub fn all(&self) -> Vec<RouterProgress> {
        let routers = self.routers();
        routers
            .iter()
            .map(|(id, live)| RouterProgress { id: *id, applied: live.applied, durable: live.durable })
            .collect()
    }

    fn proof_of(&self, version: Version) -> Proof {
        let routers = self.routers();
        if routers.is_empty() {
            return Proof::NoRouter;
        }
        let late = |live: &Live| live.behind_since.is_some_and(|since| since.elapsed() > LAGGARD);
        let behind: Vec<String> = routers
            .iter()
            .filter(|(_, live)| live.applied < version && !late(live))
            .map(|(id, _)| format!("router {id}"))
            .collect();
        if behind.is_empty() && routers.values().any(|live| live.applied >= version) {
            return Proof::Applied;
        }
        if behind.is_empty() {
            return Proof::Lagging(routers.keys().map(|id| format!("router {id}")).collect());
        }
        Proof::Lagging(behind)
    }
}

#[async_trait]
impl RouterProof for RouterHub {
    async fn wait_applied(&self, version: Version, limit: Duration) -> Proof {
        let deadline = Instant::now() + limit;
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let proof = self.proof_of(version);
            let left = deadline.saturating_duration_since(Instant::now());
            if proof == Proof::Applied || left.is_zero() {
                return proof;
            }
            // Also without a change: a router may have become a laggard.
            drop(tokio::time::timeout(left.min(Duration::from_millis(250)), changed.changed()).await);
        }
    }

    fn applied_by_all(&self) -> Option<Version> {
        let routers = self.routers();
        let late = |live: &&Live| live.behind_since.is_some_and(|since| since.elapsed() > LAGGARD);
        let level = routers.values().filter(|live| !late(live)).map(|live| live.applied).min();
        level.or_else(|| routers.values().map(|live| live.applied).min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: fn(u64) -> Version = |seq| Version::new(1, seq);

    #[tokio::test(start_paused = true)]
    async fn a_laggard_is_named_and_then_left_out() {
        let hub = RouterHub::new(Arc::default(), Wake::default());
        assert_eq!(hub.wait_applied(V(1), Duration::from_secs(1)).await, Proof::NoRouter);
        let (good, slow) = (RouterId::new(), RouterId::new());
        hub.enter(good, Uuid::new_v4(), V(0), V(0));
        hub.enter(slow, Uuid::new_v4(), V(0), V(0));
        hub.acknowledged(good, V(3), V(2));
        let named = hub.wait_applied(V(3), Duration::from_secs(1)).await;
        assert_eq!(named, Proof::Lagging(vec![format!("router {slow}")]));
        assert_eq!(hub.applied_by_all(), Some(V(0)));
        assert_eq!(hub.wait_applied(V(3), Duration::from_secs(30)).await, Proof::Applied);
        assert_eq!(hub.applied_by_all(), Some(V(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_proof_comes_with_the_last_acknowledgement() {
        let hub = Arc::new(RouterHub::new(Arc::default(), Wake::default()));
        let router = RouterId::new();
        hub.enter(router, Uuid::new_v4(), V(1), V(1));
        let waiting = tokio::spawn({
            let hub = Arc::clone(&hub);
            async move { hub.wait_applied(V(2), Duration::from_secs(3)).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        hub.acknowledged(router, V(2), V(1));
        assert_eq!(waiting.await.expect("joins"), Proof::Applied);
        assert_eq!(hub.unrecorded(), [RouterProgress { id: router, applied: V(2), durable: V(1) }]);
        assert!(hub.unrecorded().is_empty());
    }
}
