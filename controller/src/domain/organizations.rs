//! Making, changing and deleting organizations.

use serde_json::json;
use slipway_api_types::MetadataPatch;
use uuid::Uuid;

use super::audit::{AuditSubject, NewEvent};
use super::domains::refuse_shared_domains_tx;
use super::metadata::MetadataChange;
use super::names::check_name;
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::domain::constraints::refuse;
use crate::store::change_log::ChangeKind;
use crate::store::domains::{DomainRow, domain_default_tx};
use crate::store::events::event_record_tx;
use crate::store::jobs::{NewJob, job_create_tx, job_open_for_tx};
use crate::store::organizations::{self as store, OrganizationRow};
use crate::store::roles::role_insert_tx;

/// An organization to be made.
#[derive(Clone, Debug)]
pub(crate) struct OrganizationCreate {
    /// Unique.
    pub(crate) name: String,
    /// Only admins may change anything in it.
    pub(crate) suspended: bool,
    /// Labels and annotations.
    pub(crate) metadata: Option<MetadataPatch>,
}

/// A change of an organization; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct OrganizationUpdate {
    /// Unique.
    pub(crate) name: Option<String>,
    /// Only admins may change anything in it.
    pub(crate) suspended: Option<bool>,
    /// Labels and annotations.
    pub(crate) metadata: Option<MetadataPatch>,
}

fn event(kind: &'static str, actor: &AuditSubject, row: &OrganizationRow) -> NewEvent {
    let target = AuditSubject::new("organization", row.guid, &row.name);
    NewEvent::new(kind, actor.clone(), target).in_org(row.guid)
}

/// Makes an organization that the actor manages.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn create(
    context: &Context,
    actor: &AuditSubject,
    wish: OrganizationCreate,
) -> DomainResult<OrganizationRow> {
    check_name("Name", &wish.name)?;
    let metadata = MetadataChange::check(wish.metadata)?;
    let mut tx = context.store.begin().await?;
    let row = store::organization_insert_tx(&mut tx, &wish.name, wish.suspended, &metadata)
        .await
        .map_err(refuse("organization_name_key", || format!("Organization '{}' already exists.", wish.name)))?;
    // Clients do not ask for the roles of the creator.
    for role in ["organization_user", "organization_manager"] {
        role_insert_tx(&mut tx, role, &actor.guid, row.guid, None).await?;
    }
    let event = event("audit.organization.create", actor, &row).with_request(json!({ "name": row.name }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(row)
}

/// Changes an organization.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn update(
    context: &Context,
    actor: &AuditSubject,
    guid: Uuid,
    change: OrganizationUpdate,
) -> DomainResult<OrganizationRow> {
    if let Some(name) = &change.name {
        check_name("Name", name)?;
    }
    let metadata = MetadataChange::check(change.metadata)?;
    let mut tx = context.store.begin().await?;
    let name = change.name.as_deref();
    let row = store::organization_patch_tx(&mut tx, guid, name, change.suspended, &metadata)
        .await
        .map_err(refuse("organization_name_key", || {
            format!("Organization name '{}' is already taken.", name.unwrap_or_default())
        }))?
        .ok_or(DomainError::NotFound("Organization"))?;
    let event = event("audit.organization.update", actor, &row)
        .with_request(json!({ "name": change.name, "suspended": change.suspended }));
    event_record_tx(&mut tx, &event).await?;
    context.store.commit(tx, &[(ChangeKind::Organization, row.guid)]).await?;
    Ok(row)
}

/// Begins to delete an organization with all that is in it. Gives the job, which may be open already.
///
/// # Errors
/// [`DomainError::Invalid`] while others use its domains.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, row: &OrganizationRow) -> DomainResult<Uuid> {
    let mut tx = context.store.begin().await?;
    let job = match job_open_for_tx(&mut tx, "organization.delete", row.guid).await? {
        Some(job) => job,
        None => {
            refuse_shared_domains_tx(&mut tx, row.guid).await?;
            event_record_tx(&mut tx, &event("audit.organization.delete-request", actor, row)).await?;
            let job = NewJob {
                operation: "organization.delete",
                resource_type: "organization",
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

/// The domain of routes for which nobody names one.
///
/// # Errors
/// [`DomainError::NotFound`].
pub(crate) async fn default_domain(context: &Context, org: Uuid) -> DomainResult<DomainRow> {
    let mut connection = context.store.pool().acquire().await?;
    domain_default_tx(&mut connection, org).await?.ok_or(DomainError::NotFound("Domain"))
}
