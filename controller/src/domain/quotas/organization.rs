//! Quotas of organizations.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{quoted, split};
use crate::context::Context;
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::constraints::refuse;
use crate::domain::quota_limits::{QuotaChange, unlimited_logs};
use crate::domain::{DomainError, DomainResult, removal};
use crate::store::events::event_record_tx;
use crate::store::quotas::{self as store, QuotaRow};

const MISSING: DomainError = DomainError::NotFound("Organization quota");

/// A quota to be made.
#[derive(Clone, Debug)]
pub(crate) struct OrganizationQuotaCreate {
    /// Name and limits, see [`QuotaChange::take_new`].
    pub(crate) limits: QuotaChange,
    /// Guids, as the client wrote them, of organizations to which it is applied.
    pub(crate) organizations: Vec<String>,
    /// The request as a whole, for the event.
    pub(crate) request: Value,
}

fn event(kind: &'static str, actor: &AuditSubject, row: &QuotaRow) -> NewEvent {
    NewEvent::new(kind, actor.clone(), AuditSubject::new("organization_quota", row.guid, &row.name))
}

fn taken(name: &str) -> String {
    format!("Organization Quota '{name}' already exists.")
}

/// The organizations of these guids, as the client wrote them, all of which must exist.
async fn organizations(context: &Context, written: &[String], tail: &str) -> DomainResult<Vec<Uuid>> {
    let (guids, mut bad) = split(written);
    let found = context.store.organizations_by_guid(&guids).await?;
    bad.extend(guids.iter().filter(|guid| found.iter().all(|org| org.guid != **guid)).map(Uuid::to_string));
    if bad.is_empty() {
        return Ok(guids);
    }
    Err(DomainError::invalid(format!("Organizations with guids {} do not exist{tail}", quoted(&bad))))
}

/// Makes a quota.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn create(
    context: &Context,
    actor: &AuditSubject,
    wish: OrganizationQuotaCreate,
) -> DomainResult<QuotaRow> {
    let orgs = organizations(context, &wish.organizations, ", or you do not have access to them.").await?;
    let mut quota = QuotaRow::unlimited(None);
    wish.limits.apply(&mut quota);
    let mut tx = context.store.begin().await?;
    let row = store::organization_quota_save_tx(&mut tx, &quota)
        .await
        .map_err(refuse("organization_quota_name_key", || taken(&quota.name)))?;
    store::organization_quota_apply_tx(&mut tx, row.guid, &orgs).await?;
    let event = event("audit.organization_quota.create", actor, &row).with_request(wish.request);
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(row)
}

/// Processes without a limit of their log rate cannot be under a quota that has one.
async fn check_logs(tx: &mut PgConnection, orgs: &[Uuid]) -> DomainResult<()> {
    let names = store::organizations_with_unlimited_logs_tx(tx, orgs).await?;
    unlimited_logs("org", &names).map_or(Ok(()), |text| Err(DomainError::Invalid(text)))
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
    let mut row = store::organization_quota_lock_tx(&mut tx, guid).await?.ok_or(MISSING)?;
    if change.limits_logs() {
        let pairs = context.store.organizations_of_quotas(&[row.guid]).await?;
        check_logs(&mut tx, &pairs.into_iter().map(|(_, org)| org).collect::<Vec<_>>()).await?;
    }
    change.apply(&mut row);
    let saved = store::organization_quota_save_tx(&mut tx, &row)
        .await
        .map_err(refuse("organization_quota_name_key", || taken(&row.name)))?;
    let event = event("audit.organization_quota.update", actor, &saved).with_request(request);
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(saved)
}

/// Begins to delete a quota. Gives the job, which may be open already.
///
/// # Errors
/// [`DomainError::Invalid`] for the default of new organizations, and for one that is applied.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, row: &QuotaRow) -> DomainResult<Uuid> {
    if row.is_default {
        return Err(DomainError::invalid("This quota is the default of new organizations and cannot be deleted."));
    }
    if !context.store.organizations_of_quotas(&[row.guid]).await?.is_empty() {
        return Err(DomainError::invalid(
            "This quota is applied to one or more organizations. Apply different quotas to those organizations before \
             deleting.",
        ));
    }
    let event = event("audit.organization_quota.delete", actor, row);
    removal::request_recorded(context, &event, "organization_quota.delete", "organization_quota", row.guid).await
}

/// Applies a quota to organizations, by their guids as the client wrote them.
///
/// # Errors
/// [`DomainError::Invalid`] naming the organizations that do not exist, or when what runs in them has no limit of its log
/// rate.
pub(crate) async fn apply(
    context: &Context,
    actor: &AuditSubject,
    guid: Uuid,
    organizations_written: &[String],
) -> DomainResult<()> {
    let orgs = organizations(context, organizations_written, "").await?;
    let mut tx = context.store.begin().await?;
    let row = store::organization_quota_lock_tx(&mut tx, guid).await?.ok_or(MISSING)?;
    if row.log_rate_limit_in_bytes_per_second.is_some()
        && !store::organizations_with_unlimited_logs_tx(&mut tx, &orgs).await?.is_empty()
    {
        return Err(DomainError::invalid(
            "Current usage exceeds new quota values. The org(s) being assigned this quota contain apps running with an \
             unlimited log rate limit.",
        ));
    }
    store::organization_quota_apply_tx(&mut tx, row.guid, &orgs).await?;
    for org in &orgs {
        let event = event("audit.organization_quota.apply", actor, &row)
            .in_org(*org)
            .with("organization_guid", org.to_string());
        event_record_tx(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(())
}
