//! Usage events. They are written by triggers (`migrations/sql/0005_usage_events.sql`); here they are read, and begun anew.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::Listing;
use crate::values::list::ListOptions;

/// What an app was to use, from a moment on.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct AppUsageEventRow {
    pub guid: Uuid,
    pub created_at: DateTime<Utc>,
    pub state: String,
    pub previous_state: Option<String>,
    pub app_guid: Uuid,
    pub app_name: String,
    pub space_guid: Option<Uuid>,
    pub space_name: Option<String>,
    pub org_guid: Option<Uuid>,
    pub process_guid: Option<Uuid>,
    pub process_type: Option<String>,
    pub task_guid: Option<Uuid>,
    pub task_name: Option<String>,
    pub buildpack_guid: Option<Uuid>,
    pub buildpack_name: Option<String>,
    pub memory_in_mb: Option<i64>,
    pub previous_memory_in_mb: Option<i64>,
    pub instances: Option<i32>,
    pub previous_instances: Option<i32>,
}

/// That a service instance was there, changed or gone, from a moment on.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct ServiceUsageEventRow {
    pub guid: Uuid,
    pub created_at: DateTime<Utc>,
    pub state: String,
    pub space_guid: Option<Uuid>,
    pub space_name: Option<String>,
    pub org_guid: Option<Uuid>,
    pub service_instance_guid: Uuid,
    pub service_instance_name: String,
    pub service_instance_type: String,
    pub service_plan_guid: Option<Uuid>,
    pub service_plan_name: Option<String>,
    pub service_offering_guid: Option<Uuid>,
    pub service_offering_name: Option<String>,
    pub service_broker_guid: Option<Uuid>,
    pub service_broker_name: Option<String>,
}

/// Removes all app usage events and records what is started now, so that a reader can begin from known figures.
///
/// # Errors
/// When the database fails.
pub async fn app_usage_reseed_tx(tx: &mut PgConnection) -> sqlx::Result<()> {
    // Nothing may be recorded between the removal and the new beginning.
    sqlx::query!("lock table app_usage_event in exclusive mode").execute(&mut *tx).await?;
    sqlx::query!("delete from app_usage_event").execute(&mut *tx).await?;
    sqlx::query!(
        r#"insert into app_usage_event (state, previous_state, app_guid, app_name, space_guid, space_name, org_guid,
                                        process_guid, process_type, memory_in_mb, previous_memory_in_mb, instances,
                                        previous_instances)
           select 'STARTED', 'STARTED', a.guid, a.name, s.guid, s.name, s.org_guid, p.guid, p.type, p.memory_in_mb,
                  p.memory_in_mb, p.instances, p.instances
           from process p join app a on a.guid = p.app_guid join space s on s.guid = a.space_guid
           where a.state = 'STARTED' order by a.created_at, a.guid, p.type, p.guid"#
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Removes all service usage events and records what instances there are now.
///
/// # Errors
/// When the database fails.
pub async fn service_usage_reseed_tx(tx: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("lock table service_usage_event in exclusive mode").execute(&mut *tx).await?;
    sqlx::query!("delete from service_usage_event").execute(&mut *tx).await?;
    sqlx::query!("select service_usage('CREATED', i) from service_instance i order by i.created_at, i.guid")
        .fetch_all(tx)
        .await?;
    Ok(())
}

impl Store {
    /// A page of app usage events in the order in which they were recorded; filter `after_guid` begins behind one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn app_usage_list(&self, options: &ListOptions) -> sqlx::Result<(Vec<AppUsageEventRow>, u64)> {
        let mut listing = Listing::of_unchanging("app_usage_event e", "e", options);
        if let Some(after) = options.filter("after_guid") {
            let after = after.iter().filter_map(|guid| guid.parse().ok()).collect();
            listing
                .sql("e.seq > (select max(x.seq) from app_usage_event x where x.guid = any(")
                .bind_uuids(after)
                .sql("))")
                .done();
        }
        listing.guids("guids", "e.guid").insertion_order("e.seq");
        listing.fetch(self.pool(), "e.*").await
    }

    /// One app usage event.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn app_usage_get(&self, guid: Uuid) -> sqlx::Result<Option<AppUsageEventRow>> {
        let mut options = ListOptions::everything(1);
        options.filters.insert("guids".to_owned(), vec![guid.to_string()]);
        Ok(self.app_usage_list(&options).await?.0.pop())
    }

    /// A page of service usage events in the order in which they were recorded.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_usage_list(&self, options: &ListOptions) -> sqlx::Result<(Vec<ServiceUsageEventRow>, u64)> {
        let mut listing = Listing::of_unchanging("service_usage_event e", "e", options);
        if let Some(after) = options.filter("after_guid") {
            let after = after.iter().filter_map(|guid| guid.parse().ok()).collect();
            listing
                .sql("e.seq > (select max(x.seq) from service_usage_event x where x.guid = any(")
                .bind_uuids(after)
                .sql("))")
                .done();
        }
        listing.guids("guids", "e.guid").texts("service_instance_types", "e.service_instance_type");
        listing.guids("service_offering_guids", "e.service_offering_guid").insertion_order("e.seq");
        listing.fetch(self.pool(), "e.*").await
    }

    /// One service usage event.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_usage_get(&self, guid: Uuid) -> sqlx::Result<Option<ServiceUsageEventRow>> {
        let mut options = ListOptions::everything(1);
        options.filters.insert("guids".to_owned(), vec![guid.to_string()]);
        Ok(self.service_usage_list(&options).await?.0.pop())
    }
}
