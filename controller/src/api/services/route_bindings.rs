//! `/v3/service_route_bindings`: requests of a route go through a route service first.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{MetadataPatch, Page, Timestamp, ToOne};
use uuid::Uuid;

use super::bindings::instance_views;
use super::{last_operation, object, wanted};
use crate::api::auth_extract::Caller;
use crate::api::body::{JsonBody, MetadataBody};
use crate::api::error::{ApiError, ApiResult};
use crate::api::links::BaseUrl;
use crate::api::list::{ListQuery, ListSpec, add_included};
use crate::api::permissions::SpaceAction;
use crate::api::proof::prove_if_routed;
use crate::api::{Router, guid, routes, values};
use crate::context::Context;
use crate::domain::DomainError;
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::services::bindings::{relabel, unbind};
use crate::domain::services::route_bindings as domain;
use crate::store::services::{ServiceBindingRow, ServiceInstanceRow};

const LIST: ListSpec = ListSpec {
    filters: &["route_guids", "service_instance_guids", "service_instance_names"],
    order: &[],
    include: &["service_instance", "route"],
    other: &[],
    labels: true,
};
const ONE: ListSpec = ListSpec { include: &["service_instance", "route"], ..ListSpec::PLAIN };
const BINDING: &str = "Service route binding";

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/service_route_bindings", get(list).post(create))
        .route("/v3/service_route_bindings/{guid}", get(one).patch(update).delete(remove))
        .route("/v3/service_route_bindings/{guid}/parameters", get(parameters))
}

fn view(base: &BaseUrl, row: &ServiceBindingRow, url: Option<&str>) -> Value {
    let route = row.route_guid.unwrap_or_default();
    json!({
        "guid": row.guid, "route_service_url": url,
        "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.updated_at),
        "last_operation": last_operation(&row.last_operation), "metadata": metadata_of(&row.labels, &row.annotations),
        "relationships": { "service_instance": ToOne::to(row.service_instance_guid), "route": ToOne::to(route) },
        "links": base.links(&[
            ("self", format!("/v3/service_route_bindings/{}", row.guid)),
            ("service_instance", format!("/v3/service_instances/{}", row.service_instance_guid)),
            ("route", format!("/v3/routes/{route}")),
        ]),
    })
}

async fn included(
    context: &Context,
    base: &BaseUrl,
    query: &ListQuery,
    rows: &[ServiceBindingRow],
) -> ApiResult<Vec<(&'static str, Vec<Value>)>> {
    let mut included = Vec::new();
    if query.options.includes("service_instance") {
        included.push(("service_instances", instance_views(context, base, rows).await?));
    }
    if query.options.includes("route") {
        let guids: Vec<Uuid> = rows.iter().filter_map(|row| row.route_guid).collect();
        let found = context.store.routes_by_guid(&guids).await?;
        included.push(("routes", values(routes::views(context, base, found).await?)?));
    }
    Ok(included)
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &LIST)?;
    let spaces = caller.visible_spaces(&context).await?;
    let (rows, total) = context.store.service_route_binding_list(&query.options, &spaces).await?;
    let guids: Vec<Uuid> = rows.iter().map(|row| row.service_instance_guid).collect();
    let instances = context.store.service_instances_by_guid(&guids).await?;
    let url = |row: &ServiceBindingRow| {
        let instance = instances.iter().find(|instance| instance.guid == row.service_instance_guid);
        instance.and_then(|instance| instance.route_service_url.as_deref())
    };
    let views = rows.iter().map(|row| view(&base, row, url(row))).collect();
    let mut page = query.page(&base, "/v3/service_route_bindings", total, views);
    for (name, parents) in included(&context, &base, &query, &rows).await? {
        add_included(&mut page, name, parents);
    }
    Ok(Json(page))
}

struct RouteBindingContext {
    row: ServiceBindingRow,
    instance: ServiceInstanceRow,
}

async fn find(context: &Context, caller: &Caller, text: &str, action: SpaceAction) -> ApiResult<RouteBindingContext> {
    let missing = || ApiError::not_found(BINDING);
    let row = context.store.service_binding_get(guid(text, BINDING)?).await?.ok_or_else(missing)?;
    let route = context.store.route_get(row.route_guid.ok_or_else(missing)?).await?.ok_or_else(missing)?;
    let instance = context.store.service_instance_get(row.service_instance_guid).await?.ok_or_else(missing)?;
    caller.require_space(context, route.space_guid, BINDING, action).await?;
    Ok(RouteBindingContext { row, instance })
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(binding): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Value>> {
    let query = ListQuery::parse(query.as_deref(), &ONE)?;
    let found = find(&context, &caller, &binding, SpaceAction::Read).await?;
    let mut view = view(&base, &found.row, found.instance.route_service_url.as_deref());
    for (name, parents) in included(&context, &base, &query, std::slice::from_ref(&found.row)).await? {
        view["included"][name] = json!(parents);
    }
    Ok(Json(view))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    relationships: Relationships,
    #[serde(default, deserialize_with = "crate::api::body::present")]
    parameters: Option<Option<Value>>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Relationships {
    service_instance: ToOne,
    route: ToOne,
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<Response> {
    let metadata = MetadataChange::check(body.metadata)?;
    let has_parameters = body.parameters.is_some();
    object("Parameters", body.parameters.flatten().unwrap_or_default())?;
    let (instance, text) = wanted(&body.relationships.service_instance);
    let unknown = || ApiError::unprocessable(format!("The service instance could not be found: {text}"));
    let instance = context.store.service_instance_get(instance.ok_or_else(unknown)?).await?.ok_or_else(unknown)?;
    match caller.require_space(&context, instance.space_guid, "Space", SpaceAction::Support).await {
        Err(error) if error.status() == StatusCode::NOT_FOUND => return Err(unknown()),
        access => access?,
    };
    let (route, text) = wanted(&body.relationships.route);
    let unknown = || ApiError::unprocessable(format!("The route could not be found: {text}"));
    let route = context.store.route_get(route.ok_or_else(unknown)?).await?.ok_or_else(unknown)?;
    if !caller.can_read_space(&context, route.space_guid).await? {
        return Err(unknown());
    }
    if has_parameters && instance.is_user_provided() {
        return Err(ApiError::unprocessable(
            "Binding parameters are not supported for user-provided service instances",
        ));
    }
    let bound = match domain::bind(&context, &caller.actor(), route.guid, instance.guid, &metadata).await {
        // It has gone meanwhile.
        Err(DomainError::NotFound("Route")) => return Err(unknown()),
        bound => bound?,
    };
    let view = view(&base, &bound.row, bound.instance.route_service_url.as_deref());
    let answer = (StatusCode::CREATED, Json(view)).into_response();
    Ok(prove_if_routed(&context, bound.version, answer).await)
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(binding): Path<String>,
    JsonBody(body): JsonBody<MetadataBody>,
) -> ApiResult<Json<Value>> {
    let found = find(&context, &caller, &binding, SpaceAction::Develop).await?;
    let row = relabel(&context, &caller.actor(), &found.row, &found.instance, body.metadata).await?;
    Ok(Json(view(&base, &row, found.instance.route_service_url.as_deref())))
}

async fn remove(State(context): State<Context>, caller: Caller, Path(binding): Path<String>) -> ApiResult<Response> {
    let found = find(&context, &caller, &binding, SpaceAction::Support).await?;
    let version = unbind(&context, &caller.actor(), &found.row, &found.instance).await?;
    Ok(prove_if_routed(&context, version, StatusCode::NO_CONTENT.into_response()).await)
}

async fn parameters(
    State(context): State<Context>,
    caller: Caller,
    Path(binding): Path<String>,
) -> ApiResult<Json<Value>> {
    let found = find(&context, &caller, &binding, SpaceAction::ReadSecrets).await?;
    let whose =
        if found.instance.is_user_provided() { "user provided service instances do" } else { "this service does" };
    Err(ApiError::bad_request(format!("Bad request: {whose} not support fetching route bindings parameters.")))
}
