//! Tasks.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{MetadataPatch, Ref, Timestamp};
use uuid::Uuid;

use super::Router;
use super::apps::{find, owner};
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::ListSpec;
use super::of_app::{self, Relabelled, Shown, by_guid, listed, of_app};
use super::permissions::SpaceAction;
use crate::context::Context;
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::specs::USER;
use crate::domain::tasks::{self, TaskCreate};
use crate::store::apptasks::TaskRow;
use crate::store::metadata::Labelled;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/tasks", get(of_app::list::<TaskRow>))
        .route("/v3/tasks/{guid}", get(one).patch(of_app::relabel::<TaskRow>))
        .route("/v3/tasks/{guid}/cancel", put(cancel).post(cancel))
        .route("/v3/tasks/{guid}/actions/cancel", post(cancel))
        .route("/v3/apps/{guid}/tasks", get(of_app::list_of_app::<TaskRow>).post(create))
}

of_app!(TaskRow, "Task", task_get);

/// In lists without its command, but for the list of one app, as on Cloud Foundry.
impl Shown for TaskRow {
    type View = Value;
    const HAS_SECRETS: bool = true;

    fn show(self, base: &BaseUrl) -> ApiResult<Value> {
        Ok(view(base, &self, false))
    }

    fn show_whole(self, base: &BaseUrl) -> ApiResult<Value> {
        Ok(view(base, &self, true))
    }
}

impl Relabelled for TaskRow {
    const TABLE: Labelled = Labelled::Task;
}

listed!(
    TaskRow,
    "tasks",
    task_list(),
    ListSpec {
        filters: &["app_guids", "space_guids", "organization_guids", "names", "states", "sequence_ids"],
        labels: true,
        ..ListSpec::PLAIN
    }
);

fn view(base: &BaseUrl, row: &TaskRow, command: bool) -> Value {
    let own = format!("/v3/tasks/{}", row.guid);
    let mut view = json!({
        "guid": row.guid,
        "sequence_id": row.sequence_id,
        "name": row.name,
        "state": row.state,
        "user": USER,
        "memory_in_mb": row.memory_in_mb,
        "disk_in_mb": row.disk_in_mb,
        "log_rate_limit_in_bytes_per_second": row.log_rate_limit,
        "result": { "failure_reason": row.failure_reason },
        "droplet_guid": row.droplet_guid,
        "created_at": Timestamp(row.created_at),
        "updated_at": Timestamp(row.updated_at),
        "metadata": metadata_of(&row.labels, &row.annotations),
        "relationships": BTreeMap::from([("app", json!({ "data": { "guid": row.app_guid } }))]),
        "links": {
            "self": base.link(&own),
            "app": base.link(&format!("/v3/apps/{}", row.app_guid)),
            "cancel": base.post(&format!("{own}/actions/cancel")),
            "droplet": base.link(&format!("/v3/droplets/{}", row.droplet_guid)),
        },
    });
    // A command may hold secrets: whoever only reads the space does not see it.
    if command {
        view["command"] = Value::String(row.command.clone());
    }
    view
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Json<Value>> {
    let guid = super::guid(&guid, "Task")?;
    let row = context.store.task_get(guid).await?.ok_or_else(|| ApiError::not_found("Task"))?;
    let app = owner(&context, &caller, row.app_guid, "Task", SpaceAction::Read).await?;
    let access = caller.require_space(&context, app.space_guid, "Task", SpaceAction::Read).await?;
    Ok(Json(view(&base, &row, access.allows(SpaceAction::ReadSecrets))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    command: Option<String>,
    name: Option<String>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    memory_in_mb: Option<i64>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    disk_in_mb: Option<i64>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    log_rate_limit_in_bytes_per_second: Option<i64>,
    droplet_guid: Option<Uuid>,
    template: Option<Template>,
    metadata: Option<MetadataPatch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    process: Ref,
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    JsonBody(body): JsonBody<CreateBody>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let app = find(&context, &caller, &guid, SpaceAction::Develop).await?;
    super::feature_flags::require_for(&context, &caller, "task_creation").await?;
    let template = match body.template {
        Some(template) => Some(super::guid(&template.process.guid, "Process")?),
        None => None,
    };
    let wish = TaskCreate {
        command: body.command,
        name: body.name,
        memory_mb: body.memory_in_mb,
        disk_mb: body.disk_in_mb,
        log_rate: body.log_rate_limit_in_bytes_per_second,
        droplet: body.droplet_guid,
        template,
        metadata: MetadataChange::check(body.metadata)?,
    };
    let row = tasks::create(&context, &caller.actor(), app.guid, wish).await?;
    Ok((StatusCode::ACCEPTED, Json(view(&base, &row, true))))
}

async fn cancel(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let row: TaskRow = by_guid(&context, &caller, &guid, SpaceAction::Support).await?;
    let row = tasks::cancel(&context, &caller.actor(), row.guid).await?;
    Ok((StatusCode::ACCEPTED, Json(view(&base, &row, true))))
}
