//! `/v3/routes`, `/v3/apps/:guid/routes`.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use slipway_api_types::views::{DestinationApp, DestinationProcess, DestinationView, RouteView};
use slipway_api_types::{MetadataPatch, Page, ToOne};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec, One, add_included};
use super::permissions::SpaceAction;
use super::proof::prove;
use super::{domains, guid, jobs, organizations, spaces};
use crate::context::Context;
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::routes::{self as domain, RouteCreate, RouteUpdate};
use crate::store::destinations::DestinationRow;
use crate::store::routes::RouteRow;

const SPEC: ListSpec = ListSpec {
    filters: &[
        "app_guids",
        "domain_guids",
        "hosts",
        "organization_guids",
        "paths",
        "ports",
        "service_instance_guids",
        "space_guids",
    ],
    order: &[],
    include: &["domain", "space", "space.organization"],
    other: &[],
    labels: true,
};

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/routes", get(list).post(create))
        .route("/v3/routes/{guid}", get(one).patch(patch).delete(remove))
        .route("/v3/apps/{guid}/routes", get(of_app))
        .merge(super::destinations::routes())
        .merge(super::route_sharing::routes())
}

pub(super) fn destination_view(row: &DestinationRow) -> DestinationView {
    DestinationView {
        guid: row.guid.to_string(),
        app: DestinationApp {
            guid: row.app_guid.to_string(),
            process: DestinationProcess { kind: row.process_type.clone() },
        },
        weight: row.weight.and_then(|weight| u32::try_from(weight).ok()),
        // Clients show 8080 as the port of an app without one of its own.
        port: Some(row.port.and_then(|port| u32::try_from(port).ok()).unwrap_or(8080)),
        protocol: Some(row.protocol.clone()),
        created_at: row.created_at.into(),
        updated_at: row.created_at.into(),
    }
}

fn view(base: &BaseUrl, row: RouteRow, destinations: &[DestinationRow]) -> RouteView {
    let path = format!("/v3/routes/{}", row.guid);
    RouteView {
        guid: row.guid.to_string(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        url: row.url(),
        protocol: row.protocol,
        host: row.host,
        path: row.path,
        port: row.port.and_then(|port| u32::try_from(port).ok()),
        destinations: destinations.iter().map(destination_view).collect(),
        options: row.options.and_then(|options| options.as_object().filter(|map| !map.is_empty()).cloned()),
        relationships: BTreeMap::from([
            ("space".to_owned(), ToOne::to(row.space_guid)),
            ("domain".to_owned(), ToOne::to(row.domain_guid)),
        ]),
        metadata: metadata_of(&row.labels, &row.annotations),
        links: base.links(&[
            ("self", path.clone()),
            ("space", format!("/v3/spaces/{}", row.space_guid)),
            ("domain", format!("/v3/domains/{}", row.domain_guid)),
            ("destinations", format!("{path}/destinations")),
        ]),
    }
}

pub(super) async fn views(context: &Context, base: &BaseUrl, rows: Vec<RouteRow>) -> ApiResult<Vec<RouteView>> {
    let guids: Vec<Uuid> = rows.iter().map(|row| row.guid).collect();
    let mut destinations: HashMap<Uuid, Vec<DestinationRow>> = HashMap::new();
    for row in context.store.destinations(&guids).await? {
        destinations.entry(row.route_guid).or_default().push(row);
    }
    Ok(rows
        .into_iter()
        .map(|row| {
            let own = destinations.remove(&row.guid).unwrap_or_default();
            view(base, row, &own)
        })
        .collect())
}

/// One route as it stands now.
pub(super) async fn present(context: &Context, base: &BaseUrl, guid: Uuid) -> ApiResult<RouteView> {
    let row = context.store.route_get(guid).await?.ok_or_else(|| ApiError::not_found("Route"))?;
    views(context, base, vec![row]).await?.pop().ok_or_else(|| ApiError::not_found("Route"))
}

/// A route that the caller may use for this, with the access to its space.
pub(super) async fn require(
    context: &Context,
    caller: &Caller,
    text: &str,
    action: SpaceAction,
) -> ApiResult<(RouteRow, super::permissions::SpaceAccess)> {
    let row = context.store.route_get(guid(text, "Route")?).await?.ok_or_else(|| ApiError::not_found("Route"))?;
    let access = caller.require_route_space(context, row.space_guid, action).await?;
    Ok((row, access))
}

async fn page(
    context: &Context,
    caller: &Caller,
    base: &BaseUrl,
    query: &ListQuery,
    path: &str,
    app: Option<Uuid>,
) -> ApiResult<Page<RouteView>> {
    let visible = caller.visible_route_spaces(context).await?;
    let (rows, total) = context.store.route_list(&query.options, &visible, app).await?;
    let domain_guids: Vec<Uuid> = rows.iter().map(|row| row.domain_guid).collect();
    let space_guids: Vec<Uuid> = rows.iter().map(|row| row.space_guid).collect();
    let mut page = query.page(base, path, total, views(context, base, rows).await?);
    if !["domain", "space", "space.organization"].iter().any(|include| query.options.includes(include)) {
        return Ok(page);
    }
    // Somebody who sees a route need not see what it belongs to: an organization's auditor sees no spaces, and who has
    // a route shared neither its space nor its organization.
    let orgs = caller.visible_orgs(context).await?;
    if query.options.includes("domain") {
        let rows = context.store.domains_by_guid(&domain_guids).await?;
        let views = domains::views(context, base, rows, &orgs).await?;
        add_included(&mut page, "domains", super::values(views)?);
    }
    if query.options.includes("space") || query.options.includes("space.organization") {
        let rows = context.store.spaces_by_guid(&space_guids).await?;
        let org_guids: Vec<Uuid> = rows.iter().map(|row| row.org_guid).filter(|org| orgs.contains(*org)).collect();
        let visible = caller.visible_spaces(context).await?;
        let rows = rows.into_iter().filter(|row| visible.contains(row.guid));
        let views = rows.map(|row| spaces::view(base, row)).collect::<Vec<_>>();
        add_included(&mut page, "spaces", super::values(views)?);
        if query.options.includes("space.organization") {
            let rows = context.store.organizations_by_guid(&org_guids).await?;
            let views = rows.into_iter().map(|row| organizations::view(base, row)).collect::<Vec<_>>();
            add_included(&mut page, "organizations", super::values(views)?);
        }
    }
    Ok(page)
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<RouteView>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    Ok(Json(page(&context, &caller, &base, &query, "/v3/routes", None).await?))
}

async fn of_app(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(app): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<RouteView>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    let app = guid(&app, "App")?;
    let (_, space) = context.store.app_spaces(&[app]).await?.pop().ok_or_else(|| ApiError::not_found("App"))?;
    caller.require_space(&context, space, "App", SpaceAction::Read).await?;
    Ok(Json(page(&context, &caller, &base, &query, &format!("/v3/apps/{app}/routes"), Some(app)).await?))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(route): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<One<RouteView>>> {
    let (row, _) = require(&context, &caller, &route, SpaceAction::ReadRoutes).await?;
    match ListQuery::of_one(query.as_deref(), &SPEC, row.guid)? {
        Some(query) => {
            let page = page(&context, &caller, &base, &query, "/v3/routes", None).await?;
            One::of(page).map(Json).ok_or_else(|| ApiError::not_found("Route"))
        }
        None => Ok(Json(One::alone(present(&context, &base, row.guid).await?))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    port: Option<u32>,
    #[serde(default)]
    options: Option<Map<String, Value>>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
    relationships: CreateRelationships,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateRelationships {
    space: ToOne,
    domain: ToOne,
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<Response> {
    let bad_space =
        || ApiError::unprocessable("Invalid space. Ensure that the space exists and you have access to it.");
    let space: Uuid = super::related(&body.relationships.space).ok_or_else(bad_space)?;
    let domain: Uuid = super::related(&body.relationships.domain).ok_or_else(domain::no_domain)?;
    let access = match caller.require_space(&context, space, "Space", SpaceAction::Support).await {
        Err(error) if error.status() == StatusCode::NOT_FOUND => return Err(bad_space()),
        access => access?,
    };
    if !caller.is_admin {
        super::feature_flags::require(&context, "route_creation").await?;
    }
    if body.port.is_some() {
        return Err(ApiError::unprocessable("Routes with protocol 'http' do not support ports."));
    }
    let wish = RouteCreate {
        space,
        org: access.standing.org_guid,
        domain,
        host: body.host.unwrap_or_default(),
        path: body.path.unwrap_or_default(),
        options: body.options.unwrap_or_default(),
        metadata: MetadataChange::check(body.metadata)?,
        wildcard_on_shared: caller.is_admin,
    };
    let guid = domain::create(&context, &caller.actor(), wish).await?;
    Ok((StatusCode::CREATED, Json(present(&context, &base, guid).await?)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default)]
    options: Option<Map<String, Value>>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

async fn patch(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(route): Path<String>,
    JsonBody(body): JsonBody<Patch>,
) -> ApiResult<Response> {
    let (row, access) = require(&context, &caller, &route, SpaceAction::Support).await?;
    let change = RouteUpdate { options: body.options, metadata: MetadataChange::check(body.metadata)? };
    let concerns_routers = change.options.is_some();
    let version = domain::update(&context, &caller.actor(), access.standing.org_guid, &row, change).await?;
    let answer = Json(present(&context, &base, row.guid).await?).into_response();
    // Labels do not concern routers.
    Ok(if concerns_routers { prove(&context, version, answer).await } else { answer })
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(route): Path<String>,
) -> ApiResult<Response> {
    let (row, access) = require(&context, &caller, &route, SpaceAction::Support).await?;
    let (job, version) = domain::delete(&context, &caller.actor(), access.standing.org_guid, &row).await?;
    Ok(prove(&context, version, jobs::accepted(&base, job)).await)
}
