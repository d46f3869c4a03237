//! Spaces.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;
use crate::values::metadata::MetadataChange;

/// A space as stored, with its organization's suspension.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct SpaceRow {
    pub guid: Uuid,
    pub org_guid: Uuid,
    pub name: String,
    pub quota_guid: Option<Uuid>,
    pub isolation_segment_guid: Option<Uuid>,
    pub allow_ssh: bool,
    pub suspended: bool,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Makes a space; its guid.
///
/// # Errors
/// When the database fails; a taken name violates `space_name_key`.
pub async fn space_insert_tx(
    tx: &mut PgConnection,
    org: Uuid,
    name: &str,
    change: &MetadataChange,
) -> sqlx::Result<Uuid> {
    let guid = Uuid::new_v4();
    sqlx::query!(
        "insert into space (guid, org_guid, name, labels, annotations)
         values ($1, $2, $3, jsonb_strip_nulls($4), jsonb_strip_nulls($5))",
        guid,
        org,
        name,
        change.labels,
        change.annotations
    )
    .execute(tx)
    .await?;
    Ok(guid)
}

/// Changes a space; `None` leaves as it is.
///
/// # Errors
/// When the database fails; a taken name violates `space_name_key`.
pub async fn space_patch_tx(
    tx: &mut PgConnection,
    guid: Uuid,
    name: Option<&str>,
    ssh: Option<bool>,
    change: &MetadataChange,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update space set name = coalesce($2, name), allow_ssh = coalesce($3, allow_ssh),
                labels = jsonb_strip_nulls(labels || $4), annotations = jsonb_strip_nulls(annotations || $5),
                updated_at = now()
         where guid = $1",
        guid,
        name,
        ssh,
        change.labels,
        change.annotations
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Apps of a space.
///
/// # Errors
/// When the database fails.
pub async fn space_apps_tx(tx: &mut PgConnection, space: Uuid) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!("select guid from app where space_guid = $1 order by guid", space).fetch_all(tx).await
}

/// Removes a space that holds no apps any more, with its routes and service instances. Guids of the routes that went.
///
/// # Errors
/// When the database fails; an app that is left violates `app_space_guid_fkey`.
pub async fn space_delete_tx(tx: &mut PgConnection, space: Uuid) -> sqlx::Result<Vec<Uuid>> {
    let routes = sqlx::query_scalar!("delete from route where space_guid = $1 returning guid", space)
        .fetch_all(&mut *tx)
        .await?;
    sqlx::query!(
        "delete from service_binding where service_instance_guid in
             (select guid from service_instance where space_guid = $1)",
        space
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("delete from service_instance where space_guid = $1", space).execute(&mut *tx).await?;
    sqlx::query!("delete from space where guid = $1", space).execute(tx).await?;
    Ok(routes)
}

/// The organization of a space.
///
/// # Errors
/// When the database fails.
pub async fn space_org_tx(tx: &mut PgConnection, space: Uuid) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!("select org_guid from space where guid = $1", space).fetch_optional(tx).await
}

/// Spaces of an organization.
///
/// # Errors
/// When the database fails.
pub async fn organization_spaces_tx(tx: &mut PgConnection, org: Uuid) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!("select guid from space where org_guid = $1 order by guid", org).fetch_all(tx).await
}

impl Store {
    /// One space.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn space_get(&self, guid: Uuid) -> sqlx::Result<Option<SpaceRow>> {
        sqlx::query_as!(
            SpaceRow,
            "select s.*, o.suspended from space s join organization o on o.guid = s.org_guid where s.guid = $1",
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// Some spaces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn spaces_by_guid(&self, guids: &[Uuid]) -> sqlx::Result<Vec<SpaceRow>> {
        sqlx::query_as!(
            SpaceRow,
            "select s.*, o.suspended from space s join organization o on o.guid = s.org_guid
             where s.guid = any($1) order by s.created_at, s.guid",
            guids
        )
        .fetch_all(self.pool())
        .await
    }

    /// A page of these spaces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn space_list(&self, options: &ListOptions, spaces: &Visible) -> sqlx::Result<(Vec<SpaceRow>, u64)> {
        let mut listing = Listing::new("space s join organization o on o.guid = s.org_guid", "s", options);
        listing.visible("s.guid", spaces).guids("guids", "s.guid").texts_any_case("names", "s.name");
        listing.guids("organization_guids", "s.org_guid");
        listing.ordered_by("name", "lower(s.name)");
        listing.fetch(self.pool(), "s.*, o.suspended").await
    }
}
