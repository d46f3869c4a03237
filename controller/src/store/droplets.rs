//! Droplets.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;

/// A droplet as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct DropletRow {
    pub guid: Uuid,
    pub app_guid: Uuid,
    pub package_guid: Option<Uuid>,
    pub build_guid: Option<Uuid>,
    pub state: String,
    pub error: Option<String>,
    pub blob: Option<Vec<u8>>,
    pub blob_size: Option<i64>,
    pub unpacked_size: Option<i64>,
    pub format: String,
    pub stack: Option<String>,
    pub lifecycle_type: String,
    pub buildpacks: Option<Value>,
    pub process_types: Value,
    pub layers: Value,
    pub sonames: Option<Value>,
    pub execution_metadata: String,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A droplet to be made. The rest of its columns have defaults.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewDroplet {
    pub guid: Uuid,
    pub app_guid: Uuid,
    pub package_guid: Option<Uuid>,
    pub build_guid: Option<Uuid>,
    pub state: &'static str,
    pub blob: Option<Vec<u8>>,
    pub blob_size: Option<i64>,
    pub unpacked_size: Option<i64>,
    pub format: String,
    pub stack: Option<String>,
    pub buildpacks: Option<Value>,
    pub process_types: Value,
    pub layers: Value,
    pub sonames: Option<Value>,
    pub execution_metadata: String,
}

/// Inserts a droplet.
///
/// # Errors
/// When the database fails.
pub async fn droplet_insert_tx(tx: &mut PgConnection, droplet: &NewDroplet) -> sqlx::Result<DropletRow> {
    sqlx::query_as!(
        DropletRow,
        "insert into droplet (guid, app_guid, package_guid, build_guid, state, blob, blob_size, unpacked_size, format,
                              stack, buildpacks, process_types, layers, sonames, execution_metadata)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) returning *",
        droplet.guid,
        droplet.app_guid,
        droplet.package_guid,
        droplet.build_guid,
        droplet.state,
        droplet.blob,
        droplet.blob_size,
        droplet.unpacked_size,
        droplet.format,
        droplet.stack,
        droplet.buildpacks,
        droplet.process_types,
        droplet.layers,
        droplet.sonames,
        droplet.execution_metadata,
    )
    .fetch_one(tx)
    .await
}

/// Reads a droplet in a transaction.
///
/// # Errors
/// When the database fails.
pub async fn droplet_get_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<DropletRow>> {
    sqlx::query_as!(DropletRow, "select * from droplet where guid = $1", guid).fetch_optional(tx).await
}

/// Reads a droplet and keeps it from being removed until the transaction ends.
///
/// # Errors
/// When the database fails.
pub async fn droplet_keep_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<DropletRow>> {
    sqlx::query_as!(DropletRow, "select * from droplet where guid = $1 for share", guid).fetch_optional(tx).await
}

/// Completes an uploaded droplet, if it still waits for its upload.
///
/// # Errors
/// When the database fails.
pub async fn droplet_uploaded_tx(tx: &mut PgConnection, guid: Uuid, droplet: &NewDroplet) -> sqlx::Result<bool> {
    let result = sqlx::query!(
        "update droplet set state = 'STAGED', blob = $2, blob_size = $3, format = $4, stack = $5, process_types = $6,
                layers = $7, updated_at = now()
         where guid = $1 and state = 'AWAITING_UPLOAD'",
        guid,
        droplet.blob,
        droplet.blob_size,
        droplet.format,
        droplet.stack,
        droplet.process_types,
        droplet.layers,
    )
    .execute(tx)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// Removes a droplet.
///
/// # Errors
/// When the database fails.
pub async fn droplet_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from droplet where guid = $1", guid).execute(tx).await?;
    Ok(())
}

impl Store {
    /// One droplet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn droplet_get(&self, guid: Uuid) -> sqlx::Result<Option<DropletRow>> {
        sqlx::query_as!(DropletRow, "select * from droplet where guid = $1", guid).fetch_optional(self.pool()).await
    }

    /// A page of the droplets in these spaces; with `app` or `package`, only of that one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn droplet_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
        app: Option<Uuid>,
        package: Option<Uuid>,
    ) -> sqlx::Result<(Vec<DropletRow>, u64)> {
        let mut listing = Listing::new(
            "droplet d join app a on a.guid = d.app_guid join space s on s.guid = a.space_guid",
            "d",
            options,
        );
        listing.visible("a.space_guid", spaces);
        if let Some(app) = app {
            listing.sql("d.app_guid = any(").bind_uuids(vec![app]).sql(")").done();
        }
        if let Some(package) = package {
            listing.sql("d.package_guid = any(").bind_uuids(vec![package]).sql(")").done();
        }
        if options.filter("current").is_some() {
            listing.sql("a.droplet_guid = d.guid").done();
        }
        listing.guids("guids", "d.guid").guids("app_guids", "d.app_guid").texts("states", "d.state");
        listing.guids("space_guids", "a.space_guid").guids("organization_guids", "s.org_guid");
        listing.fetch(self.pool(), "d.*").await
    }
}
