//! Moves active deployments on, while this controller holds the planner's lease.

use std::sync::Arc;
use std::time::Duration;

use slipway_chassis::{Shutdown, chain};

use super::Wake;
use super::lease::Leadership;
use crate::context::Context;
use crate::domain::DomainResult;
use crate::domain::deployments::{self, Driven};

/// While one is active: repairs lost pokes, and sees the end of its patience.
const ACTIVE: Duration = Duration::from_secs(1);
/// While none is.
const IDLE: Duration = Duration::from_secs(5);

/// Drives until shutdown.
pub fn start(context: Context, leadership: Leadership, wake: Arc<Wake>, shutdown: &Shutdown) {
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let mut term = leadership.term.clone();
        while !stop.is_stopping() {
            let current = *term.borrow_and_update();
            let pause = match current {
                None => IDLE,
                Some(current) => match round(&context, &leadership, current).await {
                    Ok(0) => IDLE,
                    Ok(_) => ACTIVE,
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "deployments cannot be read now");
                        ACTIVE
                    }
                },
            };
            // Every arm may be dropped at any point: none holds a result.
            tokio::select! {
                () = stop.requested() => break,
                () = wake.deployments.notified() => {}
                changed = term.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

/// One step of each; one that fails does not hold the others. Gives how many there are.
async fn round(context: &Context, leadership: &Leadership, term: i64) -> DomainResult<usize> {
    let apps = context.store.apps_deploying().await?;
    for app in &apps {
        match deployments::drive(context, term, *app).await {
            Ok(Driven::Done) => {}
            Ok(Driven::Fenced) => {
                leadership.fenced(term);
                break;
            }
            Err(error) => tracing::warn!(%app, error = %chain(&error), "a deployment did not move; it will again"),
        }
    }
    Ok(apps.len())
}
