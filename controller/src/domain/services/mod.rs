//! Service instances, their bindings and keys.
//!
//! All three are the same machine: something that a provider makes, changes and removes, one operation at a time, each
//! of which may take longer than a request ([`operation`]). Today there is one provider, the developer: what is
//! user-provided is done as soon as it is stored. A broker is a second one. Its answer goes through the same
//! [`operation::LastOperation::answered`], and where it says "going on" the caller gets a job that asks it again
//! instead of the resource itself; see the notes at [`instances`] and [`bindings`].

pub mod bindings;
pub mod instances;
pub mod operation;
pub mod route_bindings;
pub mod sharing;
pub mod vcap;

use slipway_protocol::v1::Version;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::change_log::ChangeKind;
use crate::store::services::ServiceInstanceRow;

/// Commits, and gives the version that routers must have before the change is in force; `None` when no route is concerned.
async fn commit(
    context: &Context,
    tx: Transaction<'static, Postgres>,
    changes: &[(ChangeKind, Uuid)],
) -> DomainResult<Option<Version>> {
    if changes.is_empty() {
        tx.commit().await?;
        return Ok(None);
    }
    let version = context.store.commit(tx, changes).await?;
    Ok(changes.iter().any(|(kind, _)| *kind == ChangeKind::Route).then_some(version))
}

/// Refuses what only a broker could do. Instances of brokers cannot be made yet, so this is for rows of a newer
/// program.
fn require_user_provided(row: &ServiceInstanceRow) -> DomainResult<()> {
    if row.is_user_provided() {
        return Ok(());
    }
    Err(DomainError::invalid(format!(
        "The service instance '{}' is provided by a service broker; this platform cannot talk to brokers yet.",
        row.name
    )))
}
