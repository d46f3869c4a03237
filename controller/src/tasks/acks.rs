//! Records what routers acknowledge, as many at once as came in while the last statement ran.

use std::sync::Arc;
use std::time::Duration;

use slipway_chassis::driver::{BackgroundTask, Definition, Next};
use tokio::time::Instant;

use crate::notifiers::TaskNotifiers;
use crate::routers::hub::RouterHub;
use slipway_placement::{PlacementError, PlacementStore, Result};

/// What records acknowledgements, as a task. Its period keeps "last seen" of routers with a session fresh, far below the
/// time after which one is forgotten.
pub const ACKNOWLEDGEMENTS: Definition = Definition {
    name: "acknowledgements",
    description: "Records which version of the routing table each router has in force",
    period: Duration::from_secs(60),
    woken_by: "acknowledgements of routers",
};

/// What records acknowledgements.
pub struct Recording {
    placement: Arc<dyn PlacementStore>,
    hub: Arc<RouterHub>,
    wake: Arc<TaskNotifiers>,
    /// When all routers were recorded last.
    all: Option<Instant>,
}

impl Recording {
    /// Records what `hub` hears.
    #[must_use]
    pub fn new(placement: Arc<dyn PlacementStore>, hub: Arc<RouterHub>, wake: Arc<TaskNotifiers>) -> Self {
        Self { placement, hub, wake, all: None }
    }
}

impl BackgroundTask for Recording {
    type Error = PlacementError;

    async fn run(&mut self) -> Result<Next> {
        let due = self.all.is_none_or(|at| at.elapsed() >= ACKNOWLEDGEMENTS.period / 2);
        let progress = if due { self.hub.all() } else { self.hub.unrecorded() };
        if due {
            self.all = Some(Instant::now());
        }
        if progress.is_empty() {
            return Ok(Next::AfterPeriod);
        }
        if let Err(error) = self.placement.routers_progress(&progress).await {
            self.hub.not_recorded(&progress);
            return Err(error);
        }
        // Drains, deployments and slots wait for these.
        self.wake.planner.wake();
        self.wake.deployments.wake();
        self.wake.release.wake();
        Ok(Next::AfterPeriod)
    }
}
