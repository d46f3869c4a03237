//! `/v3/environment_variable_groups/running` and `…/staging`.

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use slipway_api_types::Timestamp;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use crate::context::Context;
use crate::domain::compose::{group_place, open_object};
use crate::domain::environment_groups;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new().route("/v3/environment_variable_groups/{name}", get(one).patch(update))
}

async fn view(context: &Context, base: &BaseUrl, name: &str) -> ApiResult<Json<Value>> {
    let missing = || ApiError::not_found("Environment variable group");
    let row = context.store.environment_group_get(name).await?.ok_or_else(missing)?;
    let var = open_object(context, &group_place(name), row.var.as_deref())?;
    Ok(Json(json!({
        "name": row.name, "var": var, "updated_at": Timestamp::from(row.updated_at),
        "links": base.links(&[("self", format!("/v3/environment_variable_groups/{name}"))]),
    })))
}

async fn one(
    State(context): State<Context>,
    _caller: Caller,
    base: BaseUrl,
    Path(name): Path<String>,
) -> ApiResult<Json<Value>> {
    view(&context, &base, &name).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default)]
    var: Map<String, Value>,
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<Update>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    environment_groups::merge(&context, &caller.actor(), &name, body.var).await?;
    view(&context, &base, &name).await
}
