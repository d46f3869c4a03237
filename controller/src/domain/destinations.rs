//! Where a route leads.

use std::collections::HashMap;

use serde_json::Value;
use slipway_protocol::v1::Version;
use sqlx::PgConnection;
use uuid::Uuid;

use super::app_protocol::{AppProtocol, NotSpoken};
use super::audit::{AuditSubject, NewEvent};
use super::routes::audit_subject;
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::change_log::ChangeKind;
use crate::store::destinations::{self as store, DestinationRow, NewDestination, USUAL_PORT};
use crate::store::events::event_record_tx;
use crate::store::list::Visible;
use crate::store::routes::{RouteRow, route_lock_tx};

/// Most destinations of one route.
const MAX_DESTINATIONS: usize = 100;
const MAX_PROCESS_TYPE: usize = 255;

/// A destination as somebody asks for it.
#[derive(Clone, Debug)]
pub(crate) struct DestinationWish {
    /// The app's guid; a text that is none names an app that does not exist.
    pub(crate) app: String,
    /// `None` = `web`.
    pub(crate) process_type: Option<String>,
    /// `None` = the usual one.
    pub(crate) port: Option<u32>,
    /// Its share of the requests, in percent.
    pub(crate) weight: Option<u32>,
    /// How the app is spoken to; `None` = HTTP/1.1.
    pub(crate) protocol: Option<Value>,
}

/// Who changes the destinations of which route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DestinationChange<'a> {
    /// Who asks for it.
    pub(crate) actor: &'a AuditSubject,
    /// The route.
    pub(crate) route: &'a RouteRow,
    /// The organization of the route's space.
    pub(crate) org: Uuid,
}

/// Adds destinations without weights to a route.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong: the apps that are not in `visible` among it;
/// [`DomainError::NotFound`] when the route is gone.
pub(crate) async fn add(
    context: &Context,
    change: DestinationChange<'_>,
    visible: &Visible,
    requested: Vec<DestinationWish>,
) -> DomainResult<Version> {
    if requested.is_empty() {
        return Err(DomainError::invalid(
            "Destinations must be an array containing between 1 and 100 destination objects.",
        ));
    }
    let new = check(requested)?;
    if new.iter().any(|destination| destination.weight.is_some()) {
        return Err(DomainError::invalid(
            "Destinations[0]: weighted destinations can only be used when replacing all destinations.",
        ));
    }
    check_apps(context, change.route, visible, &new).await?;
    let mut tx = context.store.begin().await?;
    let added = add_destinations_tx(&mut tx, change.route.guid, &new).await?;
    let added = added.into_iter().map(Mapping::from).collect();
    change.record_tx(&mut tx, "audit.app.map-route", added).await?;
    Ok(context.store.commit(tx, &[(ChangeKind::Route, change.route.guid)]).await?)
}

/// Makes these the destinations of a route, all with weights or none.
///
/// # Errors
/// As [`add`].
pub(crate) async fn replace(
    context: &Context,
    change: DestinationChange<'_>,
    visible: &Visible,
    requested: Vec<DestinationWish>,
) -> DomainResult<Version> {
    let new = check(requested)?;
    check_weights(&new)?;
    check_apps(context, change.route, visible, &new).await?;
    let route = change.route.guid;
    let mut tx = context.store.begin().await?;
    route_lock_tx(&mut tx, route).await?.ok_or(DomainError::NotFound("Route"))?;
    let (added, removed) = store::destinations_replace_tx(&mut tx, route, &new).await?;
    let removed = removed.iter().map(Mapping::from).collect();
    change.record_tx(&mut tx, "audit.app.unmap-route", removed).await?;
    let added = added.into_iter().map(Mapping::from).collect();
    change.record_tx(&mut tx, "audit.app.map-route", added).await?;
    Ok(context.store.commit(tx, &[(ChangeKind::Route, route)]).await?)
}

/// Changes how a destination is spoken to; `None` leaves it. Gives the destination as it is then. As on Cloud Foundry no
/// event tells of it: the app is mapped as before.
///
/// # Errors
/// [`DomainError::Invalid`] when the route has no such destination; [`DomainError::NotFound`] when the route is gone.
pub(crate) async fn update(
    context: &Context,
    route: Uuid,
    destination: Uuid,
    protocol: Option<AppProtocol>,
) -> DomainResult<(DestinationRow, Version)> {
    let mut tx = context.store.begin().await?;
    let mut found = lock(&mut tx, route, destination).await?;
    if let Some(protocol) = protocol {
        store::destination_protocol_tx(&mut tx, destination, protocol).await?;
        protocol.as_str().clone_into(&mut found.protocol);
    }
    let version = context.store.commit(tx, &[(ChangeKind::Route, route)]).await?;
    Ok((found, version))
}

/// Removes a destination that has no weight.
///
/// # Errors
/// As [`update`], and [`DomainError::Invalid`] for one with a weight.
pub(crate) async fn remove(
    context: &Context,
    change: DestinationChange<'_>,
    destination: Uuid,
) -> DomainResult<Version> {
    let route = change.route.guid;
    let mut tx = context.store.begin().await?;
    let old = lock(&mut tx, route, destination).await?;
    if old.weight.is_some() {
        return Err(DomainError::invalid("Weighted destinations cannot be deleted individually."));
    }
    store::destination_remove_tx(&mut tx, route, destination).await?;
    change.record_tx(&mut tx, "audit.app.unmap-route", vec![Mapping::from(&old)]).await?;
    Ok(context.store.commit(tx, &[(ChangeKind::Route, route)]).await?)
}

/// Locks a route and gives this destination of it.
async fn lock(tx: &mut PgConnection, route: Uuid, destination: Uuid) -> DomainResult<DestinationRow> {
    route_lock_tx(tx, route).await?.ok_or(DomainError::NotFound("Route"))?;
    let all = store::destinations_tx(tx, route).await?;
    all.into_iter().find(|row| row.guid == destination).ok_or_else(no_destination)
}

/// The refusal of a destination that the route does not have.
pub(crate) fn no_destination() -> DomainError {
    DomainError::invalid("Unable to unmap route from destination. Ensure the route has a destination with this guid.")
}

/// Checks what needs no database.
fn check(requested: Vec<DestinationWish>) -> DomainResult<Vec<NewDestination>> {
    if requested.len() > MAX_DESTINATIONS {
        return Err(DomainError::invalid(format!("Routes can be mapped to at most {MAX_DESTINATIONS} destinations.")));
    }
    let mut checked: Vec<NewDestination> = Vec::new();
    for (place, wish) in requested.into_iter().enumerate() {
        let new = check_one(place, wish)?;
        let same = |old: &NewDestination| {
            old.app_guid == new.app_guid && old.process_type == new.process_type && old.port == new.port
        };
        if checked.iter().any(same) {
            return Err(DomainError::invalid("Destinations cannot contain duplicate entries"));
        }
        checked.push(new);
    }
    Ok(checked)
}

fn check_one(place: usize, wish: DestinationWish) -> DomainResult<NewDestination> {
    let bad = |problem: &str| DomainError::invalid(format!("Destinations[{place}]: {problem}"));
    let app_guid = wish.app.parse().map_err(|_| absent(std::slice::from_ref(&wish.app)))?;
    let process_type = wish.process_type.unwrap_or_else(|| "web".to_owned());
    if process_type.is_empty() || process_type.len() > MAX_PROCESS_TYPE {
        return Err(bad("process type must have 1 to 255 characters."));
    }
    if wish.port.is_some_and(|port| !(1024..=65535).contains(&port)) {
        return Err(bad("port must be an integer between 1024 and 65535 inclusive."));
    }
    if wish.weight.is_some_and(|weight| !(1..=100).contains(&weight)) {
        return Err(bad("weight must be a positive integer between 1 and 100."));
    }
    let protocol = match wish.protocol.as_ref().map_or(Ok(AppProtocol::default()), AppProtocol::read) {
        Ok(protocol) => protocol,
        Err(problem @ NotSpoken::Unknown) => return Err(bad(problem.of_new_destination())),
        Err(problem @ NotSpoken::Tcp) => return Err(DomainError::invalid(problem.of_new_destination())),
    };
    Ok(NewDestination {
        app_guid,
        process_type,
        // A destination at the usual port is the one without any; else it could be there twice, spoken to in two ways.
        port: wish.port.and_then(|port| i32::try_from(port).ok()).filter(|port| *port != USUAL_PORT),
        weight: wish.weight.and_then(|weight| i32::try_from(weight).ok()),
        protocol,
    })
}

fn check_weights(new: &[NewDestination]) -> DomainResult<()> {
    let weights: Vec<i32> = new.iter().filter_map(|destination| destination.weight).collect();
    if weights.is_empty() {
        return Ok(());
    }
    if weights.len() != new.len() {
        return Err(DomainError::invalid("Destinations cannot contain both weighted and unweighted destinations."));
    }
    if weights.iter().sum::<i32>() != 100 {
        return Err(DomainError::invalid("Destinations must have weights that sum to 100."));
    }
    Ok(())
}

fn absent(guids: &[String]) -> DomainError {
    let names = guids.iter().map(|guid| format!("\"{guid}\"")).collect::<Vec<_>>().join(", ");
    DomainError::invalid(format!("App(s) with guid(s) {names} do not exist or you do not have access."))
}

/// Every app must be there, in a visible space, and in the route's space or one that it is shared with.
async fn check_apps(
    context: &Context,
    route: &RouteRow,
    visible: &Visible,
    destinations: &[NewDestination],
) -> DomainResult<()> {
    let guids: Vec<Uuid> = destinations.iter().map(|destination| destination.app_guid).collect();
    let spaces: HashMap<Uuid, Uuid> = context.store.app_spaces(&guids).await?.into_iter().collect();
    let unknown: Vec<String> = guids
        .iter()
        .filter(|guid| !spaces.get(guid).is_some_and(|space| visible.contains(*space)))
        .map(ToString::to_string)
        .collect();
    if !unknown.is_empty() {
        return Err(absent(&unknown));
    }
    if spaces.values().any(|space| *space != route.space_guid) {
        let shared = context.store.route_shared_spaces(route.guid).await?;
        if spaces.values().any(|space| *space != route.space_guid && !shared.contains(space)) {
            return Err(DomainError::invalid(
                "Routes destinations must be in either the route's space or the route's shared spaces",
            ));
        }
    }
    Ok(())
}

/// Adds destinations, without weights, to a route; gives those that were not there before. End the transaction in
/// `Store::commit` with `ChangeKind::Route`.
///
/// # Errors
/// [`DomainError::Invalid`] when the route has weighted destinations, would get too many, or has one of them with another
/// protocol, and [`DomainError::NotFound`] when it is gone.
pub(super) async fn add_destinations_tx<'a>(
    tx: &mut PgConnection,
    route: Uuid,
    new: &'a [NewDestination],
) -> DomainResult<Vec<&'a NewDestination>> {
    let row = route_lock_tx(tx, route).await?.ok_or(DomainError::NotFound("Route"))?;
    let old = store::destinations_tx(tx, route).await?;
    if old.iter().any(|destination| destination.weight.is_some()) {
        return Err(DomainError::invalid(
            "Destinations cannot be inserted when there are weighted destinations already configured.",
        ));
    }
    if old.len() + new.len() > MAX_DESTINATIONS {
        return Err(DomainError::invalid(format!("Routes can be mapped to at most {MAX_DESTINATIONS} destinations.")));
    }
    let mut added = Vec::new();
    for destination in new {
        if let Some(same) = old.iter().find(|old| destination.is_at(old)) {
            let protocol = destination.protocol.as_str();
            if same.protocol != protocol {
                return Err(DomainError::invalid(format!(
                    "Cannot add destination with protocol: {protocol}. Destination already exists for route: {}, app: {}, \
                     process: {}, and protocol: {}.",
                    row.url(),
                    same.app_guid,
                    same.process_type,
                    same.protocol
                )));
            }
            continue;
        }
        if store::destination_add_tx(tx, route, destination).await? {
            added.push(destination);
        }
    }
    Ok(added)
}

/// What events say of a destination.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping<'a> {
    app: Uuid,
    process_type: &'a str,
    protocol: &'a str,
}

impl<'a> From<&'a NewDestination> for Mapping<'a> {
    fn from(new: &'a NewDestination) -> Self {
        Self { app: new.app_guid, process_type: &new.process_type, protocol: new.protocol.as_str() }
    }
}

impl<'a> From<&'a DestinationRow> for Mapping<'a> {
    fn from(row: &'a DestinationRow) -> Self {
        Self { app: row.app_guid, process_type: &row.process_type, protocol: &row.protocol }
    }
}

impl DestinationChange<'_> {
    /// Records the same event for each of these.
    async fn record_tx(
        self,
        tx: &mut PgConnection,
        kind: &'static str,
        mappings: Vec<Mapping<'_>>,
    ) -> sqlx::Result<()> {
        for mapping in mappings {
            let event = NewEvent::new(kind, self.actor.clone(), audit_subject(self.route))
                .in_space(self.route.space_guid, self.org);
            mapping_record_tx(tx, event, self.route.guid, mapping).await?;
        }
        Ok(())
    }
}

/// Records that a route leads to an app from now on, or no more: the event of the route, and the same one of the app,
/// whose own history shows it too.
///
/// # Errors
/// When the database fails.
pub(super) async fn mapping_record_tx(
    tx: &mut PgConnection,
    event: NewEvent,
    route: Uuid,
    to: Mapping<'_>,
) -> sqlx::Result<()> {
    let event = event
        .with("app_guid", to.app.to_string())
        .with("process_type", to.process_type)
        .with("protocol", to.protocol)
        .with("route_guid", route.to_string());
    event_record_tx(tx, &event).await?;
    event_record_tx(tx, &NewEvent { target: AuditSubject::new("app", to.app, ""), ..event }).await
}
