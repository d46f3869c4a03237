//! Buildpacks, as everybody may read them.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use serde_json::{Value, json};
use slipway_api_types::{Page, Timestamp};

use super::Router;
use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use super::guid;
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use crate::context::Context;
use crate::domain::metadata::metadata_of;
use crate::store::buildpacks::BuildpackRow;

const BUILDPACKS: ListSpec = ListSpec {
    filters: &["names", "stacks", "lifecycle"],
    order: &["position", "name"],
    labels: true,
    ..ListSpec::PLAIN
};

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new().route("/v3/buildpacks", get(buildpacks)).route("/v3/buildpacks/{guid}", get(buildpack))
}

fn buildpack_view(base: &BaseUrl, row: &BuildpackRow) -> Value {
    json!({
        "guid": row.guid, "name": row.name, "stack": row.stack, "state": row.state, "filename": row.filename,
        "position": row.position, "enabled": row.enabled, "locked": row.locked, "lifecycle": row.lifecycle,
        "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.updated_at),
        "metadata": metadata_of(&row.labels, &row.annotations),
        "links": base.links(&[("self", format!("/v3/buildpacks/{}", row.guid))]),
    })
}

async fn buildpacks(
    State(context): State<Context>,
    _caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &BUILDPACKS)?;
    let (rows, total) = context.store.buildpack_list(&query.options).await?;
    let views = rows.iter().map(|row| buildpack_view(&base, row)).collect();
    Ok(Json(query.page(&base, "/v3/buildpacks", total, views)))
}

async fn buildpack(
    State(context): State<Context>,
    _caller: Caller,
    base: BaseUrl,
    Path(buildpack): Path<String>,
) -> ApiResult<Json<Value>> {
    let missing = || ApiError::not_found("Buildpack");
    let row = context.store.buildpack_get(guid(&buildpack, "Buildpack")?).await?.ok_or_else(missing)?;
    Ok(Json(buildpack_view(&base, &row)))
}
