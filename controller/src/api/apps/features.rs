//! Features of an app, and what a caller may do with it.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::Page;

use super::super::Router;
use super::find;
use crate::api::auth_extract::Caller;
use crate::api::body::JsonBody;
use crate::api::error::{ApiError, ApiResult};
use crate::api::links::BaseUrl;
use crate::api::list::{ListQuery, ListSpec};
use crate::api::permissions::SpaceAction;
use crate::context::Context;
use crate::domain::apps::{self, AppUpdate, BindingFiles};
use crate::domain::services::vcap::FEATURES;
use crate::store::apps::AppRow;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/apps/{guid}/features", get(list))
        .route("/v3/apps/{guid}/features/{name}", get(one).patch(set))
        .route("/v3/apps/{guid}/ssh_enabled", get(ssh_enabled))
        .route("/v3/apps/{guid}/permissions", get(permissions))
}

fn view(app: &AppRow, files: Option<&str>, name: &str) -> ApiResult<Value> {
    if let Some((_, description, _)) = FEATURES.iter().find(|(feature, _, _)| *feature == name) {
        return Ok(json!({ "name": name, "description": description, "enabled": files == Some(name) }));
    }
    match name {
        "ssh" => Ok(json!({ "name": "ssh", "description": "Enable SSHing into the app.", "enabled": app.ssh_enabled })),
        "revisions" => Ok(json!({
            "name": "revisions", "description": "Enable versioning of an application", "enabled": app.revisions_enabled,
        })),
        _ => Err(ApiError::not_found("Feature")),
    }
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    let query = ListQuery::parse(query.as_deref(), &ListSpec::PLAIN)?;
    let files = context.store.binding_files(app.guid).await?;
    let mut features = vec![view(&app, files.as_deref(), "ssh")?, view(&app, files.as_deref(), "revisions")?];
    for (name, _, _) in FEATURES {
        features.push(view(&app, files.as_deref(), name)?);
    }
    let total = features.len() as u64;
    Ok(Json(query.page(&base, &format!("/v3/apps/{}/features", app.guid), total, features)))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    Path((guid, name)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    let files = context.store.binding_files(app.guid).await?;
    view(&app, files.as_deref(), &name).map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureBody {
    enabled: bool,
}

async fn set(
    State(context): State<Context>,
    caller: Caller,
    Path((guid, name)): Path<(String, String)>,
    JsonBody(body): JsonBody<FeatureBody>,
) -> ApiResult<Json<Value>> {
    let action = if name == "revisions" { SpaceAction::Support } else { SpaceAction::Develop };
    let app = find(&context, &caller, &guid, action).await?;
    view(&app, None, &name)?;
    let change = AppUpdate {
        ssh: (name == "ssh").then_some(body.enabled),
        revisions: (name == "revisions").then_some(body.enabled),
        binding_files: FEATURES
            .iter()
            .find(|(feature, _, _)| *feature == name)
            .map(|(feature, _, _)| BindingFiles { feature, enabled: body.enabled })
            .into_iter()
            .collect(),
        ..AppUpdate::default()
    };
    let request = json!({ "feature": name, "enabled": body.enabled });
    let app = apps::update(&context, &caller.actor(), app.guid, change, request).await?;
    let files = context.store.binding_files(app.guid).await?;
    view(&app, files.as_deref(), &name).map(Json)
}

async fn ssh_enabled(
    State(context): State<Context>,
    caller: Caller,
    Path(guid): Path<String>,
) -> ApiResult<Json<Value>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    let space = context.store.space_get(app.space_guid).await?.ok_or_else(|| ApiError::not_found("App"))?;
    let reason = match (space.allow_ssh, app.ssh_enabled) {
        (false, _) => format!("ssh is disabled for space '{}'", space.name),
        (true, false) => "ssh is disabled for app".to_owned(),
        (true, true) => String::new(),
    };
    Ok(Json(json!({ "enabled": reason.is_empty(), "reason": reason })))
}

async fn permissions(
    State(context): State<Context>,
    caller: Caller,
    Path(guid): Path<String>,
) -> ApiResult<Json<Value>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    let access = caller.require_space(&context, app.space_guid, "App", SpaceAction::Read).await?;
    Ok(Json(json!({
        "read_basic_data": true,
        "read_sensitive_data": access.allows(SpaceAction::ReadSecrets),
    })))
}
