//! Builds: one staging each.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;

/// A build as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct BuildRow {
    pub guid: Uuid,
    pub app_guid: Uuid,
    pub package_guid: Uuid,
    pub droplet_guid: Option<Uuid>,
    pub state: String,
    pub attempt: i32,
    pub spec: Option<Vec<u8>>,
    pub error: Option<String>,
    pub lifecycle: Value,
    pub staging_memory_in_mb: i64,
    pub staging_disk_in_mb: i64,
    pub created_by: Value,
    pub timings: Value,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A build to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewBuild<'a> {
    pub guid: Uuid,
    pub app_guid: Uuid,
    pub package_guid: Uuid,
    pub spec: &'a [u8],
    pub lifecycle: &'a Value,
    pub memory_mb: i64,
    pub disk_mb: i64,
    pub created_by: &'a Value,
    pub labels: &'a Value,
    pub annotations: &'a Value,
}

/// A build that is still going on, with what is known about its place.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the tables")]
pub struct OpenBuild {
    pub guid: Uuid,
    pub attempt: i32,
    /// Seconds since it was asked for.
    pub age_s: i64,
    /// Why it has no place (of which kind, and in words), and for how many seconds.
    pub unplaced_kind: Option<String>,
    pub unplaced: Option<String>,
    pub unplaced_s: Option<i64>,
    /// A cell has it, or had it.
    pub assigned: bool,
}

/// Inserts a build.
///
/// # Errors
/// When another staging of the package goes on (`build_one_at_a_time`), or the database fails.
pub async fn build_insert_tx(tx: &mut PgConnection, build: &NewBuild<'_>) -> sqlx::Result<BuildRow> {
    sqlx::query_as!(
        BuildRow,
        "insert into build (guid, app_guid, package_guid, spec, lifecycle, staging_memory_in_mb, staging_disk_in_mb,
                            created_by, labels, annotations)
         values ($1, $2, $3, $4, $5, $6, $7, $8, jsonb_strip_nulls($9), jsonb_strip_nulls($10)) returning *",
        build.guid,
        build.app_guid,
        build.package_guid,
        build.spec,
        build.lifecycle,
        build.memory_mb,
        build.disk_mb,
        build.created_by,
        build.labels,
        build.annotations,
    )
    .fetch_one(tx)
    .await
}

/// Whether the app has a build going on.
///
/// # Errors
/// When the database fails.
pub async fn build_is_open_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from build where app_guid = $1 and state = 'STAGING') as "open!""#,
        app
    )
    .fetch_one(tx)
    .await
}

/// The app of a build, without a lock.
///
/// # Errors
/// When the database fails.
pub async fn build_app_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!("select app_guid from build where guid = $1", guid).fetch_optional(tx).await
}

/// Reads and locks a build.
///
/// # Errors
/// When the database fails.
pub async fn build_lock_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<BuildRow>> {
    sqlx::query_as!(BuildRow, "select * from build where guid = $1 for update", guid).fetch_optional(tx).await
}

/// Ends a build: with a droplet, or with an error.
///
/// # Errors
/// When the database fails.
pub async fn build_end_tx(
    tx: &mut PgConnection,
    guid: Uuid,
    droplet: Option<Uuid>,
    error: Option<&str>,
    timings: &Value,
) -> sqlx::Result<()> {
    let state = if error.is_none() { "STAGED" } else { "FAILED" };
    sqlx::query!(
        "update build set state = $2, droplet_guid = $3, error = $4, timings = $5, spec = null, updated_at = now()
         where guid = $1",
        guid,
        state,
        droplet,
        error,
        timings
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// One build.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn build_get(&self, guid: Uuid) -> sqlx::Result<Option<BuildRow>> {
        sqlx::query_as!(BuildRow, "select * from build where guid = $1", guid).fetch_optional(self.pool()).await
    }

    /// A page of the builds in these spaces; with `app`, only of that app.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn build_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
        app: Option<Uuid>,
    ) -> sqlx::Result<(Vec<BuildRow>, u64)> {
        let mut listing = Listing::new("build b join app a on a.guid = b.app_guid", "b", options);
        listing.visible("a.space_guid", spaces);
        if let Some(app) = app {
            listing.sql("b.app_guid = any(").bind_uuids(vec![app]).sql(")").done();
        }
        listing.guids("guids", "b.guid").guids("app_guids", "b.app_guid").guids("package_guids", "b.package_guid");
        listing.texts("states", "b.state");
        listing.fetch(self.pool(), "b.*").await
    }

    /// All builds that go on, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn builds_open(&self) -> sqlx::Result<Vec<OpenBuild>> {
        sqlx::query_as!(
            OpenBuild,
            r#"select b.guid, b.attempt, extract(epoch from now() - b.created_at)::bigint as "age_s!",
                      u.kind as "unplaced_kind?", u.reason as "unplaced?",
                      extract(epoch from now() - u.since)::bigint as "unplaced_s?",
                      exists (select 1 from assignment x where x.group_id = b.guid) as "assigned!"
               from build b left join unplaced u on u.group_id = b.guid and u.index = 0
               where b.state = 'STAGING' order by b.created_at"#
        )
        .fetch_all(self.pool())
        .await
    }
}
