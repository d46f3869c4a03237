//! Follows the change log and wakes what depends on it: at once for what this controller wrote (a poke), by adaptive
//! polling for what others wrote.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use slipway_api_types::AssignmentId;
use slipway_chassis::{Shutdown, chain};

use super::Wake;
use crate::cells::hub::CellHub;
use crate::context::Pokes;
use crate::store::change_log::ChangeKind;
use crate::store::placement::{Change, PlacementStore, Result};

/// Right after a change the next one is likely: other controllers' writes are seen this late at most.
const BUSY: Duration = Duration::from_millis(25);
/// On a quiet system polling costs two queries a second.
const QUIET: Duration = Duration::from_millis(500);
/// Entries of one read; more are read at once after it.
const BATCH: u32 = 5_000;

/// Follows until shutdown.
pub fn start(
    placement: Arc<dyn PlacementStore>,
    hub: Arc<CellHub>,
    pokes: Arc<Pokes>,
    wake: Arc<Wake>,
    shutdown: &Shutdown,
) {
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let mut tail = Tail { placement, hub, wake, seen: None };
        let mut pause = BUSY;
        loop {
            pause = match tail.step().await {
                Ok(0) => (pause * 2).min(QUIET),
                Ok(_) => BUSY,
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "the change log cannot be read now");
                    QUIET
                }
            };
            // Every arm may be dropped at any point: none holds a result.
            tokio::select! {
                () = stop.requested() => break,
                () = tail.wake.tail.notified() => {}
                () = pokes.planner.notified() => {}
                () = pokes.routes.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

struct Tail {
    placement: Arc<dyn PlacementStore>,
    hub: Arc<CellHub>,
    wake: Arc<Wake>,
    /// Everything up to here was seen; `None` before the first read.
    seen: Option<u64>,
}

impl Tail {
    async fn step(&mut self) -> Result<usize> {
        let Some(seen) = self.seen else {
            // Everything reads the store whole at its start.
            self.seen = Some(self.placement.version().await?.seq);
            self.wake_all();
            return Ok(1);
        };
        let changes = self.placement.changes_since(seen, BATCH).await?;
        let Some(last) = changes.last().map(|change| change.seq) else { return Ok(0) };
        self.dispatch(&changes).await?;
        self.seen = Some(last);
        if changes.len() == BATCH as usize {
            self.wake.tail.notify_one();
        }
        Ok(changes.len())
    }

    async fn dispatch(&self, changes: &[Change]) -> Result<()> {
        // Routers first: a healthy instance must be routable soon. They acknowledge each version, so also those that
        // change nothing in the table are published.
        self.wake.publish.notify_one();
        let assignments: BTreeSet<AssignmentId> = changes
            .iter()
            .filter(|change| change.kind == Some(ChangeKind::Assignment))
            .map(|change| AssignmentId(change.id))
            .collect();
        if !assignments.is_empty() {
            let assignments: Vec<_> = assignments.into_iter().collect();
            let cells = self.placement.cells_of(&assignments).await?;
            self.hub.poke(&cells);
        }
        if changes.iter().any(|change| change.kind == Some(ChangeKind::SecurityGroup)) {
            // Which cells run something that it concerns is found out by reading their sets; most changes concern all.
            self.hub.poke_all();
        }
        let plans =
            |kind| !matches!(kind, Some(ChangeKind::Route | ChangeKind::Controller | ChangeKind::SecurityGroup));
        if changes.iter().any(|change| plans(change.kind)) {
            self.wake.planner.notify_one();
            self.wake.deployments.notify_one();
        }
        let frees =
            |kind| matches!(kind, None | Some(ChangeKind::Assignment | ChangeKind::Observation | ChangeKind::Router));
        if changes.iter().any(|change| frees(change.kind)) {
            self.wake.release.notify_one();
        }
        Ok(())
    }

    fn wake_all(&self) {
        self.wake.publish.notify_one();
        self.wake.planner.notify_one();
        self.wake.deployments.notify_one();
        self.wake.release.notify_one();
        self.hub.poke_all();
    }
}
