//! Routes in other spaces than their own: sharing, and moving to another owner.

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{delete, get, patch};
use http::StatusCode;
use serde_json::{Value, json};
use slipway_api_types::{ToMany, ToOne};
use uuid::Uuid;

use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::permissions::{SpaceAccess, SpaceAction};
use super::routes::require;
use super::{Router, feature_flags};
use crate::context::Context;
use crate::domain::route_sharing::{self as domain, NewOwner};

/// Switches all of this off; as on Cloud Foundry it is off until somebody switches it on.
const FLAG: &str = "route_sharing";

/// Endpoints.
pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/routes/{guid}/relationships/shared_spaces", get(list).post(share))
        .route("/v3/routes/{guid}/relationships/shared_spaces/{space}", delete(unshare))
        .route("/v3/routes/{guid}/relationships/space", patch(transfer))
}

async fn view(context: &Context, base: &BaseUrl, route: Uuid) -> ApiResult<Json<Value>> {
    let spaces = context.store.route_shared_spaces(route).await?;
    let data: Vec<Value> = spaces.into_iter().map(|space| json!({ "guid": space })).collect();
    let path = format!("/v3/routes/{route}/relationships/shared_spaces");
    Ok(Json(json!({ "data": data, "links": base.links(&[("self", path)]) })))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(route): Path<String>,
) -> ApiResult<Json<Value>> {
    feature_flags::require(&context, FLAG).await?;
    let (row, _) = require(&context, &caller, &route, SpaceAction::ReadRoutes).await?;
    view(&context, &base, row.guid).await
}

/// What a caller may do in the space that a route shall come to.
enum Target {
    /// It may be written to.
    Writable(SpaceAccess),
    /// It is there, or not, but not for this caller.
    Unreadable,
    /// It may only be read.
    Unwritable,
    /// Its organization is suspended.
    Suspended,
}

async fn target(context: &Context, caller: &Caller, text: &str, action: SpaceAction) -> ApiResult<Target> {
    let Ok(guid) = text.parse::<Uuid>() else { return Ok(Target::Unreadable) };
    match caller.require_space(context, guid, "Space", action).await {
        Ok(access) => Ok(Target::Writable(access)),
        Err(error) if error.status() == StatusCode::NOT_FOUND => Ok(Target::Unreadable),
        Err(error) if error.entries().iter().any(|entry| entry.title == "CF-OrgSuspended") => Ok(Target::Suspended),
        Err(error) if error.status() == StatusCode::FORBIDDEN => Ok(Target::Unwritable),
        Err(error) => Err(error),
    }
}

/// A target space, or why it is none.
async fn accessible(
    context: &Context,
    caller: &Caller,
    text: &str,
    what: impl Fn(&str) -> String,
) -> ApiResult<SpaceAccess> {
    let problem = match target(context, caller, text, SpaceAction::Support).await? {
        Target::Writable(access) => return Ok(access),
        Target::Unreadable => "Ensure the space exists and that you have access to it.",
        Target::Unwritable => "You don't have write permission for the target space.",
        Target::Suspended => "The target organization or space is suspended.",
    };
    Err(ApiError::unprocessable(what(problem)))
}

async fn share(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(route): Path<String>,
    JsonBody(body): JsonBody<ToMany>,
) -> ApiResult<Json<Value>> {
    feature_flags::require(&context, FLAG).await?;
    let (row, access) = require(&context, &caller, &route, SpaceAction::Support).await?;
    let (mut spaces, mut unreadable, mut unwritable) = (Vec::new(), Vec::new(), Vec::new());
    for reference in &body.data {
        let quoted = format!("'{}'", reference.guid);
        match target(&context, &caller, &reference.guid, SpaceAction::Develop).await? {
            Target::Writable(access) => spaces.push(access.standing.space_guid),
            Target::Unreadable => unreadable.push(quoted),
            Target::Unwritable | Target::Suspended => unwritable.push(quoted),
        }
    }
    let url = row.url();
    let mut problems = Vec::new();
    if !unreadable.is_empty() {
        problems.push(format!(
            "Unable to share route {url} with spaces [{}]. Ensure the spaces exist and that you have access to them.",
            unreadable.join(", ")
        ));
    }
    if !unwritable.is_empty() {
        problems.push(format!(
            "Unable to share route {url} with spaces [{}]. Write permission is required in order to share a route with \
             a space and the containing organization must not be suspended.",
            unwritable.join(", ")
        ));
    }
    if !problems.is_empty() {
        return Err(ApiError::unprocessable(problems.join("\n")));
    }
    domain::share(&context, &caller.actor(), access.standing.org_guid, &row, &spaces).await?;
    view(&context, &base, row.guid).await
}

async fn unshare(
    State(context): State<Context>,
    caller: Caller,
    Path((route, space)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    feature_flags::require(&context, FLAG).await?;
    let (row, access) = require(&context, &caller, &route, SpaceAction::Support).await?;
    let url = row.url();
    let what = |problem: &str| format!("Unable to unshare route '{url}' from space '{space}'. {problem}");
    let target = accessible(&context, &caller, &space, what).await?.standing.space_guid;
    domain::unshare(&context, &caller.actor(), access.standing.org_guid, &row, target).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn transfer(
    State(context): State<Context>,
    caller: Caller,
    Path(route): Path<String>,
    JsonBody(body): JsonBody<ToOne>,
) -> ApiResult<Json<Value>> {
    feature_flags::require(&context, FLAG).await?;
    let (row, access) = require(&context, &caller, &route, SpaceAction::Develop).await?;
    let space = body.guid().ok_or_else(|| ApiError::unprocessable("Data can't be blank"))?;
    let what = |problem: &str| domain::untransferable(&row, space, problem);
    let target = accessible(&context, &caller, space, what).await?.standing;
    let to = NewOwner { space: target.space_guid, org: target.org_guid, written: space };
    domain::transfer(&context, &caller.actor(), access.standing.org_guid, &row, to).await?;
    Ok(Json(json!({ "status": "ok" })))
}
