//! Sidecars of an app and of a process.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{Page, Timestamp};
use uuid::Uuid;

use super::Router;
use super::apps::find;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::ApiResult;
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::of_app::{self, Shown, by_guid, of_app};
use super::permissions::SpaceAction;
use crate::context::Context;
use crate::domain::sidecars::{self, SidecarChange};
use crate::store::processes::ProcessRow;
use crate::store::sidecars::SidecarRow;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/apps/{guid}/sidecars", get(list_of_app).post(create))
        .route("/v3/processes/{guid}/sidecars", get(list_of_process))
        .route("/v3/sidecars/{guid}", get(of_app::one::<SidecarRow>).patch(update).delete(remove))
}

of_app!(SidecarRow, "Sidecar", sidecar_get);

impl Shown for SidecarRow {
    type View = Value;

    fn show(self, _: &BaseUrl) -> ApiResult<Value> {
        Ok(view(&self))
    }
}

fn view(row: &SidecarRow) -> Value {
    let mut process_types = row.process_types.clone();
    process_types.sort();
    json!({
        "guid": row.guid, "name": row.name, "command": row.command, "process_types": process_types,
        "memory_in_mb": row.memory_in_mb, "origin": row.origin,
        "relationships": { "app": { "data": { "guid": row.app_guid } } },
        "created_at": Timestamp(row.created_at), "updated_at": Timestamp(row.updated_at),
    })
}

async fn page(
    context: &Context,
    base: &BaseUrl,
    query: Option<&str>,
    path: &str,
    app: Uuid,
    kind: Option<&str>,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query, &ListSpec::PLAIN)?;
    let (rows, total) = context.store.sidecar_list(&query.options, app, kind).await?;
    Ok(Json(query.page(base, path, total, rows.iter().map(view).collect())))
}

async fn list_of_app(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    let path = format!("/v3/apps/{}/sidecars", app.guid);
    page(&context, &base, query.as_deref(), &path, app.guid, None).await
}

async fn list_of_process(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let row: ProcessRow = by_guid(&context, &caller, &guid, SpaceAction::Read).await?;
    let path = format!("/v3/processes/{}/sidecars", row.guid);
    page(&context, &base, query.as_deref(), &path, row.app_guid, Some(&row.kind)).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SidecarBody {
    name: Option<String>,
    command: Option<String>,
    process_types: Option<Vec<String>>,
    #[serde(default, deserialize_with = "super::numbers::whole_present")]
    memory_in_mb: Option<Option<i64>>,
}

impl From<SidecarBody> for SidecarChange {
    fn from(body: SidecarBody) -> Self {
        Self { name: body.name, command: body.command, process_types: body.process_types, memory_mb: body.memory_in_mb }
    }
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    Path(guid): Path<String>,
    JsonBody(body): JsonBody<SidecarBody>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let app = find(&context, &caller, &guid, SpaceAction::Develop).await?;
    let row = sidecars::create(&context, app.guid, body.into()).await?;
    Ok((StatusCode::CREATED, Json(view(&row))))
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    Path(guid): Path<String>,
    JsonBody(body): JsonBody<SidecarBody>,
) -> ApiResult<Json<Value>> {
    let row: SidecarRow = by_guid(&context, &caller, &guid, SpaceAction::Develop).await?;
    let row = sidecars::update(&context, row, body.into()).await?;
    Ok(Json(view(&row)))
}

async fn remove(State(context): State<Context>, caller: Caller, Path(guid): Path<String>) -> ApiResult<StatusCode> {
    let row: SidecarRow = by_guid(&context, &caller, &guid, SpaceAction::Develop).await?;
    sidecars::delete(&context, &row).await?;
    Ok(StatusCode::NO_CONTENT)
}
