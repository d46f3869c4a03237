//! `/v3/users`: users as the API knows them. Their passwords are with [`super::uaa`].

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{MetadataPatch, Page, Timestamp};

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::jobs;
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use crate::context::Context;
use crate::domain::list::ListOptions;
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::users::{self as domain, AccountChoice, UserCreate};
use crate::store::users::UserRow;

const SPEC: ListSpec =
    ListSpec { filters: &["usernames", "partial_usernames", "origins"], labels: true, ..ListSpec::PLAIN };

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/users", get(list).post(create))
        .route("/v3/users/{guid}", get(one).patch(update).delete(remove))
}

pub(super) fn view(base: &BaseUrl, row: &UserRow) -> Value {
    let origin = (!row.is_client).then_some(&row.origin);
    json!({
        "guid": row.guid, "username": row.username,
        "presentation_name": row.username.as_ref().unwrap_or(&row.guid), "origin": origin,
        "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.updated_at),
        "metadata": metadata_of(&row.labels, &row.annotations),
        "links": base.links(&[("self", format!("/v3/users/{}", row.guid))]),
    })
}

/// Reads a query for users: an origin alone says nothing, and a name is either whole or a part.
///
/// # Errors
/// 400.
pub(super) fn parse(query: Option<&str>) -> ApiResult<ListQuery> {
    let query = ListQuery::parse(query, &SPEC)?;
    let given = |name: &str| query.options.filter(name).is_some();
    if given("origins") && !given("usernames") && !given("partial_usernames") {
        return Err(ApiError::bad_query(
            "The query parameter is invalid: Origins filter cannot be provided without usernames or partial_usernames \
             filter.",
        ));
    }
    if given("usernames") && given("partial_usernames") {
        return Err(ApiError::bad_query(
            "The query parameter is invalid: Usernames filter cannot be provided with both usernames and \
             partial_usernames filter.",
        ));
    }
    Ok(query)
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = parse(query.as_deref())?;
    let seen_by = (!caller.reads_all()).then_some(caller.user_guid.as_str());
    let (rows, total) = context.store.user_list(&query.options, seen_by).await?;
    let views = rows.iter().map(|row| view(&base, row)).collect();
    Ok(Json(query.page(&base, "/v3/users", total, views)))
}

async fn readable(context: &Context, caller: &Caller, guid: &str) -> ApiResult<UserRow> {
    let mut options = ListOptions::everything(1);
    options.filters.insert("guids".to_owned(), vec![guid.to_owned()]);
    let seen_by = (!caller.reads_all()).then_some(caller.user_guid.as_str());
    let (mut rows, _) = context.store.user_list(&options, seen_by).await?;
    rows.pop().ok_or_else(|| ApiError::not_found("User"))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(user): Path<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(view(&base, &readable(&context, &caller, &user).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    #[serde(default)]
    guid: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    origin: Option<String>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

/// The account that a request means: by its guid, or by name and origin.
fn account(guid: Option<String>, username: Option<String>, origin: Option<String>) -> ApiResult<AccountChoice> {
    let refuse = |text: &str| Err(ApiError::unprocessable(text));
    match (guid, username, origin) {
        (Some(guid), None, None) => Ok(AccountChoice::Guid(guid)),
        (Some(_), Some(_), _) => refuse("Username cannot be provided with 'guid'"),
        (Some(_), None, Some(_)) => refuse("Origin cannot be provided with 'guid'"),
        (None, None, None) => refuse("Guid or 'username' and 'origin' must be provided"),
        (None, Some(_), None) => refuse("Username can only be provided together with 'origin'"),
        (None, None, Some(_)) => refuse("Origin can only be provided together with 'username'"),
        (None, Some(username), Some(origin)) => Ok(AccountChoice::Named { username, origin }),
    }
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let metadata = MetadataChange::check(body.metadata)?;
    let account = account(body.guid, body.username, body.origin)?;
    let row = domain::create(&context, UserCreate { account, metadata }).await?;
    Ok((StatusCode::CREATED, Json(view(&base, &row))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(user): Path<String>,
    JsonBody(body): JsonBody<Update>,
) -> ApiResult<Json<Value>> {
    let row = readable(&context, &caller, &user).await?;
    caller.require_admin()?;
    let metadata = MetadataChange::check(body.metadata)?;
    domain::update(&context, &row.guid, &metadata).await?;
    Ok(Json(view(&base, &readable(&context, &caller, &user).await?)))
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(user): Path<String>,
) -> ApiResult<Response> {
    let row = readable(&context, &caller, &user).await?;
    caller.require_admin()?;
    let job = domain::delete(&context, &caller.actor(), &row.guid).await?;
    Ok(jobs::accepted(&base, job))
}
