//! For how long rows are kept that nobody needs any more.

use super::Store;

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
