//! What manifests ask about routes besides what the API asks.

use sqlx::PgConnection;
use uuid::Uuid;

use super::destinations::DestinationRow;
use super::routes::RouteRow;

/// Whether any route leads to an app.
///
/// # Errors
/// When the database fails.
pub async fn app_has_routes_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select exists (select 1 from route_destination where app_guid = $1) as "has!""#, app)
        .fetch_one(tx)
        .await
}

/// Whether a route is shared with a space.
///
/// # Errors
/// When the database fails.
pub async fn route_is_shared_tx(tx: &mut PgConnection, route: Uuid, space: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from route_shared_space where route_guid = $1 and space_guid = $2) as "shared!""#,
        route,
        space
    )
    .fetch_one(tx)
    .await
}

/// Unmaps all routes of an app; gives each destination that went with its route.
///
/// # Errors
/// When the database fails.
pub async fn destinations_clear_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<(RouteRow, DestinationRow)>> {
    let gone = sqlx::query_as!(DestinationRow, "delete from route_destination where app_guid = $1 returning *", app)
        .fetch_all(&mut *tx)
        .await?;
    let guids: Vec<Uuid> = gone.iter().map(|old| old.route_guid).collect();
    let routes = sqlx::query_as!(
        RouteRow,
        "select r.*, d.name as domain_name from route r join domain d on d.guid = r.domain_guid
         where r.guid = any($1) order by r.created_at, r.guid",
        &guids
    )
    .fetch_all(tx)
    .await?;
    let of = |route: &RouteRow| gone.iter().filter(|old| old.route_guid == route.guid).cloned().collect::<Vec<_>>();
    Ok(routes.into_iter().flat_map(|route| of(&route).into_iter().map(move |old| (route.clone(), old))).collect())
}
