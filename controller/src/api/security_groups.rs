//! `/v3/security_groups`: what apps may reach. A change holds at once for everything that runs.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{Page, Ref, Timestamp, ToMany};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::permissions::SpaceAction;
use super::{guid, guids, jobs, spaces};
use crate::context::Context;
use crate::domain::security_groups::{self as domain, BoundSpace, GroupCreate, GroupUpdate, Phase};
use crate::store::list::Visible;
use crate::store::security_groups::SecurityGroupRow;

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

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let wish = GroupCreate {
        name: body.name,
        rules: body.rules,
        globally_enabled: body.globally_enabled,
        running_spaces: guids(body.relationships.running_spaces.unwrap_or_default()),
        staging_spaces: guids(body.relationships.staging_spaces.unwrap_or_default()),
    };
    let row = domain::create(&context, &caller.actor(), wish).await?;
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
    let change = GroupUpdate { name: body.name, rules: body.rules, globally_enabled: body.globally_enabled };
    let row = domain::update(&context, &caller.actor(), row.guid, change).await?;
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
    let job = domain::delete(&context, &caller.actor(), &row).await?;
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
    let spaces = domain::spaces_to_bind(&context, &visible, &guids(body)).await?;
    for space in &spaces {
        caller.require_space(&context, space.guid, "Space", SpaceAction::Manage).await?;
    }
    domain::bind(&context, &caller.actor(), &row, &spaces, phase).await?;
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
    let bad = || domain::not_bound(&space);
    let found: Uuid = space.parse().map_err(|_| bad())?;
    let access = match caller.require_space(&context, found, "Space", SpaceAction::Manage).await {
        Err(error) if error.status() == StatusCode::NOT_FOUND => return Err(bad().into()),
        access => access?,
    };
    let bound = BoundSpace { guid: found, org: access.standing.org_guid, written: &space };
    domain::unbind(&context, &caller.actor(), &row, bound, phase).await?;
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
