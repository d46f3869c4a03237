//! `/v3/routes/:guid/destinations`: where a route leads.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_protocol::v1::Version;
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::permissions::{SpaceAccess, SpaceAction};
use super::proof::prove;
use super::routes::{app_refusal, audit_subject, destination_view, require};
use crate::context::Context;
use crate::domain::app_protocol::{AppProtocol, NotSpoken};
use crate::domain::audit::NewEvent;
use crate::domain::destinations::{MAX_DESTINATIONS, Mapping, add_destinations_tx, mapping_record_tx};
use crate::store::change_log::{self, ChangeKind};
use crate::store::destinations::{self as store, NewDestination, USUAL_PORT};
use crate::store::routes::{RouteRow, route_lock_tx};

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/routes/{guid}/destinations", get(list).post(add).patch(replace))
        .route("/v3/routes/{guid}/destinations/{destination}", delete(remove).patch(update))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Destinations {
    destinations: Vec<Destination>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Destination {
    app: DestinationApp,
    #[serde(default)]
    port: Option<u32>,
    #[serde(default)]
    weight: Option<u32>,
    #[serde(default)]
    protocol: Option<Value>,
}

/// Clients send an app as they got it, with members that mean nothing here; Cloud Foundry reads these two only.
#[derive(Deserialize)]
struct DestinationApp {
    guid: String,
    #[serde(default)]
    process: Option<DestinationProcess>,
}

#[derive(Deserialize)]
struct DestinationProcess {
    #[serde(rename = "type")]
    kind: String,
}

/// Checks what needs no database.
fn parse(body: Destinations) -> ApiResult<Vec<NewDestination>> {
    if body.destinations.len() > MAX_DESTINATIONS {
        return Err(ApiError::unprocessable(format!(
            "Routes can be mapped to at most {MAX_DESTINATIONS} destinations."
        )));
    }
    let mut parsed: Vec<NewDestination> = Vec::new();
    for (place, destination) in body.destinations.into_iter().enumerate() {
        let bad = |problem: &str| ApiError::unprocessable(format!("Destinations[{place}]: {problem}"));
        let app_guid = destination.app.guid.parse().map_err(|_| absent(std::slice::from_ref(&destination.app.guid)))?;
        let process_type = destination.app.process.map_or_else(|| "web".to_owned(), |process| process.kind);
        if process_type.is_empty() || process_type.len() > 255 {
            return Err(bad("process type must have 1 to 255 characters."));
        }
        if destination.port.is_some_and(|port| !(1024..=65535).contains(&port)) {
            return Err(bad("port must be an integer between 1024 and 65535 inclusive."));
        }
        if destination.weight.is_some_and(|weight| !(1..=100).contains(&weight)) {
            return Err(bad("weight must be a positive integer between 1 and 100."));
        }
        let protocol = match destination.protocol.as_ref().map_or(Ok(AppProtocol::default()), AppProtocol::read) {
            Ok(protocol) => protocol,
            Err(problem @ NotSpoken::Unknown) => return Err(bad(problem.of_new_destination())),
            Err(problem @ NotSpoken::Tcp) => return Err(ApiError::unprocessable(problem.of_new_destination())),
        };
        let new = NewDestination {
            app_guid,
            process_type,
            // A destination at the usual port is the one without any; else it could be there twice, spoken to in two ways.
            port: destination.port.and_then(|port| i32::try_from(port).ok()).filter(|port| *port != USUAL_PORT),
            weight: destination.weight.and_then(|weight| i32::try_from(weight).ok()),
            protocol,
        };
        let same = |old: &NewDestination| {
            old.app_guid == new.app_guid && old.process_type == new.process_type && old.port == new.port
        };
        if parsed.iter().any(same) {
            return Err(ApiError::unprocessable("Destinations cannot contain duplicate entries"));
        }
        parsed.push(new);
    }
    Ok(parsed)
}

fn absent(guids: &[String]) -> ApiError {
    let names = guids.iter().map(|guid| format!("\"{guid}\"")).collect::<Vec<_>>().join(", ");
    app_refusal(format!("App(s) with guid(s) {names} do not exist or you do not have access."))
}

/// Every app must be there, visible, and in the route's space or one that it is shared with.
async fn check_apps(
    context: &Context,
    caller: &Caller,
    row: &RouteRow,
    destinations: &[NewDestination],
) -> ApiResult<()> {
    let guids: Vec<Uuid> = destinations.iter().map(|destination| destination.app_guid).collect();
    let spaces: HashMap<Uuid, Uuid> = context.store.app_spaces(&guids).await?.into_iter().collect();
    let visible = caller.visible_spaces(context).await?;
    let unknown: Vec<String> = guids
        .iter()
        .filter(|guid| !spaces.get(guid).is_some_and(|space| visible.contains(*space)))
        .map(ToString::to_string)
        .collect();
    if !unknown.is_empty() {
        return Err(absent(&unknown));
    }
    if spaces.values().any(|space| *space != row.space_guid) {
        let shared = context.store.route_shared_spaces(row.guid).await?;
        if spaces.values().any(|space| *space != row.space_guid && !shared.contains(space)) {
            return Err(app_refusal(
                "Routes destinations must be in either the route's space or the route's shared spaces".to_owned(),
            ));
        }
    }
    Ok(())
}

async fn present(context: &Context, base: &BaseUrl, route: Uuid) -> ApiResult<Json<Value>> {
    let rows = context.store.destinations(&[route]).await?;
    let destinations: Vec<_> = rows.iter().map(destination_view).collect();
    let path = format!("/v3/routes/{route}");
    Ok(Json(json!({
        "destinations": destinations,
        "links": base.links(&[("self", format!("{path}/destinations")), ("route", path)]),
    })))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(route): Path<String>,
) -> ApiResult<Json<Value>> {
    let (row, _) = require(&context, &caller, &route, SpaceAction::ReadRoutes).await?;
    present(&context, &base, row.guid).await
}

async fn record(
    tx: &mut sqlx::PgConnection,
    caller: &Caller,
    kind: &'static str,
    row: &RouteRow,
    access: &SpaceAccess,
    mappings: Vec<Mapping<'_>>,
) -> sqlx::Result<()> {
    for mapping in mappings {
        let event =
            NewEvent::new(kind, caller.actor(), audit_subject(row)).in_space(row.space_guid, access.standing.org_guid);
        mapping_record_tx(tx, event, row.guid, mapping).await?;
    }
    Ok(())
}

async fn answer(context: &Context, base: &BaseUrl, route: Uuid, version: Version) -> ApiResult<Response> {
    let body = present(context, base, route).await?.into_response();
    Ok(prove(context, version, body).await)
}

async fn add(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(route): Path<String>,
    JsonBody(body): JsonBody<Destinations>,
) -> ApiResult<Response> {
    let (row, access) = require(&context, &caller, &route, SpaceAction::Support).await?;
    if body.destinations.is_empty() {
        return Err(ApiError::unprocessable(
            "Destinations must be an array containing between 1 and 100 destination objects.",
        ));
    }
    let new = parse(body)?;
    if new.iter().any(|destination| destination.weight.is_some()) {
        return Err(ApiError::unprocessable(
            "Destinations[0]: weighted destinations can only be used when replacing all destinations.",
        ));
    }
    check_apps(&context, &caller, &row, &new).await?;
    let mut tx = context.store.begin().await?;
    let added = add_destinations_tx(&mut tx, row.guid, &new).await?;
    let added = added.into_iter().map(Mapping::from).collect();
    record(&mut tx, &caller, "audit.app.map-route", &row, &access, added).await?;
    let version = change_log::commit(tx, &[(ChangeKind::Route, row.guid)]).await?;
    answer(&context, &base, row.guid, version).await
}

async fn replace(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(route): Path<String>,
    JsonBody(body): JsonBody<Destinations>,
) -> ApiResult<Response> {
    let (row, access) = require(&context, &caller, &route, SpaceAction::Support).await?;
    let new = parse(body)?;
    let weights: Vec<i32> = new.iter().filter_map(|destination| destination.weight).collect();
    if !weights.is_empty() {
        if weights.len() != new.len() {
            return Err(ApiError::unprocessable(
                "Destinations cannot contain both weighted and unweighted destinations.",
            ));
        }
        if weights.iter().sum::<i32>() != 100 {
            return Err(ApiError::unprocessable("Destinations must have weights that sum to 100."));
        }
    }
    check_apps(&context, &caller, &row, &new).await?;
    let mut tx = context.store.begin().await?;
    route_lock_tx(&mut tx, row.guid).await?.ok_or_else(|| ApiError::not_found("Route"))?;
    let (added, removed) = store::destinations_replace_tx(&mut tx, row.guid, &new).await?;
    let removed = removed.iter().map(Mapping::from).collect();
    record(&mut tx, &caller, "audit.app.unmap-route", &row, &access, removed).await?;
    let added = added.into_iter().map(Mapping::from).collect();
    record(&mut tx, &caller, "audit.app.map-route", &row, &access, added).await?;
    let version = change_log::commit(tx, &[(ChangeKind::Route, row.guid)]).await?;
    answer(&context, &base, row.guid, version).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default, deserialize_with = "super::body::present")]
    protocol: Option<Option<Value>>,
}

/// What a destination's protocol is to become; `None` leaves it. Cloud Foundry documents `null` as the default, and
/// refuses it: nobody can rely on that, so what it documents holds here.
fn wished(body: &Update) -> ApiResult<Option<AppProtocol>> {
    let read = |protocol: &Option<Value>| protocol.as_ref().map_or(Ok(AppProtocol::default()), AppProtocol::read);
    body.protocol.as_ref().map(read).transpose().map_err(|problem| {
        ApiError::unprocessable(match problem {
            NotSpoken::Tcp => {
                "Destination protocol must be 'http1' or 'http2' if the parent route's protocol is 'http'"
            }
            NotSpoken::Unknown => "Destination protocol must be 'http1', 'http2' or 'tcp'.",
        })
    })
}

/// Changes a destination's protocol. As on Cloud Foundry no event tells of it: the app is mapped as before.
async fn update(
    State(context): State<Context>,
    caller: Caller,
    Path((route, destination)): Path<(String, String)>,
    JsonBody(body): JsonBody<Update>,
) -> ApiResult<Response> {
    let protocol = wished(&body)?;
    let (row, _) = require(&context, &caller, &route, SpaceAction::Support).await?;
    let destination: Uuid = destination.parse().map_err(|_| no_destination())?;
    let mut tx = context.store.begin().await?;
    route_lock_tx(&mut tx, row.guid).await?.ok_or_else(|| ApiError::not_found("Route"))?;
    let all = store::destinations_tx(&mut tx, row.guid).await?;
    let mut found = all.into_iter().find(|row| row.guid == destination).ok_or_else(no_destination)?;
    if let Some(protocol) = protocol {
        store::destination_protocol_tx(&mut tx, destination, protocol).await?;
        protocol.as_str().clone_into(&mut found.protocol);
    }
    let version = change_log::commit(tx, &[(ChangeKind::Route, row.guid)]).await?;
    Ok(prove(&context, version, Json(destination_view(&found)).into_response()).await)
}

fn no_destination() -> ApiError {
    ApiError::unprocessable(
        "Unable to unmap route from destination. Ensure the route has a destination with this guid.",
    )
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    Path((route, destination)): Path<(String, String)>,
) -> ApiResult<Response> {
    let (row, access) = require(&context, &caller, &route, SpaceAction::Support).await?;
    let destination: Uuid = destination.parse().map_err(|_| no_destination())?;
    let mut tx = context.store.begin().await?;
    route_lock_tx(&mut tx, row.guid).await?.ok_or_else(|| ApiError::not_found("Route"))?;
    let old = store::destinations_tx(&mut tx, row.guid).await?;
    let old = old.into_iter().find(|old| old.guid == destination).ok_or_else(no_destination)?;
    if old.weight.is_some() {
        return Err(ApiError::unprocessable("Weighted destinations cannot be deleted individually."));
    }
    store::destination_remove_tx(&mut tx, row.guid, destination).await?;
    record(&mut tx, &caller, "audit.app.unmap-route", &row, &access, vec![Mapping::from(&old)]).await?;
    let version = change_log::commit(tx, &[(ChangeKind::Route, row.guid)]).await?;
    Ok(prove(&context, version, StatusCode::NO_CONTENT.into_response()).await)
}
