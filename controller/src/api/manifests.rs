//! Manifests: applying, comparing, and writing one of an existing app.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::permissions::SpaceAction;
use super::{body, jobs};
use crate::context::Context;
use crate::domain::apps::environment_of;
use crate::domain::manifest::{self, Manifest, yaml};
use crate::store::processes::processes_of_app_tx;
use crate::store::services::bindings::service_names_of_app_tx;
use crate::store::sidecars::sidecars_of_app_tx;
use crate::store::specs::app_uris_tx;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/spaces/{guid}/actions/apply_manifest", post(apply))
        .route("/v3/spaces/{guid}/manifest_diff", post(diff))
        .route("/v3/apps/{guid}/manifest", get(write))
}

async fn read(headers: &HeaderMap, request: Request) -> ApiResult<Manifest> {
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
    manifest::parse::manifest(&document).map_err(ApiError::unprocessable_many)
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
    let manifest = read(&headers, request).await?;
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
    let manifest = read(&headers, request).await?;
    let diff = manifest::diff::diff(&context, space, &manifest).await?;
    Ok((StatusCode::CREATED, Json(json!({ "diff": diff }))))
}

async fn write(State(context): State<Context>, caller: Caller, Path(guid): Path<String>) -> ApiResult<Response> {
    let app = super::apps::find(&context, &caller, &guid, SpaceAction::ReadSecrets).await?;
    let mut tx = context.store.pool().begin().await?;
    let uris = app_uris_tx(&mut tx, app.guid).await?;
    let processes: Vec<Value> = processes_of_app_tx(&mut tx, app.guid)
        .await?
        .into_iter()
        .map(|row| {
            let mut process = Map::new();
            process.insert("type".to_owned(), json!(row.kind));
            process.insert("instances".to_owned(), json!(row.instances));
            process.insert("memory".to_owned(), json!(format!("{}M", row.memory_in_mb)));
            process.insert("disk_quota".to_owned(), json!(format!("{}M", row.disk_in_mb)));
            if let Some(command) = row.command {
                process.insert("command".to_owned(), command.into());
            }
            process.insert("health-check-type".to_owned(), row.health_check["type"].clone());
            Value::Object(process)
        })
        .collect();
    let mut entry = Map::new();
    entry.insert("name".to_owned(), json!(app.name));
    entry.insert("stack".to_owned(), json!(app.lifecycle_stack));
    if !app.lifecycle_buildpacks.is_empty() {
        entry.insert("buildpacks".to_owned(), json!(app.lifecycle_buildpacks));
    }
    let environment = environment_of(&context, &app)?;
    if !environment.is_empty() {
        entry.insert("env".to_owned(), Value::Object(environment));
    }
    if !uris.is_empty() {
        let routes: Vec<Value> = uris.into_iter().map(|uri| json!({ "route": uri })).collect();
        entry.insert("routes".to_owned(), json!(routes));
    }
    let services: Vec<Value> = service_names_of_app_tx(&mut tx, app.guid)
        .await?
        .into_iter()
        .map(|(name, binding)| match binding {
            None => json!(name),
            Some(binding) => json!({ "name": name, "binding_name": binding }),
        })
        .collect();
    if !services.is_empty() {
        entry.insert("services".to_owned(), json!(services));
    }
    entry.insert("processes".to_owned(), json!(processes));
    let sidecars: Vec<Value> = sidecars_of_app_tx(&mut tx, app.guid)
        .await?
        .into_iter()
        .map(|row| {
            let mut sidecar = json!({ "name": row.name, "process_types": row.process_types, "command": row.command });
            if let Some(memory) = row.memory_in_mb {
                sidecar["memory"] = format!("{memory}M").into();
            }
            sidecar
        })
        .collect();
    if !sidecars.is_empty() {
        entry.insert("sidecars".to_owned(), json!(sidecars));
    }
    let document = json!({ "applications": [entry] });
    let text = serde_norway::to_string(&document).map_err(|error| ApiError::internal("writing a manifest", error))?;
    Ok(([(CONTENT_TYPE, "application/x-yaml")], format!("---\n{text}")).into_response())
}
