//! `/v3/roles`.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{Page, Timestamp, ToOne};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec, One, add_included};
use super::permissions::{OrgAction, SpaceAction};
use super::{guid, jobs, organizations, spaces, users};
use crate::context::Context;
use crate::domain::roles::{self as domain, RoleCreate, UserChoice};
use crate::store::roles::RoleRow;

const SPEC: ListSpec = ListSpec {
    filters: &["organization_guids", "space_guids", "types", "user_guids"],
    order: &[],
    include: &["user", "organization", "space"],
    other: &[],
    labels: false,
};

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new().route("/v3/roles", get(list).post(create)).route("/v3/roles/{guid}", get(one).delete(remove))
}

fn view(base: &BaseUrl, row: &RoleRow) -> Value {
    // A space role shows its space only.
    let org = row.space_guid.is_none().then_some(row.org_guid);
    let mut links =
        base.links(&[("self", format!("/v3/roles/{}", row.guid)), ("user", format!("/v3/users/{}", row.user_guid))]);
    if let Some(org) = org {
        links.insert("organization".to_owned(), base.link(&format!("/v3/organizations/{org}")));
    }
    if let Some(space) = row.space_guid {
        links.insert("space".to_owned(), base.link(&format!("/v3/spaces/{space}")));
    }
    json!({
        "guid": row.guid, "type": row.kind,
        "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.updated_at),
        "relationships": {
            "user": ToOne::to(&row.user_guid),
            "organization": ToOne::maybe(org),
            "space": ToOne::maybe(row.space_guid),
        },
        "links": links,
    })
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    Ok(Json(page(&context, &caller, &base, &query).await?))
}

async fn page(context: &Context, caller: &Caller, base: &BaseUrl, query: &ListQuery) -> ApiResult<Page<Value>> {
    let (orgs, visible) = (caller.visible_orgs(context).await?, caller.visible_spaces(context).await?);
    let (rows, total) = context.store.role_list(&query.options, &orgs, &visible).await?;
    let views = rows.iter().map(|row| view(base, row)).collect();
    let mut page = query.page(base, "/v3/roles", total, views);
    if query.options.includes("user") {
        let guids: Vec<String> = rows.iter().map(|row| row.user_guid.clone()).collect();
        let parents = context.store.users_by_guid(&guids).await?;
        add_included(&mut page, "users", parents.iter().map(|row| users::view(base, row)).collect());
    }
    if query.options.includes("organization") {
        let guids: Vec<Uuid> = rows.iter().filter(|row| row.space_guid.is_none()).map(|row| row.org_guid).collect();
        let parents = context.store.organizations_by_guid(&guids).await?;
        let views: Vec<_> = parents.into_iter().map(|row| organizations::view(base, row)).collect();
        add_included(&mut page, "organizations", super::values(views)?);
    }
    if query.options.includes("space") {
        let guids: Vec<Uuid> = rows.iter().filter_map(|row| row.space_guid).collect();
        let parents = context.store.spaces_by_guid(&guids).await?;
        let views: Vec<_> = parents.into_iter().map(|row| spaces::view(base, row)).collect();
        add_included(&mut page, "spaces", super::values(views)?);
    }
    Ok(page)
}

async fn readable(context: &Context, caller: &Caller, text: &str) -> ApiResult<RoleRow> {
    let row = context.store.role_get(guid(text, "Role")?).await?.ok_or_else(|| ApiError::not_found("Role"))?;
    match row.space_guid {
        Some(space) => drop(caller.require_space(context, space, "Role", SpaceAction::Read).await?),
        None => drop(caller.require_org(context, row.org_guid, "Role", OrgAction::Read).await?),
    }
    Ok(row)
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(role): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<One<Value>>> {
    let row = readable(&context, &caller, &role).await?;
    match ListQuery::of_one(query.as_deref(), &SPEC, row.guid)? {
        Some(query) => {
            let page = page(&context, &caller, &base, &query).await?;
            One::of(page).map(Json).ok_or_else(|| ApiError::not_found("Role"))
        }
        None => Ok(Json(One::alone(view(&base, &row)))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    #[serde(rename = "type")]
    kind: String,
    relationships: Relationships,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Relationships {
    user: UserRelationship,
    #[serde(default)]
    organization: Option<ToOne>,
    #[serde(default)]
    space: Option<ToOne>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserRelationship {
    data: UserReference,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserReference {
    #[serde(default)]
    guid: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    origin: Option<String>,
}

/// The user that is meant, by guid or by name.
async fn user_choice(context: &Context, caller: &Caller, user: UserReference) -> ApiResult<UserChoice> {
    match (user.guid, user.username) {
        (Some(_), Some(_)) => Err(ApiError::unprocessable("User cannot be given by both guid and username.")),
        (Some(guid), None) => Ok(UserChoice::Guid(guid)),
        (None, Some(username)) => {
            super::feature_flags::require_for(context, caller, "set_roles_by_username").await?;
            Ok(UserChoice::Named { username, origin: user.origin })
        }
        (None, None) => Err(ApiError::unprocessable("'relationships.user.data' needs a guid or a username.")),
    }
}

/// Where a role shall be: guids of organization and space, and the name for texts.
async fn find_place(
    context: &Context,
    caller: &Caller,
    kind: &str,
    relationships: &Relationships,
) -> ApiResult<(Uuid, Option<Uuid>, String)> {
    let wants_space = domain::is_of_space(kind)?;
    match (wants_space, &relationships.organization, &relationships.space) {
        (true, None, Some(space)) => {
            let bad =
                || ApiError::unprocessable("Invalid space. Ensure that the space exists and you have access to it.");
            let space: Uuid = super::related(space).ok_or_else(bad)?;
            match caller.require_space(context, space, "Space", SpaceAction::Manage).await {
                Err(error) if error.status() == StatusCode::NOT_FOUND => Err(bad()),
                Err(error) => Err(error),
                Ok(access) => Ok((access.standing.org_guid, Some(space), access.standing.space_name)),
            }
        }
        (false, Some(org), None) => {
            let bad = || {
                ApiError::unprocessable(
                    "Invalid organization. Ensure that the organization exists and you have access to it.",
                )
            };
            let org: Uuid = super::related(org).ok_or_else(bad)?;
            match caller.require_org(context, org, "Organization", OrgAction::Manage).await {
                Err(error) if error.status() == StatusCode::NOT_FOUND => Err(bad()),
                Err(error) => Err(error),
                Ok(access) => Ok((org, None, access.standing.org_name)),
            }
        }
        (true, ..) => {
            Err(ApiError::unprocessable("A space role needs relationships.space, and no relationships.organization."))
        }
        (false, ..) => Err(ApiError::unprocessable(
            "An organization role needs relationships.organization, and no relationships.space.",
        )),
    }
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let (org, space, org_or_space) = find_place(&context, &caller, &body.kind, &body.relationships).await?;
    let user = user_choice(&context, &caller, body.relationships.user.data).await?;
    let wish = RoleCreate { kind: body.kind, user, org, space, org_or_space };
    let row = domain::create(&context, &caller.actor(), wish).await?;
    Ok((StatusCode::CREATED, Json(view(&base, &row))))
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(role): Path<String>,
) -> ApiResult<Response> {
    let row = readable(&context, &caller, &role).await?;
    match row.space_guid {
        Some(space) => drop(caller.require_space(&context, space, "Role", SpaceAction::Manage).await?),
        None => drop(caller.require_org(&context, row.org_guid, "Role", OrgAction::Manage).await?),
    }
    let job = domain::delete(&context, &caller.actor(), &row).await?;
    Ok(jobs::accepted(&base, job))
}
