//! The v3 API: parse, authorise, present. No SQL.
//!
//! One file per resource, each with `routes() -> Router<Context>`, merged in [`endpoints`]. [`Router`] is axum's with a
//! memory: each new endpoint needs its row in `tests/roles/table.txt`. What they share:
//! [`auth_extract::Caller`], [`permissions`], [`list`], [`body`], [`links`] and [`error`].
//!
//! A handler may be dropped when its client hangs up. So everything that must happen together is one transaction, and
//! what follows the commit (a wake, waiting for routers) may be lost without harm.

pub mod admin;
mod api_lines;
pub mod apps;
pub mod auth_extract;
pub mod body;
pub mod buildpack_changes;
pub mod builds;
pub mod catalog;
pub mod client_address;
pub mod deployments;
pub mod destinations;
mod domain_sharing;
pub mod domains;
pub mod download;
mod drained;
pub mod droplets;
pub mod endpoints;
pub mod environment_groups;
pub mod error;
pub mod events;
pub mod fair;
pub mod feature_flags;
mod form;
pub mod jobs;
pub mod label_selector;
pub mod links;
pub mod list;
pub mod log_cache;
pub mod manifests;
pub mod members;
pub mod middleware;
pub mod numbers;
mod of_app;
pub mod organizations;
pub mod packages;
pub mod permissions;
pub mod present;
pub mod processes;
pub mod proof;
pub mod query;
pub mod quotas;
pub mod revisions;
pub mod roles;
pub mod root;
mod route_sharing;
pub mod routes;
pub mod security_groups;
pub mod segments;
pub mod services;
pub mod sidecars;
pub mod spaces;
pub mod stacks;
pub mod tasks;
pub mod uaa;
pub mod upload;
pub mod usage_events;
pub mod users;
pub mod warnings;

use serde::Serialize;
use serde_json::Value;
use slipway_api_types::{ToMany, ToOne};
use tower_http::normalize_path::NormalizePath;
use uuid::Uuid;

use crate::context::Context;
pub use endpoints::Router;
use error::{ApiError, ApiResult};

/// Every endpoint of this controller.
#[must_use]
pub fn endpoints() -> Router<Context> {
    Router::new()
        .merge(root::routes())
        .merge(uaa::routes())
        .merge(jobs::routes())
        .merge(apps::routes())
        .merge(processes::routes())
        .merge(packages::routes())
        .merge(builds::routes())
        .merge(deployments::routes())
        .merge(revisions::routes())
        .merge(sidecars::routes())
        .merge(droplets::routes())
        .merge(tasks::routes())
        .merge(log_cache::routes())
        .merge(manifests::routes())
        .merge(buildpack_changes::routes())
        .merge(organizations::routes())
        .merge(spaces::routes())
        .merge(domains::routes())
        .merge(routes::routes())
        .merge(roles::routes())
        .merge(users::routes())
        .merge(events::routes())
        .merge(feature_flags::routes())
        .merge(catalog::routes())
        .merge(quotas::routes())
        .merge(stacks::routes())
        .merge(environment_groups::routes())
        .merge(usage_events::routes())
        .merge(members::routes())
        .merge(admin::routes())
        .merge(security_groups::routes())
        .merge(segments::routes())
        .merge(services::routes())
}

/// What answers requests: every endpoint, and what stands around them.
pub fn router(context: Context) -> axum::Router {
    // A slash at the end of a path says nothing, as on Cloud Foundry. It goes before anything is matched, which no layer
    // of the router that matches could do.
    axum::Router::new().fallback_service(NormalizePath::trim_trailing_slash(matching(context)))
}

fn matching(context: Context) -> axum::Router {
    let drained = axum::middleware::from_fn_with_state(context.clone(), drained::drained);
    endpoints()
        .into_inner()
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(middleware::panicked))
        .layer(axum::middleware::from_fn(query::well_formed))
        .layer(axum::middleware::from_fn(fair::add_headers))
        .layer(axum::middleware::from_fn(middleware::trace))
        .layer(drained)
        .with_state(context)
}

async fn unknown() -> ApiError {
    ApiError::unknown_request()
}

/// A guid from a path. What is no guid is "not found", as anything else that does not exist.
///
/// # Errors
/// 404 `<what> not found`.
pub fn guid(text: &str, what: &'static str) -> ApiResult<Uuid> {
    text.parse().map_err(|_| ApiError::not_found(what))
}

/// The guid in a to-one relationship; `None` when it is empty or no guid.
#[must_use]
pub fn related(relationship: &ToOne) -> Option<Uuid> {
    relationship.guid().and_then(|text| text.parse().ok())
}

/// The guids in a to-many relationship, as the client wrote them.
fn guids(relationship: ToMany) -> Vec<String> {
    relationship.data.into_iter().map(|reference| reference.guid).collect()
}

/// Views as values, for `included`.
///
/// # Errors
/// Never in practice: views have text keys only.
pub fn values<T: Serialize>(views: Vec<T>) -> ApiResult<Vec<Value>> {
    views
        .into_iter()
        .map(|view| serde_json::to_value(view).map_err(|error| ApiError::internal("a parent cannot be shown", error)))
        .collect()
}
