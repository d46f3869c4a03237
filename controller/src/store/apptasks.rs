//! Tasks of apps: one-off commands over a droplet.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;
use slipway_placement::UnplacedReason;

/// A task as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct TaskRow {
    pub guid: Uuid,
    pub app_guid: Uuid,
    pub droplet_guid: Uuid,
    pub sequence_id: i32,
    pub name: String,
    pub command: String,
    pub state: String,
    pub attempt: i32,
    pub spec: Option<Vec<u8>>,
    pub memory_in_mb: i64,
    pub disk_in_mb: i64,
    pub log_rate_limit: i64,
    pub failure_reason: Option<String>,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A task to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewTask<'a> {
    pub guid: Uuid,
    pub app_guid: Uuid,
    pub droplet_guid: Uuid,
    pub sequence_id: i32,
    pub name: &'a str,
    pub command: &'a str,
    pub spec: &'a [u8],
    pub memory_mb: i64,
    pub disk_mb: i64,
    pub log_rate: i64,
    pub labels: &'a Value,
    pub annotations: &'a Value,
}

/// The next sequence id of an app's tasks. The app's row must be locked.
///
/// # Errors
/// When the database fails.
pub async fn task_next_sequence_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<i32> {
    sqlx::query_scalar!(r#"select coalesce(max(sequence_id), 0) + 1 as "next!" from task where app_guid = $1"#, app)
        .fetch_one(tx)
        .await
}

/// Inserts a task.
///
/// # Errors
/// When the database fails.
pub async fn task_insert_tx(tx: &mut PgConnection, task: &NewTask<'_>) -> sqlx::Result<TaskRow> {
    sqlx::query_as!(
        TaskRow,
        "insert into task (guid, app_guid, droplet_guid, sequence_id, name, command, spec, memory_in_mb, disk_in_mb,
                           log_rate_limit, labels, annotations)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, jsonb_strip_nulls($11), jsonb_strip_nulls($12))
         returning *",
        task.guid,
        task.app_guid,
        task.droplet_guid,
        task.sequence_id,
        task.name,
        task.command,
        task.spec,
        task.memory_mb,
        task.disk_mb,
        task.log_rate,
        task.labels,
        task.annotations,
    )
    .fetch_one(tx)
    .await
}

/// Reads and locks a task.
///
/// # Errors
/// When the database fails.
pub async fn task_lock_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<TaskRow>> {
    sqlx::query_as!(TaskRow, "select * from task where guid = $1 for update", guid).fetch_optional(tx).await
}

/// Writes a task's state. A task that has ended wants no spec.
///
/// # Errors
/// When the database fails.
pub async fn task_state_tx(
    tx: &mut PgConnection,
    guid: Uuid,
    state: &str,
    failure_reason: Option<&str>,
) -> sqlx::Result<TaskRow> {
    sqlx::query_as!(
        TaskRow,
        "update task set state = $2, failure_reason = $3, updated_at = now(),
                spec = case when $2 in ('SUCCEEDED', 'FAILED') then null else spec end
         where guid = $1 returning *",
        guid,
        state,
        failure_reason
    )
    .fetch_one(tx)
    .await
}

/// Ends all tasks of an app that is being deleted.
///
/// # Errors
/// When the database fails.
pub async fn tasks_end_of_app_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "update task set state = 'FAILED', failure_reason = 'The app was deleted', spec = null, updated_at = now()
         where app_guid = $1 and state in ('PENDING', 'RUNNING', 'CANCELING')",
        app
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Whether a cell has, or had, an attempt of this task or build.
///
/// # Errors
/// When the database fails.
pub async fn group_is_assigned_tx(tx: &mut PgConnection, group: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select exists (select 1 from assignment where group_id = $1) as "assigned!""#, group)
        .fetch_one(tx)
        .await
}

/// A task that waits for a place.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the tables")]
pub struct UnplacedTask {
    pub guid: Uuid,
    pub reason: String,
}

impl Store {
    /// Tasks that have had no place for more than `seconds`, for `incompatible_s` when no cell is of the kind that they
    /// need, for `room_s` when the cells are full, and never were on a cell.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tasks_unplaced(
        &self,
        seconds: i64,
        incompatible_s: i64,
        room_s: i64,
    ) -> sqlx::Result<Vec<UnplacedTask>> {
        sqlx::query_as!(
            UnplacedTask,
            "select t.guid, u.reason from task t join unplaced u on u.group_id = t.guid
             where t.state in ('PENDING', 'RUNNING')
               and u.since < now() - make_interval(secs => case u.kind when $3 then $2::bigint when $5 then $4::bigint
                                                                else $1::bigint end)
               and not exists (select 1 from assignment x where x.group_id = t.guid)",
            seconds,
            incompatible_s,
            UnplacedReason::NoCompatibleCell.as_str(),
            room_s,
            UnplacedReason::NoRoom.as_str()
        )
        .fetch_all(self.pool())
        .await
    }

    /// One task.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn task_get(&self, guid: Uuid) -> sqlx::Result<Option<TaskRow>> {
        sqlx::query_as!(TaskRow, "select * from task where guid = $1", guid).fetch_optional(self.pool()).await
    }

    /// A page of the tasks in these spaces; with `app`, only of that app.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn task_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
        app: Option<Uuid>,
    ) -> sqlx::Result<(Vec<TaskRow>, u64)> {
        let mut listing = Listing::new(
            "task t join app a on a.guid = t.app_guid join space s on s.guid = a.space_guid",
            "t",
            options,
        );
        listing.visible("a.space_guid", spaces);
        if let Some(app) = app {
            listing.sql("t.app_guid = any(").bind_uuids(vec![app]).sql(")").done();
        }
        listing.guids("guids", "t.guid").guids("app_guids", "t.app_guid").texts("names", "t.name");
        listing.texts("states", "t.state").texts("sequence_ids", "t.sequence_id::text");
        listing.guids("space_guids", "a.space_guid").guids("organization_guids", "s.org_guid");
        listing.fetch(self.pool(), "t.*").await
    }
}
