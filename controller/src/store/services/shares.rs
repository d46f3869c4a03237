//! Spaces that service instances are shared with.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::store::Store;

/// A space that an instance is shared with.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named as what they hold")]
pub struct ShareRow {
    pub space_guid: Uuid,
    pub space_name: String,
    pub org_guid: Uuid,
    pub org_name: String,
    pub created_at: DateTime<Utc>,
    /// Apps of that space that are bound.
    pub bound_apps: i64,
}

/// Shares an instance with a space; a share that is there already stays. True when it is new.
///
/// # Errors
/// When the database fails.
pub async fn share_add_tx(tx: &mut PgConnection, instance: Uuid, space: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "insert into service_instance_share (service_instance_guid, space_guid) values ($1, $2) on conflict do nothing",
        instance,
        space
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a share. False when there is none.
///
/// # Errors
/// When the database fails.
pub async fn share_remove_tx(tx: &mut PgConnection, instance: Uuid, space: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "delete from service_instance_share where service_instance_guid = $1 and space_guid = $2",
        instance,
        space
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether a space has an instance of this name of its own, and whether one is shared with it; `but` is left out.
///
/// # Errors
/// When the database fails.
pub async fn name_in_space_tx(tx: &mut PgConnection, space: Uuid, name: &str, but: Uuid) -> sqlx::Result<(bool, bool)> {
    let row = sqlx::query!(
        r#"select exists (select 1 from service_instance where space_guid = $1 and name = $2 and guid <> $3) as "own!",
                  exists (select 1 from service_instance_share h
                          join service_instance i on i.guid = h.service_instance_guid
                          where h.space_guid = $1 and i.name = $2 and i.guid <> $3) as "shared!""#,
        space,
        name,
        but
    )
    .fetch_one(tx)
    .await?;
    Ok((row.own, row.shared))
}

/// Spaces that an instance is shared with.
///
/// # Errors
/// When the database fails.
pub async fn shared_spaces_tx(tx: &mut PgConnection, instance: Uuid) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select space_guid from service_instance_share where service_instance_guid = $1 order by created_at, space_guid",
        instance
    )
    .fetch_all(tx)
    .await
}

impl Store {
    /// Spaces that an instance is shared with, oldest share first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_instance_shares(&self, instance: Uuid) -> sqlx::Result<Vec<ShareRow>> {
        sqlx::query_as!(
            ShareRow,
            r#"select h.space_guid, s.name as space_name, s.org_guid, o.name as org_name, h.created_at,
                      (select count(*) from service_binding b join app a on a.guid = b.app_guid
                       where b.service_instance_guid = $1 and a.space_guid = h.space_guid) as "bound_apps!"
               from service_instance_share h join space s on s.guid = h.space_guid
               join organization o on o.guid = s.org_guid
               where h.service_instance_guid = $1 order by h.created_at, h.space_guid"#,
            instance
        )
        .fetch_all(self.pool())
        .await
    }
}
