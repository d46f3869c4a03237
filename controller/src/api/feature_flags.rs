//! `/v3/feature_flags`, and what they switch off.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{Page, Timestamp};

use super::Router;
use super::auth_extract::Caller;
use super::body::{JsonBody, present};
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use crate::context::Context;
use crate::domain::feature_flags::{self as domain, FlagUpdate};
pub(super) use crate::domain::feature_flags::{enabled, require};
use crate::store::feature_flags::FeatureFlagRow;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new().route("/v3/feature_flags", get(list)).route("/v3/feature_flags/{name}", get(one).patch(update))
}

/// As [`require`], for somebody whom flags do not bind when it is an administrator.
///
/// # Errors
/// As [`require`].
pub async fn require_for(context: &Context, caller: &Caller, name: &str) -> ApiResult<()> {
    if caller.is_admin { Ok(()) } else { Ok(require(context, name).await?) }
}

fn view(base: &BaseUrl, row: &FeatureFlagRow) -> Value {
    json!({
        "name": row.name, "enabled": row.enabled, "custom_error_message": row.custom_error_message,
        "updated_at": Timestamp::from(row.updated_at),
        "links": base.links(&[("self", format!("/v3/feature_flags/{}", row.name))]),
    })
}

async fn list(
    State(context): State<Context>,
    _caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &ListSpec::PLAIN)?;
    let (rows, total) = context.store.feature_flag_list(&query.options).await?;
    let views = rows.iter().map(|row| view(&base, row)).collect();
    Ok(Json(query.page(&base, "/v3/feature_flags", total, views)))
}

async fn one(
    State(context): State<Context>,
    _caller: Caller,
    base: BaseUrl,
    Path(name): Path<String>,
) -> ApiResult<Json<Value>> {
    let row = context.store.feature_flag_get(&name).await?.ok_or_else(|| ApiError::not_found("Feature flag"))?;
    Ok(Json(view(&base, &row)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    custom_error_message: Option<Option<String>>,
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<Update>,
) -> ApiResult<Json<Value>> {
    let missing = || ApiError::not_found("Feature flag");
    context.store.feature_flag_get(&name).await?.ok_or_else(missing)?;
    caller.require_admin()?;
    let change = FlagUpdate { enabled: body.enabled, custom_error_message: body.custom_error_message };
    let row = domain::update(&context, &caller.actor(), &name, change).await?;
    Ok(Json(view(&base, &row)))
}
