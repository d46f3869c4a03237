//! Starting and stopping, and the current droplet of an app.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::ToOne;
use slipway_api_types::views::DropletView;

use super::super::Router;
use super::{find, view};
use crate::api::auth_extract::Caller;
use crate::api::body::JsonBody;
use crate::api::error::{ApiError, ApiResult};
use crate::api::links::BaseUrl;
use crate::api::permissions::SpaceAction;
use crate::api::proof::prove;
use crate::api::{droplets, jobs};
use crate::context::Context;
use crate::domain::lifecycle::{self, Action};
use crate::domain::removal;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/apps/{guid}/actions/start", post(start))
        .route("/v3/apps/{guid}/actions/stop", post(stop))
        .route("/v3/apps/{guid}/actions/restart", post(restart))
        .route("/v3/apps/{guid}/actions/clear_buildpack_cache", post(clear_buildpack_cache))
        .route("/v3/apps/{guid}/relationships/current_droplet", get(current_relationship).patch(assign))
        .route("/v3/apps/{guid}/droplets/current", get(current))
}

async fn act(context: Context, caller: Caller, base: BaseUrl, guid: String, action: Action) -> ApiResult<Response> {
    let app = find(&context, &caller, &guid, SpaceAction::Support).await?;
    let (row, version) = lifecycle::act(&context, &caller.actor(), app.guid, action).await?;
    let answer = Json(view::app(&base, row)).into_response();
    // Stopped means that no router sends it requests any more. What starts is told by its instances.
    Ok(match version.filter(|_| action == Action::Stop) {
        Some(version) => prove(&context, version, answer).await,
        None => answer,
    })
}

async fn start(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Response> {
    act(context, caller, base, guid, Action::Start).await
}

async fn stop(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Response> {
    act(context, caller, base, guid, Action::Stop).await
}

async fn restart(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Response> {
    act(context, caller, base, guid, Action::Restart).await
}

async fn clear_buildpack_cache(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Response> {
    let app = find(&context, &caller, &guid, SpaceAction::Support).await?;
    let job = removal::request(&context, &caller.actor(), "app.clear_buildpack_cache", "app", app.guid).await?;
    Ok(jobs::accepted(&base, job))
}

fn relationship(base: &BaseUrl, app: uuid::Uuid, droplet: Option<uuid::Uuid>) -> Json<Value> {
    Json(json!({
        "data": droplet.map(|guid| json!({ "guid": guid })),
        "links": {
            "self": base.link(&format!("/v3/apps/{app}/relationships/current_droplet")),
            "related": base.link(&format!("/v3/apps/{app}/droplets/current")),
        },
    }))
}

async fn current_relationship(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Json<Value>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    match app.droplet_guid {
        Some(droplet) => Ok(relationship(&base, app.guid, Some(droplet))),
        None => Err(ApiError::not_found("Droplet")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AssignBody {
    data: slipway_api_types::Ref,
}

async fn assign(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    JsonBody(body): JsonBody<AssignBody>,
) -> ApiResult<Json<Value>> {
    let app = find(&context, &caller, &guid, SpaceAction::Support).await?;
    let droplet = body.data.guid.parse().map_err(|_| {
        ApiError::unprocessable("Unable to assign current droplet. Ensure the droplet exists and belongs to this app.")
    })?;
    let row = lifecycle::assign_droplet(&context, &caller.actor(), app.guid, droplet).await?;
    Ok(relationship(&base, row.guid, row.droplet_guid))
}

async fn current(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Json<DropletView>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    let row = match app.droplet_guid {
        Some(droplet) => context.store.droplet_get(droplet).await?,
        None => None,
    };
    row.map(|row| Json(droplets::view(&base, row))).ok_or_else(|| ApiError::not_found("Droplet"))
}

/// A relationship to an app in a body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppRelationship {
    app: ToOne,
}

impl AppRelationship {
    /// The app, if the caller may develop in its space.
    ///
    /// # Errors
    /// 422 with the text clients know, 403.
    pub async fn find(&self, context: &Context, caller: &Caller) -> ApiResult<crate::store::apps::AppRow> {
        let missing = || ApiError::unprocessable("App is invalid. Ensure it exists and you have access to it.");
        let guid = self.app.guid().ok_or_else(missing)?;
        match find(context, caller, guid, SpaceAction::Develop).await {
            Err(error) if error.status() == http::StatusCode::NOT_FOUND => Err(missing()),
            other => other,
        }
    }

    /// The app, if the caller may start and stop it. Who may not is told the same as when there were none.
    ///
    /// # Errors
    /// 422 with the text clients know.
    pub async fn find_to_run(&self, context: &Context, caller: &Caller) -> ApiResult<crate::store::apps::AppRow> {
        let missing =
            || ApiError::unprocessable("Unable to use app. Ensure that the app exists and you have access to it.");
        let guid = self.app.guid().ok_or_else(missing)?;
        match find(context, caller, guid, SpaceAction::Support).await {
            Err(error) if error.refuses_the_caller() => Err(missing()),
            other => other,
        }
    }
}
