//! Processes: what runs of an app, how much, and how it is.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{delete, get, post};
use chrono::Utc;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::common::Links;
use slipway_api_types::views::{
    CheckData, CheckView, InstanceStats, InstanceUsage, ProcessInstance, ProcessView, StatsView,
};
use slipway_api_types::{AssignmentId, MetadataPatch, Page, Timestamp, ToOne};
use slipway_protocol::instance::instance_guid;
use slipway_protocol::v1;
use uuid::Uuid;

use super::Router;
use super::apps::find;
use super::auth_extract::Caller;
use super::body::{JsonBody, OptionalJson};
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::of_app::{by_guid, of_app};
use super::permissions::SpaceAction;
use crate::context::Context;
use crate::domain::compose::command_of;
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::processes::{self, ProcessUpdate, Scale};
use crate::domain::specs::{DEFAULT_PORT, FILE_LIMIT, USER};
use crate::domain::stats::{self, InstanceState};
use crate::store::list::Visible;
use crate::store::processes::ProcessRow;

const LIST: ListSpec = ListSpec {
    filters: &["app_guids", "space_guids", "organization_guids", "types"],
    other: &["embed"],
    labels: true,
    ..ListSpec::PLAIN
};
/// What is understood of one process.
const ONE: ListSpec = ListSpec { other: &["embed"], ..ListSpec::PLAIN };
/// In place of a command in a list.
const HIDDEN: &str = "[PRIVATE DATA HIDDEN IN LISTS]";

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/processes", get(list))
        .route("/v3/processes/{guid}", get(one).patch(update))
        .route("/v3/processes/{guid}/stats", get(stats_of))
        .route("/v3/processes/{guid}/process_instances", get(instances_of))
        .route("/v3/processes/{guid}/actions/scale", post(scale))
        .route("/v3/processes/{guid}/instances/{index}", delete(restart_instance))
        .route("/v3/apps/{guid}/processes", get(list_of_app))
        .route("/v3/apps/{guid}/processes/{kind}", get(one_of_app).patch(update_of_app))
        .route("/v3/apps/{guid}/processes/{kind}/stats", get(stats_of_app))
        .route("/v3/apps/{guid}/processes/{kind}/actions/scale", post(scale_of_app))
        .route("/v3/apps/{guid}/processes/{kind}/instances/{index}", delete(restart_instance_of_app))
}

of_app!(ProcessRow, "Process", process_get);

fn view(base: &BaseUrl, row: ProcessRow, command: Option<String>) -> ProcessView {
    let own = format!("/v3/processes/{}", row.guid);
    let check = |value: &Value| {
        serde_json::from_value(value.clone())
            .unwrap_or(CheckView { kind: "process".to_owned(), data: CheckData::default() })
    };
    let app = format!("/v3/apps/{}", row.app_guid);
    let links = Links::from([
        ("self".to_owned(), base.link(&own)),
        ("scale".to_owned(), base.post(&format!("{own}/actions/scale"))),
        ("app".to_owned(), base.link(&app)),
        ("stats".to_owned(), base.link(&format!("{own}/stats"))),
        ("process_instances".to_owned(), base.link(&format!("{own}/process_instances"))),
    ]);
    ProcessView {
        guid: row.guid.to_string(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        kind: row.kind,
        command,
        user: USER.to_owned(),
        version: row.version.to_string(),
        instances: row.instances.get(),
        memory_in_mb: row.memory_in_mb.unsigned_abs(),
        disk_in_mb: row.disk_in_mb.unsigned_abs(),
        log_rate_limit_in_bytes_per_second: row.log_rate_limit,
        health_check: check(&row.health_check),
        readiness_health_check: check(&row.readiness_health_check),
        relationships: BTreeMap::from([
            ("app".to_owned(), Some(ToOne::to(row.app_guid))),
            ("revision".to_owned(), row.revision_guid.map(ToOne::to)),
        ]),
        metadata: metadata_of(&row.labels, &row.annotations),
        process_instances: None,
        links,
    }
}

/// The process with the command that it runs, or would run.
async fn full_view(context: &Context, base: &BaseUrl, row: ProcessRow) -> ApiResult<ProcessView> {
    let mut command = row.command.clone();
    if command.is_none()
        && let Some(app) = context.store.app_get(row.app_guid).await?
        && let Some(droplet) = app.droplet_guid
        && let Some(droplet) = context.store.droplet_get(droplet).await?
    {
        command = command_of(&row, &droplet);
    }
    Ok(view(base, row, command))
}

async fn page(
    context: &Context,
    base: &BaseUrl,
    query: Option<&str>,
    path: &str,
    visible: &Visible,
    app: Option<Uuid>,
) -> ApiResult<Json<Page<ProcessView>>> {
    let query = ListQuery::parse(query, &LIST)?;
    let embed = embeds(&query)?;
    let (rows, total) = context.store.process_list(&query.options, visible, app).await?;
    let states = match embed {
        true => stats::of_processes(context, &rows).await?,
        false => Vec::new(),
    };
    let mut views: Vec<ProcessView> = rows
        .into_iter()
        .map(|row| {
            let hidden = row.command.as_ref().map(|_| HIDDEN.to_owned());
            view(base, row, hidden)
        })
        .collect();
    for (view, states) in views.iter_mut().zip(states) {
        view.process_instances = Some(states.iter().map(instance_view).collect());
    }
    Ok(Json(query.page(base, path, total, views)))
}

/// Whether the instances of a process are to be shown with it.
fn embeds(query: &ListQuery) -> ApiResult<bool> {
    match query.other.get("embed").map(String::as_str) {
        None => Ok(false),
        Some("process_instances") => Ok(true),
        Some(_) => Err(ApiError::bad_query(
            "The query parameter is invalid: Invalid embedded resource. Valid embedded resources are: 'process_instances'",
        )),
    }
}

fn instance_view(state: &InstanceState) -> ProcessInstance {
    ProcessInstance {
        index: state.index.unsigned_abs(),
        state: state.state.to_owned(),
        since: state.since.timestamp(),
        crashes: state.crashes(),
    }
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<ProcessView>>> {
    let visible = caller.visible_spaces(&context).await?;
    page(&context, &base, query.as_deref(), "/v3/processes", &visible, None).await
}

async fn list_of_app(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<ProcessView>>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    let path = format!("/v3/apps/{}/processes", app.guid);
    page(&context, &base, query.as_deref(), &path, &Visible::All, Some(app.guid)).await
}

async fn by_type(
    context: &Context,
    caller: &Caller,
    app: &str,
    kind: &str,
    action: SpaceAction,
) -> ApiResult<ProcessRow> {
    let app = find(context, caller, app, action).await?;
    let row = context.store.process_of_type(app.guid, kind).await?;
    row.ok_or_else(|| ApiError::not_found("Process"))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<ProcessView>> {
    let row: ProcessRow = by_guid(&context, &caller, &guid, SpaceAction::Read).await?;
    let states = match embeds(&ListQuery::parse(query.as_deref(), &ONE)?)? {
        true => stats::of_processes(&context, std::slice::from_ref(&row)).await?.pop(),
        false => None,
    };
    let mut view = full_view(&context, &base, row).await?;
    view.process_instances = states.map(|states| states.iter().map(instance_view).collect());
    Ok(Json(view))
}

async fn one_of_app(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path((guid, kind)): Path<(String, String)>,
) -> ApiResult<Json<ProcessView>> {
    let row = by_type(&context, &caller, &guid, &kind, SpaceAction::Read).await?;
    full_view(&context, &base, row).await.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    #[serde(default, deserialize_with = "super::body::present")]
    command: Option<Option<String>>,
    health_check: Option<CheckBody>,
    readiness_health_check: Option<CheckBody>,
    metadata: Option<MetadataPatch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckBody {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Option<CheckDataBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckDataBody {
    #[serde(default, deserialize_with = "super::numbers::whole")]
    timeout: Option<u32>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    invocation_timeout: Option<u32>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    interval: Option<u32>,
    endpoint: Option<String>,
}

impl From<CheckBody> for CheckView {
    fn from(body: CheckBody) -> Self {
        let data = body.data.unwrap_or_default();
        Self {
            kind: body.kind,
            data: CheckData {
                timeout: data.timeout,
                invocation_timeout: data.invocation_timeout,
                interval: data.interval,
                endpoint: data.endpoint,
            },
        }
    }
}

async fn apply_update(
    context: &Context,
    caller: &Caller,
    base: &BaseUrl,
    row: ProcessRow,
    body: UpdateBody,
) -> ApiResult<Json<ProcessView>> {
    let change = ProcessUpdate {
        command: body.command,
        health: body.health_check.map(Into::into),
        readiness: body.readiness_health_check.map(Into::into),
        metadata: MetadataChange::check(body.metadata)?,
    };
    let row = processes::update(context, &caller.actor(), row.app_guid, row.guid, change).await?;
    full_view(context, base, row).await.map(Json)
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    JsonBody(body): JsonBody<UpdateBody>,
) -> ApiResult<Json<ProcessView>> {
    let row: ProcessRow = by_guid(&context, &caller, &guid, SpaceAction::Support).await?;
    apply_update(&context, &caller, &base, row, body).await
}

async fn update_of_app(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path((guid, kind)): Path<(String, String)>,
    JsonBody(body): JsonBody<UpdateBody>,
) -> ApiResult<Json<ProcessView>> {
    let row = by_type(&context, &caller, &guid, &kind, SpaceAction::Support).await?;
    apply_update(&context, &caller, &base, row, body).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleBody {
    #[serde(default, deserialize_with = "super::numbers::whole")]
    instances: Option<i64>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    memory_in_mb: Option<i64>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    disk_in_mb: Option<i64>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    log_rate_limit_in_bytes_per_second: Option<i64>,
}

async fn apply_scale(
    context: &Context,
    caller: &Caller,
    base: &BaseUrl,
    row: ProcessRow,
    body: ScaleBody,
) -> ApiResult<(StatusCode, Json<ProcessView>)> {
    let scale = Scale {
        instances: body.instances,
        memory_mb: body.memory_in_mb,
        disk_mb: body.disk_in_mb,
        log_rate: body.log_rate_limit_in_bytes_per_second,
    };
    let row = processes::scale(context, &caller.actor(), row.app_guid, row.guid, scale).await?;
    Ok((StatusCode::ACCEPTED, Json(full_view(context, base, row).await?)))
}

async fn scale(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    OptionalJson(body): OptionalJson<ScaleBody>,
) -> ApiResult<(StatusCode, Json<ProcessView>)> {
    let row: ProcessRow = by_guid(&context, &caller, &guid, SpaceAction::Support).await?;
    super::feature_flags::require_for(&context, &caller, "app_scaling").await?;
    apply_scale(&context, &caller, &base, row, body).await
}

async fn scale_of_app(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path((guid, kind)): Path<(String, String)>,
    OptionalJson(body): OptionalJson<ScaleBody>,
) -> ApiResult<(StatusCode, Json<ProcessView>)> {
    let row = by_type(&context, &caller, &guid, &kind, SpaceAction::Support).await?;
    super::feature_flags::require_for(&context, &caller, "app_scaling").await?;
    apply_scale(&context, &caller, &base, row, body).await
}

async fn restart_one(context: &Context, caller: &Caller, row: ProcessRow, index: &str) -> ApiResult<StatusCode> {
    let index: i32 = index.parse().map_err(|_| ApiError::not_found("Instance"))?;
    processes::restart_instance(context, &caller.actor(), row.app_guid, &row, index).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restart_instance(
    State(context): State<Context>,
    caller: Caller,
    Path((guid, index)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let row: ProcessRow = by_guid(&context, &caller, &guid, SpaceAction::Support).await?;
    restart_one(&context, &caller, row, &index).await
}

async fn restart_instance_of_app(
    State(context): State<Context>,
    caller: Caller,
    Path((guid, kind, index)): Path<(String, String, String)>,
) -> ApiResult<StatusCode> {
    let row = by_type(&context, &caller, &guid, &kind, SpaceAction::Support).await?;
    restart_one(&context, &caller, row, &index).await
}

async fn stats_of(
    State(context): State<Context>,
    caller: Caller,
    Path(guid): Path<String>,
) -> ApiResult<Json<StatsView>> {
    let row: ProcessRow = by_guid(&context, &caller, &guid, SpaceAction::Read).await?;
    stats_view(&context, row).await
}

async fn stats_of_app(
    State(context): State<Context>,
    caller: Caller,
    Path((guid, kind)): Path<(String, String)>,
) -> ApiResult<Json<StatsView>> {
    let row = by_type(&context, &caller, &guid, &kind, SpaceAction::Read).await?;
    stats_view(&context, row).await
}

async fn instances_of(
    State(context): State<Context>,
    caller: Caller,
    Path(guid): Path<String>,
) -> ApiResult<Json<Value>> {
    let row: ProcessRow = by_guid(&context, &caller, &guid, SpaceAction::Read).await?;
    let states = stats::of_processes(&context, std::slice::from_ref(&row)).await?;
    let views: Vec<ProcessInstance> = states.iter().flatten().map(instance_view).collect();
    Ok(Json(json!({ "resources": views })))
}

async fn stats_view(context: &Context, process: ProcessRow) -> ApiResult<Json<StatsView>> {
    let states = stats::of_processes(context, std::slice::from_ref(&process)).await?.pop().unwrap_or_default();
    let places: Vec<AssignmentId> =
        states.iter().filter_map(|state| state.row.as_ref()).map(|row| AssignmentId(row.id)).collect();
    let usage = if places.is_empty() { HashMap::new() } else { context.cells.usage(&places).await };
    let resources = states.into_iter().map(|state| instance_stats(&process, state, &usage)).collect();
    Ok(Json(StatsView { resources }))
}

fn instance_stats(
    process: &ProcessRow,
    state: InstanceState,
    usage: &HashMap<AssignmentId, v1::Usage>,
) -> InstanceStats {
    let mut stats = InstanceStats {
        kind: process.kind.clone(),
        index: state.index.unsigned_abs(),
        state: state.state.to_owned(),
        routable: state.routable,
        crashes: state.crashes(),
        details: state.details,
        ..InstanceStats::default()
    };
    let Some(row) = state.row.filter(|_| state.state != "DOWN") else { return stats };
    let mebibytes = |value: i64| value.unsigned_abs().saturating_mul(1 << 20);
    stats.uptime = (Utc::now() - state.since).num_seconds().max(0).unsigned_abs();
    stats.instance_guid = Some(instance_guid(row.id, row.incarnation.unsigned_abs()).to_string());
    // Behind a port of its cell an instance's own address means nothing to anybody outside that cell.
    stats.instance_internal_ip = row.host.clone().filter(|_| row.direct);
    stats.host = Some(row.host.unwrap_or_default());
    stats.instance_ports = Some(row.port.map_or_else(Vec::new, |port| {
        vec![json!({ "external": port, "internal": DEFAULT_PORT, "external_tls_proxy_port": null,
                     "internal_tls_proxy_port": null })]
    }));
    stats.mem_quota = Some(mebibytes(process.memory_in_mb));
    stats.disk_quota = Some(mebibytes(process.disk_in_mb));
    stats.log_rate_limit = Some(process.log_rate_limit);
    stats.fds_quota = Some(u64::from(FILE_LIMIT));
    stats.usage = usage.get(&AssignmentId(row.id)).map(|usage| InstanceUsage {
        time: Timestamp(Utc::now()),
        cpu: usage.cpu_percent / 100.0,
        cpu_entitlement: usage.cpu_entitlement,
        mem: usage.memory_bytes,
        disk: usage.disk_bytes,
        log_rate: usage.log_rate,
    });
    stats
}
