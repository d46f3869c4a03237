//! Making, changing and deleting spaces.

use serde_json::json;
use slipway_api_types::MetadataPatch;
use uuid::Uuid;

use super::audit::{AuditSubject, NewEvent};
use super::metadata::MetadataChange;
use super::names::check_name;
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::domain::constraints::refuse;
use crate::store::change_log::ChangeKind;
use crate::store::events::event_record_tx;
use crate::store::jobs::{NewJob, job_completed_tx, job_create_tx, job_open_for_tx};
use crate::store::routes::routes_delete_unmapped_tx;
use crate::store::spaces::{self as store, SpaceRow};

/// A space to be made.
#[derive(Clone, Debug)]
pub(crate) struct SpaceCreate {
    /// Where.
    pub(crate) org: Uuid,
    /// Unique in the organization.
    pub(crate) name: String,
    /// Labels and annotations.
    pub(crate) metadata: Option<MetadataPatch>,
}

/// A change of a space; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpaceUpdate {
    /// Unique in the organization.
    pub(crate) name: Option<String>,
    /// Labels and annotations.
    pub(crate) metadata: Option<MetadataPatch>,
}

fn event(kind: &'static str, actor: &AuditSubject, row: &SpaceRow) -> NewEvent {
    let target = AuditSubject::new("space", row.guid, &row.name);
    NewEvent::new(kind, actor.clone(), target).in_space(row.guid, row.org_guid)
}

fn taken() -> String {
    "Name must be unique per organization".to_owned()
}

async fn read(context: &Context, guid: Uuid) -> DomainResult<SpaceRow> {
    context.store.space_get(guid).await?.ok_or(DomainError::NotFound("Space"))
}

/// Makes a space.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn create(context: &Context, actor: &AuditSubject, wish: SpaceCreate) -> DomainResult<SpaceRow> {
    check_name("Name", &wish.name)?;
    let metadata = MetadataChange::check(wish.metadata)?;
    let mut tx = context.store.begin().await?;
    let guid = store::space_insert_tx(&mut tx, wish.org, &wish.name, &metadata)
        .await
        .map_err(refuse("space_name_key", taken))?;
    let target = AuditSubject::new("space", guid, &wish.name);
    let event = NewEvent::new("audit.space.create", actor.clone(), target)
        .in_space(guid, wish.org)
        .with_request(json!({ "name": wish.name }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    read(context, guid).await
}

/// Changes a space.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn update(
    context: &Context,
    actor: &AuditSubject,
    row: &SpaceRow,
    change: SpaceUpdate,
) -> DomainResult<SpaceRow> {
    if let Some(name) = &change.name {
        check_name("Name", name)?;
    }
    let metadata = MetadataChange::check(change.metadata)?;
    let mut tx = context.store.begin().await?;
    store::space_patch_tx(&mut tx, row.guid, change.name.as_deref(), None, &metadata)
        .await
        .map_err(refuse("space_name_key", taken))?;
    let event = event("audit.space.update", actor, row).with_request(json!({ "name": change.name }));
    event_record_tx(&mut tx, &event).await?;
    context.store.commit(tx, &[(ChangeKind::Space, row.guid)]).await?;
    read(context, row.guid).await
}

/// Switches SSH into the apps of a space on or off.
///
/// # Errors
/// When the database fails.
pub(crate) async fn set_ssh(
    context: &Context,
    actor: &AuditSubject,
    row: &SpaceRow,
    enabled: bool,
) -> DomainResult<()> {
    let nothing = MetadataChange::check(None)?;
    let mut tx = context.store.begin().await?;
    store::space_patch_tx(&mut tx, row.guid, None, Some(enabled), &nothing).await?;
    let event = event("audit.space.update", actor, row).with_request(json!({ "allow_ssh": enabled }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(())
}

/// Begins to delete a space with all that is in it. Gives the job, which may be open already.
///
/// # Errors
/// When the database fails.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, row: &SpaceRow) -> DomainResult<Uuid> {
    let mut tx = context.store.begin().await?;
    let job = match job_open_for_tx(&mut tx, "space.delete", row.guid).await? {
        Some(job) => job,
        None => {
            event_record_tx(&mut tx, &event("audit.space.delete-request", actor, row)).await?;
            let job = NewJob {
                operation: "space.delete",
                resource_type: "space",
                resource_guid: row.guid,
                payload: json!({ "actor_name": actor.name }),
                created_by: actor.guid.clone(),
            };
            job_create_tx(&mut tx, &job).await?
        }
    };
    tx.commit().await?;
    context.wake.jobs.wake();
    Ok(job)
}

/// Removes the routes of a space that lead to no app. Gives the job that says so; it is completed.
///
/// # Errors
/// When the database fails.
pub(crate) async fn delete_unmapped_routes(
    context: &Context,
    actor: &AuditSubject,
    row: &SpaceRow,
) -> DomainResult<Uuid> {
    let mut tx = context.store.begin().await?;
    let removed = routes_delete_unmapped_tx(&mut tx, row.guid).await?;
    for route in &removed {
        let target = AuditSubject::new("route", route, "");
        let event = NewEvent::new("audit.route.delete-request", actor.clone(), target).in_space(row.guid, row.org_guid);
        event_record_tx(&mut tx, &event).await?;
    }
    let job = NewJob {
        operation: "space.delete_unmapped_routes",
        resource_type: "space",
        resource_guid: row.guid,
        payload: json!({}),
        created_by: actor.guid.clone(),
    };
    let job = job_completed_tx(&mut tx, &job).await?;
    let changes: Vec<_> = removed.into_iter().map(|route| (ChangeKind::Route, route)).collect();
    context.store.commit(tx, &changes).await?;
    Ok(job)
}
