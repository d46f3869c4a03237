//! Beginning the records of usage anew, so that a reader can begin from known figures.

use super::DomainResult;
use crate::context::Context;
use crate::store::usage_events::{app_usage_reseed_tx, service_usage_reseed_tx};

/// Removes all usage events of apps and records what is started now.
///
/// # Errors
/// When the database fails.
pub(crate) async fn reseed_apps(context: &Context) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    app_usage_reseed_tx(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Removes all usage events of services and records what instances there are now.
///
/// # Errors
/// When the database fails.
pub(crate) async fn reseed_services(context: &Context) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    service_usage_reseed_tx(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}
