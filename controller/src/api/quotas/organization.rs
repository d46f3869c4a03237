//! `/v3/organization_quotas`: made and given by administrators, read by everybody.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::{Map, Value, json};
use slipway_api_types::{Page, Ref, ToMany};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{audit_subject, by_quota, quoted, relationships, split, to_many, view};
use crate::api::Router;
use crate::api::auth_extract::Caller;
use crate::api::body::JsonBody;
use crate::api::error::{ApiError, ApiResult};
use crate::api::links::BaseUrl;
use crate::api::list::{ListQuery, ListSpec};
use crate::api::{guid, jobs};
use crate::context::Context;
use crate::domain::audit::NewEvent;
use crate::domain::quota_limits::{QuotaChange, unlimited_logs};
use crate::domain::{DomainError, DomainResult, removal};
use crate::store::constraints::refuse;
use crate::store::events::event_record_tx;
use crate::store::list::Visible;
use crate::store::quotas::{self as store, QuotaRow};

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

/// Organizations that a request names, all of which must exist.
async fn organizations(context: &Context, wanted: &ToMany, tail: &str) -> ApiResult<Vec<Uuid>> {
    let (guids, mut bad) = split(wanted);
    let found = context.store.organizations_by_guid(&guids).await?;
    bad.extend(guids.iter().filter(|guid| found.iter().all(|org| org.guid != **guid)).map(Uuid::to_string));
    if bad.is_empty() {
        return Ok(guids);
    }
    Err(ApiError::unprocessable(format!("Organizations with guids {} do not exist{tail}", quoted(&bad))))
}

fn taken(name: &str) -> String {
    format!("Organization Quota '{name}' already exists.")
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(mut body): JsonBody<Map<String, Value>>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let request = Value::Object(body.clone());
    let change = QuotaChange::take(&mut body, true)?;
    if change.name().is_none() {
        return Err(ApiError::unprocessable("Name can't be blank"));
    }
    let mut related = relationships(&mut body)?;
    let wanted = to_many(&mut related, "organizations")?;
    let orgs = organizations(&context, &wanted, ", or you do not have access to them.").await?;
    let mut quota = QuotaRow::unlimited(None);
    change.apply(&mut quota);
    let mut tx = context.store.begin().await?;
    let row = store::organization_quota_save_tx(&mut tx, &quota)
        .await
        .map_err(refuse("organization_quota_name_key", || taken(&quota.name)))?;
    store::organization_quota_apply_tx(&mut tx, row.guid, &orgs).await?;
    record(&mut tx, &caller, "audit.organization_quota.create", &row, request).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, present(&context, &caller, &base, row).await?))
}

async fn record(
    tx: &mut PgConnection,
    caller: &Caller,
    kind: &'static str,
    row: &QuotaRow,
    request: Value,
) -> DomainResult<()> {
    event_record_tx(tx, &event(caller, kind, row, request)).await?;
    Ok(())
}

fn event(caller: &Caller, kind: &'static str, row: &QuotaRow, request: Value) -> NewEvent {
    NewEvent::new(kind, caller.actor(), audit_subject("organization_quota", row)).with_request(request)
}

/// Processes without a limit of their log rate cannot be under a quota that has one.
async fn check_logs(tx: &mut PgConnection, orgs: &[Uuid]) -> DomainResult<()> {
    let names = store::organizations_with_unlimited_logs_tx(tx, orgs).await?;
    unlimited_logs("org", &names).map_or(Ok(()), |text| Err(DomainError::Invalid(text)))
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
    let mut tx = context.store.begin().await?;
    let mut row = store::organization_quota_lock_tx(&mut tx, found.guid).await?.ok_or_else(missing)?;
    if change.limits_logs() {
        let pairs = context.store.organizations_of_quotas(&[row.guid]).await?;
        check_logs(&mut tx, &pairs.into_iter().map(|(_, org)| org).collect::<Vec<_>>()).await?;
    }
    change.apply(&mut row);
    let saved = store::organization_quota_save_tx(&mut tx, &row)
        .await
        .map_err(refuse("organization_quota_name_key", || taken(&row.name)))?;
    record(&mut tx, &caller, "audit.organization_quota.update", &saved, request).await?;
    tx.commit().await?;
    present(&context, &caller, &base, saved).await
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(quota): Path<String>,
) -> ApiResult<Response> {
    caller.require_admin()?;
    let row = find(&context, &quota).await?;
    if row.is_default {
        return Err(ApiError::unprocessable("This quota is the default of new organizations and cannot be deleted."));
    }
    if !context.store.organizations_of_quotas(&[row.guid]).await?.is_empty() {
        return Err(ApiError::unprocessable(
            "This quota is applied to one or more organizations. Apply different quotas to those organizations before \
             deleting.",
        ));
    }
    let event = event(&caller, "audit.organization_quota.delete", &row, Value::Null);
    let operation = "organization_quota.delete";
    let job = removal::request_recorded(&context, &event, operation, "organization_quota", row.guid).await?;
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
    let orgs = organizations(&context, &body, "").await?;
    let mut tx = context.store.begin().await?;
    let row = store::organization_quota_lock_tx(&mut tx, row.guid).await?.ok_or_else(missing)?;
    if row.log_rate_limit_in_bytes_per_second.is_some()
        && !store::organizations_with_unlimited_logs_tx(&mut tx, &orgs).await?.is_empty()
    {
        return Err(ApiError::unprocessable(
            "Current usage exceeds new quota values. The org(s) being assigned this quota contain apps running with an \
             unlimited log rate limit.",
        ));
    }
    store::organization_quota_apply_tx(&mut tx, row.guid, &orgs).await?;
    for org in &orgs {
        let event =
            NewEvent::new("audit.organization_quota.apply", caller.actor(), audit_subject("organization_quota", &row))
                .in_org(*org)
                .with("organization_guid", org.to_string());
        event_record_tx(&mut tx, &event).await?;
    }
    tx.commit().await?;
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
