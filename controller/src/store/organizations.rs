//! Organizations.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use super::usage::Usage;
use crate::values::list::ListOptions;
use crate::values::metadata::MetadataChange;

/// An organization as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct OrganizationRow {
    pub guid: Uuid,
    pub name: String,
    pub suspended: bool,
    pub quota_guid: Uuid,
    pub default_isolation_segment_guid: Option<Uuid>,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Makes an organization with the default quota.
///
/// # Errors
/// When the database fails; a taken name violates `organization_name_key`.
pub async fn organization_insert_tx(
    tx: &mut PgConnection,
    name: &str,
    suspended: bool,
    change: &MetadataChange,
) -> sqlx::Result<OrganizationRow> {
    sqlx::query_as!(
        OrganizationRow,
        "insert into organization (guid, name, suspended, quota_guid, labels, annotations)
         values ($1, $2, $3, (select guid from organization_quota where is_default),
                 jsonb_strip_nulls($4), jsonb_strip_nulls($5)) returning *",
        Uuid::new_v4(),
        name,
        suspended,
        change.labels,
        change.annotations
    )
    .fetch_one(tx)
    .await
}

/// Changes an organization; `None` leaves as it is.
///
/// # Errors
/// When the database fails; a taken name violates `organization_name_key`.
pub async fn organization_patch_tx(
    tx: &mut PgConnection,
    guid: Uuid,
    name: Option<&str>,
    suspended: Option<bool>,
    change: &MetadataChange,
) -> sqlx::Result<Option<OrganizationRow>> {
    sqlx::query_as!(
        OrganizationRow,
        "update organization set name = coalesce($2, name), suspended = coalesce($3, suspended),
                labels = jsonb_strip_nulls(labels || $4), annotations = jsonb_strip_nulls(annotations || $5),
                updated_at = now()
         where guid = $1 returning *",
        guid,
        name,
        suspended,
        change.labels,
        change.annotations
    )
    .fetch_optional(tx)
    .await
}

/// Removes an organization that holds no spaces any more, with its private domains. False when there is none.
///
/// # Errors
/// When the database fails; a space that is left violates `space_org_guid_fkey`.
pub async fn organization_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from organization where guid = $1", guid).execute(tx).await?;
    Ok(done.rows_affected() == 1)
}

impl Store {
    /// One organization.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn organization_get(&self, guid: Uuid) -> sqlx::Result<Option<OrganizationRow>> {
        sqlx::query_as!(OrganizationRow, "select * from organization where guid = $1", guid)
            .fetch_optional(self.pool())
            .await
    }

    /// Some organizations.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn organizations_by_guid(&self, guids: &[Uuid]) -> sqlx::Result<Vec<OrganizationRow>> {
        sqlx::query_as!(
            OrganizationRow,
            "select * from organization where guid = any($1) order by created_at, guid",
            guids
        )
        .fetch_all(self.pool())
        .await
    }

    /// A page of these organizations.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn organization_list(
        &self,
        options: &ListOptions,
        orgs: &Visible,
    ) -> sqlx::Result<(Vec<OrganizationRow>, u64)> {
        let mut listing = Listing::new("organization o", "o", options);
        listing.visible("o.guid", orgs).guids("guids", "o.guid").texts_any_case("names", "o.name");
        listing.ordered_by("name", "lower(o.name)");
        listing.fetch(self.pool(), "o.*").await
    }

    /// What an organization uses.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn organization_usage(&self, org: Uuid) -> sqlx::Result<Usage> {
        let spaces = sqlx::query_scalar!("select guid from space where org_guid = $1", org).fetch_all(self.pool());
        let spaces = spaces.await?;
        self.usage_of(&spaces, Some(org)).await
    }
}
