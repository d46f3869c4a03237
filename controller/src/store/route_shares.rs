//! Spaces that routes are shared with, and changes of owner.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::routes::RouteRow;

/// Shares a route with these spaces; what is shared already stays so.
///
/// # Errors
/// When the database fails.
pub async fn route_share_tx(tx: &mut PgConnection, route: Uuid, spaces: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into route_shared_space (route_guid, space_guid) select $1, x from unnest($2::uuid[]) x
         on conflict do nothing",
        route,
        spaces
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends the share with a space. What that space has mapped stays mapped, as on Cloud Foundry: its owner unmaps it.
///
/// # Errors
/// When the database fails.
pub async fn route_unshare_tx(tx: &mut PgConnection, route: Uuid, space: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from route_shared_space where route_guid = $1 and space_guid = $2", route, space)
        .execute(tx)
        .await?;
    Ok(())
}

/// Gives a route to another space and shares it with the one that had it, so that what is mapped there stays mapped.
/// As on Cloud Foundry no quota is asked: those of routes limit what is made, not what is received.
///
/// # Errors
/// When the database fails.
pub async fn route_transfer_tx(tx: &mut PgConnection, route: &RouteRow, space: Uuid) -> sqlx::Result<()> {
    route_unshare_tx(tx, route.guid, space).await?;
    route_share_tx(tx, route.guid, &[route.space_guid]).await?;
    sqlx::query!("update route set space_guid = $2, updated_at = now() where guid = $1", route.guid, space)
        .execute(tx)
        .await?;
    Ok(())
}

impl Store {
    /// Spaces that a route is shared with.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn route_shared_spaces(&self, route: Uuid) -> sqlx::Result<Vec<Uuid>> {
        sqlx::query_scalar!(
            "select space_guid from route_shared_space where route_guid = $1 order by space_guid",
            route
        )
        .fetch_all(self.pool())
        .await
    }
}
