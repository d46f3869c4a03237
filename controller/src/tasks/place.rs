//! Runs the planner whenever its input has changed, while this controller holds the lease.

use std::sync::Arc;
use std::time::Duration;

use slipway_api_types::AssignmentId;
use slipway_chassis::driver::{BackgroundTask, Definition, Next};

use super::lease::Leadership;
use crate::notifiers::TaskNotifiers;
use slipway_placement::planner::{self, Overcommit};
use slipway_placement::{ApplyOutcome, PlacementError, PlacementStore, Result};

/// The planner, as a task.
pub const PLANNER: Definition = Definition {
    name: "planner",
    description: "Decides which cell runs what, while this controller holds the lease",
    period: Duration::from_secs(5),
    woken_by: "changes of apps, cells and instances",
};
/// While something drains or waits for room: nobody wakes the planner when a deadline passes.
const WAITING: Duration = Duration::from_millis(250);
/// After an unknown or refused outcome.
const AGAIN: Duration = Duration::from_millis(10);

/// What the planner needs.
pub struct Planning {
    placement: Arc<dyn PlacementStore>,
    overcommit: Overcommit,
    leadership: Leadership,
    wake: Arc<TaskNotifiers>,
    /// Those of the last plan: each is told once.
    alarms: Vec<String>,
}

impl Planning {
    /// Plans what `placement` holds.
    #[must_use]
    pub fn new(
        placement: Arc<dyn PlacementStore>,
        overcommit: Overcommit,
        leadership: Leadership,
        wake: Arc<TaskNotifiers>,
    ) -> Self {
        Self { placement, overcommit, leadership, wake, alarms: Vec::new() }
    }
}

impl BackgroundTask for Planning {
    type Error = PlacementError;

    async fn run(&mut self) -> Result<Next> {
        let term = *self.leadership.term.borrow();
        match term {
            Some(term) => self.round(term).await,
            None => Ok(Next::AfterPeriod),
        }
    }
}

impl Planning {
    async fn round(&mut self, term: i64) -> Result<Next> {
        let snapshot = self.placement.snapshot_for_planning().await?;
        let plan = planner::plan(&snapshot, self.overcommit, AssignmentId::new);
        if plan.alarms != self.alarms {
            for alarm in &plan.alarms {
                tracing::error!(alarm, "placement is held");
            }
            self.alarms = plan.alarms;
        }
        let next = if plan.waiting { Next::After(WAITING) } else { Next::AfterPeriod };
        if plan.changes.is_empty() {
            return Ok(next);
        }
        let outcome = self.placement.plan_apply(term, snapshot.version, &plan.changes).await?;
        tracing::debug!(
            ?outcome,
            placed = plan.changes.placements.len(),
            intents = plan.changes.intents.len(),
            roles = plan.changes.roles.len(),
            "planned"
        );
        Ok(match outcome {
            ApplyOutcome::Committed(_) => {
                self.wake.tail.wake();
                next
            }
            ApplyOutcome::Fenced => {
                self.leadership.fenced(term);
                Next::AfterPeriod
            }
            // What is there now is read again; both are ordinary.
            ApplyOutcome::Conflict | ApplyOutcome::Ambiguous => Next::After(AGAIN),
        })
    }
}
