//! Deployments: rows, the processes they stand between, and how far their instances are.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use super::processes::ProcessRow;
use crate::values::InstanceCount;
use crate::values::list::ListOptions;

/// A deployment as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct DeploymentRow {
    pub guid: Uuid,
    pub app_guid: Uuid,
    pub version: i64,
    pub strategy: String,
    pub status_value: String,
    pub status_reason: String,
    pub options: Value,
    pub snapshot: Value,
    pub step: Value,
    pub droplet_guid: Option<Uuid>,
    pub previous_droplet_guid: Option<Uuid>,
    pub revision_guid: Option<Uuid>,
    pub last_healthy_at: Option<DateTime<Utc>>,
    pub status_changed_at: DateTime<Utc>,
    pub error: Option<String>,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A deployment to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewDeployment<'a> {
    pub guid: Uuid,
    pub app_guid: Uuid,
    pub strategy: &'a str,
    pub status: (&'a str, &'a str),
    pub options: &'a Value,
    pub snapshot: &'a Value,
    pub droplet_guid: Uuid,
    pub previous_droplet_guid: Option<Uuid>,
    pub revision_guid: Option<Uuid>,
    pub step: &'a Value,
    pub labels: &'a Value,
    pub annotations: &'a Value,
}

/// An instance of a process of a deployment.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "said by the names")]
pub struct DeployedInstance {
    pub process: Uuid,
    pub index: i32,
    /// In the routing table.
    pub routable: bool,
    /// Every live router has it in force; without routes, as `routable`.
    pub acked: bool,
    /// Crashed, or given up.
    pub broken: bool,
    /// Belongs to the deployment, has crashed, and has not run long enough since.
    pub unsteady: bool,
    /// What the cell said of its end.
    pub reason: Option<String>,
}

/// Inserts a deployment.
///
/// # Errors
/// When the app has an active one (`deployment_one_active`), or the database fails.
pub async fn deployment_insert_tx(tx: &mut PgConnection, new: &NewDeployment<'_>) -> sqlx::Result<DeploymentRow> {
    sqlx::query_as!(
        DeploymentRow,
        "insert into deployment (guid, app_guid, strategy, status_value, status_reason, options, snapshot,
                                 droplet_guid, previous_droplet_guid, labels, annotations, revision_guid, step)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, jsonb_strip_nulls($10), jsonb_strip_nulls($11), $12, $13)
         returning *",
        new.guid,
        new.app_guid,
        new.strategy,
        new.status.0,
        new.status.1,
        new.options,
        new.snapshot,
        new.droplet_guid,
        new.previous_droplet_guid,
        new.labels,
        new.annotations,
        new.revision_guid,
        new.step,
    )
    .fetch_one(tx)
    .await
}

/// Reads and locks a deployment. The caller holds the app's row.
///
/// # Errors
/// When the database fails.
pub async fn deployment_lock_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<DeploymentRow>> {
    sqlx::query_as!(DeploymentRow, "select * from deployment where guid = $1 for update", guid).fetch_optional(tx).await
}

/// The active deployment of an app, locked. The caller holds the app's row.
///
/// # Errors
/// When the database fails.
pub async fn deployment_active_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Option<DeploymentRow>> {
    sqlx::query_as!(
        DeploymentRow,
        "select * from deployment where app_guid = $1 and status_value = 'ACTIVE' for update",
        app
    )
    .fetch_optional(tx)
    .await
}

/// Gives a deployment another status.
///
/// # Errors
/// When the database fails.
pub async fn deployment_status_tx(tx: &mut PgConnection, guid: Uuid, value: &str, reason: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "update deployment set status_value = $2, status_reason = $3, status_changed_at = now(), updated_at = now(),
                version = version + 1 where guid = $1",
        guid,
        value,
        reason
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Remembers how many new instances serve and what is wrong with the others; `healthier` = more than ever before.
///
/// # Errors
/// When the database fails.
pub async fn deployment_progress_tx(
    tx: &mut PgConnection,
    guid: Uuid,
    step: &Value,
    healthier: bool,
    error: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update deployment set step = $2, error = $4, updated_at = now(),
                last_healthy_at = case when $3 then now() else last_healthy_at end where guid = $1",
        guid,
        step,
        healthier,
        error
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Remembers how far a deployment has come.
///
/// # Errors
/// When the database fails.
pub async fn deployment_step_tx(tx: &mut PgConnection, guid: Uuid, step: &Value) -> sqlx::Result<()> {
    sqlx::query!("update deployment set step = $2, updated_at = now() where guid = $1", guid, step).execute(tx).await?;
    Ok(())
}

/// Changes what a deployment remembers of its beginning. The caller holds the app's row.
///
/// # Errors
/// When the database fails.
pub async fn deployment_snapshot_tx(tx: &mut PgConnection, guid: Uuid, snapshot: &Value) -> sqlx::Result<()> {
    sqlx::query!("update deployment set snapshot = $2, updated_at = now() where guid = $1", guid, snapshot)
        .execute(tx)
        .await?;
    Ok(())
}

/// All processes of an app, with those of deployments: of each type the app's own first, then oldest first.
///
/// # Errors
/// When the database fails.
pub async fn processes_with_interim_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<ProcessRow>> {
    sqlx::query_as!(
        ProcessRow,
        r#"select guid, app_guid, type as kind, command, instances, memory_in_mb, disk_in_mb, log_rate_limit,
                  health_check, readiness_health_check, spec, version, deployment_guid, revision_guid, labels,
                  annotations, memory_chosen, created_at, updated_at
           from process where app_guid = $1 order by deployment_guid is not null, created_at, guid"#,
        app
    )
    .fetch_all(tx)
    .await
}

/// Inserts the process of a deployment.
///
/// # Errors
/// When the database fails.
pub async fn interim_insert_tx(tx: &mut PgConnection, process: &ProcessRow) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into process (guid, app_guid, type, command, instances, memory_in_mb, disk_in_mb, log_rate_limit,
                              health_check, readiness_health_check, spec, version, deployment_guid, labels, annotations,
                              revision_guid, memory_chosen)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        process.guid,
        process.app_guid,
        process.kind,
        process.command,
        process.instances.stored(),
        process.memory_in_mb,
        process.disk_in_mb,
        process.log_rate_limit,
        process.health_check,
        process.readiness_health_check,
        process.spec,
        process.version,
        process.deployment_guid,
        process.labels,
        process.annotations,
        process.revision_guid,
        process.memory_chosen,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Sets how many instances of a process are wanted.
///
/// # Errors
/// When the database fails.
pub async fn process_instances_tx(tx: &mut PgConnection, process: Uuid, instances: InstanceCount) -> sqlx::Result<()> {
    sqlx::query!("update process set instances = $2, updated_at = now() where guid = $1", process, instances.stored())
        .execute(tx)
        .await?;
    Ok(())
}

/// Makes `keep` the app's own process of its type and removes the others.
///
/// # Errors
/// When the database fails.
pub async fn process_take_over_tx(tx: &mut PgConnection, app: Uuid, kind: &str, keep: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from process where app_guid = $1 and type = $2 and guid <> $3", app, kind, keep)
        .execute(&mut *tx)
        .await?;
    sqlx::query!("update process set deployment_guid = null, updated_at = now() where guid = $1", keep)
        .execute(tx)
        .await?;
    Ok(())
}

/// Where the instances of these processes stand. An instance counts as routable as the routing table counts it. One
/// whose check only asks whether the program runs is good once it has run for `steady_s` seconds: until then nothing
/// tells it from one that fails at its start. A new one that has crashed is good once it has run for `calm_s` seconds,
/// whatever its check says: a program that crashes every minute passes each check in between.
///
/// # Errors
/// When the database fails.
pub async fn deployed_instances_tx(
    tx: &mut PgConnection,
    processes: &[Uuid],
    steady_s: i32,
    calm_s: i32,
) -> sqlx::Result<Vec<DeployedInstance>> {
    sqlx::query_as!(
        DeployedInstance,
        r#"with live as (
               -- One that is gone together with its controller has a session for ever; one that is there is heard of
               -- each minute.
               select applied_epoch, applied_seq from router
               where session is not null and not fenced and seen_at > now() - interval '3 minutes'
           ), routed as (
               select distinct p.guid from process p
               join route_destination d on d.app_guid = p.app_guid and d.process_type = p.type where p.guid = any($1)
           ), seen as (
               select a.*, a.observed = 'running' and a.ready and a.intent = 'run' as up,
                      coalesce(a.observed_since, a.created_at) <= now() - make_interval(secs => case
                          when c.crashes > 0 then $3::double precision
                          when p.health_check ->> 'type' = 'process' then $2::double precision else 0 end) as steady,
                      c.crashes > 0 as crashed,
                      not exists (select 1 from routed r where r.guid = a.group_id)
                      or (a.route_seq > 0 and exists (select 1 from live) and not exists (
                          select 1 from live l
                          where (l.applied_epoch, l.applied_seq) < ((select epoch from store_identity), a.route_seq)))
                      as proven
               from assignment a join process p on p.guid = a.group_id
               cross join lateral (select case when p.deployment_guid is null then 0
                   else coalesce(a.crashes, (a.exit ->> 'crashes')::integer, a.restart_crashes) end as crashes) c
               where a.group_id = any($1) and a.tombstone_at is null and a.role <> 'extra' and a.kind = 'lrp'
           )
           select group_id as "process!", index as "index!", bool_or(up) as "routable!",
                  bool_or(up and proven and steady) as "acked!",
                  bool_or(observed in ('crashed', 'given_up')) and not bool_or(up) as "broken!",
                  bool_or(crashed) and not bool_or(up and steady) as "unsteady!",
                  max(coalesce(nullif(exit ->> 'reason', ''), nullif(reason, '')))
                      filter (where crashed or observed in ('crashed', 'given_up')) as reason
           from seen group by group_id, index order by group_id, index"#,
        processes,
        f64::from(steady_s),
        f64::from(calm_s)
    )
    .fetch_all(tx)
    .await
}

/// Why an instance of these processes has no place, if one has none.
///
/// # Errors
/// When the database fails.
pub async fn unplaced_reason_tx(tx: &mut PgConnection, processes: &[Uuid]) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!("select reason from unplaced where group_id = any($1) order by index limit 1", processes)
        .fetch_optional(tx)
        .await
}

impl Store {
    /// One deployment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn deployment_get(&self, guid: Uuid) -> sqlx::Result<Option<DeploymentRow>> {
        sqlx::query_as!(DeploymentRow, "select * from deployment where guid = $1", guid)
            .fetch_optional(self.pool())
            .await
    }

    /// Apps with an active deployment, the longest waiting first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn apps_deploying(&self) -> sqlx::Result<Vec<Uuid>> {
        sqlx::query_scalar!("select app_guid from deployment where status_value = 'ACTIVE' order by created_at, guid")
            .fetch_all(self.pool())
            .await
    }

    /// A page of the deployments in these spaces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn deployment_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
    ) -> sqlx::Result<(Vec<DeploymentRow>, u64)> {
        let mut listing = Listing::new("deployment d join app a on a.guid = d.app_guid", "d", options);
        listing.visible("a.space_guid", spaces);
        listing.guids("guids", "d.guid").guids("app_guids", "d.app_guid");
        listing.texts("status_values", "d.status_value").texts("status_reasons", "d.status_reason");
        // The older name of the filter, from before deployments had two-part states.
        listing.texts("states", "d.status_reason");
        listing.fetch(self.pool(), "d.*").await
    }
}
