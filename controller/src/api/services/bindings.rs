//! `/v3/service_credential_bindings`: bindings to apps, and keys.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{ErrorCode, MetadataPatch, Page, Timestamp, ToOne};
use uuid::Uuid;

use super::{instances, last_operation, object, readable, wanted};
use crate::api::apps::view::app as app_view;
use crate::api::auth_extract::Caller;
use crate::api::body::{JsonBody, MetadataBody};
use crate::api::error::{ApiError, ApiResult};
use crate::api::links::BaseUrl;
use crate::api::list::{ListQuery, ListSpec, add_included};
use crate::api::permissions::SpaceAction;
use crate::api::proof::prove_if_routed;
use crate::api::{Router, guid, values};
use crate::context::Context;
use crate::domain::DomainError;
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::services::bindings::{self as domain, BindingWish, Strategy};
use crate::store::services::{ServiceBindingRow, ServiceInstanceRow};

const LIST: ListSpec = ListSpec {
    filters: &[
        "names",
        "service_instance_guids",
        "service_instance_names",
        "service_plan_names",
        "service_plan_guids",
        "service_offering_names",
        "service_offering_guids",
        "app_guids",
        "app_names",
        "type",
    ],
    order: &["name"],
    include: &["app", "service_instance"],
    other: &[],
    labels: true,
};
const ONE: ListSpec = ListSpec { include: &["app", "service_instance"], ..ListSpec::PLAIN };
const BINDING: &str = "Service credential binding";

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/service_credential_bindings", get(list).post(create))
        .route("/v3/service_credential_bindings/{guid}", get(one).patch(update).delete(remove))
        .route("/v3/service_credential_bindings/{guid}/details", get(details))
        .route("/v3/service_credential_bindings/{guid}/parameters", get(parameters))
}

fn view(base: &BaseUrl, row: &ServiceBindingRow) -> Value {
    let path = format!("/v3/service_credential_bindings/{}", row.guid);
    let mut links = base.links(&[
        ("self", path.clone()),
        ("details", format!("{path}/details")),
        ("service_instance", format!("/v3/service_instances/{}", row.service_instance_guid)),
    ]);
    let mut relationships = json!({ "service_instance": ToOne::to(row.service_instance_guid) });
    if let Some(app) = row.app_guid {
        relationships["app"] = json!(ToOne::to(app));
        links.insert("app".to_owned(), base.link(&format!("/v3/apps/{app}")));
    }
    json!({
        "guid": row.guid, "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.updated_at),
        "name": row.name, "type": row.kind, "last_operation": last_operation(&row.last_operation),
        "metadata": metadata_of(&row.labels, &row.annotations), "relationships": relationships, "links": links,
    })
}

/// Parents of these bindings, as far as they were asked for.
async fn included(
    context: &Context,
    base: &BaseUrl,
    query: &ListQuery,
    rows: &[ServiceBindingRow],
) -> ApiResult<Vec<(&'static str, Vec<Value>)>> {
    let mut included = Vec::new();
    if query.options.includes("app") {
        let guids: Vec<Uuid> = rows.iter().filter_map(|row| row.app_guid).collect();
        let apps = context.store.apps_by_guid(&guids).await?;
        let views = apps.into_iter().map(|app| app_view(base, app)).collect();
        included.push(("apps", values(views)?));
    }
    if query.options.includes("service_instance") {
        included.push(("service_instances", instance_views(context, base, rows).await?));
    }
    Ok(included)
}

/// The instances of these bindings, each once.
pub(super) async fn instance_views(
    context: &Context,
    base: &BaseUrl,
    rows: &[ServiceBindingRow],
) -> ApiResult<Vec<Value>> {
    let guids: Vec<Uuid> = rows.iter().map(|row| row.service_instance_guid).collect();
    let rows = context.store.service_instances_by_guid(&guids).await?;
    Ok(rows.iter().map(|row| instances::view(base, row)).collect())
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &LIST)?;
    if query.options.filter("type").is_some_and(|kinds| !matches!(kinds, [kind] if matches!(&**kind, "app" | "key"))) {
        return Err(ApiError::bad_query("The query parameter is invalid: Type must be one of 'app', 'key'"));
    }
    let spaces = caller.visible_spaces(&context).await?;
    let (rows, total) = context.store.service_binding_list(&query.options, &spaces).await?;
    let views = rows.iter().map(|row| view(&base, row)).collect();
    let mut page = query.page(&base, "/v3/service_credential_bindings", total, views);
    for (name, parents) in included(&context, &base, &query, &rows).await? {
        add_included(&mut page, name, parents);
    }
    Ok(Json(page))
}

/// A binding with its instance and the space it counts for: the app's, or the instance's for a key.
struct BindingContext {
    row: ServiceBindingRow,
    instance: ServiceInstanceRow,
    space: Uuid,
}

async fn find(context: &Context, caller: &Caller, text: &str) -> ApiResult<BindingContext> {
    let missing = || ApiError::not_found(BINDING);
    let row = context.store.service_binding_get(guid(text, BINDING)?).await?;
    let row = row.filter(|row| row.kind != "route").ok_or_else(missing)?;
    let instance = context.store.service_instance_get(row.service_instance_guid).await?.ok_or_else(missing)?;
    let space = match row.app_guid {
        Some(app) => context.store.app_get(app).await?.ok_or_else(missing)?.space_guid,
        None => instance.space_guid,
    };
    caller.require_space(context, space, BINDING, SpaceAction::Read).await?;
    Ok(BindingContext { row, instance, space })
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(binding): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Value>> {
    let query = ListQuery::parse(query.as_deref(), &ONE)?;
    let found = find(&context, &caller, &binding).await?;
    let mut view = view(&base, &found.row);
    for (name, parents) in included(&context, &base, &query, std::slice::from_ref(&found.row)).await? {
        view["included"][name] = json!(parents);
    }
    Ok(Json(view))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    #[serde(rename = "type", default)]
    kind: Option<Value>,
    #[serde(default)]
    name: Option<Value>,
    #[serde(default)]
    strategy: Option<Value>,
    #[serde(default, deserialize_with = "crate::api::body::present")]
    parameters: Option<Option<Value>>,
    #[serde(default)]
    relationships: Option<Relationships>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Relationships {
    #[serde(default)]
    service_instance: Option<ToOne>,
    #[serde(default)]
    app: Option<ToOne>,
}

fn strategy(value: Option<Value>) -> ApiResult<Strategy> {
    match value.as_ref().map(Value::as_str) {
        None | Some(Some("single")) => Ok(Strategy::Single),
        Some(Some("multiple")) => Ok(Strategy::Multiple),
        Some(_) => Err(ApiError::unprocessable("Strategy must be 'single' or 'multiple'")),
    }
}

fn missing(resource: &str, guid: &str) -> ApiError {
    ApiError::unprocessable(format!("The {resource} could not be found: '{guid}'"))
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let kind = body.kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    if !matches!(kind, "app" | "key") {
        return Err(ApiError::unprocessable("Type must be 'app' or 'key'"));
    }
    let relationships = body.relationships.unwrap_or_default();
    let blank = |what: &str| ApiError::unprocessable(format!("Relationships {what} can't be blank"));
    let instance = relationships.service_instance.ok_or_else(|| blank("Service instance"))?;
    let name = match body.name {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(_) => return Err(ApiError::unprocessable("Name must be a string")),
    };
    let has_parameters = body.parameters.is_some();
    object("Parameters", body.parameters.flatten().unwrap_or_default())?;
    let metadata = MetadataChange::check(body.metadata)?;
    let (guid, text) = wanted(&instance);
    let unknown = || missing("service instance", &text);
    let instance = readable(&context, &caller, guid.ok_or_else(unknown)?).await?.ok_or_else(unknown)?;
    let no_parameters =
        || ApiError::unprocessable("Binding parameters are not supported for user-provided service instances");
    if kind == "key" {
        if relationships.app.is_some() {
            return Err(ApiError::unprocessable("Relationships Unknown field(s): 'app'"));
        }
        if name.is_none_or(|name| name.is_empty()) {
            return Err(ApiError::unprocessable("Name can't be blank"));
        }
        if has_parameters && instance.is_user_provided() {
            return Err(no_parameters());
        }
        caller.require_space(&context, instance.space_guid, "Space", SpaceAction::Develop).await?;
        return Err(ApiError::unprocessable(
            "Service credential bindings of type 'key' are not supported for user-provided service instances.",
        ));
    }
    let strategy = strategy(body.strategy)?;
    let app = relationships.app.ok_or_else(|| blank("App"))?;
    if has_parameters && instance.is_user_provided() {
        return Err(no_parameters());
    }
    let (app, text) = wanted(&app);
    let unknown = || missing("app", &text);
    let app = context.store.app_get(app.ok_or_else(unknown)?).await?.ok_or_else(unknown)?;
    match caller.require_space(&context, app.space_guid, "App", SpaceAction::Support).await {
        Err(error) if error.status() == StatusCode::NOT_FOUND => return Err(unknown()),
        access => access?,
    };
    let wish = BindingWish { name, strategy, metadata };
    let row = match domain::bind(&context, &caller.actor(), app.guid, instance.guid, wish).await {
        // It has gone meanwhile.
        Err(DomainError::NotFound("App")) => return Err(unknown()),
        row => row?,
    };
    Ok((StatusCode::CREATED, Json(view(&base, &row))))
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(binding): Path<String>,
    JsonBody(body): JsonBody<MetadataBody>,
) -> ApiResult<Json<Value>> {
    let found = find(&context, &caller, &binding).await?;
    caller.require_space(&context, found.space, BINDING, SpaceAction::Develop).await?;
    let row = domain::relabel(&context, &caller.actor(), &found.row, &found.instance, body.metadata).await?;
    Ok(Json(view(&base, &row)))
}

async fn remove(State(context): State<Context>, caller: Caller, Path(binding): Path<String>) -> ApiResult<Response> {
    let found = find(&context, &caller, &binding).await?;
    let action = if found.row.kind == "key" { SpaceAction::Develop } else { SpaceAction::Support };
    caller.require_space(&context, found.space, BINDING, action).await?;
    let version = domain::unbind(&context, &caller.actor(), &found.row, &found.instance).await?;
    Ok(prove_if_routed(&context, version, StatusCode::NO_CONTENT.into_response()).await)
}

async fn details(
    State(context): State<Context>,
    caller: Caller,
    Path(binding): Path<String>,
) -> ApiResult<Json<Value>> {
    let found = find(&context, &caller, &binding).await?;
    match caller.require_space(&context, found.space, BINDING, SpaceAction::ReadSecrets).await {
        // Who may not read secrets is not told that there are any.
        Err(error) if error.status() == StatusCode::FORBIDDEN => return Err(ApiError::not_found(BINDING)),
        access => access?,
    };
    let credentials = domain::show_credentials(&context, &caller.actor(), &found.row, &found.instance).await?;
    let mut details = json!({ "credentials": credentials });
    if let Some(url) = &found.instance.syslog_drain_url {
        details["syslog_drain_url"] = json!(url);
    }
    Ok(Json(details))
}

async fn parameters(
    State(context): State<Context>,
    caller: Caller,
    Path(binding): Path<String>,
) -> ApiResult<Json<Value>> {
    let found = find(&context, &caller, &binding).await?;
    match caller.require_space(&context, found.space, BINDING, SpaceAction::ReadEnvironment).await {
        Err(error) if error.status() == StatusCode::FORBIDDEN => return Err(ApiError::not_found(BINDING)),
        access => access?,
    };
    domain::require_made(&found.row)?;
    Err(ApiError::new(
        ErrorCode::ServiceFetchBindingParametersNotSupported,
        "This service does not support fetching service binding parameters.",
    ))
}
