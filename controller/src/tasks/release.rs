//! Frees slots of what is gone from its cell and durably gone from every router, and clears what nobody needs.

use std::sync::Arc;
use std::time::Duration;

use slipway_chassis::{Shutdown, chain};

use super::Wake;
use crate::store::Store;
use crate::store::placement::PlacementStore;

const PERIOD: Duration = Duration::from_secs(10);
/// A router without a session for this long is deregistered: it would hold the addresses of everything that it once
/// routed to. One that comes back later registers again and gets the whole table before anything else.
const ROUTER_UNSEEN: Duration = Duration::from_secs(600);

/// Releases until shutdown.
pub fn start(placement: Arc<dyn PlacementStore>, store: Store, wake: Arc<Wake>, shutdown: &Shutdown) {
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let mut sweep = tokio::time::interval(PERIOD);
        while !stop.is_stopping() {
            let poked = tokio::select! {
                () = stop.requested() => break,
                () = wake.release.notified() => true,
                _ = sweep.tick() => false,
            };
            match placement.release().await {
                Ok(released) if released.version.is_some() => {
                    tracing::debug!(count = released.released.len(), waiting = released.waiting, "slots are free");
                    wake.tail.notify_one();
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "slots cannot be released now");
                    continue;
                }
            }
            if !poked {
                clear(placement.as_ref(), &store).await;
            }
        }
    });
}

async fn clear(placement: &dyn PlacementStore, store: &Store) {
    match placement.routers_forget(ROUTER_UNSEEN).await {
        Ok(gone) => {
            for router in gone {
                tracing::warn!(router.id = %router, "a router was not seen for 10 minutes and is deregistered");
            }
        }
        Err(error) => tracing::debug!(error = %chain(&error), "routers cannot be checked now"),
    }
    if let Err(error) = store.trim().await {
        tracing::debug!(error = %chain(&error), "old rows cannot be removed now");
    }
}
