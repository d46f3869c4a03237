//! `/v3/feature_flags`, and what they switch off.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{ErrorCode, Page, Timestamp};

use super::Router;
use super::auth_extract::Caller;
use super::body::{JsonBody, present};
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use crate::context::Context;
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::names::check_length;
use crate::store::events::event_record_tx;
use crate::store::feature_flags::{FeatureFlagRow, feature_flag_set_tx};

const MAX_MESSAGE: usize = 250;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new().route("/v3/feature_flags", get(list)).route("/v3/feature_flags/{name}", get(one).patch(update))
}

/// Whether a flag is on; one that does not exist is off.
///
/// # Errors
/// When the database fails.
pub async fn enabled(context: &Context, name: &str) -> ApiResult<bool> {
    Ok(context.store.feature_flag_get(name).await?.is_some_and(|flag| flag.enabled))
}

/// Refuses what a flag switches off. Admins are not asked.
///
/// # Errors
/// 403 `CF-FeatureDisabled`, with the flag's own message if it has one.
pub async fn require(context: &Context, name: &str) -> ApiResult<()> {
    match context.store.feature_flag_get(name).await? {
        Some(flag) if flag.enabled => Ok(()),
        flag => {
            let message = flag.and_then(|flag| flag.custom_error_message).unwrap_or_else(|| name.to_owned());
            Err(ApiError::new(ErrorCode::FeatureDisabled, format!("Feature Disabled: {message}")))
        }
    }
}

/// As [`require`], for somebody whom flags do not bind when it is an administrator.
///
/// # Errors
/// As [`require`].
pub async fn require_for(context: &Context, caller: &Caller, name: &str) -> ApiResult<()> {
    if caller.is_admin { Ok(()) } else { require(context, name).await }
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
    if let Some(Some(message)) = &body.custom_error_message {
        check_length("Custom error message", message, MAX_MESSAGE)?;
    }
    let mut tx = context.store.begin().await?;
    let message = body.custom_error_message.as_ref().map(Option::as_deref);
    let row = feature_flag_set_tx(&mut tx, &name, body.enabled, message).await?.ok_or_else(missing)?;
    let event =
        NewEvent::new("audit.feature_flag.update", caller.actor(), AuditSubject::new("feature_flag", &name, &name))
            .with_request(json!({ "enabled": row.enabled, "custom_error_message": row.custom_error_message }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(Json(view(&base, &row)))
}
