//! `/v3/stacks`: what apps run on, and whether new ones may still be made for it.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{MetadataPatch, Page, Timestamp};

use super::Router;
use super::auth_extract::Caller;
use super::body::{JsonBody, present};
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::{apps, guid};
use crate::context::Context;
use crate::domain::metadata::metadata_of;
use crate::domain::stacks::{self as domain, DEFAULT, StackCreate, StackUpdate};
use crate::store::stacks::StackRow;

const PATH: &str = "/v3/stacks";
const SPEC: ListSpec = ListSpec { filters: &["names", "default"], order: &["name"], labels: true, ..ListSpec::PLAIN };

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/stacks", get(list).post(create))
        .route("/v3/stacks/{guid}", get(one).patch(update).delete(remove))
        .route("/v3/stacks/{guid}/apps", get(apps_of))
}

fn view(base: &BaseUrl, row: &StackRow) -> Value {
    json!({
        "guid": row.guid, "name": row.name, "description": row.description, "state": row.state,
        "state_reason": row.state_reason, "default": row.name == DEFAULT,
        "build_rootfs_image": row.name, "run_rootfs_image": row.name,
        "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.updated_at),
        "metadata": metadata_of(&row.labels, &row.annotations),
        "links": base.links(&[("self", format!("{PATH}/{}", row.guid))]),
    })
}

fn missing() -> ApiError {
    ApiError::not_found("Stack")
}

async fn find(context: &Context, text: &str) -> ApiResult<StackRow> {
    context.store.stack_get(guid(text, "Stack")?).await?.ok_or_else(missing)
}

async fn list(
    State(context): State<Context>,
    _caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    let (rows, total) = context.store.stack_list(&query.options, DEFAULT).await?;
    let views = rows.iter().map(|row| view(&base, row)).collect();
    Ok(Json(query.page(&base, PATH, total, views)))
}

async fn one(
    State(context): State<Context>,
    _caller: Caller,
    base: BaseUrl,
    Path(stack): Path<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(view(&base, &find(&context, &stack).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    state_reason: Option<String>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let wish = StackCreate {
        name: body.name,
        description: body.description.unwrap_or_default(),
        state: body.state,
        state_reason: body.state_reason,
        metadata: body.metadata,
    };
    let row = domain::create(&context, &caller.actor(), wish).await?;
    Ok((StatusCode::CREATED, Json(view(&base, &row))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default)]
    state: Option<String>,
    #[serde(default, deserialize_with = "present")]
    state_reason: Option<Option<String>>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(stack): Path<String>,
    JsonBody(body): JsonBody<Update>,
) -> ApiResult<Response> {
    let found = find(&context, &stack).await?;
    caller.require_admin()?;
    let change = StackUpdate { state: body.state, state_reason: body.state_reason, metadata: body.metadata };
    let (row, warning) = domain::update(&context, &caller.actor(), &found, change).await?;
    let mut response = Json(view(&base, &row)).into_response();
    if let Some(warning) = warning {
        super::warnings::add(&mut response, &warning);
    }
    Ok(response)
}

async fn remove(State(context): State<Context>, caller: Caller, Path(stack): Path<String>) -> ApiResult<StatusCode> {
    let row = find(&context, &stack).await?;
    caller.require_admin()?;
    domain::delete(&context, &caller.actor(), &row).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn apps_of(
    context: State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(stack): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<slipway_api_types::views::AppView>>> {
    let row = find(&context, &stack).await?;
    let path = format!("{PATH}/{}/apps", row.guid);
    apps::page(&context, &caller, &base, query.as_deref(), &path, Some(row.name)).await
}
