//! `/v3/users`: users as the API knows them. Their passwords are with [`super::uaa`].

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{MetadataPatch, Page, Timestamp};
use uuid::Uuid;

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
use crate::domain::names::check_name;
use crate::store::jobs::{NewJob, job_completed_tx};
use crate::store::users::{NewAccount, UserRow, user_enter_api_tx, user_leave_api_tx, user_metadata_tx};

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

/// The guid that a request means: the account's own, or that of a new account of another origin.
async fn account(context: &Context, body: &Create) -> ApiResult<String> {
    let refuse = |text: &str| Err(ApiError::unprocessable(text));
    match (&body.guid, &body.username, &body.origin) {
        (Some(guid), None, None) => Ok(guid.clone()),
        (Some(_), Some(_), _) => refuse("Username cannot be provided with 'guid'"),
        (Some(_), None, Some(_)) => refuse("Origin cannot be provided with 'guid'"),
        (None, None, None) => refuse("Guid or 'username' and 'origin' must be provided"),
        (None, Some(_), None) => refuse("Username can only be provided together with 'origin'"),
        (None, None, Some(_)) => refuse("Origin can only be provided together with 'username'"),
        (None, Some(_), Some(origin)) if origin == "uaa" => {
            refuse("Origin cannot be 'uaa' when creating a user by username")
        }
        (None, Some(username), Some(origin)) => {
            check_name("Username", username)?;
            check_name("Origin", origin)?;
            if let Some(found) = context.store.accounts_named(username, Some(origin)).await?.pop() {
                return Ok(found.guid);
            }
            // It logs in through its own provider: there is no password here.
            let account = NewAccount {
                guid: Uuid::new_v4().to_string(),
                username: username.clone(),
                origin: origin.clone(),
                password_hash: None,
                given_name: None,
                family_name: None,
                email: None,
            };
            context.store.account_create(&account).await?;
            Ok(account.guid)
        }
    }
}

/// Makes an account of the UAA known to the API.
async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let metadata = MetadataChange::check(body.metadata.clone())?;
    let guid = account(&context, &body).await?;
    if readable(&context, &caller, &guid).await.is_ok() {
        return Err(ApiError::unprocessable(match (&body.username, &body.origin) {
            (Some(username), Some(origin)) => {
                format!("User with username '{username}' and origin '{origin}' already exists.")
            }
            _ => format!("User with guid '{guid}' already exists."),
        }));
    }
    let mut tx = context.store.begin().await?;
    if !user_enter_api_tx(&mut tx, &guid, &metadata).await? {
        let shown: String = guid.chars().take(80).collect();
        return Err(ApiError::unprocessable(format!(
            "There is no account with guid '{shown}'. Create it first (POST /Users)."
        )));
    }
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(view(&base, &readable(&context, &caller, &guid).await?))))
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
    let mut connection = context.store.pool().acquire().await?;
    user_metadata_tx(&mut connection, &row.guid, &metadata).await?;
    drop(connection);
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
    let mut tx = context.store.begin().await?;
    user_leave_api_tx(&mut tx, &row.guid).await?;
    let job = NewJob {
        operation: "user.delete",
        resource_type: "user",
        // Service accounts have no uuid; a job only needs one to be found again.
        resource_guid: row.guid.parse().unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, row.guid.as_bytes())),
        payload: json!({ "user_guid": row.guid }),
        created_by: caller.user_guid.clone(),
    };
    let job = job_completed_tx(&mut tx, &job).await?;
    tx.commit().await?;
    Ok(jobs::accepted(&base, job))
}
