//! Making, changing and uploading buildpacks: admins only.

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{MetadataPatch, Timestamp};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::{jobs, upload};
use crate::context::Context;
use crate::domain::buildpacks::{self as domain, BuildpackCreate, BuildpackUpdate};
use crate::domain::metadata::metadata_of;
use crate::domain::packages::buildpack_upload as received;
use crate::store::buildpacks::BuildpackRow;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/buildpacks", post(create))
        .route("/v3/buildpacks/{guid}", axum::routing::patch(update).delete(delete))
        .route("/v3/buildpacks/{guid}/upload", post(receive).layer(DefaultBodyLimit::disable()))
}

/// A buildpack as clients see it.
#[must_use]
pub fn view(base: &BaseUrl, row: &BuildpackRow) -> Value {
    let own = format!("/v3/buildpacks/{}", row.guid);
    json!({
        "guid": row.guid, "created_at": Timestamp(row.created_at), "updated_at": Timestamp(row.updated_at),
        "name": row.name, "stack": row.stack, "state": row.state, "filename": row.filename,
        "position": row.position, "enabled": row.enabled, "locked": row.locked, "lifecycle": row.lifecycle,
        "metadata": metadata_of(&row.labels, &row.annotations),
        "links": { "self": base.link(&own), "upload": base.post(&format!("{own}/upload")) },
    })
}

async fn find(context: &Context, caller: &Caller, guid: &str) -> ApiResult<BuildpackRow> {
    let guid = super::guid(guid, "Buildpack")?;
    let row = context.store.buildpack_row(guid).await?.ok_or_else(|| ApiError::not_found("Buildpack"))?;
    caller.require_admin()?;
    Ok(row)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: String,
    stack: Option<String>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    position: Option<i32>,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    locked: bool,
    lifecycle: Option<String>,
    metadata: Option<MetadataPatch>,
}

fn yes() -> bool {
    true
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<CreateBody>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    if body.lifecycle.as_deref().is_some_and(|lifecycle| lifecycle != "buildpack") {
        return Err(ApiError::unprocessable("Lifecycle must be \"buildpack\" on this platform"));
    }
    let wish = BuildpackCreate {
        name: body.name,
        stack: body.stack,
        position: body.position,
        enabled: body.enabled,
        locked: body.locked,
        metadata: body.metadata,
    };
    let row = domain::create(&context, &caller.actor(), wish).await?;
    Ok((StatusCode::CREATED, Json(view(&base, &row))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    name: Option<String>,
    stack: Option<String>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    position: Option<i32>,
    enabled: Option<bool>,
    locked: Option<bool>,
    metadata: Option<MetadataPatch>,
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    JsonBody(body): JsonBody<UpdateBody>,
) -> ApiResult<Json<Value>> {
    let row = find(&context, &caller, &guid).await?;
    let change = BuildpackUpdate {
        name: body.name,
        stack: body.stack,
        position: body.position,
        enabled: body.enabled,
        locked: body.locked,
        metadata: body.metadata,
    };
    let row = domain::update(&context, &caller.actor(), &row, change).await?;
    Ok(Json(view(&base, &row)))
}

async fn delete(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Response> {
    let row = find(&context, &caller, &guid).await?;
    let job = domain::delete(&context, &caller.actor(), &row).await?;
    Ok(jobs::accepted(&base, job))
}

async fn receive(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    request: Request,
) -> ApiResult<Response> {
    let row = find(&context, &caller, &guid).await?;
    domain::check_unlocked(&row)?;
    let bounds = upload::Bounds { bits: context.config.limits.max_package_bytes, resources: None };
    let parts = upload::receive(&context, Uuid::nil(), bounds, request).await?;
    // In a task of its own: a client that hangs up does not free the place of what goes on.
    let actor = caller.actor();
    let work = tokio::spawn(async move {
        let _check_permit = context.uploads.checking().await?;
        let received = received::Received { directory: parts.directory, bits: parts.bits, filename: parts.filename };
        let done = received::finish(&context, &actor, row, received).await?;
        drop(parts.permit);
        Ok::<(BuildpackRow, Uuid), ApiError>(done)
    });
    let (row, job) = work.await.map_err(|error| ApiError::internal("finishing an upload", error))??;
    // Clients want the buildpack in the body besides the job's address.
    let mut response = (StatusCode::ACCEPTED, Json(view(&base, &row))).into_response();
    if let Ok(location) = HeaderValue::from_str(&base.url(&format!("/v3/jobs/{job}"))) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}
