//! Environment of an app.

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use slipway_api_types::common::Links;
use slipway_api_types::views::{AppEnvView, VarView};

use super::super::Router;
use super::find;
use crate::api::auth_extract::Caller;
use crate::api::body::JsonBody;
use crate::api::error::ApiResult;
use crate::api::feature_flags;
use crate::api::links::BaseUrl;
use crate::api::permissions::SpaceAction;
use crate::context::Context;
use crate::domain::apps;
use crate::domain::lifecycle::note;
use crate::domain::services::vcap;
use crate::domain::specs::environment::vcap_application;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/apps/{guid}/env", get(env))
        .route("/v3/apps/{guid}/environment_variables", get(variables).patch(set_variables))
}

async fn env(State(context): State<Context>, caller: Caller, Path(guid): Path<String>) -> ApiResult<Json<AppEnvView>> {
    let app = find(&context, &caller, &guid, SpaceAction::ReadEnvironment).await?;
    require_visible(&context, &caller).await?;
    let secrets = caller.require_space(&context, app.space_guid, "App", SpaceAction::Read).await?;
    let apps::ShownEnvironment { staging, running } = apps::show_environment(&context, &caller.actor(), &app).await?;
    let vcap = vcap_application(&running, None, None, app.guid);
    Ok(Json(AppEnvView {
        staging_env_json: staging.group_env,
        running_env_json: running.group_env,
        environment_variables: running.user_env,
        // Credentials of services are more than a supporter may see.
        system_env_json: if secrets.allows(SpaceAction::ReadSecrets) {
            vcap::variables(&running.services, running.delivery)
        } else {
            Map::from_iter([("redacted_message".to_owned(), json!("[PRIVATE DATA HIDDEN]"))])
        },
        application_env_json: Map::from_iter([("VCAP_APPLICATION".to_owned(), Value::Object(vcap))]),
    }))
}

/// Environments may be hidden from everybody, or from developers, whatever their roles.
async fn require_visible(context: &Context, caller: &Caller) -> ApiResult<()> {
    feature_flags::require_for(context, caller, "env_var_visibility").await?;
    if caller.is_admin_read_only {
        return Ok(());
    }
    feature_flags::require_for(context, caller, "space_developer_env_var_visibility").await
}

fn view(base: &BaseUrl, app: uuid::Uuid, var: Map<String, Value>) -> VarView {
    let links = Links::from([
        ("self".to_owned(), base.link(&format!("/v3/apps/{app}/environment_variables"))),
        ("app".to_owned(), base.link(&format!("/v3/apps/{app}"))),
    ]);
    VarView { var, links }
}

async fn variables(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Json<VarView>> {
    let app = find(&context, &caller, &guid, SpaceAction::ReadEnvironment).await?;
    require_visible(&context, &caller).await?;
    let var = apps::environment_of(&context, &app)?;
    note(&context, "audit.app.environment_variables.show", &caller.actor(), &app, json!({})).await?;
    Ok(Json(view(&base, app.guid, var)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VarBody {
    var: Map<String, Value>,
}

async fn set_variables(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    JsonBody(body): JsonBody<VarBody>,
) -> ApiResult<Json<VarView>> {
    let app = find(&context, &caller, &guid, SpaceAction::Support).await?;
    let var = apps::set_environment(&context, &caller.actor(), app.guid, body.var).await?;
    Ok(Json(view(&base, app.guid, var)))
}
