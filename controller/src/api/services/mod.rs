//! Service instances, their bindings, and what brokers would offer.

pub mod bindings;
pub mod fields;
pub mod instances;
pub mod offerings;
pub mod route_bindings;
pub mod sharing;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use super::permissions::{SpaceAccess, SpaceAction};
use crate::context::Context;
use crate::domain::services::operation::LastOperation;
use crate::store::services::ServiceInstanceRow;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .merge(instances::routes())
        .merge(sharing::routes())
        .merge(bindings::routes())
        .merge(route_bindings::routes())
        .merge(offerings::routes())
}

const INSTANCE: &str = "Service instance";

/// An instance that the caller may see: in its own space, or in one that it is shared with.
async fn readable(context: &Context, caller: &Caller, guid: Uuid) -> ApiResult<Option<ServiceInstanceRow>> {
    let Some(row) = context.store.service_instance_get(guid).await? else { return Ok(None) };
    let visible = caller.visible_spaces(context).await?;
    if visible.contains(row.space_guid) {
        return Ok(Some(row));
    }
    let shares = context.store.service_instance_shares(guid).await?;
    Ok(shares.iter().any(|share| visible.contains(share.space_guid)).then_some(row))
}

/// The instance of a path, if the caller may do this in its own space.
///
/// # Errors
/// 404 when it cannot be seen at all, 403 when it is seen only as a shared one, or the role does not allow it.
async fn require(
    context: &Context,
    caller: &Caller,
    text: &str,
    action: SpaceAction,
) -> ApiResult<(ServiceInstanceRow, SpaceAccess)> {
    let missing = || ApiError::not_found(INSTANCE);
    let row = readable(context, caller, super::guid(text, INSTANCE)?).await?.ok_or_else(missing)?;
    match caller.require_space(context, row.space_guid, INSTANCE, action).await {
        Ok(access) => Ok((row, access)),
        // Visible all the same, so not "not found".
        Err(error) if error.status() == http::StatusCode::NOT_FOUND => Err(ApiError::forbidden()),
        Err(error) => Err(error),
    }
}

/// `last_operation` as clients read it; an empty object for what never had one.
fn last_operation(stored: &Value) -> Value {
    LastOperation::of(stored).and_then(|last| serde_json::to_value(last).ok()).unwrap_or_else(|| json!({}))
}

/// A guid in a to-one relationship of a body, with the text it came as.
fn wanted(relationship: &slipway_api_types::ToOne) -> (Option<Uuid>, String) {
    let text = relationship.guid().unwrap_or_default().to_owned();
    (text.parse().ok(), text)
}

/// A body's object, with Cloud Foundry's words for anything else; null is none.
fn object(what: &str, value: Value) -> ApiResult<Option<Map<String, Value>>> {
    match value {
        Value::Null => Ok(None),
        Value::Object(map) => Ok(Some(map)),
        _ => Err(ApiError::unprocessable(format!("{what} must be an object"))),
    }
}
