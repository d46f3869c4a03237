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
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::names::{check_length, check_name};
use crate::domain::stacks::{DEFAULT, STATES};
use crate::store::constraints::refuse;
use crate::store::events::event_record_tx;
use crate::store::stacks::{self as store, StackRow};

const PATH: &str = "/v3/stacks";
const SPEC: ListSpec = ListSpec { filters: &["names", "default"], order: &["name"], labels: true, ..ListSpec::PLAIN };
const MAX_REASON: usize = 5000;

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

fn check_state(state: Option<&str>, reason: Option<&str>) -> ApiResult<()> {
    if state.is_some_and(|state| !STATES.contains(&state)) {
        return Err(ApiError::unprocessable(format!("State must be one of {}", STATES.join(", "))));
    }
    Ok(check_length("State reason", reason.unwrap_or_default(), MAX_REASON)?)
}

fn audit_subject(row: &StackRow) -> AuditSubject {
    AuditSubject::new("stack", row.guid, &row.name)
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
    check_name("Name", &body.name)?;
    let description = body.description.unwrap_or_default();
    check_length("Description", &description, 250)?;
    check_state(body.state.as_deref(), body.state_reason.as_deref())?;
    let metadata = MetadataChange::check(body.metadata)?;
    let mut tx = context.store.begin().await?;
    let state = body.state.as_deref().unwrap_or("ACTIVE");
    let row = store::stack_insert_tx(&mut tx, &body.name, &description, state, body.state_reason.as_deref(), &metadata)
        .await
        .map_err(refuse("stack_name_key", || "Name must be unique".to_owned()))?;
    let event = NewEvent::new("audit.stack.create", caller.actor(), audit_subject(&row))
        .with_request(json!({ "name": row.name, "state": row.state }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
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
    let reason = body.state_reason.as_ref().and_then(Option::as_deref);
    check_state(body.state.as_deref(), reason)?;
    let metadata = MetadataChange::check(body.metadata)?;
    let warns = found.name == DEFAULT && body.state.is_some();
    let mut tx = context.store.begin().await?;
    let mut row = store::stack_lock_tx(&mut tx, found.guid).await?.ok_or_else(missing)?;
    row.state = body.state.unwrap_or(row.state);
    row.state_reason = body.state_reason.unwrap_or(row.state_reason);
    let row = store::stack_update_tx(&mut tx, &row, &metadata).await?.ok_or_else(missing)?;
    let event = NewEvent::new("audit.stack.update", caller.actor(), audit_subject(&row))
        .with_request(json!({ "state": row.state, "state_reason": row.state_reason }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    let mut response = Json(view(&base, &row)).into_response();
    if warns {
        let text =
            format!("Changing state on the default stack '{}' may affect new application deployments.", row.name);
        super::warnings::add(&mut response, &text);
    }
    Ok(response)
}

async fn remove(State(context): State<Context>, caller: Caller, Path(stack): Path<String>) -> ApiResult<StatusCode> {
    let row = find(&context, &stack).await?;
    caller.require_admin()?;
    let mut tx = context.store.begin().await?;
    if !store::stack_delete_tx(&mut tx, row.guid).await? {
        return Err(ApiError::unprocessable(format!(
            "Cannot delete stack '{}' because apps are currently using the stack.",
            row.name
        )));
    }
    let event = NewEvent::new("audit.stack.delete", caller.actor(), audit_subject(&row));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
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
