//! Where a route leads.

use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::{AuditSubject, NewEvent};
use super::{DomainError, DomainResult};
use crate::store::destinations::{self as store, DestinationRow, NewDestination};
use crate::store::events::event_record_tx;
use crate::store::routes::route_lock_tx;

/// Most destinations of one route.
pub const MAX_DESTINATIONS: usize = 100;

/// Adds destinations, without weights, to a route; gives those that were not there before. End the transaction in
/// `change_log::commit` with `ChangeKind::Route`.
///
/// # Errors
/// [`DomainError::Invalid`] when the route has weighted destinations, would get too many, or has one of them with another
/// protocol, and [`DomainError::NotFound`] when it is gone.
pub async fn add_destinations_tx<'a>(
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
pub struct Mapping<'a> {
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

/// Records that a route leads to an app from now on, or no more: the event of the route, and the same one of the app,
/// whose own history shows it too.
///
/// # Errors
/// When the database fails.
pub async fn mapping_record_tx(
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
