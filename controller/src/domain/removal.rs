//! Deleting packages, droplets, buildpacks, quotas and security groups: rows at once, blobs when nothing
//! speaks of them any more.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::audit::{AuditSubject, NewEvent};
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::domain::JobOutcome;
use crate::store::apps::app_lock_tx;
use crate::store::buildpacks::buildpack_delete_tx;
use crate::store::change_log::ChangeKind;
use crate::store::droplets::droplet_delete_tx;
use crate::store::events::event_record_tx;
use crate::store::jobs::{ClaimedJob, NewJob, job_create_tx, job_lock_tx, job_open_for_tx};
use crate::store::packages::package_delete_tx;
use crate::store::quotas::{organization_quota_delete_tx, space_quota_delete_tx};
use crate::store::security_groups::security_group_delete_tx;

/// Pause between looks at whether the builds of a package that is to be deleted have ended.
const BUILD_PAUSE: Duration = Duration::from_millis(500);

/// Writes the job of a deletion, or finds the one that is open.
///
/// # Errors
/// When the database fails.
pub async fn request(
    context: &Context,
    actor: &AuditSubject,
    operation: &'static str,
    kind: &'static str,
    guid: Uuid,
) -> DomainResult<Uuid> {
    write(context, actor, None, operation, kind, guid).await
}

/// Writes the job of a deletion together with the event that tells of it, or finds the job that is open: then the event
/// was recorded with that one. The actor is that of the event.
///
/// # Errors
/// When the database fails.
pub async fn request_recorded(
    context: &Context,
    event: &NewEvent,
    operation: &'static str,
    kind: &'static str,
    guid: Uuid,
) -> DomainResult<Uuid> {
    write(context, &event.actor, Some(event), operation, kind, guid).await
}

async fn write(
    context: &Context,
    actor: &AuditSubject,
    event: Option<&NewEvent>,
    operation: &'static str,
    kind: &'static str,
    guid: Uuid,
) -> DomainResult<Uuid> {
    let mut tx = context.store.begin().await?;
    // Of two requests at once the second finds the job of the first.
    job_lock_tx(&mut tx, operation, guid).await?;
    if let Some(job) = job_open_for_tx(&mut tx, operation, guid).await? {
        return Ok(job);
    }
    if let Some(event) = event {
        event_record_tx(&mut tx, event).await?;
    }
    let job = NewJob {
        operation,
        resource_type: kind,
        resource_guid: guid,
        payload: json!({}),
        created_by: actor.guid.clone(),
    };
    let job = job_create_tx(&mut tx, &job).await?;
    tx.commit().await?;
    context.wake.jobs.wake();
    Ok(job)
}

/// The jobs `package.delete`, `droplet.delete`, `buildpack.delete`, `organization_quota.delete`, `space_quota.delete`,
/// `security_group.delete`, `app.clear_buildpack_cache` and `admin.clear_buildpack_cache`. A package waits for its builds.
///
/// # Errors
/// When the database fails.
pub async fn job(context: Context, job: ClaimedJob) -> DomainResult<JobOutcome> {
    let Some(guid) = job.resource_guid else { return Ok(JobOutcome::done()) };
    if job.operation.ends_with(".clear_buildpack_cache") {
        let app = (job.operation == "app.clear_buildpack_cache").then_some(guid);
        let caches = context.store.build_caches_clear(app).await?;
        context.blobs.remove_unused(&caches).await;
        return Ok(JobOutcome::done());
    }
    let store = &context.store;
    if job.operation == "package.delete" && store.package_is_staged_now(guid).await? {
        return Ok(JobOutcome::Wait(BUILD_PAUSE, false));
    }
    let (app, blob) = match job.operation.as_str() {
        "package.delete" => store.package_get(guid).await?.map_or((None, None), |row| (Some(row.app_guid), row.blob)),
        "droplet.delete" => store.droplet_get(guid).await?.map_or((None, None), |row| (Some(row.app_guid), row.blob)),
        "buildpack.delete" => (None, store.buildpack_row(guid).await?.and_then(|row| row.blob)),
        "organization_quota.delete" | "space_quota.delete" | "security_group.delete" => (None, None),
        other => return Err(DomainError::invalid(format!("{other:?} is not a deletion"))),
    };
    let mut tx = store.begin().await?;
    if let Some(app) = app {
        // Whoever starts or stages the app meanwhile has either said what it needs of this, or finds it gone.
        app_lock_tx(&mut tx, app).await?;
    }
    let mut changes = Vec::new();
    match job.operation.as_str() {
        "package.delete" => package_delete_tx(&mut tx, guid).await?,
        "droplet.delete" => droplet_delete_tx(&mut tx, guid).await?,
        "organization_quota.delete" => organization_quota_delete_tx(&mut tx, guid).await?,
        "security_group.delete" => {
            security_group_delete_tx(&mut tx, guid).await?;
            changes.push((ChangeKind::SecurityGroup, guid));
        }
        "space_quota.delete" => space_quota_delete_tx(&mut tx, guid).await?,
        _ => buildpack_delete_tx(&mut tx, guid).await?,
    }
    if changes.is_empty() {
        tx.commit().await?;
    } else {
        store.commit(tx, &changes).await?;
    }
    if let Some(blob) = blob {
        context.blobs.remove_unused(&[blob]).await;
    }
    Ok(JobOutcome::done())
}
