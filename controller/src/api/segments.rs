//! `/v3/isolation_segments`, and which one organizations and spaces use. A change holds from the next start of an app.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{delete, get};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::views::OrganizationView;
use slipway_api_types::{MetadataPatch, Page, Ref, Timestamp, ToMany, ToOne};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::permissions::{OrgAction, SpaceAction};
use super::{guid, guids, organizations, spaces};
use crate::context::Context;
use crate::domain::metadata::metadata_of;
use crate::domain::segments::{self as domain, SegmentCreate, SegmentUpdate};
use crate::store::list::Visible;
use crate::store::segments::IsolationSegmentRow;

const PATH: &str = "/v3/isolation_segments";
const SPEC: ListSpec =
    ListSpec { filters: &["names", "organization_guids"], order: &["name"], labels: true, ..ListSpec::PLAIN };
const ORGS: ListSpec = ListSpec { filters: &["names"], order: &["name"], labels: true, ..ListSpec::PLAIN };

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/isolation_segments", get(list).post(create))
        .route("/v3/isolation_segments/{guid}", get(one).patch(update).delete(remove))
        .route("/v3/isolation_segments/{guid}/organizations", get(organizations_of))
        .route("/v3/isolation_segments/{guid}/relationships/organizations", get(entitled).post(entitle))
        .route("/v3/isolation_segments/{guid}/relationships/organizations/{org}", delete(revoke))
        .route("/v3/isolation_segments/{guid}/relationships/spaces", get(spaces_of))
        .route(
            "/v3/organizations/{guid}/relationships/default_isolation_segment",
            get(of_organization).patch(set_of_organization),
        )
        .route("/v3/spaces/{guid}/relationships/isolation_segment", get(of_space).patch(set_of_space))
}

fn view(base: &BaseUrl, row: &IsolationSegmentRow) -> Value {
    let path = format!("{PATH}/{}", row.guid);
    json!({
        "guid": row.guid, "name": row.name,
        "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.updated_at),
        "metadata": metadata_of(&row.labels, &row.annotations),
        "links": base.links(&[("organizations", format!("{path}/organizations")), ("self", path)]),
    })
}

fn missing() -> ApiError {
    ApiError::not_found("Isolation segment")
}

async fn find(context: &Context, text: &str) -> ApiResult<IsolationSegmentRow> {
    context.store.isolation_segment_get(guid(text, "Isolation segment")?).await?.ok_or_else(missing)
}

/// A segment that one of the caller's organizations may use.
async fn readable(context: &Context, caller: &Caller, text: &str) -> ApiResult<(IsolationSegmentRow, Vec<Uuid>)> {
    let row = find(context, text).await?;
    let visible = caller.visible_orgs(context).await?;
    let mut orgs = context.store.isolation_segment_orgs(row.guid).await?;
    orgs.retain(|org| visible.contains(*org));
    if orgs.is_empty() && visible != Visible::All {
        return Err(missing());
    }
    Ok((row, orgs))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    let orgs = caller.visible_orgs(&context).await?;
    let (rows, total) = context.store.isolation_segment_list(&query.options, &orgs).await?;
    let views = rows.iter().map(|row| view(&base, row)).collect();
    Ok(Json(query.page(&base, PATH, total, views)))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(view(&base, &readable(&context, &caller, &segment).await?.0)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
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
    let wish = SegmentCreate { name: body.name, metadata: body.metadata };
    let row = domain::create(&context, &caller.actor(), wish).await?;
    Ok((StatusCode::CREATED, Json(view(&base, &row))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
    JsonBody(body): JsonBody<Update>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let row = find(&context, &segment).await?;
    let change = SegmentUpdate { name: body.name, metadata: body.metadata };
    let row = domain::update(&context, row.guid, change).await?;
    Ok(Json(view(&base, &row)))
}

async fn remove(State(context): State<Context>, caller: Caller, Path(segment): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    let row = find(&context, &segment).await?;
    domain::delete(&context, &caller.actor(), &row).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn organizations_of(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<OrganizationView>>> {
    let (row, orgs) = readable(&context, &caller, &segment).await?;
    let query = ListQuery::parse(query.as_deref(), &ORGS)?;
    let (rows, total) = context.store.organization_list(&query.options, &Visible::Only(orgs)).await?;
    let views = rows.into_iter().map(|row| organizations::view(&base, row)).collect();
    Ok(Json(query.page(&base, &format!("{PATH}/{}/organizations", row.guid), total, views)))
}

fn members(base: &BaseUrl, segment: Uuid, name: &str, guids: Vec<Uuid>) -> Json<Value> {
    let data: Vec<Ref> = guids.into_iter().map(Ref::to).collect();
    let path = format!("{PATH}/{segment}");
    let mut links = base.links(&[("self", format!("{path}/relationships/{name}"))]);
    if name == "organizations" {
        links.insert("related".to_owned(), base.link(&format!("{path}/organizations")));
    }
    Json(json!({ "data": data, "links": links }))
}

async fn entitled(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
) -> ApiResult<Json<Value>> {
    let (row, orgs) = readable(&context, &caller, &segment).await?;
    Ok(members(&base, row.guid, "organizations", orgs))
}

async fn spaces_of(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
) -> ApiResult<Json<Value>> {
    let (row, _) = readable(&context, &caller, &segment).await?;
    let visible = caller.visible_spaces(&context).await?;
    let mut spaces = context.store.isolation_segment_spaces(row.guid).await?;
    spaces.retain(|space| visible.contains(*space));
    Ok(members(&base, row.guid, "spaces", spaces))
}

async fn entitle(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
    JsonBody(body): JsonBody<ToMany>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let row = find(&context, &segment).await?;
    domain::entitle(&context, &caller.actor(), &row, &guids(body)).await?;
    let orgs = context.store.isolation_segment_orgs(row.guid).await?;
    Ok(members(&base, row.guid, "organizations", orgs))
}

async fn revoke(
    State(context): State<Context>,
    caller: Caller,
    Path((segment, org)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    let row = find(&context, &segment).await?;
    let org = guid(&org, "Organization")?;
    let org = context.store.organization_get(org).await?.ok_or_else(|| ApiError::not_found("Organization"))?;
    domain::revoke(&context, &caller.actor(), &row, &org).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn relationship(base: &BaseUrl, path: String, segment: Option<Uuid>) -> Json<Value> {
    let mut links = base.links(&[("self", path)]);
    if let Some(segment) = segment {
        links.insert("related".to_owned(), base.link(&format!("{PATH}/{segment}")));
    }
    Json(json!({ "data": ToOne::maybe(segment).data, "links": links }))
}

fn organization_path(org: Uuid) -> String {
    format!("/v3/organizations/{org}/relationships/default_isolation_segment")
}

async fn of_organization(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(org): Path<String>,
) -> ApiResult<Json<Value>> {
    let row = organizations::require(&context, &caller, &org, OrgAction::Read).await?;
    Ok(relationship(&base, organization_path(row.guid), row.default_isolation_segment_guid))
}

async fn set_of_organization(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(org): Path<String>,
    JsonBody(body): JsonBody<ToOne>,
) -> ApiResult<Json<Value>> {
    let row = organizations::require(&context, &caller, &org, OrgAction::Manage).await?;
    let segment = domain::set_of_organization(&context, &caller.actor(), &row, body.guid()).await?;
    Ok(relationship(&base, organization_path(row.guid), segment))
}

fn space_path(space: Uuid) -> String {
    format!("/v3/spaces/{space}/relationships/isolation_segment")
}

async fn of_space(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(space): Path<String>,
) -> ApiResult<Json<Value>> {
    let row = spaces::require(&context, &caller, &space, SpaceAction::Read).await?;
    Ok(relationship(&base, space_path(row.guid), row.isolation_segment_guid))
}

async fn set_of_space(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(space): Path<String>,
    JsonBody(body): JsonBody<ToOne>,
) -> ApiResult<Json<Value>> {
    let row = spaces::require(&context, &caller, &space, SpaceAction::Read).await?;
    caller.require_org(&context, row.org_guid, "Space", OrgAction::Manage).await?;
    let segment = domain::set_of_space(&context, &caller.actor(), &row, body.guid()).await?;
    Ok(relationship(&base, space_path(row.guid), segment))
}
