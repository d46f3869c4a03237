//! `/v3/organizations`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::views::{DomainView, OrganizationView};
use slipway_api_types::{MetadataPatch, Page, ToOne};

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::permissions::OrgAction;
use super::{domains, guid, jobs};
use crate::context::Context;
use crate::domain::metadata::metadata_of;
use crate::domain::organizations::{self as domain, OrganizationCreate, OrganizationUpdate};
use crate::store::list::Visible;
use crate::store::organizations::OrganizationRow;
use crate::store::usage::Usage;

const SPEC: ListSpec = ListSpec { filters: &["names"], order: &["name"], labels: true, ..ListSpec::PLAIN };

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/organizations", get(list).post(create))
        .route("/v3/organizations/{guid}", get(one).patch(patch).delete(remove))
        .route("/v3/organizations/{guid}/domains", get(domains_of))
        .route("/v3/organizations/{guid}/domains/default", get(default_domain))
        .route("/v3/organizations/{guid}/usage_summary", get(usage))
}

pub(super) fn view(base: &BaseUrl, row: OrganizationRow) -> OrganizationView {
    let path = format!("/v3/organizations/{}", row.guid);
    OrganizationView {
        guid: row.guid.to_string(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        name: row.name,
        suspended: row.suspended,
        relationships: BTreeMap::from([("quota".to_owned(), ToOne::to(row.quota_guid))]),
        metadata: metadata_of(&row.labels, &row.annotations),
        links: base.links(&[
            ("self", path.clone()),
            ("domains", format!("{path}/domains")),
            ("default_domain", format!("{path}/domains/default")),
            ("quota", format!("/v3/organization_quotas/{}", row.quota_guid)),
        ]),
    }
}

pub(super) async fn require(
    context: &Context,
    caller: &Caller,
    text: &str,
    action: OrgAction,
) -> ApiResult<OrganizationRow> {
    let guid = guid(text, "Organization")?;
    caller.require_org(context, guid, "Organization", action).await?;
    context.store.organization_get(guid).await?.ok_or_else(|| ApiError::not_found("Organization"))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<OrganizationView>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    let visible = caller.visible_orgs(&context).await?;
    let (rows, total) = context.store.organization_list(&query.options, &visible).await?;
    let views = rows.into_iter().map(|row| view(&base, row)).collect();
    Ok(Json(query.page(&base, "/v3/organizations", total, views)))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(org): Path<String>,
) -> ApiResult<Json<OrganizationView>> {
    Ok(Json(view(&base, require(&context, &caller, &org, OrgAction::Read).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default)]
    suspended: bool,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<(StatusCode, Json<OrganizationView>)> {
    if !caller.is_admin && !super::feature_flags::enabled(&context, "user_org_creation").await? {
        return Err(ApiError::forbidden());
    }
    let wish = OrganizationCreate { name: body.name, suspended: body.suspended, metadata: body.metadata };
    let row = domain::create(&context, &caller.actor(), wish).await?;
    Ok((StatusCode::CREATED, Json(view(&base, row))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    suspended: Option<bool>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

async fn patch(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(org): Path<String>,
    JsonBody(body): JsonBody<Patch>,
) -> ApiResult<Json<OrganizationView>> {
    let row = require(&context, &caller, &org, OrgAction::Manage).await?;
    if body.suspended.is_some_and(|suspended| suspended != row.suspended) {
        caller.require_admin()?;
    }
    let change = OrganizationUpdate { name: body.name, suspended: body.suspended, metadata: body.metadata };
    let row = domain::update(&context, &caller.actor(), row.guid, change).await?;
    Ok(Json(view(&base, row)))
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(org): Path<String>,
) -> ApiResult<Response> {
    let row = require(&context, &caller, &org, OrgAction::Read).await?;
    caller.require_admin()?;
    let job = domain::delete(&context, &caller.actor(), &row).await?;
    Ok(jobs::accepted(&base, job))
}

async fn domains_of(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(org): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<DomainView>>> {
    let row = require(&context, &caller, &org, OrgAction::Read).await?;
    let query = ListQuery::parse(query.as_deref(), &domains::SPEC)?;
    let (rows, total) = context.store.domain_list(&query.options, &Visible::Only(vec![row.guid])).await?;
    let orgs = caller.visible_orgs(&context).await?;
    let views = domains::views(&context, &base, rows, &orgs).await?;
    Ok(Json(query.page(&base, &format!("/v3/organizations/{}/domains", row.guid), total, views)))
}

async fn default_domain(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(org): Path<String>,
) -> ApiResult<Json<DomainView>> {
    let row = require(&context, &caller, &org, OrgAction::Read).await?;
    let found = domain::default_domain(&context, row.guid).await?;
    let orgs = caller.visible_orgs(&context).await?;
    let view = domains::views(&context, &base, vec![found], &orgs).await?.pop();
    Ok(Json(view.ok_or_else(|| ApiError::not_found("Domain"))?))
}

async fn usage(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(org): Path<String>,
) -> ApiResult<Json<Value>> {
    let row = require(&context, &caller, &org, OrgAction::Read).await?;
    let usage = context.store.organization_usage(row.guid).await?;
    let path = format!("/v3/organizations/{}", row.guid);
    Ok(Json(json!({
        "usage_summary": usage_summary(&usage),
        "links": base.links(&[("self", format!("{path}/usage_summary")), ("organization", path)]),
    })))
}

/// What is used, as every usage summary tells it.
pub(super) fn usage_summary(usage: &Usage) -> Value {
    json!({
        "started_instances": usage.started_instances, "memory_in_mb": usage.memory_in_mb, "routes": usage.routes,
        "service_instances": usage.service_instances, "reserved_ports": usage.reserved_ports, "domains": usage.domains,
        "per_app_tasks": usage.per_app_tasks, "service_keys": usage.service_keys, "apps": usage.apps,
    })
}
