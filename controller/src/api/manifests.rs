//! Manifests: applying, comparing, and writing one of an existing app.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::permissions::SpaceAction;
use super::{body, jobs};
use crate::context::Context;
use crate::domain::manifest::{self, Manifest, emit, yaml};

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/spaces/{guid}/actions/apply_manifest", post(apply))
        .route("/v3/spaces/{guid}/manifest_diff", post(diff))
        .route("/v3/apps/{guid}/manifest", get(write))
}

/// The manifest, and the document that it was read from.
async fn read(headers: &HeaderMap, request: Request) -> ApiResult<(Manifest, Value)> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.to_ascii_lowercase().contains("yaml") {
        return Err(ApiError::bad_request("Content-Type must be yaml: send application/x-yaml"));
    }
    let bytes = body::read(request, manifest::MAX_BYTES).await?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| ApiError::message_parse("Request invalid due to parse error: the manifest is not UTF-8"))?;
    let document = yaml::parse(text).map_err(|error| match error {
        yaml::YamlError::Anchor(_) => ApiError::bad_request(format!("Bad request: {error}")),
        yaml::YamlError::Parse(_) => ApiError::message_parse(error.to_string()),
    })?;
    let manifest = manifest::parse::manifest(&document).map_err(ApiError::unprocessable_many)?;
    Ok((manifest, document))
}

async fn place(context: &Context, caller: &Caller, guid: &str) -> ApiResult<(Uuid, Uuid)> {
    let space = super::guid(guid, "Space")?;
    let access = caller.require_space(context, space, "Space", SpaceAction::Develop).await?;
    Ok((space, access.standing.org_guid))
}

async fn apply(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> ApiResult<Response> {
    let (space, org) = place(&context, &caller, &guid).await?;
    let (manifest, _) = read(&headers, request).await?;
    let no_new_routes = match super::feature_flags::require_for(&context, &caller, "route_creation").await {
        Ok(()) => None,
        Err(error) if error.status() == StatusCode::FORBIDDEN => {
            error.entries().first().map(|entry| entry.detail.clone())
        }
        Err(error) => return Err(error),
    };
    let job = manifest::apply::apply(&context, &caller.actor(), space, org, &manifest, no_new_routes).await?;
    Ok(jobs::accepted(&base, job))
}

async fn diff(
    State(context): State<Context>,
    caller: Caller,
    Path(guid): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let (space, _) = place(&context, &caller, &guid).await?;
    let (_, document) = read(&headers, request).await?;
    let diff = manifest::diff::diff(&context, space, &document).await?;
    Ok((StatusCode::CREATED, Json(json!({ "diff": diff }))))
}

async fn write(State(context): State<Context>, caller: Caller, Path(guid): Path<String>) -> ApiResult<Response> {
    let app = super::apps::find(&context, &caller, &guid, SpaceAction::ReadSecrets).await?;
    let entry = manifest::written::entry(&context, &app).await?;
    let text = emit::document(&json!({ "applications": [entry] }));
    Ok(([(CONTENT_TYPE, "application/x-yaml")], text).into_response())
}
