//! `/v3/audit_events`.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use slipway_api_types::views::{EventParty, EventView};
use slipway_api_types::{Page, Ref};

use super::Router;
use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use super::guid;
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use crate::context::Context;
use crate::store::events::EventRow;

const SPEC: ListSpec = ListSpec {
    filters: &["types", "target_guids", "target_guids[not]", "space_guids", "organization_guids"],
    ..ListSpec::PLAIN
};

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new().route("/v3/audit_events", get(list)).route("/v3/audit_events/{guid}", get(one))
}

fn view(base: &BaseUrl, row: EventRow) -> EventView {
    EventView {
        guid: row.guid.to_string(),
        created_at: row.created_at.into(),
        updated_at: row.created_at.into(),
        kind: row.kind,
        actor: EventParty { guid: row.actor_guid, kind: row.actor_type, name: row.actor_name },
        target: EventParty { guid: row.target_guid, kind: row.target_type, name: row.target_name },
        data: row.data.as_object().cloned().unwrap_or_default(),
        space: row.space_guid.map(Ref::to),
        organization: row.org_guid.map(Ref::to),
        links: base.links(&[("self", format!("/v3/audit_events/{}", row.guid))]),
    }
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<EventView>>> {
    let query = ListQuery::parse(query.as_deref(), &SPEC)?;
    let (spaces, orgs) = caller.visible_events(&context).await?;
    let (rows, total) = context.store.event_list(&query.options, &spaces, &orgs).await?;
    let views = rows.into_iter().map(|row| view(&base, row)).collect();
    Ok(Json(query.page(&base, "/v3/audit_events", total, views)))
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(event): Path<String>,
) -> ApiResult<Json<EventView>> {
    let missing = || ApiError::not_found("Event");
    let row = context.store.event_get(guid(&event, "Event")?).await?.ok_or_else(missing)?;
    let (spaces, orgs) = caller.visible_events(&context).await?;
    let seen = caller.reads_all()
        || row.space_guid.is_some_and(|space| spaces.contains(space))
        || row.org_guid.is_some_and(|org| orgs.contains(org));
    if seen { Ok(Json(view(&base, row))) } else { Err(missing()) }
}
