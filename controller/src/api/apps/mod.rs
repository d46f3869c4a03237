//! `/v3/apps` and what lies below it.

pub mod actions;
pub mod environment;
pub mod features;
pub mod view;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use slipway_api_types::views::AppView;
use slipway_api_types::{MetadataPatch, Page, ToOne};

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec, One, add_included};
use super::permissions::SpaceAction;
use super::{jobs, present};
use crate::context::Context;
use crate::domain::apps::{self, AppCreate, AppUpdate, LifecycleChoice};
use crate::domain::metadata::MetadataChange;
use crate::store::apps::AppRow;

const LIST: ListSpec = ListSpec {
    filters: &["names", "space_guids", "organization_guids", "stacks", "lifecycle_type"],
    order: &["name", "state"],
    include: &["space", "space.organization", "org"],
    other: &[],
    labels: true,
};

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/apps", get(list).post(create))
        .route("/v3/apps/{guid}", get(one).patch(update).delete(delete))
        .merge(actions::routes())
        .merge(environment::routes())
        .merge(features::routes())
}

/// The app of a path, if the caller may do this with it.
///
/// # Errors
/// 404 `App not found`, 403.
pub async fn find(context: &Context, caller: &Caller, guid: &str, action: SpaceAction) -> ApiResult<AppRow> {
    let guid = super::guid(guid, "App")?;
    let app = context.store.app_get(guid).await?.ok_or_else(|| ApiError::not_found("App"))?;
    caller.require_space(context, app.space_guid, "App", action).await?;
    Ok(app)
}

/// The app that something belongs to, if the caller may do this there.
///
/// # Errors
/// 404 `<what> not found`, 403.
pub async fn owner(
    context: &Context,
    caller: &Caller,
    app: uuid::Uuid,
    what: &'static str,
    action: SpaceAction,
) -> ApiResult<AppRow> {
    let app = context.store.app_get(app).await?.ok_or_else(|| ApiError::not_found(what))?;
    caller.require_space(context, app.space_guid, what, action).await?;
    Ok(app)
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<AppView>>> {
    page(&context, &caller, &base, query.as_deref(), "/v3/apps", None).await
}

/// A page of the apps that the caller sees; `stack` limits it to one.
///
/// # Errors
/// When the query is not understood, or the database fails.
pub(super) async fn page(
    context: &Context,
    caller: &Caller,
    base: &BaseUrl,
    query: Option<&str>,
    path: &str,
    stack: Option<String>,
) -> ApiResult<Json<Page<AppView>>> {
    let mut query = ListQuery::parse(query, &LIST)?;
    if let Some(stack) = stack {
        query.options.filters.insert("stacks".to_owned(), vec![stack]);
    }
    answer(context, caller, base, &query, path).await.map(Json)
}

async fn answer(
    context: &Context,
    caller: &Caller,
    base: &BaseUrl,
    query: &ListQuery,
    path: &str,
) -> ApiResult<Page<AppView>> {
    let visible = caller.visible_spaces(context).await?;
    let (rows, total) = context.store.app_list(&query.options, &visible).await?;
    let mut spaces: Vec<uuid::Uuid> = rows.iter().map(|row| row.space_guid).collect();
    spaces.sort_unstable();
    spaces.dedup();
    let views = rows.into_iter().map(|row| view::app(base, row)).collect();
    let mut page = query.page(base, path, total, views);
    if !query.options.include.is_empty() {
        let (spaces, orgs) = present::parents(context, base, &spaces).await?;
        if query.options.includes("space") || query.options.includes("space.organization") {
            add_included(&mut page, "spaces", spaces);
        }
        if query.options.includes("org") || query.options.includes("space.organization") {
            add_included(&mut page, "organizations", orgs);
        }
    }
    Ok(page)
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<One<AppView>>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    match ListQuery::of_one(query.as_deref(), &LIST, app.guid)? {
        Some(query) => {
            let page = answer(&context, &caller, &base, &query, "/v3/apps").await?;
            One::of(page).map(Json).ok_or_else(|| ApiError::not_found("App"))
        }
        None => Ok(Json(One::alone(view::app(&base, app)))),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: String,
    relationships: SpaceRelationship,
    lifecycle: Option<LifecycleBody>,
    #[serde(default)]
    environment_variables: Option<Map<String, Value>>,
    metadata: Option<MetadataPatch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpaceRelationship {
    space: ToOne,
}

/// `lifecycle` of apps and builds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifecycleBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    data: LifecycleData,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LifecycleData {
    #[serde(default, deserialize_with = "super::body::present")]
    buildpacks: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "super::body::present")]
    stack: Option<Option<String>>,
}

impl LifecycleBody {
    /// What it says, if it is one this platform knows.
    ///
    /// # Errors
    /// 422 for `docker` and `cnb`.
    pub fn choice(self) -> ApiResult<LifecycleChoice> {
        match self.kind.as_deref() {
            None | Some("buildpack") => Ok(LifecycleChoice {
                buildpacks: self.data.buildpacks.map(Option::unwrap_or_default),
                stack: self.data.stack,
            }),
            Some(kind @ ("docker" | "cnb")) => Err(ApiError::unprocessable(format!(
                "The lifecycle type {kind:?} is not supported by this platform; use \"buildpack\"."
            ))),
            Some(kind) => Err(ApiError::unprocessable(format!("Lifecycle type must be \"buildpack\", not {kind:?}"))),
        }
    }
}

fn choice(body: Option<LifecycleBody>) -> ApiResult<LifecycleChoice> {
    body.map_or_else(|| Ok(LifecycleChoice::default()), LifecycleBody::choice)
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<CreateBody>,
) -> ApiResult<(StatusCode, Json<AppView>)> {
    let no_space = || ApiError::unprocessable("Invalid space. Ensure that the space exists and you have access to it.");
    let space = body.relationships.space.guid().and_then(|guid| guid.parse().ok()).ok_or_else(no_space)?;
    if !caller.can_read_space(&context, space).await? {
        return Err(no_space());
    }
    caller.require_space(&context, space, "Space", SpaceAction::Develop).await?;
    let app = AppCreate {
        name: body.name,
        space,
        lifecycle: choice(body.lifecycle)?,
        environment: body.environment_variables.unwrap_or_default(),
        metadata: MetadataChange::check(body.metadata)?,
    };
    let row = apps::create(&context, &caller.actor(), app).await?;
    Ok((StatusCode::CREATED, Json(view::app(&base, row))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    name: Option<String>,
    lifecycle: Option<LifecycleBody>,
    metadata: Option<MetadataPatch>,
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    JsonBody(body): JsonBody<UpdateBody>,
) -> ApiResult<Json<AppView>> {
    let app = find(&context, &caller, &guid, SpaceAction::Develop).await?;
    let request = json!({ "name": body.name });
    let change = AppUpdate {
        name: body.name,
        lifecycle: choice(body.lifecycle)?,
        metadata: MetadataChange::check(body.metadata)?,
        ..AppUpdate::default()
    };
    let row = apps::update(&context, &caller.actor(), app.guid, change, request).await?;
    Ok(Json(view::app(&base, row)))
}

async fn delete(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Response> {
    let app = find(&context, &caller, &guid, SpaceAction::Develop).await?;
    let job = apps::delete(&context, &caller.actor(), app.guid).await?;
    Ok(jobs::accepted(&base, job))
}
