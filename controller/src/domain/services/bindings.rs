//! Bindings of service instances to apps.
//!
//! A user-provided instance's binding has no credentials of its own: the app gets the instance's, as they are at its
//! next start. A broker would answer with credentials for the binding, which are sealed in its own row.

use chrono::Utc;
use serde_json::{Map, Value, json};
use slipway_api_types::{ErrorCode, MetadataPatch};
use slipway_protocol::v1::Version;
use sqlx::PgConnection;
use uuid::Uuid;

use super::operation::{Kind, LastOperation, ProviderResponse, State};
use super::{commit, instances, require_user_provided, route_bindings};
use crate::context::Context;
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::compose::open_object;
use crate::domain::lifecycle::lock;
use crate::domain::metadata::MetadataChange;
use crate::domain::{DomainError, DomainResult};
use crate::store::apps::AppRow;
use crate::store::change_log::ChangeKind;
use crate::store::events::event_record_tx;
use crate::store::metadata::{Labelled, relabel_tx};
use crate::store::services::bindings::{
    BindingEnd, NewBinding, ServiceBindingRow, binding_delete_tx, binding_insert_tx, bindings_of_app_tx,
};
use crate::store::services::instances::{ServiceInstanceRow, instance_hold_tx};
use crate::store::services::shares::shared_spaces_tx;
use crate::store::specs::app_place_tx;

/// Most bindings of one app to one instance: enough to rotate credentials, few enough that forgotten ones are noticed.
const MAX_PER_INSTANCE: usize = 5;
const MAX_NAME: usize = 255;

/// Whether an app that is bound already may be bound once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// One binding.
    #[default]
    Single,
    /// A further one, which the app gets at its next start in place of the older ones.
    Multiple,
}

/// A binding to be made.
#[derive(Clone, Debug, Default)]
pub struct BindingWish {
    /// Seen by the app.
    pub name: Option<String>,
    /// Once or once more.
    pub strategy: Strategy,
    /// Labels and annotations.
    pub metadata: MetadataChange,
}

/// Place in the vault of a binding's own credentials.
#[must_use]
pub fn credentials_place(binding: Uuid) -> String {
    format!("service_binding.credentials/{binding}")
}

/// What an app gets through a binding.
///
/// # Errors
/// When it cannot be opened.
pub fn credentials_of(
    context: &Context,
    binding: Uuid,
    own: Option<&[u8]>,
    instance: Uuid,
    of_instance: Option<&[u8]>,
) -> DomainResult<Map<String, Value>> {
    match own {
        Some(_) => open_object(context, &credentials_place(binding), own),
        None => open_object(context, &instances::credentials_place(instance), of_instance),
    }
}

/// Records an event about a binding, in the space of its app.
///
/// # Errors
/// When the database fails.
pub(super) async fn record(
    tx: &mut PgConnection,
    kind: &'static str,
    actor: &AuditSubject,
    binding: &ServiceBindingRow,
    instance: &ServiceInstanceRow,
) -> DomainResult<()> {
    if binding.kind == "route" {
        return route_bindings::record(tx, kind, actor, binding, instance).await;
    }
    let target = AuditSubject::new("service_binding", binding.guid, binding.name.clone().unwrap_or_default());
    let mut event = NewEvent::new(kind, actor.clone(), target);
    if let Some(app) = binding.app_guid {
        let place = app_place_tx(tx, app).await?;
        event = event.in_space(place.space_guid, place.org_guid);
    }
    let request = json!({
        "app_guid": binding.app_guid, "service_instance_guid": instance.guid, "name": binding.name,
    });
    event_record_tx(tx, &event.with_request(request)).await?;
    Ok(())
}

fn check_name(name: &str) -> DomainResult<()> {
    if name.chars().count() > MAX_NAME {
        return Err(DomainError::invalid(
            "The binding name is invalid. App binding names must be less than 256 characters.",
        ));
    }
    if !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
        return Err(DomainError::invalid(
            "The binding name is invalid. Valid characters are alphanumeric, underscore, and dash.",
        ));
    }
    Ok(())
}

/// Binds an instance to an app.
///
/// # Errors
/// [`DomainError::NotFound`] when the app is gone; else as [`bind_tx`].
pub(crate) async fn bind(
    context: &Context,
    actor: &AuditSubject,
    app: Uuid,
    instance: Uuid,
    wish: BindingWish,
) -> DomainResult<ServiceBindingRow> {
    let mut tx = context.store.begin().await?;
    // The app first: whoever binds or deletes takes the locks in this order.
    let app = lock(&mut tx, app).await?;
    let gone = || DomainError::invalid(format!("The service instance could not be found: '{instance}'"));
    let held = instance_hold_tx(&mut tx, instance).await?.ok_or_else(gone)?;
    let row = bind_tx(&mut tx, actor, &app, &held, wish).await?;
    commit(context, tx, &changes(&row, &held)).await?;
    Ok(row)
}

/// Who must look again when a binding comes or goes: routers, and whoever forwards log lines when there is a drain.
fn changes(binding: &ServiceBindingRow, instance: &ServiceInstanceRow) -> Vec<(ChangeKind, Uuid)> {
    let drained = binding.app_guid.filter(|_| instance.syslog_drain_url.is_some());
    let route = binding.route_guid.map(|route| (ChangeKind::Route, route));
    drained.map(|app| (ChangeKind::App, app)).into_iter().chain(route).collect()
}

/// Binds an instance to an app in the caller's transaction. The app is locked, the instance held.
///
/// # Errors
/// [`DomainError::Invalid`] with the texts that clients know (`The app is already bound to the service instance`).
pub async fn bind_tx(
    tx: &mut PgConnection,
    actor: &AuditSubject,
    app: &AppRow,
    instance: &ServiceInstanceRow,
    wish: BindingWish,
) -> DomainResult<ServiceBindingRow> {
    let refused = |text: &str| Err(DomainError::invalid(text));
    if instance.space_guid != app.space_guid && !shared_spaces_tx(tx, instance.guid).await?.contains(&app.space_guid) {
        return refused("The service instance and the app are in different spaces");
    }
    require_user_provided(instance)?;
    let name = wish.name.filter(|name| !name.is_empty());
    if let Some(name) = &name {
        check_name(name)?;
    }
    let of_app = bindings_of_app_tx(tx, app.guid).await?;
    let (same, others): (Vec<_>, Vec<_>) =
        of_app.iter().partition(|binding| binding.service_instance_guid == instance.guid);
    if wish.strategy == Strategy::Single && !same.is_empty() {
        return refused("The app is already bound to the service instance");
    }
    for binding in &same {
        match LastOperation::of(&binding.last_operation).map(|last| (last.kind, last.state)) {
            Some((Kind::Create, State::Initial | State::InProgress)) => {
                return Err(DomainError::invalid(format!(
                    "There is already a binding in progress for this service instance and app (binding guid: {})",
                    binding.guid
                )));
            }
            Some((Kind::Delete, State::Initial | State::InProgress | State::Failed)) => {
                return refused(
                    "A binding for this service instance and app is getting deleted or its deletion failed",
                );
            }
            _ => {}
        }
        if binding.name != name {
            return refused("The binding name cannot be changed for the same app and service instance");
        }
    }
    if same.len() >= MAX_PER_INSTANCE {
        return Err(DomainError::invalid(format!(
            "The app has too many bindings to this service instance (limit: {MAX_PER_INSTANCE}). Consider deleting \
             existing/orphaned bindings."
        )));
    }
    if let Some(name) = &name
        && others.iter().any(|binding| binding.name.as_ref() == Some(name))
    {
        return Err(DomainError::invalid(format!(
            "The binding name is invalid. Binding names must be unique for a given service instance and app. The app \
             already has a binding with name '{name}'."
        )));
    }
    let new = NewBinding {
        guid: Uuid::new_v4(),
        credentials: None,
        instance: instance.guid,
        end: BindingEnd::App(app.guid),
        name: name.as_deref(),
        last_operation: &made(instance)?,
        metadata: &wish.metadata,
    };
    let row = binding_insert_tx(tx, &new).await?;
    record(tx, "audit.service_binding.create", actor, &row, instance).await?;
    Ok(row)
}

/// The operation of a binding that is made at once: there is nobody to ask.
pub(super) fn made(instance: &ServiceInstanceRow) -> DomainResult<Value> {
    let now = Utc::now();
    LastOperation::begin(&Value::Null, Kind::Create, &instance.name, now)?
        .answered(ProviderResponse::Done(None), now)
        .stored()
}

/// Removes a binding, to an app or to a route. Gives the version that routers must have if it was to a route.
///
/// # Errors
/// 404 when it is gone; [`DomainError::Invalid`] while an operation is under way.
pub(crate) async fn unbind(
    context: &Context,
    actor: &AuditSubject,
    binding: &ServiceBindingRow,
    instance: &ServiceInstanceRow,
) -> DomainResult<Option<Version>> {
    require_user_provided(instance)?;
    if LastOperation::begin(&binding.last_operation, Kind::Delete, &instance.name, Utc::now()).is_err() {
        return Err(DomainError::invalid("There is an operation in progress for the service binding."));
    }
    let (what, event) = match binding.kind.as_str() {
        "route" => ("Service route binding", "audit.service_route_binding.delete"),
        _ => ("Service credential binding", "audit.service_binding.delete"),
    };
    let mut tx = context.store.begin().await?;
    if !binding_delete_tx(&mut tx, binding.guid).await? {
        return Err(DomainError::NotFound(what));
    }
    record(&mut tx, event, actor, binding, instance).await?;
    commit(context, tx, &changes(binding, instance)).await
}

/// Changes labels and annotations of a binding, to an app or to a route, and gives it as it then is.
///
/// # Errors
/// [`DomainError::Invalid`] while it is being deleted, or naming what is wrong; [`DomainError::NotFound`] when it is gone.
pub(crate) async fn relabel(
    context: &Context,
    actor: &AuditSubject,
    binding: &ServiceBindingRow,
    instance: &ServiceInstanceRow,
    metadata: Option<MetadataPatch>,
) -> DomainResult<ServiceBindingRow> {
    let (what, event) = match binding.kind.as_str() {
        "route" => ("service route binding", "audit.service_route_binding.update"),
        _ => ("service binding", "audit.service_binding.update"),
    };
    if LastOperation::is_going_away(&binding.last_operation) {
        return Err(DomainError::invalid(format!("The {what} is being deleted")));
    }
    let metadata = MetadataChange::check(metadata)?;
    let mut tx = context.store.begin().await?;
    relabel_tx(&mut tx, Labelled::ServiceBinding, binding.guid, &metadata).await?;
    record(&mut tx, event, actor, binding, instance).await?;
    tx.commit().await?;
    context.store.service_binding_get(binding.guid).await?.ok_or(DomainError::NotFound("Service binding"))
}

/// Refuses to show anything of a binding that has not been made.
///
/// # Errors
/// A refusal that reads "not found", with the state.
pub(crate) fn require_made(binding: &ServiceBindingRow) -> DomainResult<()> {
    if LastOperation::has_been_made(&binding.last_operation) {
        return Ok(());
    }
    let what = if binding.kind == "key" { "key" } else { "binding" };
    let state = binding.last_operation["state"].as_str().unwrap_or("initial");
    Err(DomainError::refused(ErrorCode::ResourceNotFound, format!("Creation of service {what} {state}")))
}

/// What an app gets through a binding, for somebody who may see it; records that it was seen.
///
/// # Errors
/// As [`require_made`], and when the credentials cannot be opened.
pub(crate) async fn show_credentials(
    context: &Context,
    actor: &AuditSubject,
    binding: &ServiceBindingRow,
    instance: &ServiceInstanceRow,
) -> DomainResult<Map<String, Value>> {
    require_made(binding)?;
    let (own, of_instance) = (binding.credentials.as_deref(), instance.credentials.as_deref());
    let credentials = credentials_of(context, binding.guid, own, instance.guid, of_instance)?;
    let mut connection = context.store.pool().acquire().await?;
    record(&mut connection, "audit.service_binding.show", actor, binding, instance).await?;
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_bindings_are_checked() {
        for good in ["db", "my_db-1", &"x".repeat(255)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["a b", "a/b", "a.b", &"x".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
