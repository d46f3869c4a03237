//! `…/users` of organizations and spaces: everybody with a role there.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use serde_json::Value;
use slipway_api_types::Page;

use super::Router;
use super::auth_extract::Caller;
use super::error::ApiResult;
use super::links::BaseUrl;
use super::list::ListQuery;
use super::permissions::{OrgAction, SpaceAction};
use super::{organizations, spaces, users};
use crate::context::Context;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/organizations/{guid}/users", get(of_organization))
        .route("/v3/spaces/{guid}/users", get(of_space))
}

async fn of_organization(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(org): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let row = organizations::require(&context, &caller, &org, OrgAction::Read).await?;
    let query = users::parse(query.as_deref())?;
    let (rows, total) = context.store.user_list_of(&query.options, row.guid, None).await?;
    page(&base, &query, &format!("/v3/organizations/{}/users", row.guid), &rows, total)
}

async fn of_space(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(space): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let row = spaces::require(&context, &caller, &space, SpaceAction::Read).await?;
    let query = users::parse(query.as_deref())?;
    let (rows, total) = context.store.user_list_of(&query.options, row.org_guid, Some(row.guid)).await?;
    page(&base, &query, &format!("/v3/spaces/{}/users", row.guid), &rows, total)
}

fn page(
    base: &BaseUrl,
    query: &ListQuery,
    path: &str,
    rows: &[crate::store::users::UserRow],
    total: u64,
) -> ApiResult<Json<Page<Value>>> {
    let views = rows.iter().map(|row| users::view(base, row)).collect();
    Ok(Json(query.page(base, path, total, views)))
}
