//! `/v3/service_instances/:guid/relationships/shared_spaces`.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{delete, get};
use http::StatusCode;
use serde_json::{Value, json};
use slipway_api_types::ToMany;
use uuid::Uuid;

use super::{INSTANCE, fields, readable, require};
use crate::api::auth_extract::Caller;
use crate::api::body::JsonBody;
use crate::api::error::{ApiError, ApiResult};
use crate::api::links::BaseUrl;
use crate::api::list::{ListQuery, ListSpec};
use crate::api::permissions::SpaceAction;
use crate::api::{Router, feature_flags, guid};
use crate::context::Context;
use crate::domain::services::sharing::{self as domain, Target};

const LIST: ListSpec = ListSpec { other: fields::OF_SPACES, ..ListSpec::PLAIN };

pub(super) fn routes() -> Router<Context> {
    let path = "/v3/service_instances/{guid}/relationships/shared_spaces";
    Router::new()
        .route(path, get(list).post(share))
        .route("/v3/service_instances/{guid}/relationships/shared_spaces/usage_summary", get(usage_summary))
        .route("/v3/service_instances/{guid}/relationships/shared_spaces/{space}", delete(unshare))
}

async fn view(context: &Context, base: &BaseUrl, instance: Uuid) -> ApiResult<(Value, Vec<Uuid>)> {
    let shares = context.store.service_instance_shares(instance).await?;
    let spaces: Vec<Uuid> = shares.iter().map(|share| share.space_guid).collect();
    let data: Vec<Value> = spaces.iter().map(|space| json!({ "guid": space })).collect();
    let path = format!("/v3/service_instances/{instance}/relationships/shared_spaces");
    Ok((json!({ "data": data, "links": base.links(&[("self", path)]) }), spaces))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(instance): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Value>> {
    let query = ListQuery::parse(query.as_deref(), &LIST)?;
    let missing = || ApiError::not_found(INSTANCE);
    let row = readable(&context, &caller, guid(&instance, INSTANCE)?).await?.ok_or_else(missing)?;
    let (mut view, spaces) = view(&context, &base, row.guid).await?;
    if let Some(included) = fields::included(&context, &caller, &query.other, &spaces).await? {
        view["included"] = Value::Object(included);
    }
    Ok(Json(view))
}

async fn usage_summary(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(instance): Path<String>,
) -> ApiResult<Json<Value>> {
    let missing = || ApiError::not_found(INSTANCE);
    let row = readable(&context, &caller, guid(&instance, INSTANCE)?).await?.ok_or_else(missing)?;
    let shares = context.store.service_instance_shares(row.guid).await?;
    let summary: Vec<Value> = shares
        .iter()
        .map(|share| json!({ "space": { "guid": share.space_guid }, "bound_app_count": share.bound_apps }))
        .collect();
    let path = format!("/v3/service_instances/{}", row.guid);
    let shared = format!("{path}/relationships/shared_spaces");
    Ok(Json(json!({
        "usage_summary": summary,
        "links": base.links(&[
            ("self", format!("{shared}/usage_summary")), ("shared_spaces", shared), ("service_instance", path),
        ]),
    })))
}

/// Spaces that exist and that the caller may write to.
async fn targets(context: &Context, caller: &Caller, name: &str, wanted: &ToMany) -> ApiResult<Vec<Target>> {
    let (mut targets, mut unreadable, mut unwritable) = (Vec::new(), Vec::new(), Vec::new());
    for reference in &wanted.data {
        let text = reference.guid.as_str();
        let Ok(guid) = text.parse::<Uuid>() else {
            unreadable.push(format!("'{text}'"));
            continue;
        };
        match caller.require_space(context, guid, "Space", SpaceAction::Develop).await {
            Ok(access) => targets.push(Target { guid, name: access.standing.space_name }),
            Err(error) if error.status() == StatusCode::NOT_FOUND => unreadable.push(format!("'{text}'")),
            Err(error) if error.status() == StatusCode::FORBIDDEN => unwritable.push(format!("'{text}'")),
            Err(error) => return Err(error),
        }
    }
    let mut problems = Vec::new();
    if !unreadable.is_empty() {
        problems.push(format!(
            "Unable to share service instance {name} with spaces [{}]. Ensure the spaces exist and that you have access \
             to them.",
            unreadable.join(", ")
        ));
    }
    if !unwritable.is_empty() {
        problems.push(format!(
            "Unable to share service instance {name} with spaces [{}]. Write permission is required in order to share a \
             service instance with a space.",
            unwritable.join(", ")
        ));
    }
    if problems.is_empty() { Ok(targets) } else { Err(ApiError::unprocessable(problems.join("\n"))) }
}

async fn share(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(instance): Path<String>,
    JsonBody(body): JsonBody<ToMany>,
) -> ApiResult<Json<Value>> {
    feature_flags::require(&context, "service_instance_sharing").await?;
    let (row, access) = require(&context, &caller, &instance, SpaceAction::Develop).await?;
    let targets = targets(&context, &caller, &row.name, &body).await?;
    domain::share(&context, &caller.actor(), access.standing.org_guid, row.guid, &targets).await?;
    Ok(Json(view(&context, &base, row.guid).await?.0))
}

async fn unshare(
    State(context): State<Context>,
    caller: Caller,
    Path((instance, space)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let (row, access) = require(&context, &caller, &instance, SpaceAction::Develop).await?;
    let missing = || {
        ApiError::unprocessable(format!(
            "Unable to unshare service instance from space {space}. Ensure the space exists."
        ))
    };
    let target: Uuid = space.parse().map_err(|_| missing())?;
    context.store.space_get(target).await?.ok_or_else(missing)?;
    domain::unshare(&context, &caller.actor(), access.standing.org_guid, row.guid, target).await?;
    Ok(StatusCode::NO_CONTENT)
}
