//! Builds.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use chrono::{TimeDelta, Utc};
use http::header::USER_AGENT;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use slipway_api_types::common::Links;
use slipway_api_types::views::{BuildView, Lifecycle};
use slipway_api_types::{MetadataPatch, Ref, ToOne};

use super::Router;
use super::apps::LifecycleBody;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::ListSpec;
use super::of_app::{self, Relabelled, Shown, by_guid, listed, of_app};
use super::permissions::SpaceAction;
use crate::context::Context;
use crate::domain::builds::{self, BuildCreate};
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::outcomes;
use crate::store::builds::BuildRow;
use crate::store::metadata::Labelled;
use crate::store::packages::PackageRow;

/// How old the end of a build must be before `cf` is told. It shows lines of the log once they are two seconds old, and none
/// any more as soon as it knows how the build has ended: told at once, it would leave out the last ones. It asks every three
/// seconds, so a build that took less than half a second costs nothing.
const FOR_THE_LOG: Duration = Duration::from_millis(2_500);

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/builds", get(of_app::list::<BuildRow>).post(create))
        .route("/v3/builds/{guid}", get(one).patch(of_app::relabel::<BuildRow>))
        .route("/v3/builds/{guid}/actions/cancel", post(cancel))
        .route("/v3/apps/{guid}/builds", get(of_app::list_of_app::<BuildRow>))
}

of_app!(BuildRow, "Build", build_get);

impl Shown for BuildRow {
    type View = BuildView;

    fn show(self, base: &BaseUrl) -> ApiResult<BuildView> {
        Ok(view(base, self))
    }
}

listed!(
    BuildRow,
    "builds",
    build_list(),
    ListSpec { filters: &["app_guids", "package_guids", "states"], labels: true, ..ListSpec::PLAIN }
);

impl Relabelled for BuildRow {
    const TABLE: Labelled = Labelled::Build;
}

fn view(base: &BaseUrl, row: BuildRow) -> BuildView {
    let mut links = Links::from([
        ("self".to_owned(), base.link(&format!("/v3/builds/{}", row.guid))),
        ("app".to_owned(), base.link(&format!("/v3/apps/{}", row.app_guid))),
    ]);
    if let Some(droplet) = row.droplet_guid {
        links.insert("droplet".to_owned(), base.link(&format!("/v3/droplets/{droplet}")));
    }
    let lifecycle = serde_json::from_value(row.lifecycle)
        .unwrap_or_else(|_| Lifecycle { kind: "buildpack".to_owned(), data: serde_json::Map::new() });
    BuildView {
        guid: row.guid.to_string(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        state: row.state,
        error: row.error,
        package: Ref::to(row.package_guid),
        droplet: row.droplet_guid.map(Ref::to),
        lifecycle,
        staging_memory_in_mb: row.staging_memory_in_mb.unsigned_abs(),
        staging_disk_in_mb: row.staging_disk_in_mb.unsigned_abs(),
        staging_log_rate_limit_bytes_per_second: -1,
        created_by: row.created_by,
        relationships: BTreeMap::from([("app".to_owned(), ToOne::to(row.app_guid))]),
        metadata: metadata_of(&row.labels, &row.annotations),
        links,
    }
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<BuildView>> {
    let row: BuildRow = by_guid(&context, &caller, &guid, SpaceAction::Read).await?;
    if row.state != "STAGING" {
        let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        tokio::time::sleep(pause(agent, Utc::now() - row.updated_at)).await;
    }
    Ok(Json(view(&base, row)))
}

/// For how long the answer waits that a build ended that long ago.
fn pause(agent: &str, ago: TimeDelta) -> Duration {
    // `cf8/8.18.4 (…)`, `cf/…`
    let program = agent.split('/').next().unwrap_or_default();
    let is_cf = program.strip_prefix("cf").is_some_and(|version| version.chars().all(|c| c.is_ascii_digit()));
    // A clock that differs from the database's must not make it longer.
    if is_cf { FOR_THE_LOG.saturating_sub(ago.to_std().unwrap_or_default()) } else { Duration::ZERO }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    package: Ref,
    lifecycle: Option<LifecycleBody>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    staging_memory_in_mb: Option<i64>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    staging_disk_in_mb: Option<i64>,
    #[serde(default, rename = "staging_log_rate_limit_bytes_per_second", deserialize_with = "super::numbers::whole")]
    _log_rate: Option<i64>,
    metadata: Option<MetadataPatch>,
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<CreateBody>,
) -> ApiResult<Response> {
    let missing =
        || ApiError::unprocessable("Unable to use package. Ensure that the package exists and you have access to it.");
    let package: PackageRow = match by_guid(&context, &caller, &body.package.guid, SpaceAction::Support).await {
        Err(error) if error.refuses_the_caller() => return Err(missing()),
        other => other?,
    };
    let choice = match body.lifecycle {
        Some(lifecycle) => lifecycle.choice()?,
        None => crate::domain::apps::LifecycleChoice::default(),
    };
    let wish = BuildCreate {
        buildpacks: choice.buildpacks,
        stack: choice.stack.flatten(),
        memory_mb: body.staging_memory_in_mb,
        disk_mb: body.staging_disk_in_mb,
        metadata: MetadataChange::check(body.metadata)?,
    };
    let row = builds::create(&context, &caller.actor(), caller.email.as_deref(), &package, wish).await?;
    let warning = builds::stack_warning(&context, &row).await?;
    let mut response = (StatusCode::CREATED, Json(view(&base, row))).into_response();
    if let Some(text) = warning {
        super::warnings::add(&mut response, &text);
    }
    Ok(response)
}

/// Ends a build that goes on. Cloud Foundry has no such endpoint: there, whoever interrupts a push waits for its build.
async fn cancel(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Json<BuildView>> {
    let row: BuildRow = by_guid(&context, &caller, &guid, SpaceAction::Support).await?;
    Ok(Json(view(&base, outcomes::build_cancelled(&context, &caller.actor(), row.guid).await?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cf_waits_for_the_log_and_only_for_a_fresh_failure() {
        let after = |agent: &str, seconds| pause(agent, TimeDelta::seconds(seconds)).as_millis();
        for agent in ["cf8/8.18.4 (go1.25; amd64 linux)", "cf/9.0.0", "cf"] {
            assert_eq!(
                [after(agent, 0), after(agent, 2), after(agent, 3), after(agent, 600)],
                [2_500, 500, 0, 0],
                "{agent}"
            );
            assert_eq!(after(agent, -600), 2_500, "a clock that goes after");
        }
        for agent in ["slipway/0.1.0", "", "cfclient/1.0", "curl/8 cf/9"] {
            assert_eq!(after(agent, 0), 0, "{agent}");
        }
    }
}
