//! Deployments: bringing an app to another droplet, environment, revision or size without a gap.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{ErrorCode, MetadataPatch, Page, Ref, Timestamp};
use uuid::Uuid;

use super::Router;
use super::apps::actions::AppRelationship;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::of_app::{self, Relabelled, Shown, by_guid, of_app};
use super::permissions::SpaceAction;
use crate::context::Context;
use crate::domain::deployments::{
    self, DeploymentCreate, DeploymentSnapshot, Options, Progress, ROLLED, Source, Strategy,
};
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::store::deployments::DeploymentRow;
use crate::store::metadata::Labelled;

const LIST: ListSpec =
    ListSpec { filters: &["app_guids", "states", "status_reasons", "status_values"], labels: true, ..ListSpec::PLAIN };

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/deployments", get(list).post(create))
        .route("/v3/deployments/{guid}", get(of_app::one::<DeploymentRow>).patch(of_app::relabel::<DeploymentRow>))
        .route("/v3/deployments/{guid}/actions/cancel", post(cancel))
        .route("/v3/deployments/{guid}/actions/continue", post(proceed))
}

of_app!(DeploymentRow, "Deployment", deployment_get);

impl Shown for DeploymentRow {
    type View = Value;

    fn show(self, base: &BaseUrl) -> ApiResult<Value> {
        view(base, &self)
    }
}

impl Relabelled for DeploymentRow {
    const TABLE: Labelled = Labelled::Deployment;
}

fn view(base: &BaseUrl, row: &DeploymentRow) -> ApiResult<Value> {
    let own = format!("/v3/deployments/{}", row.guid);
    let snapshot = DeploymentSnapshot::of(row)?;
    let droplet = |guid: Option<Uuid>| json!({ "guid": guid });
    let mut details = json!({
        "last_successful_healthcheck": row.last_healthy_at.map(Timestamp),
        "last_status_change": Timestamp(row.status_changed_at),
    });
    if let Some(error) = &row.error {
        details["error"] = error.as_str().into();
    }
    let mut links = json!({
        "self": base.link(&own),
        "app": base.link(&format!("/v3/apps/{}", row.app_guid)),
    });
    if row.status_value == "ACTIVE" {
        links["cancel"] = json!(base.post(&format!("{own}/actions/cancel")));
    }
    if row.status_reason == "PAUSED" {
        links["continue"] = json!(base.post(&format!("{own}/actions/continue")));
    }
    let mut status = json!({ "value": row.status_value, "reason": row.status_reason, "details": details });
    if row.strategy == Strategy::Canary.as_str() {
        let current = Progress::of(row)?.canary_step;
        status["canary"] = json!({ "steps": { "current": current, "total": Options::step_count(&row.options) } });
    }
    let revision = row.revision_guid.map(|guid| json!({ "guid": guid, "version": snapshot.revision_version }));
    Ok(json!({
        "guid": row.guid,
        "created_at": Timestamp(row.created_at),
        "updated_at": Timestamp(row.updated_at),
        "status": status,
        "strategy": row.strategy,
        "options": row.options,
        "droplet": droplet(row.droplet_guid),
        "previous_droplet": droplet(row.previous_droplet_guid),
        "new_processes": [{ "guid": snapshot.process, "type": ROLLED }],
        "revision": revision,
        "relationships": { "app": { "data": { "guid": row.app_guid } } },
        "metadata": metadata_of(&row.labels, &row.annotations),
        "links": links,
    }))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let visible = caller.visible_spaces(&context).await?;
    let query = ListQuery::parse(query.as_deref(), &LIST)?;
    let (rows, total) = context.store.deployment_list(&query.options, &visible).await?;
    let views = rows.iter().map(|row| view(&base, row)).collect::<ApiResult<_>>()?;
    Ok(Json(query.page(&base, "/v3/deployments", total, views)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    strategy: Option<String>,
    droplet: Option<Ref>,
    revision: Option<Ref>,
    #[serde(default)]
    options: Value,
    metadata: Option<MetadataPatch>,
    relationships: AppRelationship,
}

impl CreateBody {
    fn wish(self) -> ApiResult<DeploymentCreate> {
        let strategy = Strategy::parse(self.strategy.as_deref()).map_err(ApiError::unprocessable)?;
        let options = Options::parse(&self.options, strategy).map_err(ApiError::unprocessable)?;
        let guid = |reference: &Ref, detail: &str| reference.guid.parse().map_err(|_| ApiError::unprocessable(detail));
        let source = match (&self.droplet, &self.revision) {
            (Some(_), Some(_)) => {
                return Err(ApiError::unprocessable("Droplet Cannot set both fields 'droplet' and 'revision'"));
            }
            (Some(droplet), None) => Source::Droplet(guid(
                droplet,
                "Unable to assign current droplet. Ensure the droplet exists and belongs to this app.",
            )?),
            (None, Some(revision)) => Source::Revision(guid(revision, "The revision does not exist")?),
            (None, None) => Source::Current,
        };
        Ok(DeploymentCreate { strategy, source, options, metadata: MetadataChange::check(self.metadata)? })
    }
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<CreateBody>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    if context.config.limits.temporary_disable_deployments {
        let detail = "Deployments cannot be created due to manifest property 'temporary_disable_deployments'";
        return Err(ApiError::new(ErrorCode::DeploymentsDisabled, detail));
    }
    let app = body.relationships.find_to_run(&context, &caller).await?;
    let row = deployments::create(&context, &caller.actor(), app.guid, body.wish()?).await?;
    Ok((StatusCode::CREATED, Json(view(&base, &row)?)))
}

async fn cancel(State(context): State<Context>, caller: Caller, Path(guid): Path<String>) -> ApiResult<StatusCode> {
    let row: DeploymentRow = by_guid(&context, &caller, &guid, SpaceAction::Support).await?;
    deployments::cancel(&context, &caller.actor(), &row).await?;
    Ok(StatusCode::OK)
}

async fn proceed(State(context): State<Context>, caller: Caller, Path(guid): Path<String>) -> ApiResult<StatusCode> {
    let row: DeploymentRow = by_guid(&context, &caller, &guid, SpaceAction::Support).await?;
    deployments::proceed(&context, &caller.actor(), &row).await?;
    Ok(StatusCode::OK)
}
