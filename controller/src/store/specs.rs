//! What specs are composed from, and the specs themselves.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;

/// One row of the catalogue.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LayerRow {
    /// Identity: SHA-256 of the uncompressed canonical tar.
    pub digest: Vec<u8>,
    /// SHA-256 of the stored blob.
    pub blob: Vec<u8>,
    /// Bytes of the stored blob.
    pub blob_size: i64,
    /// Bytes unpacked.
    pub size: i64,
    /// `stack`, `compat`, `runtime` or `build`.
    pub kind: String,
    /// `node`.
    pub name: String,
    /// `node-22`.
    pub line: String,
    /// `22.11.0`.
    pub version: String,
    /// The newest of a line wins.
    pub created_at: DateTime<Utc>,
}

/// Names of an app and what is around it.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the tables")]
pub struct AppPlaceRow {
    pub name: String,
    pub space_guid: Uuid,
    pub space_name: String,
    pub org_guid: Uuid,
    pub org_name: String,
}

/// A spec to be stored; its body is sealed already.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewSpec<'a> {
    pub digest: &'a [u8],
    pub kind: &'a str,
    pub body: &'a [u8],
    pub memory_mb: i64,
    pub disk_mb: i64,
    pub stack: &'a str,
    /// Digests of the blobs that it names.
    pub blobs: &'a [Vec<u8>],
}

/// An app's names and those of its space and organization.
///
/// # Errors
/// When the database fails.
pub async fn app_place_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<AppPlaceRow> {
    sqlx::query_as!(
        AppPlaceRow,
        "select a.name, s.guid as space_guid, s.name as space_name, o.guid as org_guid, o.name as org_name
         from app a join space s on s.guid = a.space_guid join organization o on o.guid = s.org_guid
         where a.guid = $1",
        app
    )
    .fetch_one(tx)
    .await
}

/// Addresses of an app's routes, without a scheme.
///
/// # Errors
/// When the database fails.
pub async fn app_uris_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"select distinct case when r.host = '' then d.name else r.host || '.' || d.name end || r.path as "uri!"
           from route_destination x join route r on r.guid = x.route_guid join domain d on d.guid = r.domain_guid
           where x.app_guid = $1 order by 1"#,
        app
    )
    .fetch_all(tx)
    .await
}

/// The sealed variables of a group.
///
/// # Errors
/// When the database fails.
pub async fn environment_group_tx(tx: &mut PgConnection, name: &str) -> sqlx::Result<Option<Vec<u8>>> {
    let row = sqlx::query_scalar!("select var from environment_variable_group where name = $1", name)
        .fetch_optional(tx)
        .await?;
    Ok(row.flatten())
}

/// The catalogue of layers.
///
/// # Errors
/// When the database fails.
pub async fn layers_tx(tx: &mut PgConnection) -> sqlx::Result<Vec<LayerRow>> {
    sqlx::query_as!(
        LayerRow,
        "select digest, blob, blob_size, size, kind, name, line, version, created_at from layer order by digest"
    )
    .fetch_all(tx)
    .await
}

/// Stores a spec; an equal one may be there.
///
/// # Errors
/// When the database fails.
pub async fn spec_insert_tx(tx: &mut PgConnection, spec: &NewSpec<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into spec (digest, kind, body, memory_mb, disk_mb, stack, blobs) values ($1, $2, $3, $4, $5, $6, $7)
         -- Young again, and locked: what is about to be referred to is not removed as old.
         on conflict (digest) do update set created_at = now(), blobs = excluded.blobs",
        spec.digest,
        spec.kind,
        spec.body,
        spec.memory_mb,
        spec.disk_mb,
        spec.stack,
        spec.blobs
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// Whether the platform knows this stack.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn stack_exists(&self, name: &str) -> sqlx::Result<bool> {
        sqlx::query_scalar!(r#"select exists (select 1 from stack where name = $1) as "known!""#, name)
            .fetch_one(self.pool())
            .await
    }
}
