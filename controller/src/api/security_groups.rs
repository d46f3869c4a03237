//! `/v3/security_groups`: what apps may reach. A change holds at once for everything that runs.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use slipway_api_types::{Page, Ref, Timestamp, ToMany};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::permissions::SpaceAction;
use super::{guid, jobs, spaces};
use crate::context::Context;
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::names::check_name;
use crate::domain::removal;
use crate::domain::security_groups::check_rules;
use crate::store::change_log::{self, ChangeKind};
use crate::store::constraints::refuse;
use crate::store::events::event_record_tx;
use crate::store::list::Visible;
use crate::store::security_groups::{self as store, SecurityGroupRow};

const PATH: &str = "/v3/security_groups";
const SPEC: ListSpec = ListSpec {
    filters: &[
        "names",
        "running_space_guids",
        "staging_space_guids",
        "globally_enabled_running",
        "globally_enabled_staging",
    ],
    order: &["name"],
    ..ListSpec::PLAIN
};
const OF_SPACE: ListSpec = ListSpec { filters: &["names"], ..ListSpec::PLAIN };

/// When a group holds.
#[derive(Clone, Copy)]
enum Phase {
    Running,
    Staging,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Staging => "staging",
        }
    }
}

/// Endpoints.
pub fn routes() -> Router<Context> {
    use Phase::{Running, Staging};
    let bind = |phase| move |c, u, b, p, j| bind(c, u, b, p, j, phase);
    let unbind = |phase| move |c, u, p| unbind(c, u, p, phase);
    let of_space = |phase| move |c, u, b, p, q| of_space(c, u, b, p, q, phase);
    Router::new()
        .route("/v3/security_groups", get(list).post(create))
        .route("/v3/security_groups/{guid}", get(one).patch(update).delete(remove))
        .route("/v3/security_groups/{guid}/relationships/running_spaces", post(bind(Running)))
        .route("/v3/security_groups/{guid}/relationships/staging_spaces", post(bind(Staging)))
        .route("/v3/security_groups/{guid}/relationships/running_spaces/{space}", delete(unbind(Running)))
        .route("/v3/security_groups/{guid}/relationships/staging_spaces/{space}", delete(unbind(Staging)))
        .route("/v3/spaces/{guid}/running_security_groups", get(of_space(Running)))
        .route("/v3/spaces/{guid}/staging_security_groups", get(of_space(Staging)))
}

/// Groups with those of their spaces that may be seen.
async fn views(
    context: &Context,
    visible: &Visible,
    base: &BaseUrl,
    rows: &[SecurityGroupRow],
) -> ApiResult<Vec<Value>> {
    let guids: Vec<Uuid> = rows.iter().map(|row| row.guid).collect();
    let mut bound: HashMap<(Uuid, String), Vec<Ref>> = HashMap::new();
    for binding in context.store.security_group_bindings(&guids).await? {
        if visible.contains(binding.space_guid) {
            let members = bound.entry((binding.security_group_guid, binding.phase)).or_default();
            members.push(Ref::to(binding.space_guid));
        }
    }
    let mut of = |row: &SecurityGroupRow, phase: &str| bound.remove(&(row.guid, phase.to_owned())).unwrap_or_default();
    let view = |row: &SecurityGroupRow| {
        json!({
            "guid": row.guid, "name": row.name, "rules": row.rules,
            "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.updated_at),
            // Both must be there: without one the CLI panics.
            "globally_enabled": { "running": row.globally_running, "staging": row.globally_staging },
            "relationships": {
                "running_spaces": { "data": of(row, "running") },
                "staging_spaces": { "data": of(row, "staging") },
            },
            "links": base.links(&[("self", format!("{PATH}/{}", row.guid))]),
        })
    };
    Ok(rows.iter().map(view).collect())
}

async fn present(context: &Context, caller: &Caller, base: &BaseUrl, row: SecurityGroupRow) -> ApiResult<Json<Value>> {
    let visible = caller.visible_spaces(context).await?;
    views(context, &visible, base, &[row]).await?.pop().map(Json).ok_or_else(missing)
}

fn missing() -> ApiError {
    ApiError::not_found("Security group")
}

/// A group that the caller may read.
async fn readable(context: &Context, caller: &Caller, text: &str) -> ApiResult<SecurityGroupRow> {
    let row = context.store.security_group_get(guid(text, "Security group")?).await?.ok_or_else(missing)?;
    if caller.reads_all() || row.globally_running || row.globally_staging {
        return Ok(row);
    }
    let visible = caller.visible_spaces(context).await?;
    let bound = context.store.security_group_bindings(&[row.guid]).await?;
    if bound.iter().any(|binding| visible.contains(binding.space_guid)) { Ok(row) } else { Err(missing()) }
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    for name in ["globally_enabled_running", "globally_enabled_staging"] {
        if query
            .options
            .filter(name)
            .is_some_and(|values| values.iter().any(|value| value != "true" && value != "false"))
        {
            return Err(ApiError::bad_query(format!(
                "The query parameter is invalid: {name} must be 'true' or 'false'"
            )));
        }
    }
    let visible = caller.visible_spaces(&context).await?;
    let (rows, total) = context.store.security_group_list(&query.options, &visible).await?;
    let views = views(&context, &visible, &base, &rows).await?;
    Ok(Json(query.page(&base, PATH, total, views)))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(group): Path<String>,
) -> ApiResult<Json<Value>> {
    let row = readable(&context, &caller, &group).await?;
    present(&context, &caller, &base, row).await
}

/// `running` and `staging` of `globally_enabled`, as far as they were given.
fn globally(value: Option<&Value>) -> ApiResult<(Option<bool>, Option<bool>)> {
    let bad = |text: &str| Err(ApiError::unprocessable(format!("Globally enabled {text}")));
    let members: &Map<String, Value> = match value {
        None | Some(Value::Null) => return Ok((None, None)),
        Some(Value::Object(members)) => members,
        Some(_) => return bad("must be an object"),
    };
    if members.keys().any(|key| key != "running" && key != "staging") {
        return bad("only allows keys 'running' or 'staging'");
    }
    if members.values().any(|value| !value.is_boolean()) {
        return bad("values must be booleans");
    }
    let member = |name: &str| members.get(name).and_then(Value::as_bool);
    Ok((member("running"), member("staging")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default)]
    globally_enabled: Option<Value>,
    #[serde(default)]
    rules: Option<Value>,
    #[serde(default)]
    relationships: CreateRelationships,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateRelationships {
    #[serde(default)]
    running_spaces: Option<ToMany>,
    #[serde(default)]
    staging_spaces: Option<ToMany>,
}

/// The guids of spaces that a request names; all of them must exist and be visible.
async fn spaces_of(context: &Context, visible: &Visible, wanted: &ToMany, tail: &str) -> ApiResult<Vec<Uuid>> {
    let known: Vec<Uuid> = wanted.data.iter().filter_map(|reference| reference.guid.parse().ok()).collect();
    let found = context.store.spaces_by_guid(&known).await?;
    let good: Vec<Uuid> = found.iter().map(|space| space.guid).filter(|guid| visible.contains(*guid)).collect();
    let bad: Vec<String> = wanted
        .data
        .iter()
        .filter(|reference| !good.iter().any(|guid| guid.to_string() == reference.guid.to_lowercase()))
        .map(|reference| format!("\"{}\"", reference.guid.chars().take(80).collect::<String>()))
        .collect();
    if bad.is_empty() {
        return Ok(good);
    }
    Err(ApiError::unprocessable(format!("Spaces with guids [{}] do not exist{tail}", bad.join(", "))))
}

fn audit_subject(row: &SecurityGroupRow) -> AuditSubject {
    AuditSubject::new("security_group", row.guid, &row.name)
}

fn taken(name: &str) -> String {
    format!("Security group with name '{name}' already exists.")
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    check_name("Name", &body.name)?;
    let rules = body.rules.unwrap_or_else(|| json!([]));
    check_rules(&rules)?;
    let (running, staging) = globally(body.globally_enabled.as_ref())?;
    let running_spaces = body.relationships.running_spaces.unwrap_or_default();
    let staging_spaces = body.relationships.staging_spaces.unwrap_or_default();
    let running_spaces = spaces_of(&context, &Visible::All, &running_spaces, ".").await?;
    let staging_spaces = spaces_of(&context, &Visible::All, &staging_spaces, ".").await?;
    let mut tx = context.store.begin().await?;
    let (running, staging) = (running.unwrap_or(false), staging.unwrap_or(false));
    let row = store::security_group_insert_tx(&mut tx, &body.name, &rules, running, staging)
        .await
        .map_err(refuse("security_group_name_key", || taken(&body.name)))?;
    store::security_group_bind_tx(&mut tx, row.guid, &running_spaces, "running").await?;
    store::security_group_bind_tx(&mut tx, row.guid, &staging_spaces, "staging").await?;
    let event = NewEvent::new("audit.security_group.create", caller.actor(), audit_subject(&row))
        .with_request(json!({ "name": row.name, "rules": row.rules }));
    event_record_tx(&mut tx, &event).await?;
    change_log::commit(tx, &[(ChangeKind::SecurityGroup, row.guid)]).await?;
    context.pokes.planner.notify_one();
    Ok((StatusCode::CREATED, present(&context, &caller, &base, row).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    globally_enabled: Option<Value>,
    #[serde(default)]
    rules: Option<Value>,
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(group): Path<String>,
    JsonBody(body): JsonBody<Update>,
) -> ApiResult<Json<Value>> {
    let row = readable(&context, &caller, &group).await?;
    caller.require_admin()?;
    if let Some(name) = &body.name {
        check_name("Name", name)?;
    }
    if let Some(rules) = &body.rules {
        check_rules(rules)?;
    }
    let (running, staging) = globally(body.globally_enabled.as_ref())?;
    let mut tx = context.store.begin().await?;
    let name = body.name.as_deref();
    let row = store::security_group_patch_tx(&mut tx, row.guid, name, body.rules.as_ref(), running, staging)
        .await
        .map_err(refuse("security_group_name_key", || taken(name.unwrap_or_default())))?
        .ok_or_else(missing)?;
    let event = NewEvent::new("audit.security_group.update", caller.actor(), audit_subject(&row))
        .with_request(json!({ "name": body.name, "rules": body.rules, "globally_enabled": body.globally_enabled }));
    event_record_tx(&mut tx, &event).await?;
    change_log::commit(tx, &[(ChangeKind::SecurityGroup, row.guid)]).await?;
    context.pokes.planner.notify_one();
    present(&context, &caller, &base, row).await
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(group): Path<String>,
) -> ApiResult<Response> {
    let row = readable(&context, &caller, &group).await?;
    caller.require_admin()?;
    let event = NewEvent::new("audit.security_group.delete", caller.actor(), audit_subject(&row));
    let operation = "security_group.delete";
    let job = removal::request_recorded(&context, &event, operation, "security_group", row.guid).await?;
    Ok(jobs::accepted(&base, job))
}

async fn bind(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(group): Path<String>,
    JsonBody(body): JsonBody<ToMany>,
    phase: Phase,
) -> ApiResult<Json<Value>> {
    let row = readable(&context, &caller, &group).await?;
    let visible = caller.visible_spaces(&context).await?;
    let guids = spaces_of(&context, &visible, &body, ", or you do not have access to them.").await?;
    for space in &guids {
        caller.require_space(&context, *space, "Space", SpaceAction::Manage).await?;
    }
    let spaces = context.store.spaces_by_guid(&guids).await?;
    let mut tx = context.store.begin().await?;
    store::security_group_bind_tx(&mut tx, row.guid, &guids, phase.as_str()).await?;
    for space in spaces {
        let event = NewEvent::new("audit.security_group.bind", caller.actor(), audit_subject(&row))
            .in_space(space.guid, space.org_guid)
            .with("lifecycle", phase.as_str());
        event_record_tx(&mut tx, &event).await?;
    }
    change_log::commit(tx, &[(ChangeKind::SecurityGroup, row.guid)]).await?;
    context.pokes.planner.notify_one();
    let bound = context.store.security_group_bindings(&[row.guid]).await?;
    let members: Vec<Ref> = bound
        .iter()
        .filter(|binding| binding.phase == phase.as_str() && visible.contains(binding.space_guid))
        .map(|binding| Ref::to(binding.space_guid))
        .collect();
    let path = format!("{PATH}/{}/relationships/{}_spaces", row.guid, phase.as_str());
    Ok(Json(json!({ "data": members, "links": base.links(&[("self", path)]) })))
}

async fn unbind(
    State(context): State<Context>,
    caller: Caller,
    Path((group, space)): Path<(String, String)>,
    phase: Phase,
) -> ApiResult<StatusCode> {
    let row = readable(&context, &caller, &group).await?;
    let bad = || {
        ApiError::unprocessable(format!(
            "Unable to unbind security group from space with guid '{}'. Ensure the space is bound to this security group.",
            space.chars().take(80).collect::<String>()
        ))
    };
    let found: Uuid = space.parse().map_err(|_| bad())?;
    let access = match caller.require_space(&context, found, "Space", SpaceAction::Manage).await {
        Err(error) if error.status() == StatusCode::NOT_FOUND => return Err(bad()),
        access => access?,
    };
    let mut tx = context.store.begin().await?;
    if !store::security_group_unbind_tx(&mut tx, row.guid, found, phase.as_str()).await? {
        return Err(bad());
    }
    let event = NewEvent::new("audit.security_group.unbind", caller.actor(), audit_subject(&row))
        .in_space(found, access.standing.org_guid)
        .with("lifecycle", phase.as_str());
    event_record_tx(&mut tx, &event).await?;
    change_log::commit(tx, &[(ChangeKind::SecurityGroup, row.guid)]).await?;
    context.pokes.planner.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

async fn of_space(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(space): Path<String>,
    RawQuery(query): RawQuery,
    phase: Phase,
) -> ApiResult<Json<Page<Value>>> {
    let space = spaces::require(&context, &caller, &space, SpaceAction::Read).await?;
    let query = ListQuery::parse(query.as_deref(), &OF_SPACE)?;
    let (rows, total) = context.store.space_security_group_list(&query.options, space.guid, phase.as_str()).await?;
    let visible = caller.visible_spaces(&context).await?;
    let views = views(&context, &visible, &base, &rows).await?;
    Ok(Json(query.page(&base, &format!("/v3/spaces/{}/{}_security_groups", space.guid, phase.as_str()), total, views)))
}
