//! What organizations store.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;

/// For how long a blob that was put may wait for the row that speaks of it, in seconds: several times as long as the
/// longest build may take, which uploads before it reports.
pub const SETTLE_S: f64 = 3600.0;

/// What an organization stores, in bytes, and may store.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "figures of the account")]
pub struct StoredFigures {
    pub org_guid: Uuid,
    pub org_name: String,
    /// MiB, of its quota; `None` = the platform's default.
    pub limit_mb: Option<i64>,
    pub packages: i64,
    pub droplets: i64,
    pub caches: i64,
    /// Of packages and droplets that are gone, and still on the disk.
    pub settling: i64,
    /// Of these, what belongs to the app that was asked for.
    pub of_app: i64,
}

impl StoredFigures {
    /// Everything, bytes.
    #[must_use]
    pub fn used(&self) -> i64 {
        [self.packages, self.droplets, self.caches, self.settling].into_iter().fold(0, i64::saturating_add)
    }
}

/// Locks an app's organization (changes of its account are serialised by that row) and reads its account. `None` when the
/// app is gone.
///
/// # Errors
/// When the database fails.
pub async fn stored_figures_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Option<StoredFigures>> {
    sqlx::query!(
        "select o.guid from organization o join space s on s.org_guid = o.guid join app a on a.space_guid = s.guid
         where a.guid = $1 for no key update of o",
        app
    )
    .fetch_optional(&mut *tx)
    .await?;
    figures(tx, app).await
}

async fn figures(connection: &mut PgConnection, app: Uuid) -> sqlx::Result<Option<StoredFigures>> {
    sqlx::query_as!(
        StoredFigures,
        r#"with here as (
               select o.guid, o.name, o.quota_guid from organization o join space s on s.org_guid = o.guid
               join app a on a.space_guid = s.guid where a.guid = $1),
           apps as (
               select a.guid, a.build_cache_size from app a join space s on s.guid = a.space_guid
               where s.org_guid = (select guid from here)),
           packages as (
               select k.app_guid, k.blob, k.blob_size as size from package k join apps on apps.guid = k.app_guid
               where k.blob is not null),
           droplets as (
               select d.app_guid, d.blob, d.blob_size as size from droplet d join apps on apps.guid = d.app_guid
               where d.blob is not null)
           select here.guid as org_guid, here.name as org_name,
                  (select total_stored_in_mb from organization_quota_storage q where q.quota_guid = here.quota_guid)
                      as limit_mb,
                  coalesce((select sum(size) from packages), 0)::bigint as "packages!",
                  coalesce((select sum(size) from droplets), 0)::bigint as "droplets!",
                  coalesce((select sum(build_cache_size) from apps), 0)::bigint as "caches!",
                  coalesce((select sum(p.size) from stored_put p
                            where p.org_guid = here.guid and p.put_at > now() - make_interval(secs => $2)
                              and p.digest not in (select blob from packages union select blob from droplets)), 0)::bigint
                      as "settling!",
                  coalesce((select sum(size) from (select app_guid, size from packages union all
                                                   select app_guid, size from droplets) both_of_them
                            where app_guid = $1), 0)::bigint as "of_app!"
           from here"#,
        app,
        SETTLE_S
    )
    .fetch_optional(connection)
    .await
}

/// Notes that this content is being put for an organization.
///
/// # Errors
/// When the database fails.
pub async fn stored_put_tx(tx: &mut PgConnection, org: Uuid, digest: &[u8], size: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into stored_put (org_guid, digest, size) values ($1, $2, $3)
         on conflict (org_guid, digest) do update set put_at = now()",
        org,
        digest,
        size
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// The account of an app's organization, without a lock; `None` when the app is gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn stored_figures(&self, app: Uuid) -> sqlx::Result<Option<StoredFigures>> {
        figures(&mut *self.pool().acquire().await?, app).await
    }

    /// Forgets what was put long enough ago to be gone from the disk.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn stored_forget(&self) -> sqlx::Result<()> {
        sqlx::query!("delete from stored_put where put_at < now() - make_interval(secs => $1)", SETTLE_S)
            .execute(self.pool())
            .await?;
        Ok(())
    }
}
