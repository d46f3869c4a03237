//! Sidecars: programs beside the command of a process.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::Listing;
use crate::values::list::ListOptions;

/// A sidecar as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct SidecarRow {
    pub guid: Uuid,
    pub app_guid: Uuid,
    pub name: String,
    pub command: String,
    pub process_types: Vec<String>,
    pub memory_in_mb: Option<i64>,
    pub origin: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// The app's sidecars, by name.
///
/// # Errors
/// When the database fails.
pub async fn sidecars_of_app_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<SidecarRow>> {
    sqlx::query_as!(SidecarRow, "select * from sidecar where app_guid = $1 order by name", app).fetch_all(tx).await
}

/// Removes all sidecars of an app.
///
/// # Errors
/// When the database fails.
pub async fn sidecars_delete_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from sidecar where app_guid = $1", app).execute(tx).await?;
    Ok(())
}

/// Writes a sidecar that the developer declared, by its name.
///
/// # Errors
/// When the database fails.
pub async fn sidecar_put_tx(
    tx: &mut PgConnection,
    app: Uuid,
    name: &str,
    command: &str,
    process_types: &[String],
    memory_mb: Option<i64>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into sidecar (guid, app_guid, name, command, process_types, memory_in_mb)
         values ($1, $2, $3, $4, $5, $6)
         on conflict on constraint sidecar_name_key
         do update set command = $4, process_types = $5, memory_in_mb = $6, updated_at = now()",
        Uuid::new_v4(),
        app,
        name,
        command,
        process_types,
        memory_mb,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Changes a sidecar.
///
/// # Errors
/// When its name is taken (`sidecar_name_key`), or the database fails.
pub async fn sidecar_update_tx(tx: &mut PgConnection, row: &SidecarRow) -> sqlx::Result<SidecarRow> {
    sqlx::query_as!(
        SidecarRow,
        "update sidecar set name = $2, command = $3, process_types = $4, memory_in_mb = $5, updated_at = now()
         where guid = $1 returning *",
        row.guid,
        row.name,
        row.command,
        &row.process_types,
        row.memory_in_mb,
    )
    .fetch_one(tx)
    .await
}

/// Inserts a sidecar.
///
/// # Errors
/// When its name is taken (`sidecar_name_key`), or the database fails.
pub async fn sidecar_insert_tx(tx: &mut PgConnection, row: &SidecarRow) -> sqlx::Result<SidecarRow> {
    sqlx::query_as!(
        SidecarRow,
        "insert into sidecar (guid, app_guid, name, command, process_types, memory_in_mb)
         values ($1, $2, $3, $4, $5, $6) returning *",
        row.guid,
        row.app_guid,
        row.name,
        row.command,
        &row.process_types,
        row.memory_in_mb,
    )
    .fetch_one(tx)
    .await
}

/// Removes a sidecar.
///
/// # Errors
/// When the database fails.
pub async fn sidecar_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from sidecar where guid = $1", guid).execute(tx).await?;
    Ok(())
}

impl Store {
    /// One sidecar.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sidecar_get(&self, guid: Uuid) -> sqlx::Result<Option<SidecarRow>> {
        sqlx::query_as!(SidecarRow, "select * from sidecar where guid = $1", guid).fetch_optional(self.pool()).await
    }

    /// Sidecars of an app.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sidecar_list(
        &self,
        options: &ListOptions,
        app: Uuid,
        kind: Option<&str>,
    ) -> sqlx::Result<(Vec<SidecarRow>, u64)> {
        let mut listing = Listing::new("sidecar c", "c", options);
        listing.sql("c.app_guid = any(").bind_uuids(vec![app]).sql(")").done();
        if let Some(kind) = kind {
            listing.sql("c.process_types && ").bind_texts(vec![kind.to_owned()]).done();
        }
        listing.fetch(self.pool(), "c.*").await
    }
}
