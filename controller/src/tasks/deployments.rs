//! Moves active deployments on, while this controller holds the planner's lease.

use std::time::Duration;

use slipway_chassis::chain;
use slipway_chassis::driver::{BackgroundTask, Definition, Next};

use super::lease::Leadership;
use crate::context::Context;
use crate::domain::DomainError;
use crate::domain::deployments::{self, Driven};

/// What moves deployments on, as a task.
pub const DEPLOYMENTS: Definition = Definition {
    name: "deployments",
    description: "Moves active deployments on, while this controller holds the lease",
    period: Duration::from_secs(5),
    woken_by: "changes of apps and instances, and acknowledgements of routers",
};
/// While one is active: repairs lost wakes, and sees the end of its patience.
const ACTIVE: Duration = Duration::from_secs(1);

/// What moves deployments on.
pub struct Deploying {
    /// Their rows, and what they write.
    pub context: Context,
    /// Who moves them.
    pub leadership: Leadership,
}

impl BackgroundTask for Deploying {
    type Error = DomainError;

    /// One step of each; one that fails does not hold the others.
    async fn run(&mut self) -> Result<Next, DomainError> {
        let Some(term) = *self.leadership.term.borrow() else { return Ok(Next::AfterPeriod) };
        let apps = self.context.store.apps_deploying().await?;
        for app in &apps {
            match deployments::drive(&self.context, term, *app).await {
                Ok(Driven::Done) => {}
                Ok(Driven::Fenced) => {
                    self.leadership.fenced(term);
                    break;
                }
                Err(error) => tracing::warn!(%app, error = %chain(&error), "a deployment did not move; it will again"),
            }
        }
        Ok(if apps.is_empty() { Next::AfterPeriod } else { Next::After(ACTIVE) })
    }
}
