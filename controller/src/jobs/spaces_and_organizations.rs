//! Deletion of spaces and organizations, with everything in them.

use std::time::Duration;

use uuid::Uuid;

use super::JobOutcome;
use crate::context::Context;
use crate::domain::audit::AuditSubject;
use crate::domain::domains::refuse_shared_domains_tx;
use crate::domain::{DomainError, DomainResult, apps};
use crate::store::change_log::ChangeKind;
use crate::store::domains::routes_of_own_domains_delete_tx;
use crate::store::jobs::{ClaimedJob, NewJob, job_create_tx, job_open_for_tx};
use crate::store::organizations::organization_delete_tx;
use crate::store::spaces::{organization_spaces_tx, space_apps_tx, space_delete_tx};

/// Between two looks at what is still being deleted.
const LOOK: Duration = Duration::from_millis(500);

fn resource(job: &ClaimedJob) -> DomainResult<Uuid> {
    job.resource_guid.ok_or_else(|| DomainError::invalid("The job does not say what to delete."))
}

/// Whoever asked for the job, as actor of the deletions that follow from it.
fn actor(job: &ClaimedJob) -> AuditSubject {
    let guid = job.created_by.as_deref().unwrap_or("system");
    AuditSubject::new("user", guid, job.payload["actor_name"].as_str().unwrap_or_default())
}

/// Asks for the deletion of a space, unless that is asked for already.
async fn ask_for_space(context: &Context, job: &ClaimedJob, space: Uuid) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    if job_open_for_tx(&mut tx, "space.delete", space).await?.is_none() {
        let new = NewJob {
            operation: "space.delete",
            resource_type: "space",
            resource_guid: space,
            payload: job.payload.clone(),
            created_by: job.created_by.clone().unwrap_or_default(),
        };
        job_create_tx(&mut tx, &new).await?;
    }
    tx.commit().await?;
    context.wake.jobs.wake();
    Ok(())
}

/// `space.delete`: its apps first, each by its own job, because their instances must stop; then the rest at once.
///
/// # Errors
/// When the database fails.
pub async fn delete_space(context: Context, job: ClaimedJob) -> DomainResult<JobOutcome> {
    let space = resource(&job)?;
    let mut connection = context.store.pool().acquire().await?;
    let left = space_apps_tx(&mut connection, space).await?;
    drop(connection);
    if !left.is_empty() {
        for app in left {
            match apps::delete(&context, &actor(&job), app).await {
                // Gone between the look and the request.
                Ok(_) | Err(DomainError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        return Ok(JobOutcome::Wait(LOOK, false));
    }
    let mut tx = context.store.begin().await?;
    let routes = space_delete_tx(&mut tx, space).await?;
    let changes: Vec<_> = routes.into_iter().map(|route| (ChangeKind::Route, route)).collect();
    context.store.commit(tx, &changes).await?;
    Ok(JobOutcome::done())
}

/// `organization.delete`: its spaces first, each by its own job.
///
/// # Errors
/// When the database fails.
pub async fn delete_organization(context: Context, job: ClaimedJob) -> DomainResult<JobOutcome> {
    let org = resource(&job)?;
    let mut connection = context.store.pool().acquire().await?;
    let spaces = organization_spaces_tx(&mut connection, org).await?;
    refuse_shared_domains_tx(&mut connection, org).await?;
    drop(connection);
    if !spaces.is_empty() {
        for space in spaces {
            ask_for_space(&context, &job, space).await?;
        }
        return Ok(JobOutcome::Wait(LOOK, false));
    }
    let mut tx = context.store.begin().await?;
    refuse_shared_domains_tx(&mut tx, org).await?;
    let routes = routes_of_own_domains_delete_tx(&mut tx, org).await?;
    organization_delete_tx(&mut tx, org).await?;
    let changes: Vec<_> = routes.into_iter().map(|route| (ChangeKind::Route, route)).collect();
    context.store.commit(tx, &changes).await?;
    Ok(JobOutcome::done())
}
