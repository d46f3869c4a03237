//! Sharing service instances with other spaces.
//!
//! As on Cloud Foundry, what a developer provides cannot be shared: it is made anew in the other space. Instances of
//! brokers can.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::operation::{Kind, LastOperation, State};
use super::{bindings, commit};
use crate::context::Context;
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::{DomainError, DomainResult};
use crate::store::change_log::ChangeKind;
use crate::store::events::event_record_tx;
use crate::store::services::bindings::{binding_delete_tx, bindings_in_space_tx};
use crate::store::services::instances::{ServiceInstanceRow, instance_lock_tx};
use crate::store::services::shares::{name_in_space_tx, share_add_tx, share_remove_tx, shared_spaces_tx};

/// A space to share with.
#[derive(Clone, Debug)]
pub struct Target {
    /// The space.
    pub guid: Uuid,
    /// Its name.
    pub name: String,
}

/// Records an event about sharing.
///
/// # Errors
/// When the database fails.
pub(super) async fn record(
    tx: &mut PgConnection,
    kind: &'static str,
    actor: &AuditSubject,
    instance: &ServiceInstanceRow,
    org: Uuid,
    spaces: &[Uuid],
) -> DomainResult<()> {
    let mut event =
        NewEvent::new(kind, actor.clone(), AuditSubject::new("service_instance", instance.guid, &instance.name))
            .in_space(instance.space_guid, org);
    event = match (kind, spaces) {
        ("audit.service_instance.unshare", [space]) => event.with("target_space_guid", space.to_string()),
        _ => event.with("target_space_guids", json!(spaces)),
    };
    event_record_tx(tx, &event).await?;
    Ok(())
}

/// Shares an instance with spaces, with all or with none. `org` is the organization of its own space.
///
/// # Errors
/// [`DomainError::Invalid`] with the texts that clients know; 404 when it is gone.
pub(crate) async fn share(
    context: &Context,
    actor: &AuditSubject,
    org: Uuid,
    instance: Uuid,
    targets: &[Target],
) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    let row = instance_lock_tx(&mut tx, instance).await?.ok_or(DomainError::NotFound("Service instance"))?;
    if row.route_service_url.is_some() {
        return Err(DomainError::invalid("Route services cannot be shared."));
    }
    if row.is_user_provided() {
        return Err(DomainError::invalid("User-provided services cannot be shared."));
    }
    let name = &row.name;
    let shared_with = shared_spaces_tx(&mut tx, row.guid).await?;
    for target in targets {
        if target.guid == row.space_guid {
            return Err(DomainError::invalid(format!(
                "Unable to share service instance '{name}' with space '{}'. Service instances cannot be shared into \
                 the space where they were created.",
                row.space_guid
            )));
        }
        let (own, shared) = name_in_space_tx(&mut tx, target.guid, name, row.guid).await?;
        if own {
            return Err(DomainError::invalid(format!(
                "A service instance called {name} already exists in {}.",
                target.name
            )));
        }
        // Cloud Foundry counts the instance itself as well: `cf share-service` takes the refusal as done.
        if shared || shared_with.contains(&target.guid) {
            return Err(DomainError::invalid(format!(
                "A service instance called {name} has already been shared with {}.",
                target.name
            )));
        }
    }
    match LastOperation::of(&row.last_operation).map(|last| (last.kind, last.state)) {
        Some((Kind::Create, State::Initial | State::InProgress)) => {
            return Err(DomainError::invalid(
                "Service instance is currently being created. It can be shared after its creation succeeded.",
            ));
        }
        Some((Kind::Create, State::Failed)) => return Err(DomainError::NotFound("Service instance")),
        Some((Kind::Delete, State::Initial | State::InProgress)) => {
            return Err(DomainError::invalid("The service instance is getting deleted."));
        }
        _ => {}
    }
    for target in targets {
        share_add_tx(&mut tx, instance, target.guid).await?;
    }
    let spaces: Vec<Uuid> = targets.iter().map(|target| target.guid).collect();
    record(&mut tx, "audit.service_instance.share", actor, &row, org, &spaces).await?;
    tx.commit().await?;
    Ok(())
}

/// Ends a share, with the bindings of the space's apps. `org` is the organization of the instance's own space.
///
/// # Errors
/// 404 when the instance is gone.
pub(crate) async fn unshare(
    context: &Context,
    actor: &AuditSubject,
    org: Uuid,
    instance: Uuid,
    space: Uuid,
) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    let row = instance_lock_tx(&mut tx, instance).await?.ok_or(DomainError::NotFound("Service instance"))?;
    let mut changes = Vec::new();
    for binding in bindings_in_space_tx(&mut tx, instance, space).await? {
        binding_delete_tx(&mut tx, binding.guid).await?;
        bindings::record(&mut tx, "audit.service_binding.delete", actor, &binding, &row).await?;
        changes.extend(binding.app_guid.map(|app| (ChangeKind::App, app)));
    }
    share_remove_tx(&mut tx, instance, space).await?;
    record(&mut tx, "audit.service_instance.unshare", actor, &row, org, &[space]).await?;
    commit(context, tx, &changes).await?;
    Ok(())
}
