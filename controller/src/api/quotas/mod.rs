//! `/v3/organization_quotas` and `/v3/space_quotas`.

mod organization;
mod space;

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use slipway_api_types::{Ref, Timestamp, ToMany};
use uuid::Uuid;

use super::Router;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use crate::context::Context;
use crate::store::quotas::QuotaRow;

/// Endpoints.
pub fn routes() -> Router<Context> {
    organization::routes().merge(space::routes())
}

/// The sections that both kinds have.
fn view(base: &BaseUrl, row: &QuotaRow, path: &str) -> Value {
    json!({
        "guid": row.guid, "name": row.name,
        "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.updated_at),
        "apps": {
            "total_memory_in_mb": row.total_memory_in_mb, "per_process_memory_in_mb": row.per_process_memory_in_mb,
            "total_instances": row.total_instances, "per_app_tasks": row.per_app_tasks,
            "log_rate_limit_in_bytes_per_second": row.log_rate_limit_in_bytes_per_second,
        },
        "services": {
            "paid_services_allowed": row.paid_services_allowed, "total_service_instances": row.total_service_instances,
            "total_service_keys": row.total_service_keys,
        },
        "routes": { "total_routes": row.total_routes, "total_reserved_ports": row.total_reserved_ports },
        "links": base.links(&[("self", format!("{path}/{}", row.guid))]),
    })
}

/// Pairs of quota and member, as references by quota.
fn by_quota(pairs: Vec<(Uuid, Uuid)>, visible: impl Fn(Uuid) -> bool) -> HashMap<Uuid, Vec<Ref>> {
    let mut members: HashMap<Uuid, Vec<Ref>> = HashMap::new();
    for (quota, member) in pairs.into_iter().filter(|(_, member)| visible(*member)) {
        members.entry(quota).or_default().push(Ref::to(member));
    }
    members
}

/// A to-many relationship of a body.
fn to_many(relationships: &mut Map<String, Value>, name: &str) -> ApiResult<ToMany> {
    match relationships.remove(name) {
        None => Ok(ToMany::default()),
        Some(value) => serde_json::from_value(value).map_err(|_| {
            ApiError::unprocessable(format!("Relationships {name} must be structured like this: \"{name}: {{\"data\": [{{\"guid\": \"valid-guid\"}}]}}\""))
        }),
    }
}

/// `relationships` of a body; absent is empty.
fn relationships(body: &mut Map<String, Value>) -> ApiResult<Map<String, Value>> {
    match body.remove("relationships") {
        None => Ok(Map::new()),
        Some(Value::Object(members)) => Ok(members),
        Some(_) => Err(ApiError::unprocessable("Relationships must be an object")),
    }
}
