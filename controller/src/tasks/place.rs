//! Runs the planner whenever its input has changed, while this controller holds the lease.

use std::sync::Arc;
use std::time::Duration;

use slipway_api_types::AssignmentId;
use slipway_chassis::{Shutdown, chain};

use super::Wake;
use super::lease::Leadership;
use slipway_placement::planner::{self, Overcommit};
use slipway_placement::{ApplyOutcome, PlacementStore, Result};

/// Repairs lost pokes.
const PERIOD: Duration = Duration::from_secs(5);
/// While something drains or waits for room: nobody pokes when a deadline passes.
const WAITING: Duration = Duration::from_millis(250);
/// After an unknown or refused outcome.
const AGAIN: Duration = Duration::from_millis(10);

/// Plans until shutdown.
pub fn start(
    placement: Arc<dyn PlacementStore>,
    overcommit: Overcommit,
    leadership: Leadership,
    wake: Arc<Wake>,
    shutdown: &Shutdown,
) {
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let mut term = leadership.term.clone();
        let mut alarms = Vec::new();
        while !stop.is_stopping() {
            let current = *term.borrow_and_update();
            let pause = match current {
                None => PERIOD,
                Some(current) => {
                    match round(placement.as_ref(), overcommit, &leadership, current, &wake, &mut alarms).await {
                        Ok(pause) => pause,
                        Err(error) => {
                            tracing::warn!(error = %chain(&error), "planning failed; it will run again");
                            Duration::from_secs(1)
                        }
                    }
                }
            };
            // Every arm may be dropped at any point: none holds a result.
            tokio::select! {
                () = stop.requested() => break,
                () = wake.planner.notified() => {}
                changed = term.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

async fn round(
    placement: &dyn PlacementStore,
    overcommit: Overcommit,
    leadership: &Leadership,
    term: i64,
    wake: &Wake,
    alarms: &mut Vec<String>,
) -> Result<Duration> {
    let snapshot = placement.snapshot_for_planning().await?;
    let plan = planner::plan(&snapshot, overcommit, AssignmentId::new);
    if plan.alarms != *alarms {
        for alarm in &plan.alarms {
            tracing::error!(alarm, "placement is held");
        }
        *alarms = plan.alarms;
    }
    let pause = if plan.waiting { WAITING } else { PERIOD };
    if plan.changes.is_empty() {
        return Ok(pause);
    }
    let outcome = placement.plan_apply(term, snapshot.version, &plan.changes).await?;
    tracing::debug!(
        ?outcome,
        placed = plan.changes.placements.len(),
        intents = plan.changes.intents.len(),
        roles = plan.changes.roles.len(),
        "planned"
    );
    Ok(match outcome {
        ApplyOutcome::Committed(_) => {
            wake.tail.notify_one();
            pause
        }
        ApplyOutcome::Fenced => {
            leadership.fenced(term);
            PERIOD
        }
        // What is there now is read again; both are ordinary.
        ApplyOutcome::Conflict | ApplyOutcome::Ambiguous => AGAIN,
    })
}
