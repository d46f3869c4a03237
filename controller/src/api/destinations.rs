//! `/v3/routes/:guid/destinations`: where a route leads.

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
use super::permissions::SpaceAction;
use super::proof::prove;
use super::routes::{destination_view, require};
use crate::context::Context;
use crate::domain::app_protocol::AppProtocol;
use crate::domain::destinations::{self as domain, DestinationChange, DestinationWish};

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

impl Destinations {
    fn requested(self) -> Vec<DestinationWish> {
        self.destinations
            .into_iter()
            .map(|destination| DestinationWish {
                app: destination.app.guid,
                process_type: destination.app.process.map(|process| process.kind),
                port: destination.port,
                weight: destination.weight,
                protocol: destination.protocol,
            })
            .collect()
    }
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
    let visible = caller.visible_spaces(&context).await?;
    let change = DestinationChange { actor: &caller.actor(), route: &row, org: access.standing.org_guid };
    let version = domain::add(&context, change, &visible, body.requested()).await?;
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
    let visible = caller.visible_spaces(&context).await?;
    let change = DestinationChange { actor: &caller.actor(), route: &row, org: access.standing.org_guid };
    let version = domain::replace(&context, change, &visible, body.requested()).await?;
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
    let protocol = body.protocol.as_ref().map(read).transpose();
    protocol.map_err(|problem| ApiError::unprocessable(problem.of_changed_destination()))
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    Path((route, destination)): Path<(String, String)>,
    JsonBody(body): JsonBody<Update>,
) -> ApiResult<Response> {
    let protocol = wished(&body)?;
    let (row, _) = require(&context, &caller, &route, SpaceAction::Support).await?;
    let destination: Uuid = destination.parse().map_err(|_| domain::no_destination())?;
    let (changed, version) = domain::update(&context, row.guid, destination, protocol).await?;
    Ok(prove(&context, version, Json(destination_view(&changed)).into_response()).await)
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    Path((route, destination)): Path<(String, String)>,
) -> ApiResult<Response> {
    let (row, access) = require(&context, &caller, &route, SpaceAction::Support).await?;
    let destination: Uuid = destination.parse().map_err(|_| domain::no_destination())?;
    let change = DestinationChange { actor: &caller.actor(), route: &row, org: access.standing.org_guid };
    let version = domain::remove(&context, change, destination).await?;
    Ok(prove(&context, version, StatusCode::NO_CONTENT.into_response()).await)
}
