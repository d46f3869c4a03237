//! Records what routers acknowledge, as many at once as came in while the last statement ran.

use std::sync::Arc;
use std::time::Duration;

use slipway_chassis::{Backoff, Shutdown, chain};

use super::Wake;
use crate::routers::hub::RouterHub;
use slipway_placement::PlacementStore;

/// Keeps "last seen" of routers with a session fresh; far below the time after which one is forgotten.
const SEEN: Duration = Duration::from_secs(60);

/// Records until shutdown.
pub fn start(placement: Arc<dyn PlacementStore>, hub: Arc<RouterHub>, wake: Arc<Wake>, shutdown: &Shutdown) {
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let mut changed = hub.watch();
        let mut seen = tokio::time::interval(SEEN);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            let progress = tokio::select! {
                () = stop.requested() => break,
                _ = changed.changed() => hub.unrecorded(),
                _ = seen.tick() => hub.all(),
            };
            if progress.is_empty() {
                continue;
            }
            if let Err(error) = placement.routers_progress(&progress).await {
                tracing::debug!(error = %chain(&error), "acknowledgements cannot be recorded now");
                hub.not_recorded(&progress);
                tokio::select! {
                    () = stop.requested() => break,
                    () = tokio::time::sleep(backoff.pause()) => changed.mark_changed(),
                }
                continue;
            }
            backoff.reset();
            // Drains, deployments and slots wait for these.
            wake.planner.notify_one();
            wake.deployments.notify_one();
            wake.release.notify_one();
        }
    });
}
