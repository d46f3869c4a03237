//! Processes of apps.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::InstanceCount;
use crate::values::list::ListOptions;

/// A process as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct ProcessRow {
    pub guid: Uuid,
    pub app_guid: Uuid,
    #[sqlx(rename = "type")]
    pub kind: String,
    pub command: Option<String>,
    #[sqlx(try_from = "i32")]
    pub instances: InstanceCount,
    pub memory_in_mb: i64,
    pub disk_in_mb: i64,
    pub log_rate_limit: i64,
    pub health_check: Value,
    pub readiness_health_check: Value,
    pub spec: Option<Vec<u8>>,
    pub version: Uuid,
    pub deployment_guid: Option<Uuid>,
    pub revision_guid: Option<Uuid>,
    pub labels: Value,
    pub annotations: Value,
    /// Somebody asked for this memory; otherwise it follows what the app is built with.
    pub memory_chosen: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A process to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewProcess<'a> {
    pub app_guid: Uuid,
    pub kind: &'a str,
    pub instances: InstanceCount,
    pub memory_in_mb: i64,
    pub disk_in_mb: i64,
    pub health_check: &'a Value,
}

/// Inserts a process unless the app has one of this type: `None` then. `web` keeps the app's guid, as on Cloud Foundry.
///
/// # Errors
/// When the database fails.
pub async fn process_insert_tx(tx: &mut PgConnection, process: &NewProcess<'_>) -> sqlx::Result<Option<Uuid>> {
    let guid = if process.kind == "web" { process.app_guid } else { Uuid::new_v4() };
    sqlx::query_scalar!(
        "insert into process (guid, app_guid, type, instances, memory_in_mb, disk_in_mb, health_check, memory_chosen)
         values ($1, $2, $3, $4, $5, $6, $7, false) on conflict do nothing returning guid",
        guid,
        process.app_guid,
        process.kind,
        process.instances.stored(),
        process.memory_in_mb,
        process.disk_in_mb,
        process.health_check,
    )
    .fetch_optional(tx)
    .await
}

/// The app's processes, oldest first, without those of a running deployment.
///
/// # Errors
/// When the database fails.
pub async fn processes_of_app_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<ProcessRow>> {
    sqlx::query_as!(
        ProcessRow,
        r#"select guid, app_guid, type as kind, command, instances, memory_in_mb, disk_in_mb, log_rate_limit,
                  health_check, readiness_health_check, spec, version, deployment_guid, revision_guid, labels,
                  annotations, memory_chosen, created_at, updated_at
           from process where app_guid = $1 and deployment_guid is null order by created_at, type"#,
        app
    )
    .fetch_all(tx)
    .await
}

/// Writes what a developer may change of a process.
///
/// # Errors
/// When the database fails.
pub async fn process_update_tx(tx: &mut PgConnection, process: &ProcessRow) -> sqlx::Result<()> {
    sqlx::query!(
        "update process set command = $2, instances = $3, memory_in_mb = $4, disk_in_mb = $5, log_rate_limit = $6,
                health_check = $7, readiness_health_check = $8, labels = jsonb_strip_nulls($9),
                annotations = jsonb_strip_nulls($10), memory_chosen = $11, updated_at = now()
         where guid = $1",
        process.guid,
        process.command,
        process.instances.stored(),
        process.memory_in_mb,
        process.disk_in_mb,
        process.log_rate_limit,
        process.health_check,
        process.readiness_health_check,
        process.labels,
        process.annotations,
        process.memory_chosen,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Gives an app's `web` this memory, unless somebody has asked for another. What runs keeps what it has until its next start.
///
/// # Errors
/// When the database fails.
pub async fn process_usual_memory_tx(tx: &mut PgConnection, app: Uuid, memory_mb: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "update process set memory_in_mb = $2, updated_at = now()
         where app_guid = $1 and type = 'web' and deployment_guid is null and not memory_chosen and memory_in_mb <> $2",
        app,
        memory_mb
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Says what must run of a process now; `None` = nothing.
///
/// # Errors
/// When the database fails.
pub async fn process_desire_tx(
    tx: &mut PgConnection,
    process: Uuid,
    spec: Option<&[u8]>,
    version: Uuid,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update process set spec = $2, version = $3, updated_at = now() where guid = $1",
        process,
        spec,
        version
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Ports that routes lead to, for one process type of an app.
///
/// # Errors
/// When the database fails.
pub async fn route_ports_tx(tx: &mut PgConnection, app: Uuid, kind: &str) -> sqlx::Result<Vec<i32>> {
    sqlx::query_scalar!(
        r#"select distinct port as "port!" from route_destination
           where app_guid = $1 and process_type = $2 and port is not null order by 1"#,
        app,
        kind
    )
    .fetch_all(tx)
    .await
}

impl Store {
    /// One process.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn process_get(&self, guid: Uuid) -> sqlx::Result<Option<ProcessRow>> {
        sqlx::query_as!(
            ProcessRow,
            r#"select guid, app_guid, type as kind, command, instances, memory_in_mb, disk_in_mb, log_rate_limit,
                      health_check, readiness_health_check, spec, version, deployment_guid, revision_guid, labels,
                      annotations, memory_chosen, created_at, updated_at
               from process where guid = $1"#,
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// An app's process of a type: during a deployment the newest one, once instances of it are wanted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn process_of_type(&self, app: Uuid, kind: &str) -> sqlx::Result<Option<ProcessRow>> {
        sqlx::query_as!(
            ProcessRow,
            r#"select guid, app_guid, type as kind, command, instances, memory_in_mb, disk_in_mb, log_rate_limit,
                      health_check, readiness_health_check, spec, version, deployment_guid, revision_guid, labels,
                      annotations, memory_chosen, created_at, updated_at
               from process where app_guid = $1 and type = $2 and (deployment_guid is null or instances > 0)
               order by created_at desc, deployment_guid is null, guid limit 1"#,
            app,
            kind
        )
        .fetch_optional(self.pool())
        .await
    }

    /// A page of the processes in these spaces; with `app`, only of that app.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn process_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
        app: Option<Uuid>,
    ) -> sqlx::Result<(Vec<ProcessRow>, u64)> {
        let mut listing = Listing::new(
            "process p join app a on a.guid = p.app_guid join space s on s.guid = a.space_guid",
            "p",
            options,
        );
        listing.visible("a.space_guid", spaces);
        if let Some(app) = app {
            listing.sql("p.app_guid = any(").bind_uuids(vec![app]).sql(")").done();
        }
        // Processes of a deployment whose turn has not come, or has passed, are nobody's business.
        listing.sql("(p.deployment_guid is null or p.instances > 0)").done();
        listing.guids("guids", "p.guid").guids("app_guids", "p.app_guid").texts("types", "p.type");
        listing.guids("space_guids", "a.space_guid").guids("organization_guids", "s.org_guid");
        listing.fetch(self.pool(), "p.*").await
    }
}
