//! Syslog drains of bound apps, and how far they are.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Store;

/// A drain of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as what they hold")]
pub struct DrainRow {
    pub instance: Uuid,
    pub app: Uuid,
    pub url: String,
    pub app_name: String,
    pub space_name: String,
    pub organization_name: String,
    /// Since when the app has been bound.
    pub since: DateTime<Utc>,
    /// Lines before this were sent; `None` when nothing was yet.
    pub position_ns: Option<i64>,
}

impl Store {
    /// All drains. An app that is bound to an instance several times has one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drains(&self) -> sqlx::Result<Vec<DrainRow>> {
        sqlx::query_as!(
            DrainRow,
            r#"select i.guid as instance, a.guid as app, i.syslog_drain_url as "url!", a.name as app_name,
                      s.name as space_name, o.name as organization_name, min(b.created_at) as "since!",
                      d.position_ns as "position_ns?"
               from service_binding b
               join service_instance i on i.guid = b.service_instance_guid and i.syslog_drain_url is not null
               join app a on a.guid = b.app_guid and not a.deleting
               join space s on s.guid = a.space_guid
               join organization o on o.guid = s.org_guid
               left join syslog_drain d on d.service_instance_guid = i.guid and d.app_guid = a.guid
               where b.type = 'app' and b.last_operation ->> 'state' = 'succeeded'
               group by i.guid, a.guid, s.guid, o.guid, d.position_ns
               order by i.guid, a.guid"#
        )
        .fetch_all(self.pool())
        .await
    }

    /// Notes how far a drain is, how many more lines were lost on the way, and why it stands still, if it does.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drain_progress(
        &self,
        (instance, app): (Uuid, Uuid),
        position_ns: i64,
        lost: i64,
        error: Option<&str>,
    ) -> sqlx::Result<()> {
        sqlx::query!(
            "insert into syslog_drain (service_instance_guid, app_guid, position_ns, lost, error)
             select $1, $2, $3, $4, $5 where exists (select 1 from service_instance where guid = $1)
                and exists (select 1 from app where guid = $2)
             on conflict (service_instance_guid, app_guid) do update
             set position_ns = excluded.position_ns, lost = syslog_drain.lost + excluded.lost,
                 error = excluded.error, updated_at = now()",
            instance,
            app,
            position_ns,
            lost,
            error
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }
}
