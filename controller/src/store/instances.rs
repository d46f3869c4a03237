//! What runs of a process, as observed: read by the API, never written here but for the restart of one instance.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::Store;
use super::change_log::{self, ChangeKind};

/// One assignment of a process that is meant to run.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct InstanceRow {
    pub id: Uuid,
    pub process_guid: Uuid,
    pub index: i32,
    pub role: String,
    pub observed: String,
    pub ready: bool,
    /// How often it was started, as last observed.
    pub incarnation: i64,
    pub host: Option<String>,
    pub port: Option<i32>,
    /// Routers dial the instance itself, not a port of its cell.
    pub direct: bool,
    pub cell: Uuid,
    /// As the planner judges it: `connected`, `suspect`, `lost`, `fenced`.
    pub cell_state: String,
    pub exit: Option<Value>,
    /// Crashes in a row.
    pub crashes: Option<i32>,
    pub reason: Option<String>,
    pub route_seq: i64,
    /// The store's epoch now: an acknowledgement of an earlier one proves nothing.
    pub epoch: i64,
    pub observed_since: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// Why an instance has no place.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct UnplacedRow {
    pub process_guid: Uuid,
    pub index: i32,
    pub reason: String,
    pub since: DateTime<Utc>,
}

/// Something of an app that has no place.
#[derive(Clone, Debug)]
pub struct WaitingRow {
    /// For people: `the build`, `process web`, `task 3`.
    pub what: String,
    /// How many of it wait.
    pub count: i64,
    /// Why the first of them has no place.
    pub reason: String,
    /// Since when that one has none.
    pub since: DateTime<Utc>,
}

impl Store {
    /// The cells that hold something of an app, or held it within the last days.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cells_of_app(&self, app: Uuid) -> sqlx::Result<Vec<Uuid>> {
        sqlx::query_scalar!("select distinct cell from assignment where app_id = $1", app).fetch_all(self.pool()).await
    }

    /// What is meant to run of these processes and follows their newest spec, primaries first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn instances_of(&self, processes: &[Uuid]) -> sqlx::Result<Vec<InstanceRow>> {
        sqlx::query_as!(
            InstanceRow,
            r#"select x.id, x.group_id as process_guid, x.index, x.role, x.observed, x.ready, x.incarnation, x.host, x.port,
                      c.advertise_mode = 'direct' as "direct!", c.id as cell, c.state as cell_state, x.exit,
                      coalesce(x.crashes, (x.exit ->> 'crashes')::integer) as crashes, x.reason,
                      x.route_seq, (select epoch from store_identity) as "epoch!", x.observed_since, x.created_at
               from assignment x join process p on p.guid = x.group_id join cell c on c.id = x.cell
               where x.group_id = any($1) and x.tombstone_at is null and x.intent = 'run' and x.spec = p.spec
               order by x.group_id, x.index, x.role <> 'primary', x.created_at desc"#,
            processes
        )
        .fetch_all(self.pool())
        .await
    }

    /// Why instances of these processes have no place.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unplaced_of(&self, processes: &[Uuid]) -> sqlx::Result<Vec<UnplacedRow>> {
        sqlx::query_as!(
            UnplacedRow,
            "select group_id as process_guid, index, reason, since from unplaced where group_id = any($1)",
            processes
        )
        .fetch_all(self.pool())
        .await
    }

    /// What of an app has no place: its builds, tasks and instances, with the reason and since when.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting_of_app(&self, app: Uuid) -> sqlx::Result<Vec<WaitingRow>> {
        sqlx::query_as!(
            WaitingRow,
            r#"select w.what as "what!", count(*) as "count!", min(u.since) as "since!",
                      (array_agg(u.reason order by u.since, u.index))[1] as "reason!"
               from (select guid, 'the build' as what from build where app_guid = $1 and state = 'STAGING'
                     union all
                     select guid, 'task ' || sequence_id from task where app_guid = $1 and state in ('PENDING', 'RUNNING')
                     union all
                     select guid, 'process ' || type from process where app_guid = $1) w
               join unplaced u on u.group_id = w.guid
               group by w.guid, w.what order by min(u.since), w.guid"#,
            app
        )
        .fetch_all(self.pool())
        .await
    }

    /// Of these processes, the ones that a route leads to.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn processes_with_routes(&self, processes: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
        sqlx::query_scalar!(
            "select distinct p.guid from process p
             join route_destination d on d.app_guid = p.app_guid and d.process_type = p.type
             where p.guid = any($1)",
            processes
        )
        .fetch_all(self.pool())
        .await
    }
}

/// Asks the cell to replace the running incarnation of one instance once, as the last act of the transaction. Gives the
/// assignment; `None`, with nothing changed, when there is no such instance.
///
/// # Errors
/// When the database fails.
pub async fn instance_restart_tx(
    tx: &mut Transaction<'_, Postgres>,
    process: Uuid,
    index: i32,
) -> sqlx::Result<Option<Uuid>> {
    let id = sqlx::query_scalar!(
        "update assignment set restart_nonce = restart_nonce + 1
         where group_id = $1 and index = $2 and role = 'primary' and intent = 'run' and tombstone_at is null
         returning id",
        process,
        index
    )
    .fetch_optional(&mut **tx)
    .await?;
    let Some(id) = id else { return Ok(None) };
    let version = change_log::append(tx, &[(ChangeKind::Assignment, id)]).await?;
    let seq = i64::try_from(version.seq).unwrap_or(i64::MAX);
    sqlx::query!("update assignment set seq = $2 where id = $1", id, seq).execute(&mut **tx).await?;
    Ok(Some(id))
}
