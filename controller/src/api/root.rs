//! Discovery: `/`, `/v3`, `/v3/info`. Without a token.

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Map, Value, json};
use slipway_api_types::API_VERSION;

use super::Router;
use super::links::BaseUrl;
use crate::context::Context;

/// Collections, as keys of `GET /v3`.
const COLLECTIONS: &[&str] = &[
    "app_usage_events",
    "apps",
    "audit_events",
    "buildpacks",
    "builds",
    "deployments",
    "domains",
    "droplets",
    "environment_variable_groups",
    "feature_flags",
    "info",
    "isolation_segments",
    "organization_quotas",
    "organizations",
    "packages",
    "processes",
    "resource_matches",
    "roles",
    "routes",
    "security_groups",
    "service_credential_bindings",
    "service_instances",
    "service_route_bindings",
    "service_usage_events",
    "space_quotas",
    "spaces",
    "stacks",
    "users",
];

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new().route("/", get(root)).route("/v3", get(v3)).route("/v3/info", get(info))
}

/// What every client reads first. Absent parts are null, which clients check for.
async fn root(State(context): State<Context>, base: BaseUrl) -> Json<Value> {
    let neighbour = |name: &str| json!({ "href": base.neighbour(name, &context.config.system_domain) });
    Json(json!({
        "links": {
            "self": { "href": base.as_str() },
            "cloud_controller_v2": null,
            "cloud_controller_v3": { "href": base.url("/v3"), "meta": { "version": API_VERSION } },
            "network_policy_v0": null,
            "network_policy_v1": null,
            "login": neighbour("login"),
            "uaa": neighbour("uaa"),
            "credhub": null,
            "routing": { "href": base.url("/routing") },
            "logging": null,
            "log_cache": neighbour("log-cache"),
            "log_stream": null,
            "app_ssh": null,
        }
    }))
}

async fn v3(base: BaseUrl) -> Json<Value> {
    let mut links = Map::new();
    links.insert("self".to_owned(), json!({ "href": base.url("/v3") }));
    for name in COLLECTIONS {
        links.insert((*name).to_owned(), json!({ "href": base.url(&format!("/v3/{name}")) }));
    }
    Json(json!({ "links": links }))
}

async fn info(base: BaseUrl) -> Json<Value> {
    Json(json!({
        "build": env!("CARGO_PKG_VERSION"),
        "cli_version": { "minimum": "", "recommended": "" },
        "custom": {},
        "description": "Slipway",
        "name": "slipway",
        "version": 0,
        "osbapi_version": "2.17",
        "rate_limits": { "enabled": false, "general_limit": 0, "reset_interval_in_minutes": 0 },
        "links": { "self": { "href": base.url("/v3/info") }, "support": { "href": "" } },
    }))
}
