//! Bindings of service instances to routes: requests of such a route go through the instance's route service.

use rand::RngCore as _;
use serde_json::json;
use slipway_api_types::ErrorCode;
use slipway_protocol::v1::Version;
use sqlx::PgConnection;
use uuid::Uuid;

use super::bindings::{credentials_place, made};
use super::operation::LastOperation;
use super::{commit, require_user_provided};
use crate::context::Context;
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::constraints::refuse;
use crate::domain::metadata::MetadataChange;
use crate::domain::{DomainError, DomainResult};
use crate::store::change_log::ChangeKind;
use crate::store::domains::domain_get_tx;
use crate::store::events::event_record_tx;
use crate::store::routes::{RouteRow, route_lock_tx};
use crate::store::services::bindings::{
    BindingEnd, NewBinding, ServiceBindingRow, binding_insert_tx, binding_of_route_tx,
};
use crate::store::services::instances::{ServiceInstanceRow, instance_hold_tx};
use crate::store::spaces::space_org_tx;

const ONE_SERVICE: &str = "A route may only be bound to a single service instance";

/// Records an event about a binding, in the space of its instance, which is the route's too.
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
    let mut event = NewEvent::new(kind, actor.clone(), AuditSubject::new("service_route_binding", binding.guid, ""));
    if let Some(org) = space_org_tx(tx, instance.space_guid).await? {
        event = event.in_space(instance.space_guid, org);
    }
    let request = json!({ "route_guid": binding.route_guid, "service_instance_guid": instance.guid });
    event_record_tx(tx, &event.with_request(request)).await?;
    Ok(())
}

/// What has been bound.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    /// The binding.
    pub(crate) row: ServiceBindingRow,
    /// The instance, as it was held meanwhile.
    pub(crate) instance: ServiceInstanceRow,
    /// What routers must have before it is in force.
    pub(crate) version: Option<Version>,
}

/// Binds an instance to a route.
///
/// # Errors
/// [`DomainError::NotFound`] when the route is gone; [`DomainError::Invalid`] with the texts that clients know;
/// `CF-ServiceInstanceAlreadyBoundToSameRoute`.
pub(crate) async fn bind(
    context: &Context,
    actor: &AuditSubject,
    route: Uuid,
    instance: Uuid,
    metadata: &MetadataChange,
) -> DomainResult<Bound> {
    let mut tx = context.store.begin().await?;
    let route = route_lock_tx(&mut tx, route).await?.ok_or(DomainError::NotFound("Route"))?;
    let gone = || DomainError::invalid(format!("The service instance could not be found: {instance}"));
    let instance = instance_hold_tx(&mut tx, instance).await?.ok_or_else(gone)?;
    let row = bind_tx(context, &mut tx, actor, &route, &instance, metadata).await?;
    let version = commit(context, tx, &[(ChangeKind::Route, route.guid)]).await?;
    Ok(Bound { row, instance, version })
}

/// Binds in the caller's transaction. The route is locked, the instance held.
async fn bind_tx(
    context: &Context,
    tx: &mut PgConnection,
    actor: &AuditSubject,
    route: &RouteRow,
    instance: &ServiceInstanceRow,
    metadata: &MetadataChange,
) -> DomainResult<ServiceBindingRow> {
    let refused = |text: &str| Err(DomainError::invalid(text));
    if instance.route_service_url.is_none() {
        return refused("This service instance does not support route binding");
    }
    require_user_provided(instance)?;
    if domain_get_tx(tx, route.domain_guid).await?.is_none_or(|domain| domain.internal) {
        return refused("Route services cannot be bound to internal routes");
    }
    if route.space_guid != instance.space_guid {
        return refused("The service instance and the route are in different spaces");
    }
    if let Some(bound) = binding_of_route_tx(tx, route.guid).await? {
        if bound.service_instance_guid != instance.guid {
            return refused(ONE_SERVICE);
        }
        if LastOperation::is_going_away(&bound.last_operation) {
            return refused("The binding is getting deleted or its deletion failed");
        }
        return Err(DomainError::refused(
            ErrorCode::ServiceInstanceAlreadyBoundToSameRoute,
            "The route and service instance are already bound.",
        ));
    }
    let guid = Uuid::new_v4();
    // Routers sign with it what they send to the service, and know by it what comes back.
    let mut secret = zeroize::Zeroizing::new([0_u8; 32]);
    rand::rng().fill_bytes(secret.as_mut_slice());
    let new = NewBinding {
        guid,
        credentials: Some(&context.vault.seal(&credentials_place(guid), secret.as_slice())?),
        instance: instance.guid,
        end: BindingEnd::Route(route.guid),
        name: None,
        last_operation: &made(instance)?,
        metadata,
    };
    let row =
        binding_insert_tx(tx, &new).await.map_err(refuse("service_binding_route_key", || ONE_SERVICE.to_owned()))?;
    record(tx, "audit.service_route_binding.create", actor, &row, instance).await?;
    Ok(row)
}
