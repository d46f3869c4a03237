//! What manifests ask about routes besides what the API asks.

use sqlx::PgConnection;
use uuid::Uuid;

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

/// Whether a route leads to an app.
///
/// # Errors
/// When the database fails.
pub async fn route_leads_to_tx(tx: &mut PgConnection, route: Uuid, app: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from route_destination where route_guid = $1 and app_guid = $2) as "leads!""#,
        route,
        app
    )
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

/// Unmaps all routes of an app; gives them.
///
/// # Errors
/// When the database fails.
pub async fn destinations_clear_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<RouteRow>> {
    let guids = sqlx::query_scalar!("delete from route_destination where app_guid = $1 returning route_guid", app)
        .fetch_all(&mut *tx)
        .await?;
    sqlx::query_as!(
        RouteRow,
        "select r.*, d.name as domain_name from route r join domain d on d.guid = r.domain_guid
         where r.guid = any($1) order by r.created_at, r.guid",
        &guids
    )
    .fetch_all(tx)
    .await
}
