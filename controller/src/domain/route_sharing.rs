//! Routes in other spaces than their own: sharing, and moving to another owner.

use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::{AuditSubject, NewEvent};
use super::routes::audit_subject;
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::change_log::ChangeKind;
use crate::store::domains::domain_usable_in_tx;
use crate::store::events::event_record_tx;
use crate::store::route_shares::{route_share_tx, route_transfer_tx, route_unshare_tx};
use crate::store::routes::{RouteRow, route_lock_tx};

/// A route's new owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewOwner<'a> {
    /// The space.
    pub(crate) space: Uuid,
    /// Its organization.
    pub(crate) org: Uuid,
    /// The space as the client wrote it.
    pub(crate) written: &'a str,
}

/// Shares a route with spaces, with all or with none. `org` is the organization of the route's own space.
///
/// # Errors
/// [`DomainError::Invalid`] when one of them is the route's own; [`DomainError::NotFound`] when the route is gone.
pub(crate) async fn share(
    context: &Context,
    actor: &AuditSubject,
    org: Uuid,
    row: &RouteRow,
    spaces: &[Uuid],
) -> DomainResult<()> {
    if spaces.contains(&row.space_guid) {
        return Err(DomainError::invalid(format!(
            "Unable to share route '{}' with space '{}'. Routes cannot be shared into the space where they were created.",
            row.url(),
            row.space_guid
        )));
    }
    let mut tx = context.store.begin().await?;
    route_lock_tx(&mut tx, row.guid).await?.ok_or(DomainError::NotFound("Route"))?;
    route_share_tx(&mut tx, row.guid, spaces).await?;
    record(&mut tx, "audit.route.share", actor, org, row, ("target_space_guids", json!(spaces))).await?;
    tx.commit().await?;
    Ok(())
}

/// Ends the share with a space. `org` is the organization of the route's own space.
///
/// # Errors
/// [`DomainError::Invalid`] when the space is the route's own.
pub(crate) async fn unshare(
    context: &Context,
    actor: &AuditSubject,
    org: Uuid,
    row: &RouteRow,
    space: Uuid,
) -> DomainResult<()> {
    if space == row.space_guid {
        return Err(DomainError::invalid(format!(
            "Unable to unshare route '{}' from space '{space}'. Routes cannot be removed from the space that owns them.",
            row.url()
        )));
    }
    let mut tx = context.store.begin().await?;
    route_unshare_tx(&mut tx, row.guid, space).await?;
    record(&mut tx, "audit.route.unshare", actor, org, row, ("target_space_guid", json!(space))).await?;
    tx.commit().await?;
    Ok(())
}

/// Gives a route to another space; one that has it already keeps it. `org` is the organization of the route's own space.
///
/// # Errors
/// [`DomainError::Invalid`] when the other space may not use the route's domain; [`DomainError::NotFound`] when the route is
/// gone.
pub(crate) async fn transfer(
    context: &Context,
    actor: &AuditSubject,
    org: Uuid,
    row: &RouteRow,
    to: NewOwner<'_>,
) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    let row = route_lock_tx(&mut tx, row.guid).await?.ok_or(DomainError::NotFound("Route"))?;
    if !domain_usable_in_tx(&mut tx, row.domain_guid, to.org).await? {
        let problem = "Target space does not have access to route's domain";
        return Err(DomainError::Invalid(untransferable(&row, to.written, problem)));
    }
    if to.space == row.space_guid {
        return Ok(());
    }
    route_transfer_tx(&mut tx, &row, to.space).await?;
    let detail = ("target_space_guid", json!(to.space));
    record(&mut tx, "audit.route.transfer-owner", actor, org, &row, detail).await?;
    context.store.commit(tx, &[(ChangeKind::Route, row.guid)]).await?;
    Ok(())
}

/// Why a route cannot be given to a space, which stands here as the client wrote it.
pub(crate) fn untransferable(row: &RouteRow, space: &str, problem: &str) -> String {
    format!("Unable to transfer owner of route '{}' to space '{space}'. {problem}", row.url())
}

async fn record(
    tx: &mut PgConnection,
    kind: &'static str,
    actor: &AuditSubject,
    org: Uuid,
    row: &RouteRow,
    detail: (&str, Value),
) -> DomainResult<()> {
    let event =
        NewEvent::new(kind, actor.clone(), audit_subject(row)).in_space(row.space_guid, org).with(detail.0, detail.1);
    event_record_tx(tx, &event).await?;
    Ok(())
}
