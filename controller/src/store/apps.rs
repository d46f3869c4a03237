//! Apps.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;

/// An app as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct AppRow {
    pub guid: Uuid,
    pub space_guid: Uuid,
    pub name: String,
    pub state: String,
    pub lifecycle_type: String,
    pub lifecycle_buildpacks: Vec<String>,
    pub lifecycle_stack: String,
    pub droplet_guid: Option<Uuid>,
    pub environment: Option<Vec<u8>>,
    pub revisions_enabled: bool,
    pub ssh_enabled: bool,
    pub build_cache: Option<Vec<u8>>,
    pub build_cache_size: Option<i64>,
    pub deleting: bool,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl AppRow {
    /// Whether the developer wants it to run.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.state == "STARTED"
    }
}

/// An app to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewApp<'a> {
    pub guid: Uuid,
    pub space_guid: Uuid,
    pub name: &'a str,
    pub buildpacks: &'a [String],
    pub stack: &'a str,
    pub environment: Option<Vec<u8>>,
    pub labels: &'a Value,
    pub annotations: &'a Value,
}

/// Inserts an app.
///
/// # Errors
/// When the name is taken (constraint `app_name_key`), or the database fails.
pub async fn app_insert_tx(tx: &mut PgConnection, app: &NewApp<'_>) -> sqlx::Result<AppRow> {
    sqlx::query_as!(
        AppRow,
        "insert into app (guid, space_guid, name, lifecycle_buildpacks, lifecycle_stack, environment, labels, annotations)
         values ($1, $2, $3, $4, $5, $6, jsonb_strip_nulls($7), jsonb_strip_nulls($8)) returning *",
        app.guid,
        app.space_guid,
        app.name,
        app.buildpacks,
        app.stack,
        app.environment,
        app.labels,
        app.annotations,
    )
    .fetch_one(tx)
    .await
}

/// Reads and locks an app: changes of one app are serialised by its row.
///
/// # Errors
/// When the database fails.
pub async fn app_lock_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<AppRow>> {
    sqlx::query_as!(AppRow, "select * from app where guid = $1 for update", guid).fetch_optional(tx).await
}

/// Reads and locks the app with this name (any case) in a space.
///
/// # Errors
/// When the database fails.
pub async fn app_lock_by_name_tx(tx: &mut PgConnection, space: Uuid, name: &str) -> sqlx::Result<Option<AppRow>> {
    sqlx::query_as!(
        AppRow,
        "select * from app where space_guid = $1 and lower(name) = lower($2) for update",
        space,
        name
    )
    .fetch_optional(tx)
    .await
}

/// Writes everything a developer may change.
///
/// # Errors
/// When the name is taken, or the database fails.
pub async fn app_update_tx(tx: &mut PgConnection, app: &AppRow) -> sqlx::Result<AppRow> {
    sqlx::query_as!(
        AppRow,
        "update app set name = $2, state = $3, lifecycle_buildpacks = $4, lifecycle_stack = $5, droplet_guid = $6,
                environment = $7, revisions_enabled = $8, ssh_enabled = $9, labels = jsonb_strip_nulls($10),
                annotations = jsonb_strip_nulls($11), deleting = $12, updated_at = now()
         where guid = $1 returning *",
        app.guid,
        app.name,
        app.state,
        &app.lifecycle_buildpacks,
        app.lifecycle_stack,
        app.droplet_guid,
        app.environment,
        app.revisions_enabled,
        app.ssh_enabled,
        app.labels,
        app.annotations,
        app.deleting,
    )
    .fetch_one(tx)
    .await
}

/// Remembers the build cache that the last build left.
///
/// # Errors
/// When the database fails.
pub async fn app_build_cache_tx(tx: &mut PgConnection, app: Uuid, cache: &[u8], size: i64) -> sqlx::Result<()> {
    // Nothing else would ever look at the old one again. Another build that has just begun may still fetch it.
    sqlx::query!(
        "update blob set suspect = true, put_at = now()
         where digest <> $2 and digest in (select build_cache from app where guid = $1)",
        app,
        cache
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("update app set build_cache = $2, build_cache_size = $3 where guid = $1", app, cache, size)
        .execute(tx)
        .await?;
    Ok(())
}

/// Removes an app and what belongs to it.
///
/// # Errors
/// When the database fails.
pub async fn app_delete_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from app where guid = $1", app).execute(tx).await?;
    Ok(())
}

/// Builds of an app that go on.
///
/// # Errors
/// When the database fails.
pub async fn builds_open_of_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!("select guid from build where app_guid = $1 and state = 'STAGING'", app).fetch_all(tx).await
}

/// Routes that lead to an app.
///
/// # Errors
/// When the database fails.
pub async fn routes_of_app_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!("select distinct route_guid from route_destination where app_guid = $1", app)
        .fetch_all(tx)
        .await
}

impl Store {
    /// Takes the build cache from one app, or from every one; the digests of the blobs that they were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn build_caches_clear(&self, app: Option<Uuid>) -> sqlx::Result<Vec<Vec<u8>>> {
        sqlx::query_scalar!(
            r#"with old as (select guid, build_cache from app
                            where build_cache is not null and ($1::uuid is null or guid = $1) for update)
               update app a set build_cache = null, build_cache_size = null from old where old.guid = a.guid
               returning old.build_cache as "cache!""#,
            app
        )
        .fetch_all(self.pool())
        .await
    }

    /// One app.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn app_get(&self, guid: Uuid) -> sqlx::Result<Option<AppRow>> {
        sqlx::query_as!(AppRow, "select * from app where guid = $1", guid).fetch_optional(self.pool()).await
    }

    /// These apps.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn apps_by_guid(&self, guids: &[Uuid]) -> sqlx::Result<Vec<AppRow>> {
        sqlx::query_as!(AppRow, "select * from app where guid = any($1) order by created_at, guid", guids)
            .fetch_all(self.pool())
            .await
    }

    /// A page of the apps in these spaces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn app_list(&self, options: &ListOptions, spaces: &Visible) -> sqlx::Result<(Vec<AppRow>, u64)> {
        let mut listing = Listing::new("app a join space s on s.guid = a.space_guid", "a", options);
        listing.visible("a.space_guid", spaces);
        listing.texts_any_case("names", "a.name").guids("guids", "a.guid");
        listing.guids("space_guids", "a.space_guid").guids("organization_guids", "s.org_guid");
        listing.texts("stacks", "a.lifecycle_stack").texts("lifecycle_type", "a.lifecycle_type");
        listing.ordered_by("name", "lower(a.name)").ordered_by("state", "a.state");
        listing.fetch(self.pool(), "a.*").await
    }

    /// Whether nothing of this app is on a cell any more: every assignment is released or tombstoned. A lost cell is
    /// not waited for: what it runs is not wanted any more, and is stopped when the cell returns.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn app_is_off_the_cells(&self, app: Uuid) -> sqlx::Result<bool> {
        sqlx::query_scalar!(
            r#"select not exists (select 1 from assignment x join cell c on c.id = x.cell
                                  where x.app_id = $1 and x.released_at is null and x.tombstone_at is null
                                    and c.state in ('connected', 'suspect')) as "gone!""#,
            app
        )
        .fetch_one(self.pool())
        .await
    }
}
