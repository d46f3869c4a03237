//! When blobs were put, and which of them nothing speaks of.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::packages::PackageRow;

/// Locks a blob's row until the end of the transaction and marks the blob as suspect. Whether it was put at least
/// `settle_s` seconds ago, so that whoever put it has said by now what for.
///
/// # Errors
/// When the database fails.
pub async fn blob_suspect_tx(tx: &mut PgConnection, digest: &[u8], settle_s: f64) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"insert into blob (digest, put_at) values ($1, '-infinity')
           on conflict (digest) do update set suspect = true
           returning put_at <= now() - make_interval(secs => $2) as "settled!""#,
        digest,
        settle_s
    )
    .fetch_one(tx)
    .await
}

/// Whether anything speaks of a blob.
///
/// # Errors
/// When the database fails.
pub async fn blob_is_used_tx(tx: &mut PgConnection, digest: &[u8]) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from package where blob = $1)
               or exists (select 1 from droplet where blob = $1)
               or exists (select 1 from app where build_cache = $1)
               or exists (select 1 from buildpack where blob = $1)
               or exists (select 1 from resource_file where blob = $1)
               or exists (select 1 from space_file where blob = $1)
               or exists (select 1 from layer where blob = $1) as "used!""#,
        digest
    )
    .fetch_one(tx)
    .await
}

/// Whether something that is wanted, or on a cell, names a blob that no row of a resource speaks of any more: a droplet
/// that was deleted while it runs. Its instances may have to start again, on another cell, too.
///
/// # Errors
/// When the database fails.
pub async fn blob_is_held_tx(tx: &mut PgConnection, digest: &[u8]) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
               select 1 from spec s where s.blobs @> array[$1::bytea]
                 and (exists (select 1 from process p where p.spec = s.digest)
                      or exists (select 1 from build b where b.spec = s.digest)
                      or exists (select 1 from task t where t.spec = s.digest)
                      or exists (select 1 from assignment a where a.spec = s.digest and a.tombstone_at is null)))
               as "held!""#,
        digest
    )
    .fetch_one(tx)
    .await
}

/// Leaves a suspect blob alone until it would have settled, had it been put now.
///
/// # Errors
/// When the database fails.
pub async fn blob_postpone_tx(tx: &mut PgConnection, digest: &[u8]) -> sqlx::Result<()> {
    sqlx::query!("update blob set put_at = now() where digest = $1", digest).execute(tx).await?;
    Ok(())
}

/// Notes that a blob is in use.
///
/// # Errors
/// When the database fails.
pub async fn blob_clear_tx(tx: &mut PgConnection, digest: &[u8]) -> sqlx::Result<()> {
    sqlx::query!("update blob set suspect = false where digest = $1", digest).execute(tx).await?;
    Ok(())
}

/// Forgets a blob that is gone.
///
/// # Errors
/// When the database fails.
pub async fn blob_forget_tx(tx: &mut PgConnection, digest: &[u8]) -> sqlx::Result<()> {
    sqlx::query!("delete from blob where digest = $1", digest).execute(tx).await?;
    Ok(())
}

/// Reads a package and keeps it, and so its blob, from being removed until the transaction ends.
///
/// # Errors
/// When the database fails.
pub async fn package_keep_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<PackageRow>> {
    sqlx::query_as!(
        PackageRow,
        r#"select guid, app_guid, type as kind, state, error, blob, blob_size, labels, annotations, created_at,
                  updated_at
           from package where guid = $1 for share"#,
        guid
    )
    .fetch_optional(tx)
    .await
}

impl Store {
    /// Notes that this content is being put, before anybody looks whether it is there. Waits for a removal that is under
    /// way; one that comes later leaves the blob alone until it has settled.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn blob_put(&self, digest: &[u8]) -> sqlx::Result<()> {
        sqlx::query!(
            "insert into blob (digest) values ($1) on conflict (digest) do update set put_at = now(), suspect = true",
            digest
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Suspect blobs that were put at least `settle_s` seconds ago, oldest first, at most `most`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn blobs_suspect(&self, settle_s: f64, most: i64) -> sqlx::Result<Vec<Vec<u8>>> {
        sqlx::query_scalar!(
            "select digest from blob where suspect and put_at <= now() - make_interval(secs => $1)
             order by put_at limit $2",
            settle_s,
            most
        )
        .fetch_all(self.pool())
        .await
    }
}
