//! Buildpacks: our own and uploaded ones.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// A buildpack as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct BuildpackRow {
    pub guid: Uuid,
    pub name: String,
    pub stack: Option<String>,
    pub lifecycle: String,
    pub builtin: Option<String>,
    pub blob: Option<Vec<u8>>,
    pub blob_size: Option<i64>,
    pub filename: Option<String>,
    pub position: i32,
    pub enabled: bool,
    pub locked: bool,
    pub state: String,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// All buildpacks, in order of detection.
///
/// # Errors
/// When the database fails.
pub async fn buildpacks_tx(tx: &mut PgConnection) -> sqlx::Result<Vec<BuildpackRow>> {
    sqlx::query_as!(BuildpackRow, "select * from buildpack order by position, created_at, guid").fetch_all(tx).await
}

/// Inserts a buildpack at a position, moving the ones behind it; `None` = at the end.
///
/// # Errors
/// When name, stack and lifecycle are taken, or the database fails.
pub async fn buildpack_insert_tx(
    tx: &mut PgConnection,
    name: &str,
    stack: Option<&str>,
    position: Option<i32>,
    enabled: bool,
    locked: bool,
) -> sqlx::Result<BuildpackRow> {
    let guid = Uuid::new_v4();
    buildpack_order_lock_tx(tx).await?;
    let row = sqlx::query_as!(
        BuildpackRow,
        "insert into buildpack (guid, name, stack, position, enabled, locked)
         values ($1, $2, $3, (select coalesce(max(position), 0) + 1 from buildpack), $4, $5) returning *",
        guid,
        name,
        stack,
        enabled,
        locked
    )
    .fetch_one(&mut *tx)
    .await?;
    match position {
        Some(position) => buildpack_move_tx(tx, guid, position).await,
        None => Ok(row),
    }
}

/// Moves a buildpack to a position, or as near to it as there are buildpacks. The ones between its old and its new place
/// move by one; the order has no gaps afterwards.
///
/// # Errors
/// When the database fails.
pub async fn buildpack_move_tx(tx: &mut PgConnection, guid: Uuid, position: i32) -> sqlx::Result<BuildpackRow> {
    buildpack_order_lock_tx(tx).await?;
    sqlx::query!(
        "with others as (select guid, row_number() over (order by position, created_at, guid) as place
                         from buildpack where guid <> $1),
              places as (select guid, (place + case when place >= $2::int then 1 else 0 end)::int as place from others
                         union all select $1, least($2::int, (select count(*) + 1 from others))::int)
         update buildpack b set position = p.place from places p where p.guid = b.guid and b.position <> p.place",
        guid,
        position
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query_as!(BuildpackRow, "select * from buildpack where guid = $1", guid).fetch_one(tx).await
}

/// Key of the advisory lock of the order ("bp order").
const ORDER_LOCK: i64 = 0x6270_206f_7264_6572;

/// Lets one transaction at a time change the order: two at once would leave two buildpacks in one place. Take it before
/// any other lock of a buildpack. Locking the rows instead would not do: who waits for one row does not see the row that
/// is inserted meanwhile, and two of them end in a deadlock.
///
/// # Errors
/// When the database fails.
pub async fn buildpack_order_lock_tx(tx: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("select pg_advisory_xact_lock($1) as locked", ORDER_LOCK).fetch_one(tx).await?;
    Ok(())
}

/// Reads a buildpack and locks it until the transaction ends.
///
/// # Errors
/// When the database fails.
pub async fn buildpack_lock_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<BuildpackRow>> {
    sqlx::query_as!(BuildpackRow, "select * from buildpack where guid = $1 for update", guid).fetch_optional(tx).await
}

/// Writes what an admin may change, besides the position.
///
/// # Errors
/// When name, stack and lifecycle are taken, or the database fails.
pub async fn buildpack_update_tx(tx: &mut PgConnection, row: &BuildpackRow) -> sqlx::Result<BuildpackRow> {
    sqlx::query_as!(
        BuildpackRow,
        "update buildpack set name = $2, stack = $3, enabled = $4, locked = $5, labels = jsonb_strip_nulls($6),
                annotations = jsonb_strip_nulls($7), updated_at = now() where guid = $1 returning *",
        row.guid,
        row.name,
        row.stack,
        row.enabled,
        row.locked,
        row.labels,
        row.annotations
    )
    .fetch_one(tx)
    .await
}

/// Gives a buildpack its archive, and the stack that it is for.
///
/// # Errors
/// When the database fails.
pub async fn buildpack_uploaded_tx(
    tx: &mut PgConnection,
    guid: Uuid,
    blob: &[u8],
    size: i64,
    filename: &str,
    stack: Option<&str>,
) -> sqlx::Result<BuildpackRow> {
    sqlx::query_as!(
        BuildpackRow,
        "update buildpack set blob = $2, blob_size = $3, filename = $4, stack = $5, state = 'READY',
                builtin = null, updated_at = now()
         where guid = $1 returning *",
        guid,
        blob,
        size,
        filename,
        stack
    )
    .fetch_one(tx)
    .await
}

/// Removes a buildpack; the ones behind it move up.
///
/// # Errors
/// When the database fails.
pub async fn buildpack_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<()> {
    buildpack_order_lock_tx(tx).await?;
    sqlx::query!("delete from buildpack where guid = $1", guid).execute(&mut *tx).await?;
    sqlx::query!(
        "update buildpack b set position = o.place
         from (select guid, row_number() over (order by position, created_at, guid)::int as place from buildpack) o
         where o.guid = b.guid and b.position <> o.place"
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl super::Store {
    /// One buildpack.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn buildpack_row(&self, guid: Uuid) -> sqlx::Result<Option<BuildpackRow>> {
        sqlx::query_as!(BuildpackRow, "select * from buildpack where guid = $1", guid).fetch_optional(self.pool()).await
    }
}
