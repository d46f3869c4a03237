//! Where routes lead.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use crate::values::app_protocol::AppProtocol;

/// What an app listens on, and where a destination without a port leads.
pub const USUAL_PORT: i32 = 8080;

/// A destination as stored.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct DestinationRow {
    pub guid: Uuid,
    pub route_guid: Uuid,
    pub app_guid: Uuid,
    pub process_type: String,
    pub port: Option<i32>,
    pub weight: Option<i32>,
    pub protocol: String,
    pub created_at: DateTime<Utc>,
}

/// A destination to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewDestination {
    pub app_guid: Uuid,
    pub process_type: String,
    pub port: Option<i32>,
    pub weight: Option<i32>,
    pub protocol: AppProtocol,
}

impl NewDestination {
    /// Whether that destination leads to the same place. As on Cloud Foundry the protocol does not tell two apart: it is
    /// how one is spoken to.
    #[must_use]
    pub fn is_at(&self, old: &DestinationRow) -> bool {
        let port = |port: Option<i32>| port.unwrap_or(USUAL_PORT);
        self.app_guid == old.app_guid && self.process_type == old.process_type && port(self.port) == port(old.port)
    }
}

/// Destinations of a route, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn destinations_tx(tx: &mut PgConnection, route: Uuid) -> sqlx::Result<Vec<DestinationRow>> {
    sqlx::query_as!(
        DestinationRow,
        "select * from route_destination where route_guid = $1 order by created_at, guid",
        route
    )
    .fetch_all(tx)
    .await
}

/// Adds a destination; one that is there already stays as it is. True when it was added.
///
/// # Errors
/// When the database fails.
pub async fn destination_add_tx(
    tx: &mut PgConnection,
    route: Uuid,
    destination: &NewDestination,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "insert into route_destination (guid, route_guid, app_guid, process_type, port, weight, protocol)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
        Uuid::new_v4(),
        route,
        destination.app_guid,
        destination.process_type,
        destination.port,
        destination.weight,
        destination.protocol.as_str()
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("update route set updated_at = now() where guid = $1", route).execute(tx).await?;
    Ok(done.rows_affected() == 1)
}

/// Removes one destination of a route. False when there is none.
///
/// # Errors
/// When the database fails.
pub async fn destination_remove_tx(tx: &mut PgConnection, route: Uuid, destination: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from route_destination where route_guid = $1 and guid = $2", route, destination)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Changes how a destination is spoken to.
///
/// # Errors
/// When the database fails.
pub async fn destination_protocol_tx(
    tx: &mut PgConnection,
    destination: Uuid,
    protocol: AppProtocol,
) -> sqlx::Result<()> {
    sqlx::query!("update route_destination set protocol = $2 where guid = $1", destination, protocol.as_str())
        .execute(tx)
        .await?;
    Ok(())
}

/// Removes the destinations of a route that are not in `wanted`, sets the weights of those that are, and adds the rest.
/// One of another protocol is another one, so that the history of the app shows both. Gives which of `wanted` were
/// added, and what was removed.
///
/// # Errors
/// When the database fails.
pub async fn destinations_replace_tx<'a>(
    tx: &mut PgConnection,
    route: Uuid,
    wanted: &'a [NewDestination],
) -> sqlx::Result<(Vec<&'a NewDestination>, Vec<DestinationRow>)> {
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    let mut missing: Vec<_> = wanted.iter().collect();
    for old in destinations_tx(tx, route).await? {
        let same = |new: &&NewDestination| new.is_at(&old) && new.protocol.as_str() == old.protocol;
        match missing.iter().position(same).map(|place| missing.remove(place)) {
            None => {
                destination_remove_tx(tx, route, old.guid).await?;
                removed.push(old);
            }
            Some(new) => {
                sqlx::query!("update route_destination set weight = $2 where guid = $1", old.guid, new.weight)
                    .execute(&mut *tx)
                    .await?;
            }
        }
    }
    for new in missing {
        if destination_add_tx(tx, route, new).await? {
            added.push(new);
        }
    }
    Ok((added, removed))
}

impl Store {
    /// Destinations of these routes, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn destinations(&self, routes: &[Uuid]) -> sqlx::Result<Vec<DestinationRow>> {
        sqlx::query_as!(
            DestinationRow,
            "select * from route_destination where route_guid = any($1) order by created_at, guid",
            routes
        )
        .fetch_all(self.pool())
        .await
    }
}
