//! Frees slots that are gone from their cell and from every router, and removes rows that nobody needs any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use slipway_api_types::RouterId;
use slipway_chassis::chain;
use slipway_chassis::driver::{BackgroundTask, Definition, Next};
use tokio::time::Instant;

use crate::notifiers::TaskNotifiers;
use crate::store::Store;
use slipway_placement::{PlacementError, PlacementStore, Result};

/// What releases slots, as a task.
pub const RELEASE: Definition = Definition {
    name: "release",
    description: "Frees slots that no cell and no router uses, forgets routers that stay away, removes old rows",
    period: Duration::from_secs(10),
    woken_by: "changes of instances and routers",
};
/// A router without a session for this long is deregistered: it would hold the addresses of everything that it once
/// routed to. One that comes back later registers again and gets the whole table before anything else.
const ROUTER_UNSEEN: Duration = Duration::from_secs(600);
/// For how long a router must be found unseen before that is believed. What is there is noted each minute; a machine that
/// was suspended, or a database that was away, makes all look unseen at once, and a router that goes on serving behind
/// a deregistration has its instances' addresses given to others.
const ROUTER_DOUBT: Duration = Duration::from_secs(150);

/// What releases slots.
pub struct Releasing {
    placement: Arc<dyn PlacementStore>,
    store: Store,
    wake: Arc<TaskNotifiers>,
    unseen: UnseenRouters,
    swept: Option<Instant>,
}

impl Releasing {
    /// Releases what `placement` holds.
    #[must_use]
    pub fn new(placement: Arc<dyn PlacementStore>, store: Store, wake: Arc<TaskNotifiers>) -> Self {
        Self { placement, store, wake, unseen: UnseenRouters::default(), swept: None }
    }
}

impl BackgroundTask for Releasing {
    type Error = PlacementError;

    async fn run(&mut self) -> Result<Next> {
        let released = self.placement.release().await?;
        if released.version.is_some() {
            tracing::debug!(count = released.released.len(), waiting = released.waiting, "slots are free");
            self.wake.tail.wake();
        }
        if self.swept.is_none_or(|at| at.elapsed() >= RELEASE.period / 2) {
            self.swept = Some(Instant::now());
            self.unseen.forget(self.placement.as_ref()).await?;
            if let Err(error) = self.store.trim().await {
                tracing::debug!(error = %chain(&error), "old rows cannot be removed now");
            }
        }
        Ok(Next::AfterPeriod)
    }
}

/// Routers that are not seen, and since when on this controller's own clock.
#[derive(Default)]
struct UnseenRouters(BTreeMap<RouterId, Instant>);

impl UnseenRouters {
    /// Deregisters those that were found unseen for long enough.
    async fn forget(&mut self, placement: &dyn PlacementStore) -> Result<()> {
        let now = Instant::now();
        let found = placement.routers_unseen(ROUTER_UNSEEN).await?;
        self.0.retain(|router, _| found.contains(router));
        for router in found {
            self.0.entry(router).or_insert(now);
        }
        let gone = self.0.iter().filter(|(_, since)| now.duration_since(**since) >= ROUTER_DOUBT);
        let gone: Vec<RouterId> = gone.map(|(router, _)| *router).collect();
        if gone.is_empty() {
            return Ok(());
        }
        for router in placement.routers_forget(&gone, ROUTER_UNSEEN).await? {
            tracing::warn!(router.id = %router, "a router was not seen for 10 minutes and is deregistered");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use slipway_protocol::v1::Version;
    use uuid::Uuid;

    use super::*;
    use slipway_placement::memory::MemoryPlacement;
    use slipway_placement::{RouterProgress, RouterRegistration};

    async fn registered(placement: &MemoryPlacement) -> RouterId {
        let router = RouterId(Uuid::from_u128(1));
        let registration = RouterRegistration {
            id: router,
            session: Uuid::from_u128(2),
            zone: "z".into(),
            query_address: String::new(),
            addresses: BTreeSet::new(),
            applied: Version::default(),
            durable: Version::default(),
        };
        placement.router_register(&registration).await.expect("registered");
        router
    }

    #[tokio::test(start_paused = true)]
    async fn a_router_is_not_forgotten_because_the_clock_of_the_database_has_jumped() {
        let placement = MemoryPlacement::new();
        let router = registered(&placement).await;
        // The machine was suspended overnight; the router and its session are as they were.
        placement.advance(Duration::from_secs(8 * 3600));
        let mut unseen = UnseenRouters::default();
        for _ in 0..6 {
            unseen.forget(&placement).await.expect("an answer");
            tokio::time::advance(RELEASE.period).await;
        }
        assert_eq!(placement.routers().await.expect("routers").len(), 1);
        // The next note of what has a session finds its row.
        let progress = RouterProgress { id: router, applied: Version::new(1, 1), durable: Version::new(1, 1) };
        placement.routers_progress(&[progress]).await.expect("noted");
        tokio::time::advance(ROUTER_DOUBT).await;
        unseen.forget(&placement).await.expect("an answer");
        assert_eq!(
            placement.routers().await.expect("routers").len(),
            1,
            "seen in between: nothing is left of the doubt"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_router_that_does_not_return_is_forgotten() {
        let placement = MemoryPlacement::new();
        registered(&placement).await;
        placement.advance(ROUTER_UNSEEN + Duration::from_secs(1));
        let mut unseen = UnseenRouters::default();
        unseen.forget(&placement).await.expect("an answer");
        assert_eq!(placement.routers().await.expect("routers").len(), 1);
        tokio::time::advance(ROUTER_DOUBT).await;
        unseen.forget(&placement).await.expect("an answer");
        assert!(placement.routers().await.expect("routers").is_empty());
    }
}
