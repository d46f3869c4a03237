//! Isolation segments: which organizations may use one, and which one organizations and spaces use. A change holds from
//! the next start of an app.

use serde_json::json;
use slipway_api_types::MetadataPatch;
use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::{AuditSubject, NewEvent};
use super::metadata::MetadataChange;
use super::names::{check_name, shown};
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::change_log::ChangeKind;
use crate::store::events::event_record_tx;
use crate::store::organizations::OrganizationRow;
use crate::store::segments::{self as store, IsolationSegmentRow, SHARED};
use crate::store::spaces::SpaceRow;

const MISSING: DomainError = DomainError::NotFound("Isolation segment");

/// A segment to be made.
#[derive(Clone, Debug)]
pub(crate) struct SegmentCreate {
    /// Unique, whatever its case.
    pub(crate) name: String,
    /// Labels and annotations.
    pub(crate) metadata: Option<MetadataPatch>,
}

/// A change of a segment; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct SegmentUpdate {
    /// Unique, whatever its case.
    pub(crate) name: Option<String>,
    /// Labels and annotations.
    pub(crate) metadata: Option<MetadataPatch>,
}

fn subject(row: &IsolationSegmentRow) -> AuditSubject {
    AuditSubject::new("isolation_segment", row.guid, &row.name)
}

fn check_segment_name(name: &str) -> DomainResult<()> {
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err(DomainError::invalid("Isolation Segment names can only contain non-blank unicode characters"));
    }
    check_name("Name", name)
}

/// Makes a segment that no organization may use yet.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn create(
    context: &Context,
    actor: &AuditSubject,
    wish: SegmentCreate,
) -> DomainResult<IsolationSegmentRow> {
    check_segment_name(&wish.name)?;
    let metadata = MetadataChange::check(wish.metadata)?;
    let mut tx = context.store.begin().await?;
    let row = store::isolation_segment_insert_tx(&mut tx, &wish.name, &metadata).await?;
    let event = NewEvent::new("audit.isolation_segment.create", actor.clone(), subject(&row))
        .with_request(json!({ "name": row.name }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(row)
}

/// Changes a segment that nobody uses.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong, for the shared segment, and for one that is assigned.
pub(crate) async fn update(context: &Context, guid: Uuid, change: SegmentUpdate) -> DomainResult<IsolationSegmentRow> {
    if let Some(name) = &change.name {
        check_segment_name(name)?;
    }
    let metadata = MetadataChange::check(change.metadata)?;
    if guid == SHARED {
        return Err(DomainError::invalid("Cannot update the shared Isolation Segment"));
    }
    let mut tx = context.store.begin().await?;
    if !store::isolation_segment_lock_tx(&mut tx, guid).await? {
        return Err(MISSING);
    }
    if store::isolation_segment_assigned_tx(&mut tx, guid).await? {
        return Err(DomainError::invalid(
            "Cannot update Isolation Segments that are assigned as the default for an Organization or Space.",
        ));
    }
    let row = store::isolation_segment_patch_tx(&mut tx, guid, change.name.as_deref(), &metadata).await?;
    let row = row.ok_or(MISSING)?;
    tx.commit().await?;
    Ok(row)
}

/// Removes a segment that no organization may use.
///
/// # Errors
/// [`DomainError::Invalid`] for the shared segment, and for one that is entitled or assigned.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, row: &IsolationSegmentRow) -> DomainResult<()> {
    if row.guid == SHARED {
        return Err(DomainError::invalid("Cannot delete the shared Isolation Segment"));
    }
    let mut tx = context.store.begin().await?;
    store::isolation_segment_lock_tx(&mut tx, row.guid).await?;
    let used = store::isolation_segment_assigned_tx(&mut tx, row.guid).await?;
    if used || store::isolation_segment_entitles_tx(&mut tx, row.guid).await? {
        return Err(DomainError::invalid("Revoke the Organization entitlements for your Isolation Segment."));
    }
    store::isolation_segment_delete_tx(&mut tx, row.guid).await?;
    let event = NewEvent::new("audit.isolation_segment.delete", actor.clone(), subject(row));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(())
}

/// Entitles organizations, by their guids as the client wrote them, to a segment.
///
/// # Errors
/// [`DomainError::Invalid`] naming the organizations that do not exist.
pub(crate) async fn entitle(
    context: &Context,
    actor: &AuditSubject,
    row: &IsolationSegmentRow,
    orgs: &[String],
) -> DomainResult<()> {
    let wanted: Vec<Uuid> = orgs.iter().filter_map(|org| org.parse().ok()).collect();
    let found: Vec<Uuid> =
        context.store.organizations_by_guid(&wanted).await?.into_iter().map(|org| org.guid).collect();
    let bad: Vec<String> = orgs
        .iter()
        .filter(|org| org.parse().map_or(true, |guid: Uuid| !found.contains(&guid)))
        .map(|org| format!("'{}'", shown(org)))
        .collect();
    if !bad.is_empty() {
        return Err(DomainError::invalid(format!(
            "Unable to entitle organizations [{}] for the isolation segment. Ensure the organizations exist.",
            bad.join(", ")
        )));
    }
    let mut tx = context.store.begin().await?;
    if !store::isolation_segment_lock_tx(&mut tx, row.guid).await? {
        return Err(MISSING);
    }
    store::isolation_segment_entitle_tx(&mut tx, row.guid, &found).await?;
    for org in &found {
        let event = NewEvent::new("audit.isolation_segment.entitle", actor.clone(), subject(row)).in_org(*org);
        event_record_tx(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Takes the entitlement of an organization back.
///
/// # Errors
/// [`DomainError::Invalid`] while the segment is assigned to the organization or to spaces of it.
pub(crate) async fn revoke(
    context: &Context,
    actor: &AuditSubject,
    row: &IsolationSegmentRow,
    org: &OrganizationRow,
) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    store::isolation_segment_lock_tx(&mut tx, row.guid).await?;
    if org.default_isolation_segment_guid == Some(row.guid) {
        return Err(DomainError::invalid(
            "Cannot remove the entitlement while this Isolation Segment is assigned as the Default Isolation Segment for \
             the Organization.",
        ));
    }
    let spaces = store::spaces_in_segment_tx(&mut tx, row.guid, org.guid).await?;
    if !spaces.is_empty() {
        let names: Vec<String> = spaces.iter().map(|name| format!("'{name}'")).collect();
        return Err(DomainError::invalid(format!(
            "Cannot remove the entitlement while this Isolation Segment is assigned to any Spaces. Currently assigned to: {}",
            names.join(", ")
        )));
    }
    store::isolation_segment_revoke_tx(&mut tx, row.guid, org.guid).await?;
    let event = NewEvent::new("audit.isolation_segment.revoke", actor.clone(), subject(row)).in_org(org.guid);
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(())
}

/// The segment that a client named, if it named one; it must be entitled to the organization.
async fn entitled_tx(
    tx: &mut PgConnection,
    segment: Option<&str>,
    org: Uuid,
    tail: &str,
) -> DomainResult<Option<Uuid>> {
    let Some(text) = segment else { return Ok(None) };
    let bad = || {
        DomainError::invalid(format!(
            "Unable to assign isolation segment with guid '{}'. Ensure it has been entitled to the organization{tail}.",
            shown(text)
        ))
    };
    let segment: Uuid = text.parse().map_err(|_| bad())?;
    if store::isolation_segment_entitled_tx(tx, segment, org).await? { Ok(Some(segment)) } else { Err(bad()) }
}

/// Sets or clears the segment of an organization's spaces that have none of their own. It is named by its guid as the
/// client wrote it.
///
/// # Errors
/// [`DomainError::Invalid`] when the organization may not use it.
pub(crate) async fn set_of_organization(
    context: &Context,
    actor: &AuditSubject,
    org: &OrganizationRow,
    segment: Option<&str>,
) -> DomainResult<Option<Uuid>> {
    let mut tx = context.store.begin().await?;
    let segment = entitled_tx(&mut tx, segment, org.guid, "").await?;
    store::organization_set_segment_tx(&mut tx, org.guid, segment).await?;
    let target = AuditSubject::new("organization", org.guid, &org.name);
    let event = NewEvent::new("audit.organization.update", actor.clone(), target)
        .in_org(org.guid)
        .with_request(json!({ "default_isolation_segment_guid": segment }));
    event_record_tx(&mut tx, &event).await?;
    context.store.commit(tx, &[(ChangeKind::Organization, org.guid)]).await?;
    Ok(segment)
}

/// Sets or clears a space's own segment, named by its guid as the client wrote it.
///
/// # Errors
/// [`DomainError::Invalid`] when the organization of the space may not use it.
pub(crate) async fn set_of_space(
    context: &Context,
    actor: &AuditSubject,
    space: &SpaceRow,
    segment: Option<&str>,
) -> DomainResult<Option<Uuid>> {
    let mut tx = context.store.begin().await?;
    let segment = entitled_tx(&mut tx, segment, space.org_guid, " that this space belongs to").await?;
    store::space_set_segment_tx(&mut tx, space.guid, segment).await?;
    let target = AuditSubject::new("space", space.guid, &space.name);
    let event = NewEvent::new("audit.space.update", actor.clone(), target)
        .in_space(space.guid, space.org_guid)
        .with_request(json!({ "isolation_segment_guid": segment }));
    event_record_tx(&mut tx, &event).await?;
    context.store.commit(tx, &[(ChangeKind::Space, space.guid)]).await?;
    Ok(segment)
}
