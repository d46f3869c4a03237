//! For how long rows are kept that nobody needs any more.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;

/// Packages and droplets of an app that keep their bits besides those that are in use: as many as Cloud Foundry keeps. Each
/// push makes one of either.
const PACKAGES_RETAINED: i64 = 5;

/// Expires the older packages and droplets of an app: their rows stay and tell what was, their bits go. Droplets that were
/// deployed and never took over, or started and never served, go before all others: several bad pushes in a row must not
/// take away what can be gone back to. Those of the current droplet, of a deployment, a process, a build or a task that goes
/// on stay. The caller has locked the app, so nothing begins to use one meanwhile; who has just read one (a build, a copy, a
/// cell) has an hour to fetch its bits.
///
/// # Errors
/// When the database fails.
pub async fn bits_expire_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "with ranked as (
             select guid, blob, row_number() over (order by exists (
                        select 1 from deployment m where m.app_guid = $1 and m.droplet_guid = d.guid
                        and m.status_value = 'FINALIZED' and m.status_reason <> 'DEPLOYED')
                    and not exists (
                        select 1 from deployment m where m.app_guid = $1
                        and (m.droplet_guid = d.guid and m.status_reason = 'DEPLOYED'
                             or m.previous_droplet_guid = d.guid))
                    or exists (select 1 from revision r where r.app_guid = $1 and r.droplet_guid = d.guid)
                    and not exists (
                        select 1 from revision r where r.app_guid = $1 and r.droplet_guid = d.guid
                        and not exists (select 1 from revision_unserved u where u.guid = r.guid)),
                    created_at desc, guid) as place from droplet d
             where app_guid = $1 and state = 'STAGED'
               and not exists (select 1 from app a where a.droplet_guid = d.guid)
               and not exists (select 1 from deployment m where m.app_guid = $1 and m.status_value = 'ACTIVE'
                               and d.guid in (m.droplet_guid, m.previous_droplet_guid))
               and not exists (select 1 from process p join revision r on r.guid = p.revision_guid
                               where p.app_guid = $1 and r.droplet_guid = d.guid)
               and not exists (select 1 from task t where t.app_guid = $1 and t.droplet_guid = d.guid
                               and t.state in ('PENDING', 'RUNNING', 'CANCELING'))
         ), expired as (
             update droplet d set state = 'EXPIRED', blob = null, updated_at = now() from ranked r
             where r.guid = d.guid and r.place > $2 returning r.blob
         )
         update blob set suspect = true, put_at = now() where digest in (select blob from expired)",
        app,
        PACKAGES_RETAINED
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "with ranked as (
             select guid, blob, row_number() over (order by created_at desc, guid) as place from package k
             where app_guid = $1 and state = 'READY' and type = 'bits'
               and not exists (select 1 from app a join droplet d on d.guid = a.droplet_guid
                               where a.guid = $1 and d.package_guid = k.guid)
               and not exists (select 1 from build b where b.package_guid = k.guid and b.state = 'STAGING')
         ), expired as (
             update package k set state = 'EXPIRED', blob = null, updated_at = now() from ranked r
             where r.guid = k.guid and r.place > $2 returning r.blob
         )
         update blob set suspect = true, put_at = now() where digest in (select blob from expired)",
        app,
        PACKAGES_RETAINED
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// Removes what is over and old: tombstones and entries of the change log that nobody reads any more, specs that
    /// nothing runs, ended jobs, audit and usage events. The times are Cloud Foundry's where it has such rows. Of the change
    /// log the newest entry always stays: it is where the store stands.
    ///
    /// # Errors
    /// When the database fails; what was removed before stays removed.
    pub async fn trim(&self) -> sqlx::Result<()> {
        sqlx::query!("delete from refusal where at < now() - interval '10 minutes'").execute(self.pool()).await?;
        sqlx::query!("delete from assignment where tombstone_at < now() - interval '7 days'")
            .execute(self.pool())
            .await?;
        sqlx::query!(
            "delete from change_log where at < now() - interval '1 hour' and seq < (select max(seq) from change_log)"
        )
        .execute(self.pool())
        .await?;
        // Whoever asks for a spec again makes it young before it is referred to (`spec_insert_tx`).
        sqlx::query!(
            "delete from spec s where created_at < now() - interval '1 day'
             and not exists (select 1 from process p where p.spec = s.digest)
             and not exists (select 1 from build b where b.spec = s.digest)
             and not exists (select 1 from task t where t.spec = s.digest)
             and not exists (select 1 from assignment a where a.spec = s.digest)"
        )
        .execute(self.pool())
        .await?;
        sqlx::query!(
            "delete from job where state in ('COMPLETE', 'FAILED') and updated_at < now() - interval '90 days'"
        )
        .execute(self.pool())
        .await?;
        sqlx::query!("delete from event where created_at < now() - interval '31 days'").execute(self.pool()).await?;
        sqlx::query!("delete from app_usage_event where created_at < now() - interval '31 days'")
            .execute(self.pool())
            .await?;
        sqlx::query!("delete from service_usage_event where created_at < now() - interval '31 days'")
            .execute(self.pool())
            .await?;
        Ok(())
    }
}
