//! `/v3/space_quotas`: made and given by the managers of an organization, within that organization.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::StatusCode;
use serde_json::{Map, Value, json};
use slipway_api_types::{Page, Ref, ToMany, ToOne};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{audit_subject, by_quota, quoted, relationships, split, to_many, view};
use crate::api::Router;
use crate::api::auth_extract::Caller;
use crate::api::body::JsonBody;
use crate::api::error::{ApiError, ApiResult};
use crate::api::links::BaseUrl;
use crate::api::list::{ListQuery, ListSpec};
use crate::api::permissions::OrgAction;
use crate::api::{guid, jobs, related};
use crate::context::Context;
use crate::domain::audit::NewEvent;
use crate::domain::quota_limits::{QuotaChange, unlimited_logs};
use crate::domain::{DomainResult, removal};
use crate::store::constraints::refuse;
use crate::store::events::event_record_tx;
use crate::store::quotas::{self as store, QuotaRow};

const PATH: &str = "/v3/space_quotas";
const SPEC: ListSpec =
    ListSpec { filters: &["names", "organization_guids", "space_guids"], order: &["name"], ..ListSpec::PLAIN };

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/space_quotas", get(list).post(create))
        .route("/v3/space_quotas/{guid}", get(one).patch(update).delete(remove))
        .route("/v3/space_quotas/{guid}/relationships/spaces", post(apply))
        .route("/v3/space_quotas/{guid}/relationships/spaces/{space}", delete(unapply))
}

async fn views(context: &Context, caller: &Caller, base: &BaseUrl, rows: &[QuotaRow]) -> ApiResult<Vec<Value>> {
    let visible = caller.visible_spaces(context).await?;
    let guids: Vec<Uuid> = rows.iter().map(|row| row.guid).collect();
    let mut spaces = by_quota(context.store.spaces_of_quotas(&guids).await?, |space| visible.contains(space));
    let present = |row: &QuotaRow| {
        let mut view = view(base, row, PATH);
        view["relationships"] = json!({
            "organization": ToOne::maybe(row.org_guid),
            "spaces": { "data": spaces.remove(&row.guid).unwrap_or_default() },
        });
        if let Some(org) = row.org_guid {
            view["links"]["organization"] = json!(base.link(&format!("/v3/organizations/{org}")));
        }
        view
    };
    Ok(rows.iter().map(present).collect())
}

async fn present(context: &Context, caller: &Caller, base: &BaseUrl, row: QuotaRow) -> ApiResult<Json<Value>> {
    views(context, caller, base, &[row]).await?.pop().map(Json).ok_or_else(missing)
}

fn missing() -> ApiError {
    ApiError::not_found("Space quota")
}

async fn readable(context: &Context, caller: &Caller, text: &str) -> ApiResult<QuotaRow> {
    let row = context.store.space_quota_get(guid(text, "Space quota")?).await?.ok_or_else(missing)?;
    if caller.reads_all() || context.store.space_quota_visible_to(row.guid, &caller.user_guid).await? {
        return Ok(row);
    }
    Err(missing())
}

/// A quota that the caller may change, with its organization.
async fn writable(context: &Context, caller: &Caller, text: &str) -> ApiResult<(QuotaRow, Uuid)> {
    let row = readable(context, caller, text).await?;
    // Each space quota has an organization; the column is not null.
    let org = row.org_guid.ok_or_else(missing)?;
    caller.require_org(context, org, "Space quota", OrgAction::Manage).await?;
    Ok((row, org))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    let reader = (!caller.reads_all()).then_some(caller.user_guid.as_str());
    let (rows, total) = context.store.space_quota_list(&query.options, reader).await?;
    let views = views(&context, &caller, &base, &rows).await?;
    Ok(Json(query.page(&base, PATH, total, views)))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(quota): Path<String>,
) -> ApiResult<Json<Value>> {
    let row = readable(&context, &caller, &quota).await?;
    present(&context, &caller, &base, row).await
}

fn taken(name: &str) -> String {
    format!("Space Quota '{name}' already exists.")
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(mut body): JsonBody<Map<String, Value>>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let request = Value::Object(body.clone());
    let change = QuotaChange::take(&mut body, false)?;
    if change.name().is_none() {
        return Err(ApiError::unprocessable("Name can't be blank"));
    }
    let mut members = relationships(&mut body)?;
    let wanted = to_many(&mut members, "spaces")?;
    let owner: ToOne = match members.remove("organization") {
        Some(value) => serde_json::from_value(value)
            .map_err(|_| ApiError::unprocessable("Relationships Organization must be structured like this: \"organization: {\"data\": {\"guid\": \"valid-guid\"}}\""))?,
        None => return Err(ApiError::unprocessable("Relationships Organization can't be blank")),
    };
    let bad_org = || {
        ApiError::unprocessable(format!(
            "Organization with guid '{}' does not exist, or you do not have access to it.",
            owner.guid().unwrap_or_default().chars().take(80).collect::<String>()
        ))
    };
    let org = related(&owner).ok_or_else(bad_org)?;
    match caller.require_org(&context, org, "Organization", OrgAction::Manage).await {
        Err(error) if error.status() == StatusCode::NOT_FOUND => return Err(bad_org()),
        access => drop(access?),
    }
    let (guids, mut bad) = split(&wanted);
    let found = context.store.spaces_by_guid(&guids).await?;
    let within = |guid: &&Uuid| found.iter().any(|space| space.guid == **guid && space.org_guid == org);
    bad.extend(guids.iter().filter(|guid| !within(guid)).map(Uuid::to_string));
    if !bad.is_empty() {
        return Err(ApiError::unprocessable(format!(
            "Spaces with guids {} do not exist within the organization specified, or you do not have access to them.",
            quoted(&bad)
        )));
    }
    let mut quota = QuotaRow::unlimited(Some(org));
    change.apply(&mut quota);
    let mut tx = context.store.begin().await?;
    let row = store::space_quota_save_tx(&mut tx, &quota)
        .await
        .map_err(refuse("space_quota_name_key", || taken(&quota.name)))?;
    store::space_quota_apply_tx(&mut tx, Some(row.guid), &guids).await?;
    record(&mut tx, &caller, "audit.space_quota.create", &row, request).await?;
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
    let event = NewEvent::new(kind, caller.actor(), audit_subject("space_quota", row)).with_request(request);
    NewEvent { org: row.org_guid, ..event }
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(quota): Path<String>,
    JsonBody(mut body): JsonBody<Map<String, Value>>,
) -> ApiResult<Json<Value>> {
    let (found, _) = writable(&context, &caller, &quota).await?;
    let request = Value::Object(body.clone());
    let change = QuotaChange::take(&mut body, false)?;
    if body.contains_key("relationships") {
        return Err(ApiError::unprocessable("Unknown field(s): 'relationships'"));
    }
    let mut tx = context.store.begin().await?;
    let mut row = store::space_quota_lock_tx(&mut tx, found.guid).await?.ok_or_else(missing)?;
    if change.limits_logs() {
        let spaces: Vec<Uuid> =
            context.store.spaces_of_quotas(&[row.guid]).await?.into_iter().map(|(_, space)| space).collect();
        let names = store::spaces_with_unlimited_logs_tx(&mut tx, &spaces).await?;
        if let Some(text) = unlimited_logs("space", &names) {
            return Err(ApiError::unprocessable(text));
        }
    }
    change.apply(&mut row);
    let saved =
        store::space_quota_save_tx(&mut tx, &row).await.map_err(refuse("space_quota_name_key", || taken(&row.name)))?;
    record(&mut tx, &caller, "audit.space_quota.update", &saved, request).await?;
    tx.commit().await?;
    present(&context, &caller, &base, saved).await
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(quota): Path<String>,
) -> ApiResult<Response> {
    let (row, _) = writable(&context, &caller, &quota).await?;
    if !context.store.spaces_of_quotas(&[row.guid]).await?.is_empty() {
        return Err(ApiError::unprocessable(
            "This quota is applied to one or more spaces. Remove this quota from all spaces before deleting.",
        ));
    }
    let event = event(&caller, "audit.space_quota.delete", &row, Value::Null);
    let job = removal::request_recorded(&context, &event, "space_quota.delete", "space_quota", row.guid).await?;
    Ok(jobs::accepted(&base, job))
}

async fn apply(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(quota): Path<String>,
    JsonBody(body): JsonBody<ToMany>,
) -> ApiResult<Json<Value>> {
    let (row, org) = writable(&context, &caller, &quota).await?;
    let visible = caller.visible_spaces(&context).await?;
    let (guids, mut bad) = split(&body);
    let found = context.store.spaces_by_guid(&guids).await?;
    let seen = |guid: &&Uuid| visible.contains(**guid) && found.iter().any(|space| space.guid == **guid);
    bad.extend(guids.iter().filter(|guid| !seen(guid)).map(Uuid::to_string));
    if !bad.is_empty() {
        return Err(ApiError::unprocessable(format!(
            "Spaces with guids {} do not exist, or you do not have access to them.",
            quoted(&bad)
        )));
    }
    if found.iter().any(|space| space.org_guid != org) {
        return Err(ApiError::unprocessable("Space quotas cannot be applied outside of their owning organization."));
    }
    let mut tx = context.store.begin().await?;
    let row = store::space_quota_lock_tx(&mut tx, row.guid).await?.ok_or_else(missing)?;
    if row.log_rate_limit_in_bytes_per_second.is_some()
        && !store::spaces_with_unlimited_logs_tx(&mut tx, &guids).await?.is_empty()
    {
        return Err(ApiError::unprocessable(
            "Current usage exceeds new quota values. The space(s) being assigned this quota contain apps running with \
             an unlimited log rate limit.",
        ));
    }
    store::space_quota_apply_tx(&mut tx, Some(row.guid), &guids).await?;
    for space in &guids {
        let event = NewEvent::new("audit.space_quota.apply", caller.actor(), audit_subject("space_quota", &row))
            .in_space(*space, org)
            .with("space_guid", space.to_string());
        event_record_tx(&mut tx, &event).await?;
    }
    tx.commit().await?;
    let pairs = context.store.spaces_of_quotas(&[row.guid]).await?;
    let members: Vec<Ref> =
        pairs.into_iter().filter(|(_, space)| visible.contains(*space)).map(|(_, space)| Ref::to(space)).collect();
    let path = format!("{PATH}/{}/relationships/spaces", row.guid);
    Ok(Json(json!({ "data": members, "links": base.links(&[("self", path)]) })))
}

async fn unapply(
    State(context): State<Context>,
    caller: Caller,
    Path((quota, space)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let (row, org) = writable(&context, &caller, &quota).await?;
    let bad = || {
        ApiError::unprocessable(format!(
            "Unable to remove quota from space with guid '{}'. Ensure the space quota is applied to this space.",
            space.chars().take(80).collect::<String>()
        ))
    };
    let guid: Uuid = space.parse().map_err(|_| bad())?;
    let found = context.store.space_get(guid).await?;
    if found.is_none_or(|space| space.quota_guid != Some(row.guid)) {
        return Err(bad());
    }
    let mut tx = context.store.begin().await?;
    store::space_quota_apply_tx(&mut tx, None, &[guid]).await?;
    let event = NewEvent::new("audit.space_quota.remove", caller.actor(), audit_subject("space_quota", &row))
        .in_space(guid, org)
        .with("space_guid", guid.to_string());
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
