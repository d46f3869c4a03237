//! What administrators do and see of the platform as a whole.

use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use slipway_api_types::Timestamp;
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::{jobs, organizations};
use crate::context::Context;
use crate::domain::removal;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/admin/actions/clear_buildpack_cache", post(clear_buildpack_cache))
        .route("/v3/admin/background_tasks", get(background_tasks))
        .route("/v3/info/usage_summary", get(usage))
        .route("/routing/v1/router_groups", get(router_groups))
}

async fn clear_buildpack_cache(State(context): State<Context>, caller: Caller, base: BaseUrl) -> ApiResult<Response> {
    caller.require_admin()?;
    // All caches are one thing, so one nameless resource.
    let (operation, everything) = ("admin.clear_buildpack_cache", Uuid::nil());
    let job = removal::request(&context, &caller.actor(), operation, "buildpack_cache", everything).await?;
    Ok(jobs::accepted(&base, job))
}

async fn usage(State(context): State<Context>, caller: Caller, base: BaseUrl) -> ApiResult<Json<Value>> {
    if !caller.reads_all() {
        return Err(ApiError::forbidden());
    }
    let usage = context.store.usage_of_all().await?;
    Ok(Json(json!({
        "usage_summary": organizations::usage_summary(&usage),
        "links": base.links(&[("self", "/v3/info/usage_summary".to_owned())]),
    })))
}

/// What this controller does by itself, and what came of it last. Each controller knows its own.
async fn background_tasks(State(context): State<Context>, caller: Caller) -> ApiResult<Json<Value>> {
    if !caller.reads_all() {
        return Err(ApiError::forbidden());
    }
    let time = |at: Option<SystemTime>| at.map(|at| Timestamp::from(DateTime::<Utc>::from(at)));
    let tasks = context.tasks.tasks();
    let resources: Vec<Value> = tasks
        .iter()
        .map(|task| {
            let (definition, status) = (task.definition(), task.status());
            json!({
                "name": definition.name,
                "description": definition.description,
                "period_in_seconds": definition.period.as_secs_f64(),
                "woken_by": definition.woken_by,
                "runs": status.runs,
                "last_run_at": time(status.last_run),
                "last_run_took_ms": u64::try_from(status.last_duration.as_millis()).unwrap_or(u64::MAX),
                "running_since": time(status.running_since),
                "failures_in_a_row": status.failures,
                "last_error": status.last_error,
            })
        })
        .collect();
    Ok(Json(json!({ "controller": context.config.id, "resources": resources })))
}

/// None: there are no TCP routes, and HTTP routes need no group.
async fn router_groups(_caller: Caller) -> Json<Value> {
    Json(json!([]))
}
