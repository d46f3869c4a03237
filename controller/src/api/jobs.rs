//! `/v3/jobs`, and the answers that begin one.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use slipway_api_types::ApiErrorEntry;
use slipway_api_types::views::{JobView, JobWarning};
use tokio::time::Instant;
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use crate::context::Context;
use crate::store::jobs::JobRow;

/// A job that is still young is waited for a moment, because a client that sees it unfinished comes back only after
/// three seconds. Most jobs take milliseconds.
const WAIT: Duration = Duration::from_millis(800);
const LOOK: Duration = Duration::from_millis(40);

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new().route("/v3/jobs/{guid}", get(one))
}

/// 202 with the job's address. `Location` means "job" to clients, so it stands nowhere else.
pub fn accepted(base: &BaseUrl, job: Uuid) -> Response {
    let mut response = StatusCode::ACCEPTED.into_response();
    if let Ok(location) = HeaderValue::from_str(&base.url(&format!("/v3/jobs/{job}"))) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

async fn one(
    State(context): State<Context>,
    _caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Json<JobView>> {
    let guid = super::guid(&guid, "Job")?;
    let started = Instant::now();
    loop {
        let row = context.store.job_get(guid).await?.ok_or_else(|| ApiError::not_found("Job"))?;
        if row.state != "PROCESSING" || started.elapsed() >= WAIT {
            return Ok(Json(view(&base, row)));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn view(base: &BaseUrl, row: JobRow) -> JobView {
    let errors: Vec<ApiErrorEntry> = serde_json::from_value(row.errors).unwrap_or_default();
    let warnings: Vec<JobWarning> = serde_json::from_value(row.warnings).unwrap_or_default();
    let mut links = slipway_api_types::common::Links::new();
    links.insert("self".to_owned(), base.link(&format!("/v3/jobs/{}", row.guid)));
    // What was deleted has no address.
    if let (Some(kind), Some(guid), false) = (&row.resource_type, row.resource_guid, row.operation.ends_with(".delete"))
    {
        links.insert(kind.clone(), base.link(&format!("/v3/{kind}s/{guid}")));
    }
    JobView {
        guid: row.guid.to_string(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        operation: row.operation,
        state: row.state,
        errors,
        warnings,
        links,
    }
}
