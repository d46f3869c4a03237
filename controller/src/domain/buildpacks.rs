//! Making, changing and deleting buildpacks.

use serde_json::{Value, json};
use slipway_api_types::MetadataPatch;
use sqlx::PgConnection;
use uuid::Uuid;

use super::apps::merge;
use super::audit::{AuditSubject, NewEvent};
use super::metadata::MetadataChange;
use super::names::check_name;
use super::{DomainError, DomainResult, removal};
use crate::context::Context;
use crate::domain::constraints::refuse;
use crate::store::buildpacks::{
    BuildpackRow, buildpack_insert_tx, buildpack_lock_tx, buildpack_move_tx, buildpack_order_lock_tx,
    buildpack_update_tx,
};
use crate::store::events::event_record_tx;

/// A buildpack to be made. It waits for its upload.
#[derive(Clone, Debug)]
pub(crate) struct BuildpackCreate {
    /// Unique with its stack.
    pub(crate) name: String,
    /// `None` = any, until an upload says it.
    pub(crate) stack: Option<String>,
    /// In the order of detection; `None` = first.
    pub(crate) position: Option<i32>,
    /// Whether builds may use it.
    pub(crate) enabled: bool,
    /// Whether uploads are refused.
    pub(crate) locked: bool,
    /// Labels and annotations.
    pub(crate) metadata: Option<MetadataPatch>,
}

/// Makes a buildpack.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn create(
    context: &Context,
    actor: &AuditSubject,
    wish: BuildpackCreate,
) -> DomainResult<BuildpackRow> {
    let stack = wish.stack.as_deref();
    check(context, &wish.name, stack, wish.position).await?;
    let position = wish.position.unwrap_or(1);
    let metadata = MetadataChange::check(wish.metadata)?;
    let mut tx = context.store.begin().await?;
    let mut row = buildpack_insert_tx(&mut tx, &wish.name, stack, Some(position), wish.enabled, wish.locked)
        .await
        .map_err(refuse("buildpack_name_key", || taken(&wish.name, stack)))?;
    merge(&mut row.labels, &metadata.labels);
    merge(&mut row.annotations, &metadata.annotations);
    let row = buildpack_update_tx(&mut tx, &row).await?;
    let request = json!({ "name": row.name, "position": row.position });
    record_tx(&mut tx, "audit.buildpack.create", actor, &row, request).await?;
    tx.commit().await?;
    Ok(row)
}

/// A change of a buildpack; what is `None` stays.
#[derive(Clone, Debug)]
pub(crate) struct BuildpackUpdate {
    /// Unique with its stack.
    pub(crate) name: Option<String>,
    /// Only of one that has none.
    pub(crate) stack: Option<String>,
    /// In the order of detection.
    pub(crate) position: Option<i32>,
    /// Whether builds may use it.
    pub(crate) enabled: Option<bool>,
    /// Whether uploads are refused.
    pub(crate) locked: Option<bool>,
    /// Labels and annotations.
    pub(crate) metadata: Option<MetadataPatch>,
}

/// Changes a buildpack.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong; [`DomainError::NotFound`] when it is gone.
pub(crate) async fn update(
    context: &Context,
    actor: &AuditSubject,
    row: &BuildpackRow,
    change: BuildpackUpdate,
) -> DomainResult<BuildpackRow> {
    let name = change.name.as_deref().unwrap_or(&row.name);
    check(context, name, change.stack.as_deref(), change.position).await?;
    let request = json!({
        "name": change.name, "stack": change.stack, "position": change.position, "enabled": change.enabled,
        "locked": change.locked,
    });
    let metadata = MetadataChange::check(change.metadata)?;
    let mut tx = context.store.begin().await?;
    if change.position.is_some() {
        buildpack_order_lock_tx(&mut tx).await?;
    }
    let mut row = lock(&mut tx, row.guid).await?;
    if let (Some(own), Some(other)) = (&row.stack, &change.stack)
        && own != other
    {
        return Err(DomainError::invalid(format!("Buildpack stack cannot be changed from '{own}'.")));
    }
    row.name = change.name.unwrap_or(row.name);
    row.stack = change.stack.or(row.stack);
    row.enabled = change.enabled.unwrap_or(row.enabled);
    row.locked = change.locked.unwrap_or(row.locked);
    merge(&mut row.labels, &metadata.labels);
    merge(&mut row.annotations, &metadata.annotations);
    let mut row = buildpack_update_tx(&mut tx, &row)
        .await
        .map_err(refuse("buildpack_name_key", || taken(&row.name, row.stack.as_deref())))?;
    if let Some(position) = change.position {
        row = buildpack_move_tx(&mut tx, row.guid, position).await?;
    }
    record_tx(&mut tx, "audit.buildpack.update", actor, &row, request).await?;
    tx.commit().await?;
    Ok(row)
}

/// Asks for the removal of a buildpack; gives the job.
///
/// # Errors
/// When the database fails.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, row: &BuildpackRow) -> DomainResult<Uuid> {
    let event = event("audit.buildpack.delete", actor, row, Value::Null);
    removal::request_recorded(context, &event, "buildpack.delete", "buildpack", row.guid).await
}

/// Refuses an upload of a buildpack that is locked.
///
/// # Errors
/// [`DomainError::Invalid`].
pub(crate) fn check_unlocked(row: &BuildpackRow) -> DomainResult<()> {
    if row.locked { Err(DomainError::invalid("Buildpack is locked")) } else { Ok(()) }
}

/// Reads a buildpack and locks its row until the transaction ends.
///
/// # Errors
/// [`DomainError::NotFound`].
pub(super) async fn lock(tx: &mut PgConnection, guid: Uuid) -> DomainResult<BuildpackRow> {
    buildpack_lock_tx(tx, guid).await?.ok_or(DomainError::NotFound("Buildpack"))
}

/// Records an event about a buildpack.
///
/// # Errors
/// When the database fails.
pub(super) async fn record_tx(
    tx: &mut PgConnection,
    kind: &'static str,
    actor: &AuditSubject,
    row: &BuildpackRow,
    request: Value,
) -> DomainResult<()> {
    event_record_tx(tx, &event(kind, actor, row, request)).await?;
    Ok(())
}

fn event(kind: &'static str, actor: &AuditSubject, row: &BuildpackRow, request: Value) -> NewEvent {
    NewEvent::new(kind, actor.clone(), AuditSubject::new("buildpack", row.guid, &row.name)).with_request(request)
}

async fn check(context: &Context, name: &str, stack: Option<&str>, position: Option<i32>) -> DomainResult<()> {
    check_name("Name", name)?;
    if name.chars().any(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')) {
        return Err(DomainError::invalid("Name can only contain alphanumeric characters, '-', '_' and '.'"));
    }
    if position.is_some_and(|position| position < 1) {
        return Err(DomainError::invalid("Position must be greater than or equal to 1"));
    }
    match stack {
        Some(stack) if !context.store.stack_exists(stack).await? => {
            Err(DomainError::invalid(format!("Stack '{stack}' does not exist")))
        }
        _ => Ok(()),
    }
}

fn taken(name: &str, stack: Option<&str>) -> String {
    match stack {
        Some(stack) => {
            format!("Buildpack with name '{name}', stack '{stack}' and lifecycle 'buildpack' already exists")
        }
        None => format!("Buildpack with name '{name}' and an unassigned stack already exists"),
    }
}
