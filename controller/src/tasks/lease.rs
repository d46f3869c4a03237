//! Holds the planner's lease. Expiry is judged by the database's clock only; a holder that was replaced finds out by
//! its fence, never by its own clock.

use std::sync::Arc;
use std::time::Duration;

use slipway_api_types::ControllerId;
use slipway_chassis::{Shutdown, chain};
use tokio::sync::watch;
use tokio::time::Instant;

use slipway_placement::{LeaseOutcome, PlacementStore, Result};

/// Another controller plans when the holder has not renewed for this long. Shorter moves the lease at every hiccup of
/// the database; longer leaves a dead planner's work undone.
const EXPIRES: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_secs(1);

/// What the lease task knows, for the other tasks.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// The term while this controller plans.
    pub term: watch::Receiver<Option<i64>>,
    /// Since when every write to the store has succeeded; `None` while it is away.
    pub writable_since: watch::Receiver<Option<Instant>>,
    lost: Arc<watch::Sender<Option<i64>>>,
}

impl Leadership {
    /// A transaction was fenced off: the term is over.
    pub fn fenced(&self, term: i64) {
        tracing::warn!(term, "another controller plans now");
        self.lost.send_if_modified(|current| current.take_if(|current| *current == term).is_some());
    }
}

/// Takes and renews the lease until shutdown, then gives it up.
pub fn start(placement: Arc<dyn PlacementStore>, holder: ControllerId, shutdown: &Shutdown) -> Leadership {
    let (term, receiver) = watch::channel(None);
    let term = Arc::new(term);
    let (writable, writable_since) = watch::channel(None);
    let leadership = Leadership { term: receiver, writable_since, lost: Arc::clone(&term) };
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        while !stop.is_stopping() {
            let held = *term.borrow();
            match step(placement.as_ref(), holder, held).await {
                Ok(now) => {
                    writable.send_if_modified(|since| since.is_none() && since.replace(Instant::now()).is_none());
                    term.send_if_modified(|current| {
                        let changed = *current != now;
                        if changed {
                            tracing::info!(term = ?now, "the planner's lease changed");
                        }
                        *current = now;
                        changed
                    });
                }
                Err(error) => {
                    if writable.send_replace(None).is_some() {
                        tracing::warn!(error = %chain(&error), "the database is away; nothing is placed or judged lost until it is back");
                    }
                }
            }
            tokio::select! {
                () = stop.requested() => break,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
        let held = *term.borrow();
        if let Some(held) = held
            && let Err(error) = placement.lease_release(held).await
        {
            tracing::debug!(error = %chain(&error), "the lease was not given up; it expires");
        }
    });
    leadership
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
