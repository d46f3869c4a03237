//! Holds the planner's lease. Expiry is judged by the database's clock only; a holder that was replaced finds out by
//! its fence, never by its own clock.

use std::sync::Arc;
use std::time::Duration;

use slipway_api_types::ControllerId;
use slipway_chassis::chain;
use slipway_chassis::driver::{BackgroundTask, Definition, Next};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::notifiers::TaskNotifiers;
use slipway_placement::{LeaseOutcome, PlacementError, PlacementStore, Result};

/// Another controller plans when the holder has not renewed for this long. Shorter moves the lease at every hiccup of
/// the database; longer leaves a dead planner's work undone.
const EXPIRES: Duration = Duration::from_secs(10);
/// The lease, as a task.
pub const LEASE: Definition = Definition {
    name: "lease",
    description: "Takes and renews the lease of the controller that plans",
    period: Duration::from_secs(1),
    woken_by: "",
};

/// What the lease task knows, for the other tasks.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// The term while this controller plans.
    pub term: watch::Receiver<Option<i64>>,
    /// Since when every write to the store has succeeded; `None` while it is away.
    pub writable_since: watch::Receiver<Option<Instant>>,
    lost: Arc<watch::Sender<Option<i64>>>,
    wake: Arc<TaskNotifiers>,
}

impl Leadership {
    /// A transaction was fenced off: the term is over.
    pub fn fenced(&self, term: i64) {
        tracing::warn!(term, "another controller plans now");
        if self.lost.send_if_modified(|current| current.take_if(|current| *current == term).is_some()) {
            wake_planning(&self.wake);
        }
    }
}

/// Takes and renews the lease; gives it up at shutdown.
pub struct Lease {
    placement: Arc<dyn PlacementStore>,
    holder: ControllerId,
    term: Arc<watch::Sender<Option<i64>>>,
    writable: watch::Sender<Option<Instant>>,
    wake: Arc<TaskNotifiers>,
}

impl Lease {
    /// A lease for this controller, and what it says about it.
    #[must_use]
    pub fn new(
        placement: Arc<dyn PlacementStore>,
        holder: ControllerId,
        wake: Arc<TaskNotifiers>,
    ) -> (Self, Leadership) {
        let (term, receiver) = watch::channel(None);
        let term = Arc::new(term);
        let (writable, writable_since) = watch::channel(None);
        let leadership =
            Leadership { term: receiver, writable_since, lost: Arc::clone(&term), wake: Arc::clone(&wake) };
        (Self { placement, holder, term, writable, wake }, leadership)
    }
}

impl BackgroundTask for Lease {
    type Error = PlacementError;

    async fn run(&mut self) -> Result<Next> {
        let held = *self.term.borrow();
        let now = match step(self.placement.as_ref(), self.holder, held).await {
            Ok(now) => now,
            Err(error) => {
                if self.writable.send_replace(None).is_some() {
                    tracing::warn!("the database is away; nothing is placed or judged lost until it is back");
                }
                return Err(error);
            }
        };
        self.writable.send_if_modified(|since| since.is_none() && since.replace(Instant::now()).is_none());
        let changed = self.term.send_if_modified(|current| {
            let changed = *current != now;
            *current = now;
            changed
        });
        if changed {
            tracing::info!(term = ?now, "the planner's lease changed");
            wake_planning(&self.wake);
        }
        Ok(Next::AfterPeriod)
    }

    async fn end(&mut self) {
        let held = *self.term.borrow();
        if let Some(held) = held
            && let Err(error) = self.placement.lease_release(held).await
        {
            tracing::debug!(error = %chain(&error), "the lease was not given up; it expires");
        }
    }
}

/// Wakes what only the holder of the lease does.
fn wake_planning(wake: &TaskNotifiers) {
    wake.planner.wake();
    wake.deployments.wake();
    wake.drains.wake();
    wake.liveness.wake();
}

async fn step(placement: &dyn PlacementStore, holder: ControllerId, term: Option<i64>) -> Result<Option<i64>> {
    if let Some(term) = term
        && placement.lease_renew(term).await?
    {
        return Ok(Some(term));
    }
    Ok(match placement.lease_take(holder, EXPIRES).await? {
        LeaseOutcome::Held { term } => Some(term),
        LeaseOutcome::Other { .. } => None,
    })
}
