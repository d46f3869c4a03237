//! `/v3/isolation_segments`, and which one organizations and spaces use. A change holds from the next start of an app.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{delete, get};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::views::OrganizationView;
use slipway_api_types::{MetadataPatch, Page, Ref, Timestamp, ToMany, ToOne};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::permissions::{OrgAction, SpaceAction};
use super::{guid, organizations, spaces};
use crate::context::Context;
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::names::check_name;
use crate::store::change_log::{self, ChangeKind};
use crate::store::events::event_record_tx;
use crate::store::list::Visible;
use crate::store::segments::{self as store, IsolationSegmentRow, SHARED};

const PATH: &str = "/v3/isolation_segments";
const SPEC: ListSpec =
    ListSpec { filters: &["names", "organization_guids"], order: &["name"], labels: true, ..ListSpec::PLAIN };
const ORGS: ListSpec = ListSpec { filters: &["names"], order: &["name"], labels: true, ..ListSpec::PLAIN };

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/isolation_segments", get(list).post(create))
        .route("/v3/isolation_segments/{guid}", get(one).patch(update).delete(remove))
        .route("/v3/isolation_segments/{guid}/organizations", get(organizations_of))
        .route("/v3/isolation_segments/{guid}/relationships/organizations", get(entitled).post(entitle))
        .route("/v3/isolation_segments/{guid}/relationships/organizations/{org}", delete(revoke))
        .route("/v3/isolation_segments/{guid}/relationships/spaces", get(spaces_of))
        .route(
            "/v3/organizations/{guid}/relationships/default_isolation_segment",
            get(of_organization).patch(set_of_organization),
        )
        .route("/v3/spaces/{guid}/relationships/isolation_segment", get(of_space).patch(set_of_space))
}

fn view(base: &BaseUrl, row: &IsolationSegmentRow) -> Value {
    let path = format!("{PATH}/{}", row.guid);
    json!({
        "guid": row.guid, "name": row.name,
        "created_at": Timestamp::from(row.created_at), "updated_at": Timestamp::from(row.updated_at),
        "metadata": metadata_of(&row.labels, &row.annotations),
        "links": base.links(&[("organizations", format!("{path}/organizations")), ("self", path)]),
    })
}

fn missing() -> ApiError {
    ApiError::not_found("Isolation segment")
}

async fn find(context: &Context, text: &str) -> ApiResult<IsolationSegmentRow> {
    context.store.isolation_segment_get(guid(text, "Isolation segment")?).await?.ok_or_else(missing)
}

/// A segment that one of the caller's organizations may use.
async fn readable(context: &Context, caller: &Caller, text: &str) -> ApiResult<(IsolationSegmentRow, Vec<Uuid>)> {
    let row = find(context, text).await?;
    let visible = caller.visible_orgs(context).await?;
    let mut orgs = context.store.isolation_segment_orgs(row.guid).await?;
    orgs.retain(|org| visible.contains(*org));
    if orgs.is_empty() && visible != Visible::All {
        return Err(missing());
    }
    Ok((row, orgs))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    let orgs = caller.visible_orgs(&context).await?;
    let (rows, total) = context.store.isolation_segment_list(&query.options, &orgs).await?;
    let views = rows.iter().map(|row| view(&base, row)).collect();
    Ok(Json(query.page(&base, PATH, total, views)))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(view(&base, &readable(&context, &caller, &segment).await?.0)))
}

fn check_segment_name(name: &str) -> ApiResult<()> {
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err(ApiError::unprocessable("Isolation Segment names can only contain non-blank unicode characters"));
    }
    Ok(check_name("Name", name)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

fn audit_subject(row: &IsolationSegmentRow) -> AuditSubject {
    AuditSubject::new("isolation_segment", row.guid, &row.name)
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    check_segment_name(&body.name)?;
    let metadata = MetadataChange::check(body.metadata)?;
    let mut tx = context.store.begin().await?;
    let row = store::isolation_segment_insert_tx(&mut tx, &body.name, &metadata).await?;
    let event = NewEvent::new("audit.isolation_segment.create", caller.actor(), audit_subject(&row))
        .with_request(json!({ "name": row.name }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(view(&base, &row))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
    JsonBody(body): JsonBody<Update>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let row = find(&context, &segment).await?;
    if let Some(name) = &body.name {
        check_segment_name(name)?;
    }
    let metadata = MetadataChange::check(body.metadata)?;
    if row.guid == SHARED {
        return Err(ApiError::unprocessable("Cannot update the shared Isolation Segment"));
    }
    let mut tx = context.store.begin().await?;
    if !store::isolation_segment_lock_tx(&mut tx, row.guid).await? {
        return Err(missing());
    }
    if store::isolation_segment_assigned_tx(&mut tx, row.guid).await? {
        return Err(ApiError::unprocessable(
            "Cannot update Isolation Segments that are assigned as the default for an Organization or Space.",
        ));
    }
    let row = store::isolation_segment_patch_tx(&mut tx, row.guid, body.name.as_deref(), &metadata)
        .await?
        .ok_or_else(missing)?;
    tx.commit().await?;
    Ok(Json(view(&base, &row)))
}

async fn remove(State(context): State<Context>, caller: Caller, Path(segment): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    let row = find(&context, &segment).await?;
    if row.guid == SHARED {
        return Err(ApiError::unprocessable("Cannot delete the shared Isolation Segment"));
    }
    let mut tx = context.store.begin().await?;
    store::isolation_segment_lock_tx(&mut tx, row.guid).await?;
    let used = store::isolation_segment_assigned_tx(&mut tx, row.guid).await?;
    if used || store::isolation_segment_entitles_tx(&mut tx, row.guid).await? {
        return Err(ApiError::unprocessable("Revoke the Organization entitlements for your Isolation Segment."));
    }
    store::isolation_segment_delete_tx(&mut tx, row.guid).await?;
    let event = NewEvent::new("audit.isolation_segment.delete", caller.actor(), audit_subject(&row));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn organizations_of(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<OrganizationView>>> {
    let (row, orgs) = readable(&context, &caller, &segment).await?;
    let query = ListQuery::parse(query.as_deref(), &ORGS)?;
    let (rows, total) = context.store.organization_list(&query.options, &Visible::Only(orgs)).await?;
    let views = rows.into_iter().map(|row| organizations::view(&base, row)).collect();
    Ok(Json(query.page(&base, &format!("{PATH}/{}/organizations", row.guid), total, views)))
}

fn members(base: &BaseUrl, segment: Uuid, name: &str, guids: Vec<Uuid>) -> Json<Value> {
    let data: Vec<Ref> = guids.into_iter().map(Ref::to).collect();
    let path = format!("{PATH}/{segment}");
    let mut links = base.links(&[("self", format!("{path}/relationships/{name}"))]);
    if name == "organizations" {
        links.insert("related".to_owned(), base.link(&format!("{path}/organizations")));
    }
    Json(json!({ "data": data, "links": links }))
}

async fn entitled(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
) -> ApiResult<Json<Value>> {
    let (row, orgs) = readable(&context, &caller, &segment).await?;
    Ok(members(&base, row.guid, "organizations", orgs))
}

async fn spaces_of(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
) -> ApiResult<Json<Value>> {
    let (row, _) = readable(&context, &caller, &segment).await?;
    let visible = caller.visible_spaces(&context).await?;
    let mut spaces = context.store.isolation_segment_spaces(row.guid).await?;
    spaces.retain(|space| visible.contains(*space));
    Ok(members(&base, row.guid, "spaces", spaces))
}

async fn entitle(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(segment): Path<String>,
    JsonBody(body): JsonBody<ToMany>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let row = find(&context, &segment).await?;
    let wanted: Vec<Uuid> = body.data.iter().filter_map(|reference| reference.guid.parse().ok()).collect();
    let found: Vec<Uuid> =
        context.store.organizations_by_guid(&wanted).await?.into_iter().map(|org| org.guid).collect();
    let bad: Vec<String> = body
        .data
        .iter()
        .filter(|reference| reference.guid.parse().map_or(true, |guid: Uuid| !found.contains(&guid)))
        .map(|reference| format!("'{}'", reference.guid.chars().take(80).collect::<String>()))
        .collect();
    if !bad.is_empty() {
        return Err(ApiError::unprocessable(format!(
            "Unable to entitle organizations [{}] for the isolation segment. Ensure the organizations exist.",
            bad.join(", ")
        )));
    }
    let mut tx = context.store.begin().await?;
    if !store::isolation_segment_lock_tx(&mut tx, row.guid).await? {
        return Err(missing());
    }
    store::isolation_segment_entitle_tx(&mut tx, row.guid, &found).await?;
    for org in &found {
        let event = NewEvent::new("audit.isolation_segment.entitle", caller.actor(), audit_subject(&row)).in_org(*org);
        event_record_tx(&mut tx, &event).await?;
    }
    tx.commit().await?;
    let orgs = context.store.isolation_segment_orgs(row.guid).await?;
    Ok(members(&base, row.guid, "organizations", orgs))
}

async fn revoke(
    State(context): State<Context>,
    caller: Caller,
    Path((segment, org)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    let row = find(&context, &segment).await?;
    let org = guid(&org, "Organization")?;
    let org = context.store.organization_get(org).await?.ok_or_else(|| ApiError::not_found("Organization"))?;
    let mut tx = context.store.begin().await?;
    store::isolation_segment_lock_tx(&mut tx, row.guid).await?;
    if org.default_isolation_segment_guid == Some(row.guid) {
        return Err(ApiError::unprocessable(
            "Cannot remove the entitlement while this Isolation Segment is assigned as the Default Isolation Segment for \
             the Organization.",
        ));
    }
    let spaces = store::spaces_in_segment_tx(&mut tx, row.guid, org.guid).await?;
    if !spaces.is_empty() {
        let names: Vec<String> = spaces.iter().map(|name| format!("'{name}'")).collect();
        return Err(ApiError::unprocessable(format!(
            "Cannot remove the entitlement while this Isolation Segment is assigned to any Spaces. Currently assigned to: {}",
            names.join(", ")
        )));
    }
    store::isolation_segment_revoke_tx(&mut tx, row.guid, org.guid).await?;
    let event = NewEvent::new("audit.isolation_segment.revoke", caller.actor(), audit_subject(&row)).in_org(org.guid);
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn relationship(base: &BaseUrl, path: String, segment: Option<Uuid>) -> Json<Value> {
    let mut links = base.links(&[("self", path)]);
    if let Some(segment) = segment {
        links.insert("related".to_owned(), base.link(&format!("{PATH}/{segment}")));
    }
    Json(json!({ "data": ToOne::maybe(segment).data, "links": links }))
}

/// The segment that a request names; it must be entitled to the organization.
async fn wanted(tx: &mut sqlx::PgConnection, body: &ToOne, org: Uuid, tail: &str) -> ApiResult<Option<Uuid>> {
    let Some(text) = body.guid() else { return Ok(None) };
    let bad = || {
        ApiError::unprocessable(format!(
            "Unable to assign isolation segment with guid '{}'. Ensure it has been entitled to the organization{tail}.",
            text.chars().take(80).collect::<String>()
        ))
    };
    let segment: Uuid = text.parse().map_err(|_| bad())?;
    if store::isolation_segment_entitled_tx(tx, segment, org).await? { Ok(Some(segment)) } else { Err(bad()) }
}

fn organization_path(org: Uuid) -> String {
    format!("/v3/organizations/{org}/relationships/default_isolation_segment")
}

async fn of_organization(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(org): Path<String>,
) -> ApiResult<Json<Value>> {
    let row = organizations::require(&context, &caller, &org, OrgAction::Read).await?;
    Ok(relationship(&base, organization_path(row.guid), row.default_isolation_segment_guid))
}

async fn set_of_organization(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(org): Path<String>,
    JsonBody(body): JsonBody<ToOne>,
) -> ApiResult<Json<Value>> {
    let row = organizations::require(&context, &caller, &org, OrgAction::Manage).await?;
    let mut tx = context.store.begin().await?;
    let segment = wanted(&mut tx, &body, row.guid, "").await?;
    store::organization_set_segment_tx(&mut tx, row.guid, segment).await?;
    let event = NewEvent::new(
        "audit.organization.update",
        caller.actor(),
        AuditSubject::new("organization", row.guid, &row.name),
    )
    .in_org(row.guid)
    .with_request(json!({ "default_isolation_segment_guid": segment }));
    event_record_tx(&mut tx, &event).await?;
    change_log::commit(tx, &[(ChangeKind::Organization, row.guid)]).await?;
    context.pokes.planner.notify_one();
    Ok(relationship(&base, organization_path(row.guid), segment))
}

fn space_path(space: Uuid) -> String {
    format!("/v3/spaces/{space}/relationships/isolation_segment")
}

async fn of_space(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(space): Path<String>,
) -> ApiResult<Json<Value>> {
    let row = spaces::require(&context, &caller, &space, SpaceAction::Read).await?;
    Ok(relationship(&base, space_path(row.guid), row.isolation_segment_guid))
}

async fn set_of_space(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(space): Path<String>,
    JsonBody(body): JsonBody<ToOne>,
) -> ApiResult<Json<Value>> {
    let row = spaces::require(&context, &caller, &space, SpaceAction::Read).await?;
    caller.require_org(&context, row.org_guid, "Space", OrgAction::Manage).await?;
    let mut tx = context.store.begin().await?;
    let segment = wanted(&mut tx, &body, row.org_guid, " that this space belongs to").await?;
    store::space_set_segment_tx(&mut tx, row.guid, segment).await?;
    let event = NewEvent::new("audit.space.update", caller.actor(), AuditSubject::new("space", row.guid, &row.name))
        .in_space(row.guid, row.org_guid)
        .with_request(json!({ "isolation_segment_guid": segment }));
    event_record_tx(&mut tx, &event).await?;
    change_log::commit(tx, &[(ChangeKind::Space, row.guid)]).await?;
    context.pokes.planner.notify_one();
    Ok(relationship(&base, space_path(row.guid), segment))
}
