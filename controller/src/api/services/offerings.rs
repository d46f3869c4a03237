//! Brokers and what they offer. There are none: lists are empty, and a broker cannot be registered yet.

use axum::Json;
use axum::extract::{Path, RawQuery};
use axum::routing::get;
use serde_json::Value;
use slipway_api_types::Page;

use crate::api::Router;
use crate::api::auth_extract::Caller;
use crate::api::error::{ApiError, ApiResult};
use crate::api::links::BaseUrl;
use crate::api::list::{ListQuery, ListSpec};
use crate::context::Context;

const BROKERS: ListSpec =
    ListSpec { filters: &["names", "space_guids"], order: &["name"], labels: true, ..ListSpec::PLAIN };
const OFFERINGS: ListSpec = ListSpec {
    filters: &[
        "names",
        "service_broker_guids",
        "service_broker_names",
        "space_guids",
        "organization_guids",
        "available",
    ],
    order: &["name"],
    include: &[],
    other: &["fields[service_broker]"],
    labels: true,
};
const PLANS: ListSpec = ListSpec {
    filters: &[
        "names",
        "available",
        "broker_catalog_ids",
        "organization_guids",
        "space_guids",
        "service_broker_guids",
        "service_broker_names",
        "service_instance_guids",
        "service_offering_guids",
        "service_offering_names",
    ],
    order: &["name"],
    include: &["service_offering", "space.organization"],
    other: &["fields[service_offering.service_broker]"],
    labels: true,
};

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/service_brokers", get(brokers).post(register))
        .route("/v3/service_brokers/{guid}", get(no_broker).patch(no_broker).delete(no_broker))
        .route("/v3/service_offerings", get(offerings))
        .route("/v3/service_offerings/{guid}", get(no_offering).patch(no_offering).delete(no_offering))
        .route("/v3/service_plans", get(plans))
        .route("/v3/service_plans/{guid}", get(no_plan).patch(no_plan).delete(no_plan))
        .route("/v3/service_plans/{guid}/visibility", get(no_plan).post(no_plan).patch(no_plan))
        .route("/v3/service_plans/{guid}/visibility/{org}", axum::routing::delete(no_visibility))
}

fn none(base: &BaseUrl, query: Option<&str>, spec: &ListSpec, path: &str) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query, spec)?;
    let mut page = query.page(base, path, 0, Vec::new());
    for name in &query.options.include {
        let plural = match name.as_str() {
            "space.organization" => "organizations".to_owned(),
            name => format!("{name}s"),
        };
        crate::api::list::add_included(&mut page, &plural, Vec::new());
    }
    Ok(Json(page))
}

async fn brokers(_caller: Caller, base: BaseUrl, RawQuery(query): RawQuery) -> ApiResult<Json<Page<Value>>> {
    none(&base, query.as_deref(), &BROKERS, "/v3/service_brokers")
}

/// The catalogue is open to people who are not logged in, as on Cloud Foundry.
async fn offerings(base: BaseUrl, RawQuery(query): RawQuery) -> ApiResult<Json<Page<Value>>> {
    none(&base, query.as_deref(), &OFFERINGS, "/v3/service_offerings")
}

async fn plans(base: BaseUrl, RawQuery(query): RawQuery) -> ApiResult<Json<Page<Value>>> {
    none(&base, query.as_deref(), &PLANS, "/v3/service_plans")
}

async fn register(caller: Caller) -> ApiError {
    if let Err(error) = caller.require_admin() {
        return error;
    }
    ApiError::unprocessable(
        "Service brokers are not supported by this platform yet. Make what exists elsewhere known to apps with a \
         user-provided service instance: cf create-user-provided-service.",
    )
}

async fn no_broker(_caller: Caller, Path(_): Path<String>) -> ApiError {
    ApiError::not_found("Service broker")
}

async fn no_offering(_caller: Caller, Path(_): Path<String>) -> ApiError {
    ApiError::not_found("Service offering")
}

async fn no_plan(_caller: Caller, Path(_): Path<String>) -> ApiError {
    ApiError::not_found("Service plan")
}

async fn no_visibility(_caller: Caller, Path(_): Path<(String, String)>) -> ApiError {
    ApiError::not_found("Service plan")
}
