//! Quotas of spaces, each within one organization.

use serde_json::Value;
use uuid::Uuid;

use super::{quoted, split};
use crate::context::Context;
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::constraints::refuse;
use crate::domain::names::shown;
use crate::domain::quota_limits::{QuotaChange, unlimited_logs};
use crate::domain::{DomainError, DomainResult, removal};
use crate::store::events::event_record_tx;
use crate::store::list::Visible;
use crate::store::quotas::{self as store, QuotaRow};

const MISSING: DomainError = DomainError::NotFound("Space quota");

/// A quota to be made.
#[derive(Clone, Debug)]
pub(crate) struct SpaceQuotaCreate {
    /// Name and limits, see [`QuotaChange::take_new`].
    pub(crate) limits: QuotaChange,
    /// Whose it is.
    pub(crate) org: Uuid,
    /// Guids, as the client wrote them, of spaces to which it is applied.
    pub(crate) spaces: Vec<String>,
    /// The request as a whole, for the event.
    pub(crate) request: Value,
}

fn event(kind: &'static str, actor: &AuditSubject, row: &QuotaRow) -> NewEvent {
    NewEvent::new(kind, actor.clone(), AuditSubject::new("space_quota", row.guid, &row.name))
}

fn event_in_org(kind: &'static str, actor: &AuditSubject, row: &QuotaRow, request: Value) -> NewEvent {
    NewEvent { org: row.org_guid, ..event(kind, actor, row).with_request(request) }
}

fn taken(name: &str) -> String {
    format!("Space Quota '{name}' already exists.")
}

/// Makes a quota.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn create(context: &Context, actor: &AuditSubject, wish: SpaceQuotaCreate) -> DomainResult<QuotaRow> {
    let SpaceQuotaCreate { limits, org, spaces, request } = wish;
    let (guids, mut bad) = split(&spaces);
    let found = context.store.spaces_by_guid(&guids).await?;
    let within = |guid: &&Uuid| found.iter().any(|space| space.guid == **guid && space.org_guid == org);
    bad.extend(guids.iter().filter(|guid| !within(guid)).map(Uuid::to_string));
    if !bad.is_empty() {
        return Err(DomainError::invalid(format!(
            "Spaces with guids {} do not exist within the organization specified, or you do not have access to them.",
            quoted(&bad)
        )));
    }
    let mut quota = QuotaRow::unlimited(Some(org));
    limits.apply(&mut quota);
    let mut tx = context.store.begin().await?;
    let row = store::space_quota_save_tx(&mut tx, &quota)
        .await
        .map_err(refuse("space_quota_name_key", || taken(&quota.name)))?;
    store::space_quota_apply_tx(&mut tx, Some(row.guid), &guids).await?;
    event_record_tx(&mut tx, &event_in_org("audit.space_quota.create", actor, &row, request)).await?;
    tx.commit().await?;
    Ok(row)
}

/// Changes a quota; `request` is for the event.
///
/// # Errors
/// [`DomainError::Invalid`] when the name is taken, or when what runs has no limit of its log rate.
pub(crate) async fn update(
    context: &Context,
    actor: &AuditSubject,
    guid: Uuid,
    change: &QuotaChange,
    request: Value,
) -> DomainResult<QuotaRow> {
    let mut tx = context.store.begin().await?;
    let mut row = store::space_quota_lock_tx(&mut tx, guid).await?.ok_or(MISSING)?;
    if change.limits_logs() {
        let spaces: Vec<Uuid> =
            context.store.spaces_of_quotas(&[row.guid]).await?.into_iter().map(|(_, space)| space).collect();
        let names = store::spaces_with_unlimited_logs_tx(&mut tx, &spaces).await?;
        if let Some(text) = unlimited_logs("space", &names) {
            return Err(DomainError::Invalid(text));
        }
    }
    change.apply(&mut row);
    let saved =
        store::space_quota_save_tx(&mut tx, &row).await.map_err(refuse("space_quota_name_key", || taken(&row.name)))?;
    event_record_tx(&mut tx, &event_in_org("audit.space_quota.update", actor, &saved, request)).await?;
    tx.commit().await?;
    Ok(saved)
}

/// Begins to delete a quota. Gives the job, which may be open already.
///
/// # Errors
/// [`DomainError::Invalid`] for one that is applied.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, row: &QuotaRow) -> DomainResult<Uuid> {
    if !context.store.spaces_of_quotas(&[row.guid]).await?.is_empty() {
        return Err(DomainError::invalid(
            "This quota is applied to one or more spaces. Remove this quota from all spaces before deleting.",
        ));
    }
    let event = event_in_org("audit.space_quota.delete", actor, row, Value::Null);
    removal::request_recorded(context, &event, "space_quota.delete", "space_quota", row.guid).await
}

/// Applies a quota of an organization to spaces, by their guids as the client wrote them.
///
/// # Errors
/// [`DomainError::Invalid`] naming the spaces that do not exist or are not visible, for those of another organization,
/// and when what runs in them has no limit of its log rate.
pub(crate) async fn apply(
    context: &Context,
    actor: &AuditSubject,
    row: &QuotaRow,
    org: Uuid,
    visible: &Visible,
    spaces: &[String],
) -> DomainResult<()> {
    let (guids, mut bad) = split(spaces);
    let found = context.store.spaces_by_guid(&guids).await?;
    let seen = |guid: &&Uuid| visible.contains(**guid) && found.iter().any(|space| space.guid == **guid);
    bad.extend(guids.iter().filter(|guid| !seen(guid)).map(Uuid::to_string));
    if !bad.is_empty() {
        return Err(DomainError::invalid(format!(
            "Spaces with guids {} do not exist, or you do not have access to them.",
            quoted(&bad)
        )));
    }
    if found.iter().any(|space| space.org_guid != org) {
        return Err(DomainError::invalid("Space quotas cannot be applied outside of their owning organization."));
    }
    let mut tx = context.store.begin().await?;
    let row = store::space_quota_lock_tx(&mut tx, row.guid).await?.ok_or(MISSING)?;
    if row.log_rate_limit_in_bytes_per_second.is_some()
        && !store::spaces_with_unlimited_logs_tx(&mut tx, &guids).await?.is_empty()
    {
        return Err(DomainError::invalid(
            "Current usage exceeds new quota values. The space(s) being assigned this quota contain apps running with \
             an unlimited log rate limit.",
        ));
    }
    store::space_quota_apply_tx(&mut tx, Some(row.guid), &guids).await?;
    for space in &guids {
        let event =
            event("audit.space_quota.apply", actor, &row).in_space(*space, org).with("space_guid", space.to_string());
        event_record_tx(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Takes a quota of an organization from a space, named by its guid as the client wrote it.
///
/// # Errors
/// [`DomainError::Invalid`] when it is not applied to that space.
pub(crate) async fn remove_from(
    context: &Context,
    actor: &AuditSubject,
    row: &QuotaRow,
    org: Uuid,
    space: &str,
) -> DomainResult<()> {
    let bad = || {
        DomainError::invalid(format!(
            "Unable to remove quota from space with guid '{}'. Ensure the space quota is applied to this space.",
            shown(space)
        ))
    };
    let guid: Uuid = space.parse().map_err(|_| bad())?;
    let found = context.store.space_get(guid).await?;
    if found.is_none_or(|space| space.quota_guid != Some(row.guid)) {
        return Err(bad());
    }
    let mut tx = context.store.begin().await?;
    store::space_quota_apply_tx(&mut tx, None, &[guid]).await?;
    let event = event("audit.space_quota.remove", actor, row).in_space(guid, org).with("space_guid", guid.to_string());
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(())
}
