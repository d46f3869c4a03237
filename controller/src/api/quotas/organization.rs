//! `/v3/organization_quotas`: made and given by administrators, read by everybody.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::{Map, Value, json};
use slipway_api_types::{Page, Ref, ToMany};
use uuid::Uuid;

use super::{by_quota, relationships, to_many, view};
use crate::api::Router;
use crate::api::auth_extract::Caller;
use crate::api::body::JsonBody;
use crate::api::error::{ApiError, ApiResult};
use crate::api::links::BaseUrl;
use crate::api::list::{ListQuery, ListSpec};
use crate::api::{guid, guids, jobs};
use crate::context::Context;
use crate::domain::quota_limits::QuotaChange;
use crate::domain::quotas::organization::{self as domain, OrganizationQuotaCreate};
use crate::store::list::Visible;
use crate::store::quotas::QuotaRow;

const PATH: &str = "/v3/organization_quotas";
const SPEC: ListSpec = ListSpec { filters: &["names", "organization_guids"], order: &["name"], ..ListSpec::PLAIN };

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/organization_quotas", get(list).post(create))
        .route("/v3/organization_quotas/{guid}", get(one).patch(update).delete(remove))
        .route("/v3/organization_quotas/{guid}/relationships/organizations", post(apply))
}

async fn views(context: &Context, caller: &Caller, base: &BaseUrl, rows: &[QuotaRow]) -> ApiResult<Vec<Value>> {
    let visible = caller.visible_orgs(context).await?;
    let guids: Vec<Uuid> = rows.iter().map(|row| row.guid).collect();
    let pairs = context.store.organizations_of_quotas(&guids).await?;
    let mut orgs = by_quota(pairs, |org| visible.contains(org));
    let present = |row: &QuotaRow| {
        let mut view = view(base, row, PATH);
        view["apps"]["total_stored_in_mb"] = json!(row.total_stored_in_mb);
        view["domains"] = json!({ "total_domains": row.total_domains });
        view["relationships"] = json!({ "organizations": { "data": orgs.remove(&row.guid).unwrap_or_default() } });
        view
    };
    Ok(rows.iter().map(present).collect())
}

async fn present(context: &Context, caller: &Caller, base: &BaseUrl, row: QuotaRow) -> ApiResult<Json<Value>> {
    views(context, caller, base, &[row]).await?.pop().map(Json).ok_or_else(missing)
}

fn missing() -> ApiError {
    ApiError::not_found("Organization quota")
}

async fn find(context: &Context, text: &str) -> ApiResult<QuotaRow> {
    let guid = guid(text, "Organization quota")?;
    context.store.organization_quota_get(guid).await?.ok_or_else(missing)
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    let orgs = caller.visible_orgs(&context).await?;
    let (rows, total) = context.store.organization_quota_list(&query.options, &orgs).await?;
    let views = views(&context, &caller, &base, &rows).await?;
    Ok(Json(query.page(&base, PATH, total, views)))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(quota): Path<String>,
) -> ApiResult<Json<Value>> {
    let row = find(&context, &quota).await?;
    present(&context, &caller, &base, row).await
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(mut body): JsonBody<Map<String, Value>>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let request = Value::Object(body.clone());
    let limits = QuotaChange::take_new(&mut body, true)?;
    let mut related = relationships(&mut body)?;
    let organizations = guids(to_many(&mut related, "organizations")?);
    let wish = OrganizationQuotaCreate { limits, organizations, request };
    let row = domain::create(&context, &caller.actor(), wish).await?;
    Ok((StatusCode::CREATED, present(&context, &caller, &base, row).await?))
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(quota): Path<String>,
    JsonBody(mut body): JsonBody<Map<String, Value>>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let request = Value::Object(body.clone());
    let change = QuotaChange::take(&mut body, true)?;
    if body.contains_key("relationships") {
        return Err(ApiError::unprocessable("Unknown field(s): 'relationships'"));
    }
    let found = find(&context, &quota).await?;
    let row = domain::update(&context, &caller.actor(), found.guid, &change, request).await?;
    present(&context, &caller, &base, row).await
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(quota): Path<String>,
) -> ApiResult<Response> {
    caller.require_admin()?;
    let row = find(&context, &quota).await?;
    let job = domain::delete(&context, &caller.actor(), &row).await?;
    Ok(jobs::accepted(&base, job))
}

async fn apply(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(quota): Path<String>,
    JsonBody(body): JsonBody<ToMany>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let row = find(&context, &quota).await?;
    domain::apply(&context, &caller.actor(), row.guid, &guids(body)).await?;
    let pairs = context.store.organizations_of_quotas(&[row.guid]).await?;
    let members: Vec<Ref> = match caller.visible_orgs(&context).await? {
        Visible::All => pairs.into_iter().map(|(_, org)| Ref::to(org)).collect(),
        Visible::Only(visible) => {
            pairs.into_iter().filter(|(_, org)| visible.contains(org)).map(|(_, org)| Ref::to(org)).collect()
        }
    };
    let path = format!("{PATH}/{}/relationships/organizations", row.guid);
    Ok(Json(json!({ "data": members, "links": base.links(&[("self", path)]) })))
}
