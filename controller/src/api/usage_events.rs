//! `/v3/app_usage_events` and `/v3/service_usage_events`: for accounting, so only readers of everything see them.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{get, post};
use serde_json::{Value, json};
use slipway_api_types::{Page, Timestamp};

use super::Router;
use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use super::guid;
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use crate::context::Context;
use crate::domain::usage_events as domain;
use crate::store::usage_events::{AppUsageEventRow, ServiceUsageEventRow};

const APP_PATH: &str = "/v3/app_usage_events";
const SERVICE_PATH: &str = "/v3/service_usage_events";
const APP: ListSpec = ListSpec { filters: &["after_guid"], ..ListSpec::PLAIN };
const SERVICE: ListSpec =
    ListSpec { filters: &["after_guid", "service_instance_types", "service_offering_guids"], ..ListSpec::PLAIN };

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/app_usage_events", get(apps))
        .route("/v3/app_usage_events/{guid}", get(app))
        .route("/v3/app_usage_events/actions/destructively_purge_all_and_reseed", post(reseed_apps))
        .route("/v3/service_usage_events", get(services))
        .route("/v3/service_usage_events/{guid}", get(service))
        .route("/v3/service_usage_events/actions/destructively_purge_all_and_reseed", post(reseed_services))
}

fn app_view(base: &BaseUrl, row: &AppUsageEventRow) -> Value {
    json!({
        "guid": row.guid,
        "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.created_at),
        "state": { "current": row.state, "previous": row.previous_state },
        "app": { "guid": row.app_guid, "name": row.app_name },
        "process": { "guid": row.process_guid, "type": row.process_type },
        "space": { "guid": row.space_guid, "name": row.space_name },
        "organization": { "guid": row.org_guid },
        "buildpack": { "guid": row.buildpack_guid, "name": row.buildpack_name },
        "task": { "guid": row.task_guid, "name": row.task_name },
        "memory_in_mb_per_instance": { "current": row.memory_in_mb, "previous": row.previous_memory_in_mb },
        "instance_count": { "current": row.instances, "previous": row.previous_instances },
        "links": base.links(&[("self", format!("{APP_PATH}/{}", row.guid))]),
    })
}

fn service_view(base: &BaseUrl, row: &ServiceUsageEventRow) -> Value {
    json!({
        "guid": row.guid,
        "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.created_at),
        "state": row.state,
        "space": { "guid": row.space_guid, "name": row.space_name },
        "organization": { "guid": row.org_guid },
        "service_instance": {
            "guid": row.service_instance_guid, "name": row.service_instance_name, "type": row.service_instance_type,
        },
        "service_plan": { "guid": row.service_plan_guid, "name": row.service_plan_name },
        "service_offering": { "guid": row.service_offering_guid, "name": row.service_offering_name },
        "service_broker": { "guid": row.service_broker_guid, "name": row.service_broker_name },
        "links": base.links(&[("self", format!("{SERVICE_PATH}/{}", row.guid))]),
    })
}

/// The one guid of `after_guid`, if it was given.
fn after(query: &ListQuery) -> ApiResult<Option<&str>> {
    match query.options.filter("after_guid") {
        None => Ok(None),
        Some([one]) => Ok(Some(one)),
        Some(_) => Err(ApiError::unprocessable("After guid filter accepts only one guid")),
    }
}

fn bad_after(what: &str) -> ApiError {
    ApiError::unprocessable(format!("After guid filter must be a valid {what} usage event guid."))
}

async fn apps(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &APP)?;
    if !caller.reads_all() {
        return Ok(Json(query.page(&base, APP_PATH, 0, Vec::new())));
    }
    if let Some(after) = after(&query)? {
        let after = after.parse().map_err(|_| bad_after("app"))?;
        context.store.app_usage_get(after).await?.ok_or_else(|| bad_after("app"))?;
    }
    let (rows, total) = context.store.app_usage_list(&query.options).await?;
    let views = rows.iter().map(|row| app_view(&base, row)).collect();
    Ok(Json(query.page(&base, APP_PATH, total, views)))
}

async fn app(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(event): Path<String>,
) -> ApiResult<Json<Value>> {
    let what = "App usage event";
    if !caller.reads_all() {
        return Err(ApiError::not_found(what));
    }
    let row = context.store.app_usage_get(guid(&event, what)?).await?.ok_or_else(|| ApiError::not_found(what))?;
    Ok(Json(app_view(&base, &row)))
}

async fn reseed_apps(State(context): State<Context>, caller: Caller) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    domain::reseed_apps(&context).await?;
    Ok(Json(json!({})))
}

async fn services(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &SERVICE)?;
    if !caller.reads_all() {
        return Ok(Json(query.page(&base, SERVICE_PATH, 0, Vec::new())));
    }
    if let Some(after) = after(&query)? {
        let after = after.parse().map_err(|_| bad_after("service"))?;
        context.store.service_usage_get(after).await?.ok_or_else(|| bad_after("service"))?;
    }
    let (rows, total) = context.store.service_usage_list(&query.options).await?;
    let views = rows.iter().map(|row| service_view(&base, row)).collect();
    Ok(Json(query.page(&base, SERVICE_PATH, total, views)))
}

async fn service(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(event): Path<String>,
) -> ApiResult<Json<Value>> {
    let what = "Service usage event";
    if !caller.reads_all() {
        return Err(ApiError::not_found(what));
    }
    let row = context.store.service_usage_get(guid(&event, what)?).await?.ok_or_else(|| ApiError::not_found(what))?;
    Ok(Json(service_view(&base, &row)))
}

async fn reseed_services(State(context): State<Context>, caller: Caller) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    domain::reseed_services(&context).await?;
    Ok(Json(json!({})))
}
