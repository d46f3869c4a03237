//! `/v3/service_instances`, except sharing.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use slipway_api_types::{ErrorCode, MetadataPatch, Page, Timestamp, ToOne};
use uuid::Uuid;

use super::{INSTANCE, fields, last_operation, object, readable, require};
use crate::api::auth_extract::Caller;
use crate::api::body::{JsonBody, present};
use crate::api::error::{ApiError, ApiResult};
use crate::api::links::BaseUrl;
use crate::api::list::{ListQuery, ListSpec, add_included};
use crate::api::permissions::SpaceAction;
use crate::api::proof::prove_if_routed;
use crate::api::{Router, feature_flags, guid, related};
use crate::context::Context;
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::services::instances::{self as domain, InstanceWish};
use crate::store::services::ServiceInstanceRow;

const LIST: ListSpec = ListSpec {
    filters: &["names", "space_guids", "organization_guids", "service_plan_guids", "service_plan_names", "type"],
    order: &["name"],
    include: &[],
    other: fields::PARAMETERS,
    labels: true,
};
const ONE: ListSpec = ListSpec { other: fields::PARAMETERS, ..ListSpec::PLAIN };

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/service_instances", get(list).post(create))
        .route("/v3/service_instances/{guid}", get(one).patch(update).delete(remove))
        .route("/v3/service_instances/{guid}/credentials", get(credentials))
        .route("/v3/service_instances/{guid}/parameters", get(parameters))
        .route("/v3/service_instances/{guid}/permissions", get(permissions))
}

/// An instance as clients see it.
pub(super) fn view(base: &BaseUrl, row: &ServiceInstanceRow) -> Value {
    let path = format!("/v3/service_instances/{}", row.guid);
    let mut links = base.links(&[
        ("self", path.clone()),
        ("space", format!("/v3/spaces/{}", row.space_guid)),
        ("service_credential_bindings", format!("/v3/service_credential_bindings?service_instance_guids={}", row.guid)),
        ("service_route_bindings", format!("/v3/service_route_bindings?service_instance_guids={}", row.guid)),
    ]);
    let mut view = json!({
        "guid": row.guid, "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.updated_at),
        "name": row.name, "tags": row.tags, "last_operation": last_operation(&row.last_operation), "type": row.kind,
        "relationships": { "space": ToOne::to(row.space_guid) },
        "metadata": metadata_of(&row.labels, &row.annotations),
    });
    if row.is_user_provided() {
        view["syslog_drain_url"] = json!(row.syslog_drain_url);
        view["route_service_url"] = json!(row.route_service_url);
        links.insert("credentials".to_owned(), base.link(&format!("{path}/credentials")));
    } else {
        links.insert("shared_spaces".to_owned(), base.link(&format!("{path}/relationships/shared_spaces")));
        links.insert("parameters".to_owned(), base.link(&format!("{path}/parameters")));
    }
    view["links"] = json!(links);
    view
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &LIST)?;
    if query.options.filter("type").is_some_and(|kinds| !matches!(kinds, [kind] if is_kind(kind))) {
        return Err(ApiError::bad_query(
            "The query parameter is invalid: Type must be one of 'managed', 'user-provided'",
        ));
    }
    let visible = caller.visible_spaces(&context).await?;
    let (rows, total) = context.store.service_instance_list(&query.options, &visible).await?;
    let spaces: Vec<Uuid> = rows.iter().map(|row| row.space_guid).collect();
    let views = rows.iter().map(|row| view(&base, row)).collect();
    let mut page = query.page(&base, "/v3/service_instances", total, views);
    for (name, parents) in fields::included(&context, &caller, &query.other, &spaces).await?.unwrap_or_default() {
        let parents = parents.as_array().cloned().unwrap_or_default();
        add_included(&mut page, &name, parents);
    }
    Ok(Json(page))
}

fn is_kind(text: &str) -> bool {
    matches!(text, "managed" | "user-provided")
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(instance): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Value>> {
    let query = ListQuery::parse(query.as_deref(), &ONE)?;
    let missing = || ApiError::not_found(INSTANCE);
    let row = readable(&context, &caller, guid(&instance, INSTANCE)?).await?.ok_or_else(missing)?;
    let mut view = view(&base, &row);
    if let Some(included) = fields::included(&context, &caller, &query.other, &[row.space_guid]).await? {
        view["included"] = Value::Object(included);
    }
    Ok(Json(view))
}

/// What `POST` and `PATCH` have in common. Values are taken as they are, so that refusals are in the words that
/// clients of Cloud Foundry know.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(rename = "type", default)]
    kind: Option<Value>,
    #[serde(default)]
    relationships: Option<Relationships>,
    #[serde(default, deserialize_with = "present")]
    parameters: Option<Option<Value>>,
    #[serde(default, deserialize_with = "present")]
    maintenance_info: Option<Option<Value>>,
    #[serde(default)]
    name: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    tags: Option<Option<Value>>,
    #[serde(default, deserialize_with = "present")]
    credentials: Option<Option<Value>>,
    #[serde(default, deserialize_with = "present")]
    syslog_drain_url: Option<Option<Value>>,
    #[serde(default, deserialize_with = "present")]
    route_service_url: Option<Option<Value>>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Relationships {
    #[serde(default)]
    space: Option<ToOne>,
    #[serde(default)]
    service_plan: Option<ToOne>,
}

impl Body {
    /// What a developer says of a user-provided instance.
    fn wish(self) -> ApiResult<InstanceWish> {
        let unknown =
            [("parameters", self.parameters.is_some()), ("maintenance_info", self.maintenance_info.is_some())];
        if let Some((name, _)) = unknown.into_iter().find(|(_, there)| *there) {
            return Err(ApiError::unprocessable(format!("Unknown field(s): '{name}'")));
        }
        let name = match self.name {
            None => None,
            Some(Value::String(name)) if name.trim().is_empty() => {
                return Err(ApiError::unprocessable("Name can't be blank"));
            }
            Some(Value::String(name)) => Some(name),
            Some(_) => return Err(ApiError::unprocessable("Name must be a string")),
        };
        let credentials = match self.credentials {
            None => None,
            Some(value) => Some(object("Credentials", value.unwrap_or_default())?),
        };
        Ok(InstanceWish {
            name,
            credentials,
            tags: self.tags.map(|value| tags(value.unwrap_or_default())).transpose()?,
            syslog_drain_url: self.syslog_drain_url.map(|value| url("Syslog drain url", value)).transpose()?,
            route_service_url: self.route_service_url.map(|value| url("Route service url", value)).transpose()?,
            metadata: MetadataChange::check(self.metadata)?,
        })
    }
}

fn tags(value: Value) -> ApiResult<Vec<String>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(tag) => Ok(tag),
                _ => Err(ApiError::unprocessable("Tags must be a list of strings")),
            })
            .collect(),
        _ => Err(ApiError::unprocessable("Tags must be an array")),
    }
}

fn url(what: &str, value: Option<Value>) -> ApiResult<Option<String>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::unprocessable(format!("{what} must be a valid URI"))),
    }
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(mut body): JsonBody<Body>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    if !caller.is_admin {
        feature_flags::require(&context, "service_instance_creation").await?;
    }
    let kind = body.kind.take();
    let kind = kind.as_ref().and_then(Value::as_str).filter(|kind| is_kind(kind));
    let kind = kind.ok_or_else(|| ApiError::unprocessable("Type must be one of 'managed', 'user-provided'"))?;
    let relationships = body.relationships.take().unwrap_or_default();
    let space = relationships.space.ok_or_else(|| ApiError::unprocessable("Relationships Space can't be blank"))?;
    let bad_space =
        || ApiError::unprocessable("Invalid space. Ensure that the space exists and you have access to it.");
    let space = related(&space).ok_or_else(bad_space)?;
    let access = match caller.require_space(&context, space, "Space", SpaceAction::Develop).await {
        Err(error) if error.status() == StatusCode::NOT_FOUND => return Err(bad_space()),
        access => access?,
    };
    if kind == "managed" {
        // True whatever plan is named: there is none without a broker.
        return Err(ApiError::unprocessable(
            "Invalid service plan. Ensure that the service plan exists, is available, and you have access to it.",
        ));
    }
    if relationships.service_plan.is_some() {
        return Err(ApiError::unprocessable("Relationships Unknown field(s): 'service_plan'"));
    }
    let wish = body.wish()?;
    let row = domain::create(&context, &caller.actor(), space, access.standing.org_guid, wish).await?;
    Ok((StatusCode::CREATED, Json(view(&base, &row))))
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(instance): Path<String>,
    JsonBody(body): JsonBody<Body>,
) -> ApiResult<Response> {
    let (row, access) = require(&context, &caller, &instance, SpaceAction::Develop).await?;
    for (name, there) in [("type", body.kind.is_some()), ("relationships", body.relationships.is_some())] {
        if there {
            return Err(ApiError::unprocessable(format!("Unknown field(s): '{name}'")));
        }
    }
    let wish = body.wish()?;
    let org = access.standing.org_guid;
    let (row, version) = domain::update(&context, &caller.actor(), org, row.guid, wish).await?;
    Ok(prove_if_routed(&context, version, Json(view(&base, &row)).into_response()).await)
}

async fn remove(State(context): State<Context>, caller: Caller, Path(instance): Path<String>) -> ApiResult<Response> {
    let (row, access) = require(&context, &caller, &instance, SpaceAction::Develop).await?;
    let version = domain::delete(&context, &caller.actor(), access.standing.org_guid, row.guid).await?;
    Ok(prove_if_routed(&context, version, StatusCode::NO_CONTENT.into_response()).await)
}

async fn credentials(
    State(context): State<Context>,
    caller: Caller,
    Path(instance): Path<String>,
) -> ApiResult<Json<Map<String, Value>>> {
    let (row, access) = require(&context, &caller, &instance, SpaceAction::ReadSecrets).await?;
    if !row.is_user_provided() {
        return Err(ApiError::not_found(INSTANCE));
    }
    let org = access.standing.org_guid;
    let credentials = domain::show_credentials(&context, &caller.actor(), org, &row).await?;
    Ok(Json(credentials))
}

async fn parameters(
    State(context): State<Context>,
    caller: Caller,
    Path(instance): Path<String>,
) -> ApiResult<Json<Value>> {
    require(&context, &caller, &instance, SpaceAction::Read).await?;
    Err(ApiError::new(
        ErrorCode::ServiceFetchInstanceParametersNotSupported,
        "This service does not support fetching service instance parameters.",
    ))
}

async fn permissions(
    State(context): State<Context>,
    caller: Caller,
    Path(instance): Path<String>,
) -> ApiResult<Json<Value>> {
    let guid = guid(&instance, INSTANCE)?;
    // Asked by dashboards on behalf of anybody, so a caller without any role is told so, and not "not found".
    let row = context.store.service_instance_get(guid).await?.ok_or_else(|| ApiError::not_found(INSTANCE))?;
    let read = readable(&context, &caller, guid).await?.is_some();
    let manage = match caller.require_space(&context, row.space_guid, INSTANCE, SpaceAction::Develop).await {
        Ok(_) => true,
        Err(error) if error.status().is_client_error() => false,
        Err(error) => return Err(error),
    };
    Ok(Json(json!({ "manage": manage, "read": read })))
}
