//! Packages.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;

/// A package as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct PackageRow {
    pub guid: Uuid,
    pub app_guid: Uuid,
    #[sqlx(rename = "type")]
    pub kind: String,
    pub state: String,
    pub error: Option<String>,
    pub blob: Option<Vec<u8>>,
    pub blob_size: Option<i64>,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "k.guid, k.app_guid, k.type, k.state, k.error, k.blob, k.blob_size, k.labels, k.annotations,
    k.created_at, k.updated_at";

/// Inserts a bits package. With a blob (a copy of another package) it is ready at once.
///
/// # Errors
/// When the database fails.
pub async fn package_insert_tx(
    tx: &mut PgConnection,
    guid: Uuid,
    app: Uuid,
    blob: Option<(&[u8], i64)>,
    labels: &Value,
    annotations: &Value,
) -> sqlx::Result<PackageRow> {
    let state = if blob.is_some() { "READY" } else { "AWAITING_UPLOAD" };
    sqlx::query_as!(
        PackageRow,
        r#"insert into package (guid, app_guid, type, state, blob, blob_size, labels, annotations)
           values ($1, $2, 'bits', $3, $4, $5, jsonb_strip_nulls($6), jsonb_strip_nulls($7))
           returning guid, app_guid, type as kind, state, error, blob, blob_size, labels, annotations, created_at,
                     updated_at"#,
        guid,
        app,
        state,
        blob.map(|(digest, _)| digest),
        blob.map(|(_, size)| size),
        labels,
        annotations,
    )
    .fetch_one(tx)
    .await
}

/// Makes a package ready, if it still waits for its upload: of two uploads that finish, one wins.
///
/// # Errors
/// When the database fails.
pub async fn package_ready_tx(
    tx: &mut PgConnection,
    guid: Uuid,
    blob: &[u8],
    size: i64,
) -> sqlx::Result<Option<PackageRow>> {
    sqlx::query_as!(
        PackageRow,
        r#"update package set state = 'READY', blob = $2, blob_size = $3, updated_at = now()
           where guid = $1 and state = 'AWAITING_UPLOAD'
           returning guid, app_guid, type as kind, state, error, blob, blob_size, labels, annotations, created_at,
                     updated_at"#,
        guid,
        blob,
        size
    )
    .fetch_optional(tx)
    .await
}

/// Removes a package.
///
/// # Errors
/// When the database fails.
pub async fn package_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from package where guid = $1", guid).execute(tx).await?;
    Ok(())
}

impl Store {
    /// One package.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn package_get(&self, guid: Uuid) -> sqlx::Result<Option<PackageRow>> {
        sqlx::query_as!(
            PackageRow,
            r#"select guid, app_guid, type as kind, state, error, blob, blob_size, labels, annotations, created_at,
                      updated_at
               from package where guid = $1"#,
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// A page of the packages in these spaces; with `app`, only of that app.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn package_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
        app: Option<Uuid>,
    ) -> sqlx::Result<(Vec<PackageRow>, u64)> {
        let mut listing = Listing::new(
            "package k join app a on a.guid = k.app_guid join space s on s.guid = a.space_guid",
            "k",
            options,
        );
        listing.visible("a.space_guid", spaces);
        if let Some(app) = app {
            listing.sql("k.app_guid = any(").bind_uuids(vec![app]).sql(")").done();
        }
        listing.guids("guids", "k.guid").guids("app_guids", "k.app_guid");
        listing.texts("states", "k.state").texts("types", "k.type");
        listing.guids("space_guids", "a.space_guid").guids("organization_guids", "s.org_guid");
        listing.fetch(self.pool(), COLUMNS).await
    }

    /// Whether a build of this package goes on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn package_is_staged_now(&self, package: Uuid) -> sqlx::Result<bool> {
        sqlx::query_scalar!(
            r#"select exists (select 1 from build where package_guid = $1 and state = 'STAGING') as "any!""#,
            package
        )
        .fetch_one(self.pool())
        .await
    }

    /// The blobs an app speaks of: packages, droplets, build cache.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn blobs_of_app(&self, app: Uuid) -> sqlx::Result<Vec<Vec<u8>>> {
        sqlx::query_scalar!(
            r#"select blob as "blob!" from package where app_guid = $1 and blob is not null
               union select blob from droplet where app_guid = $1 and blob is not null
               union select build_cache from app where guid = $1 and build_cache is not null"#,
            app
        )
        .fetch_all(self.pool())
        .await
    }
}
