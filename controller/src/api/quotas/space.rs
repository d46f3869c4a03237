//! `/v3/space_quotas`: made and given by the managers of an organization, within that organization.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::StatusCode;
use serde_json::{Map, Value, json};
use slipway_api_types::{Page, Ref, ToMany, ToOne};
use uuid::Uuid;

use super::{by_quota, relationships, to_many, view};
use crate::api::Router;
use crate::api::auth_extract::Caller;
use crate::api::body::JsonBody;
use crate::api::error::{ApiError, ApiResult};
use crate::api::links::BaseUrl;
use crate::api::list::{ListQuery, ListSpec};
use crate::api::permissions::OrgAction;
use crate::api::{guid, guids, jobs, related};
use crate::context::Context;
use crate::domain::quota_limits::QuotaChange;
use crate::domain::quotas::space::{self as domain, SpaceQuotaCreate};
use crate::store::quotas::QuotaRow;

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

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(mut body): JsonBody<Map<String, Value>>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let request = Value::Object(body.clone());
    let limits = QuotaChange::take_new(&mut body, false)?;
    let mut members = relationships(&mut body)?;
    let spaces = guids(to_many(&mut members, "spaces")?);
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
    let wish = SpaceQuotaCreate { limits, org, spaces, request };
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
    let (found, _) = writable(&context, &caller, &quota).await?;
    let request = Value::Object(body.clone());
    let change = QuotaChange::take(&mut body, false)?;
    if body.contains_key("relationships") {
        return Err(ApiError::unprocessable("Unknown field(s): 'relationships'"));
    }
    let row = domain::update(&context, &caller.actor(), found.guid, &change, request).await?;
    present(&context, &caller, &base, row).await
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(quota): Path<String>,
) -> ApiResult<Response> {
    let (row, _) = writable(&context, &caller, &quota).await?;
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
    let (row, org) = writable(&context, &caller, &quota).await?;
    let visible = caller.visible_spaces(&context).await?;
    domain::apply(&context, &caller.actor(), &row, org, &visible, &guids(body)).await?;
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
    domain::remove_from(&context, &caller.actor(), &row, org, &space).await?;
    Ok(StatusCode::NO_CONTENT)
}
