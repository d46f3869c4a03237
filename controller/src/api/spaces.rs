//! `/v3/spaces`, except manifests.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{delete, get};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::views::SpaceView;
use slipway_api_types::{MetadataPatch, Page, ToOne};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec, One, add_included};
use super::permissions::{OrgAction, SpaceAction};
use super::{guid, jobs, organizations};
use crate::context::Context;
use crate::domain::metadata::metadata_of;
use crate::domain::spaces::{self as domain, SpaceCreate, SpaceUpdate};
use crate::store::spaces::SpaceRow;

const SPEC: ListSpec = ListSpec {
    filters: &["names", "organization_guids"],
    order: &["name"],
    include: &["organization"],
    other: &[],
    labels: true,
};

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/spaces", get(list).post(create))
        .route("/v3/spaces/{guid}", get(one).patch(patch).delete(remove))
        .route("/v3/spaces/{guid}/routes", delete(remove_unmapped_routes))
        .route("/v3/spaces/{guid}/usage_summary", get(usage))
        .route("/v3/spaces/{guid}/features", get(features))
        .route("/v3/spaces/{guid}/features/{name}", get(feature).patch(set_feature))
}

pub(super) fn view(base: &BaseUrl, row: SpaceRow) -> SpaceView {
    let path = format!("/v3/spaces/{}", row.guid);
    SpaceView {
        guid: row.guid.to_string(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        name: row.name,
        suspended: row.suspended,
        relationships: BTreeMap::from([
            ("organization".to_owned(), ToOne::to(row.org_guid)),
            ("quota".to_owned(), ToOne::maybe(row.quota_guid)),
        ]),
        metadata: metadata_of(&row.labels, &row.annotations),
        links: base.links(&[
            ("self", path.clone()),
            ("organization", format!("/v3/organizations/{}", row.org_guid)),
            ("features", format!("{path}/features")),
        ]),
    }
}

pub(super) async fn require(
    context: &Context,
    caller: &Caller,
    text: &str,
    action: SpaceAction,
) -> ApiResult<SpaceRow> {
    let guid = guid(text, "Space")?;
    caller.require_space(context, guid, "Space", action).await?;
    context.store.space_get(guid).await?.ok_or_else(|| ApiError::not_found("Space"))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<SpaceView>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    Ok(Json(page(&context, &caller, &base, &query).await?))
}

async fn page(context: &Context, caller: &Caller, base: &BaseUrl, query: &ListQuery) -> ApiResult<Page<SpaceView>> {
    let visible = caller.visible_spaces(context).await?;
    let (rows, total) = context.store.space_list(&query.options, &visible).await?;
    let orgs: Vec<Uuid> = rows.iter().map(|row| row.org_guid).collect();
    let views = rows.into_iter().map(|row| view(base, row)).collect();
    let mut page = query.page(base, "/v3/spaces", total, views);
    if query.options.includes("organization") {
        let rows = context.store.organizations_by_guid(&orgs).await?;
        let views: Vec<_> = rows.into_iter().map(|row| organizations::view(base, row)).collect();
        add_included(&mut page, "organizations", super::values(views)?);
    }
    Ok(page)
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(space): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<One<SpaceView>>> {
    let row = require(&context, &caller, &space, SpaceAction::Read).await?;
    match ListQuery::of_one(query.as_deref(), &SPEC, row.guid)? {
        Some(query) => {
            let page = page(&context, &caller, &base, &query).await?;
            One::of(page).map(Json).ok_or_else(|| ApiError::not_found("Space"))
        }
        None => Ok(Json(One::alone(view(&base, row)))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    relationships: CreateRelationships,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateRelationships {
    organization: ToOne,
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<(StatusCode, Json<SpaceView>)> {
    let bad_org =
        || ApiError::unprocessable("Invalid organization. Ensure the organization exists and you have access to it.");
    let org: Uuid = super::related(&body.relationships.organization).ok_or_else(bad_org)?;
    match caller.require_org(&context, org, "Organization", OrgAction::Manage).await {
        Err(error) if error.status() == StatusCode::NOT_FOUND => return Err(bad_org()),
        access => access?,
    };
    let wish = SpaceCreate { org, name: body.name, metadata: body.metadata };
    let row = domain::create(&context, &caller.actor(), wish).await?;
    Ok((StatusCode::CREATED, Json(view(&base, row))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

async fn patch(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(space): Path<String>,
    JsonBody(body): JsonBody<Patch>,
) -> ApiResult<Json<SpaceView>> {
    let row = require(&context, &caller, &space, SpaceAction::Manage).await?;
    let change = SpaceUpdate { name: body.name, metadata: body.metadata };
    let row = domain::update(&context, &caller.actor(), &row, change).await?;
    Ok(Json(view(&base, row)))
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(space): Path<String>,
) -> ApiResult<Response> {
    let row = require(&context, &caller, &space, SpaceAction::Read).await?;
    caller.require_org(&context, row.org_guid, "Space", OrgAction::Manage).await?;
    let job = domain::delete(&context, &caller.actor(), &row).await?;
    Ok(jobs::accepted(&base, job))
}

/// `DELETE …/routes?unmapped=true`.
async fn remove_unmapped_routes(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(space): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    if query.as_deref() != Some("unmapped=true") {
        return Err(ApiError::bad_query("The query parameter is invalid: unmapped must be 'true'"));
    }
    let row = require(&context, &caller, &space, SpaceAction::Support).await?;
    let job = domain::delete_unmapped_routes(&context, &caller.actor(), &row).await?;
    Ok(jobs::accepted(&base, job))
}

async fn usage(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(space): Path<String>,
) -> ApiResult<Json<Value>> {
    let row = require(&context, &caller, &space, SpaceAction::Read).await?;
    let usage = context.store.usage_of(&[row.guid], Some(row.org_guid)).await?;
    let path = format!("/v3/spaces/{}", row.guid);
    Ok(Json(json!({
        "usage_summary": organizations::usage_summary(&usage),
        "links": base.links(&[("self", format!("{path}/usage_summary")), ("space", path)]),
    })))
}

fn feature_view(row: &SpaceRow) -> Json<Value> {
    Json(json!({ "name": "ssh", "description": "Enable SSHing into apps in the space.", "enabled": row.allow_ssh }))
}

/// Not in pages, unlike every other list: there is one.
async fn features(State(context): State<Context>, caller: Caller, Path(space): Path<String>) -> ApiResult<Json<Value>> {
    let row = require(&context, &caller, &space, SpaceAction::Read).await?;
    let Json(ssh) = feature_view(&row);
    Ok(Json(json!({ "resources": [ssh] })))
}

async fn feature(
    State(context): State<Context>,
    caller: Caller,
    Path((space, name)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let row = require(&context, &caller, &space, SpaceAction::Read).await?;
    if name != "ssh" {
        return Err(ApiError::not_found("Feature"));
    }
    Ok(feature_view(&row))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Feature {
    enabled: bool,
}

async fn set_feature(
    State(context): State<Context>,
    caller: Caller,
    Path((space, name)): Path<(String, String)>,
    JsonBody(body): JsonBody<Feature>,
) -> ApiResult<Json<Value>> {
    let mut row = require(&context, &caller, &space, SpaceAction::Manage).await?;
    if name != "ssh" {
        return Err(ApiError::not_found("Feature"));
    }
    domain::set_ssh(&context, &caller.actor(), &row, body.enabled).await?;
    row.allow_ssh = body.enabled;
    Ok(feature_view(&row))
}
