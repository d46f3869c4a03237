//! Isolation segments: which cells an organization's apps may run on.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;
use crate::values::metadata::MetadataChange;

/// The segment of all cells that name none. Its guid is the same on every platform, as on Cloud Foundry.
pub const SHARED: Uuid = Uuid::from_u128(0x933b_4c58_120b_499a_b85d_4b6f_c9e2_903b);

/// An isolation segment as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct IsolationSegmentRow {
    pub guid: Uuid,
    pub name: String,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Makes a segment.
///
/// # Errors
/// When the database fails; a taken name violates `isolation_segment_name_key`.
pub async fn isolation_segment_insert_tx(
    tx: &mut PgConnection,
    name: &str,
    change: &MetadataChange,
) -> sqlx::Result<IsolationSegmentRow> {
    sqlx::query_as!(
        IsolationSegmentRow,
        "insert into isolation_segment (guid, name, labels, annotations)
         values ($1, $2, jsonb_strip_nulls($3), jsonb_strip_nulls($4)) returning *",
        Uuid::new_v4(),
        name,
        change.labels,
        change.annotations
    )
    .fetch_one(tx)
    .await
}

/// Changes a segment; `None` leaves as it is.
///
/// # Errors
/// When the database fails; a taken name violates `isolation_segment_name_key`.
pub async fn isolation_segment_patch_tx(
    tx: &mut PgConnection,
    guid: Uuid,
    name: Option<&str>,
    change: &MetadataChange,
) -> sqlx::Result<Option<IsolationSegmentRow>> {
    sqlx::query_as!(
        IsolationSegmentRow,
        "update isolation_segment set name = coalesce($2, name), labels = jsonb_strip_nulls(labels || $3),
                annotations = jsonb_strip_nulls(annotations || $4), updated_at = now()
         where guid = $1 returning *",
        guid,
        name,
        change.labels,
        change.annotations
    )
    .fetch_optional(tx)
    .await
}

/// Removes a segment.
///
/// # Errors
/// When the database fails; one that is in use violates the constraints of organizations and spaces.
pub async fn isolation_segment_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from isolation_segment where guid = $1", guid).execute(tx).await?;
    Ok(())
}

/// The segment, locked against a change of who may use it.
///
/// # Errors
/// When the database fails.
pub async fn isolation_segment_lock_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<bool> {
    let found = sqlx::query!("select guid from isolation_segment where guid = $1 for update", guid);
    Ok(found.fetch_optional(tx).await?.is_some())
}

/// Whether an organization has it as its default, or a space as its own.
///
/// # Errors
/// When the database fails.
pub async fn isolation_segment_assigned_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from organization where default_isolation_segment_guid = $1)
               or exists (select 1 from space where isolation_segment_guid = $1) as "assigned!""#,
        guid
    )
    .fetch_one(tx)
    .await
}

/// Entitles organizations to a segment. The shared one becomes the default of those that have none.
///
/// # Errors
/// When the database fails.
pub async fn isolation_segment_entitle_tx(tx: &mut PgConnection, segment: Uuid, orgs: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into isolation_segment_organization (isolation_segment_guid, org_guid)
         select $1, org from unnest($2::uuid[]) as org on conflict do nothing",
        segment,
        orgs
    )
    .execute(&mut *tx)
    .await?;
    if segment == SHARED {
        sqlx::query!(
            "update organization set default_isolation_segment_guid = $1
             where guid = any($2) and default_isolation_segment_guid is null",
            segment,
            orgs
        )
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// Takes an entitlement back.
///
/// # Errors
/// When the database fails.
pub async fn isolation_segment_revoke_tx(tx: &mut PgConnection, segment: Uuid, org: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from isolation_segment_organization where isolation_segment_guid = $1 and org_guid = $2",
        segment,
        org
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Names of an organization's spaces that are in a segment of their own.
///
/// # Errors
/// When the database fails.
pub async fn spaces_in_segment_tx(tx: &mut PgConnection, segment: Uuid, org: Uuid) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "select name from space where isolation_segment_guid = $1 and org_guid = $2 order by name",
        segment,
        org
    )
    .fetch_all(tx)
    .await
}

/// Whether an organization may use a segment; the entitlement is locked until the end of the transaction.
///
/// # Errors
/// When the database fails.
pub async fn isolation_segment_entitled_tx(tx: &mut PgConnection, segment: Uuid, org: Uuid) -> sqlx::Result<bool> {
    let found = sqlx::query!(
        "select 1 as one from isolation_segment_organization
         where isolation_segment_guid = $1 and org_guid = $2 for share",
        segment,
        org
    );
    Ok(found.fetch_optional(tx).await?.is_some())
}

/// Sets or clears the segment of an organization's spaces that have none of their own.
///
/// # Errors
/// When the database fails.
pub async fn organization_set_segment_tx(tx: &mut PgConnection, org: Uuid, segment: Option<Uuid>) -> sqlx::Result<()> {
    sqlx::query!(
        "update organization set default_isolation_segment_guid = $2, updated_at = now() where guid = $1",
        org,
        segment
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Sets or clears a space's own segment.
///
/// # Errors
/// When the database fails.
pub async fn space_set_segment_tx(tx: &mut PgConnection, space: Uuid, segment: Option<Uuid>) -> sqlx::Result<()> {
    sqlx::query!("update space set isolation_segment_guid = $2, updated_at = now() where guid = $1", space, segment)
        .execute(tx)
        .await?;
    Ok(())
}

/// Whether any organization may use a segment.
///
/// # Errors
/// When the database fails.
pub async fn isolation_segment_entitles_tx(tx: &mut PgConnection, segment: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from isolation_segment_organization where isolation_segment_guid = $1) as "any!""#,
        segment
    )
    .fetch_one(tx)
    .await
}

impl Store {
    /// One segment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn isolation_segment_get(&self, guid: Uuid) -> sqlx::Result<Option<IsolationSegmentRow>> {
        sqlx::query_as!(IsolationSegmentRow, "select * from isolation_segment where guid = $1", guid)
            .fetch_optional(self.pool())
            .await
    }

    /// A page of the segments that these organizations may use.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn isolation_segment_list(
        &self,
        options: &ListOptions,
        orgs: &Visible,
    ) -> sqlx::Result<(Vec<IsolationSegmentRow>, u64)> {
        const ENTITLED: &str =
            "select 1 from isolation_segment_organization e where e.isolation_segment_guid = i.guid and e.org_guid";
        let mut listing = Listing::new("isolation_segment i", "i", options);
        if let Visible::Only(orgs) = orgs {
            listing.sql("exists (").sql(ENTITLED).sql(" = any(").bind_uuids(orgs.clone()).sql("))").done();
        }
        listing.guids("guids", "i.guid").texts_any_case("names", "i.name").ordered_by("name", "lower(i.name)");
        listing.guids_through("organization_guids", ENTITLED);
        listing.fetch(self.pool(), "i.*").await
    }

    /// Organizations that may use a segment, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn isolation_segment_orgs(&self, segment: Uuid) -> sqlx::Result<Vec<Uuid>> {
        sqlx::query_scalar!(
            "select o.guid from isolation_segment_organization e join organization o on o.guid = e.org_guid
             where e.isolation_segment_guid = $1 order by o.created_at, o.guid",
            segment
        )
        .fetch_all(self.pool())
        .await
    }

    /// Spaces that are in a segment of their own, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn isolation_segment_spaces(&self, segment: Uuid) -> sqlx::Result<Vec<Uuid>> {
        sqlx::query_scalar!(
            "select guid from space where isolation_segment_guid = $1 order by created_at, guid",
            segment
        )
        .fetch_all(self.pool())
        .await
    }
}
