//! `/v3/domains`.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::views::{DomainRelationships, DomainView};
use slipway_api_types::{MetadataPatch, Page, Ref, ToMany, ToOne};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::permissions::OrgAction;
use super::proof::prove_if_routed;
use super::query::Query;
use super::{domain_sharing, guid, jobs};
use crate::context::Context;
use crate::domain::domains::{self as domain, DomainCreate, DomainName, DomainScope};
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::routes::is_taken;
use crate::store::domains::DomainRow;
use crate::store::list::Visible;

pub(super) const SPEC: ListSpec =
    ListSpec { filters: &["names", "organization_guids"], order: &["name"], labels: true, ..ListSpec::PLAIN };

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/domains", get(list).post(create))
        .route("/v3/domains/{guid}", get(one).patch(patch).delete(remove))
        .route("/v3/domains/{guid}/route_reservations", get(reservations))
        .merge(domain_sharing::routes())
}

/// Domains as shown to somebody who sees these organizations.
pub(super) async fn views(
    context: &Context,
    base: &BaseUrl,
    rows: Vec<DomainRow>,
    orgs: &Visible,
) -> ApiResult<Vec<DomainView>> {
    let guids: Vec<Uuid> = rows.iter().map(|row| row.guid).collect();
    let mut shares: HashMap<Uuid, Vec<Ref>> = HashMap::new();
    for (domain, org) in context.store.domain_shares(&guids).await? {
        if orgs.contains(org) {
            shares.entry(domain).or_default().push(Ref::to(org));
        }
    }
    Ok(rows
        .into_iter()
        .map(|row| {
            let path = format!("/v3/domains/{}", row.guid);
            let mut links =
                base.links(&[("self", path.clone()), ("route_reservations", format!("{path}/route_reservations"))]);
            if let Some(org) = row.org_guid {
                links.insert("organization".to_owned(), base.link(&format!("/v3/organizations/{org}")));
                let shared = format!("{path}/relationships/shared_organizations");
                links.insert("shared_organizations".to_owned(), base.link(&shared));
            }
            DomainView {
                guid: row.guid.to_string(),
                created_at: row.created_at.into(),
                updated_at: row.updated_at.into(),
                name: row.name,
                internal: row.internal,
                router_group: None,
                supported_protocols: vec!["http".to_owned()],
                relationships: DomainRelationships {
                    organization: ToOne::maybe(row.org_guid),
                    shared_organizations: ToMany { data: shares.remove(&row.guid).unwrap_or_default() },
                },
                metadata: metadata_of(&row.labels, &row.annotations),
                links,
            }
        })
        .collect())
}

async fn present(context: &Context, caller: &Caller, base: &BaseUrl, row: DomainRow) -> ApiResult<Json<DomainView>> {
    let orgs = caller.visible_orgs(context).await?;
    let view = views(context, base, vec![row], &orgs).await?.pop();
    Ok(Json(view.ok_or_else(|| ApiError::not_found("Domain"))?))
}

/// A domain that the caller may see: shared ones by everybody, private ones by who works in an organization that uses it.
pub(super) async fn readable(context: &Context, caller: &Caller, text: &str) -> ApiResult<DomainRow> {
    let missing = || ApiError::not_found("Domain");
    let row = context.store.domain_get(guid(text, "Domain")?).await?.ok_or_else(missing)?;
    let Some(owner) = row.org_guid else { return Ok(row) };
    let orgs = caller.visible_domain_orgs(context).await?;
    if orgs.contains(owner) {
        return Ok(row);
    }
    let shares = context.store.domain_shares(&[row.guid]).await?;
    if shares.iter().any(|(_, org)| orgs.contains(*org)) { Ok(row) } else { Err(missing()) }
}

/// A domain that the caller may change: shared ones by admins, private ones by managers of their organization.
pub(super) async fn writable(context: &Context, caller: &Caller, text: &str) -> ApiResult<DomainRow> {
    let row = readable(context, caller, text).await?;
    match row.org_guid {
        None => caller.require_admin()?,
        Some(_) if caller.is_admin => {}
        Some(org) => match caller.require_org(context, org, "Domain", OrgAction::Manage).await {
            // It is visible through another organization, with which it is shared.
            Err(error) if error.status() == StatusCode::NOT_FOUND => return Err(ApiError::forbidden()),
            access => drop(access?),
        },
    }
    Ok(row)
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<DomainView>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    let orgs = caller.visible_domain_orgs(&context).await?;
    let (rows, total) = context.store.domain_list(&query.options, &orgs).await?;
    let views = views(&context, &base, rows, &orgs).await?;
    Ok(Json(query.page(&base, "/v3/domains", total, views)))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(domain): Path<String>,
) -> ApiResult<Json<DomainView>> {
    let row = readable(&context, &caller, &domain).await?;
    present(&context, &caller, &base, row).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default)]
    internal: Option<bool>,
    #[serde(default)]
    router_group: Option<Ref>,
    #[serde(default)]
    relationships: Option<CreateRelationships>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateRelationships {
    #[serde(default)]
    organization: Option<ToOne>,
    #[serde(default)]
    shared_organizations: Option<ToMany>,
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<(StatusCode, Json<DomainView>)> {
    let relationships = body.relationships.unwrap_or_default();
    let bad_org = |text: &str| {
        ApiError::unprocessable(format!(
            "Organization with guid '{}' does not exist or you do not have access to it.",
            text.chars().take(80).collect::<String>()
        ))
    };
    let owner: Option<Uuid> = match relationships.organization.as_ref().and_then(ToOne::guid) {
        None => {
            caller.require_admin()?;
            None
        }
        Some(text) => {
            let org = text.parse().map_err(|_| bad_org(text))?;
            match caller.require_org(&context, org, "Organization", OrgAction::Manage).await {
                Err(error) if error.status() == StatusCode::NOT_FOUND => return Err(bad_org(text)),
                access => drop(access?),
            }
            if !caller.is_admin {
                super::feature_flags::require(&context, "private_domain_creation").await?;
            }
            Some(org)
        }
    };
    let internal = body.internal.unwrap_or(false);
    if body.router_group.is_some() {
        return Err(ApiError::unprocessable("Router groups are not available: this platform routes HTTP only."));
    }
    let shared = relationships.shared_organizations.unwrap_or_default();
    let scope = DomainScope::new(internal, owner, !shared.data.is_empty())?;
    let name = DomainName::parse(&body.name)?;
    let metadata = MetadataChange::check(body.metadata)?;
    let shared_with = domain_sharing::shared_orgs(&context, &caller, owner, shared).await?;
    let row = domain::create(&context, DomainCreate { name, scope, shared_with, metadata }).await?;
    Ok((StatusCode::CREATED, present(&context, &caller, &base, row).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

async fn patch(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(domain): Path<String>,
    JsonBody(body): JsonBody<Patch>,
) -> ApiResult<Json<DomainView>> {
    let row = writable(&context, &caller, &domain).await?;
    let change = MetadataChange::check(body.metadata)?;
    let row = context.store.domain_patch(row.guid, &change).await?.ok_or_else(|| ApiError::not_found("Domain"))?;
    present(&context, &caller, &base, row).await
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(domain): Path<String>,
) -> ApiResult<Response> {
    let row = writable(&context, &caller, &domain).await?;
    let (job, version) = domain::delete(&context, &caller.actor(), row.guid).await?;
    Ok(prove_if_routed(&context, version, jobs::accepted(&base, job)).await)
}

#[derive(Deserialize)]
struct Address {
    #[serde(default)]
    host: String,
    #[serde(default)]
    path: String,
}

async fn reservations(
    State(context): State<Context>,
    caller: Caller,
    Path(domain): Path<String>,
    Query(address): Query<Address>,
) -> ApiResult<Json<Value>> {
    let row = readable(&context, &caller, &domain).await?;
    let taken = is_taken(&context, row.guid, &address.host, &address.path).await?;
    Ok(Json(json!({ "matching_route": taken })))
}
