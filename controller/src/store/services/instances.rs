//! Service instances.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::store::Store;
use crate::store::list::{Listing, Visible};
use crate::values::list::ListOptions;
use crate::values::metadata::MetadataChange;

/// A service instance as stored; its credentials are sealed.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct ServiceInstanceRow {
    pub guid: Uuid,
    pub space_guid: Uuid,
    pub name: String,
    #[sqlx(rename = "type")]
    pub kind: String,
    pub credentials: Option<Vec<u8>>,
    pub tags: Vec<String>,
    pub syslog_drain_url: Option<String>,
    pub route_service_url: Option<String>,
    pub last_operation: Value,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl ServiceInstanceRow {
    /// Whether a developer provides it, and no broker.
    #[must_use]
    pub fn is_user_provided(&self) -> bool {
        self.kind == "user-provided"
    }
}

/// A user-provided instance to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewInstance<'a> {
    pub guid: Uuid,
    pub space_guid: Uuid,
    pub name: &'a str,
    pub credentials: Option<&'a [u8]>,
    pub tags: &'a [String],
    pub syslog_drain_url: Option<&'a str>,
    pub route_service_url: Option<&'a str>,
    pub last_operation: &'a Value,
    pub metadata: &'a MetadataChange,
}

/// Makes a user-provided instance.
///
/// # Errors
/// When the name is taken in the space (`service_instance_name_key`), or the database fails.
pub async fn instance_insert_tx(tx: &mut PgConnection, new: &NewInstance<'_>) -> sqlx::Result<ServiceInstanceRow> {
    sqlx::query_as!(
        ServiceInstanceRow,
        "insert into service_instance (guid, space_guid, name, type, credentials, tags, syslog_drain_url,
                                       route_service_url, last_operation, labels, annotations)
         values ($1, $2, $3, 'user-provided', $4, $5, $6, $7, $8, jsonb_strip_nulls($9), jsonb_strip_nulls($10))
         returning guid, space_guid, name, type as kind, credentials, tags, syslog_drain_url, route_service_url,
                   last_operation, labels, annotations, created_at, updated_at",
        new.guid,
        new.space_guid,
        new.name,
        new.credentials,
        new.tags,
        new.syslog_drain_url,
        new.route_service_url,
        new.last_operation,
        new.metadata.labels,
        new.metadata.annotations
    )
    .fetch_one(tx)
    .await
}

/// Reads and locks an instance: its operations, shares and bindings change one after the other.
///
/// # Errors
/// When the database fails.
pub async fn instance_lock_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<ServiceInstanceRow>> {
    sqlx::query_as!(
        ServiceInstanceRow,
        "select guid, space_guid, name, type as kind, credentials, tags, syslog_drain_url, route_service_url,
                last_operation, labels, annotations, created_at, updated_at
         from service_instance where guid = $1 for update",
        guid
    )
    .fetch_optional(tx)
    .await
}

/// Reads an instance and keeps it from being changed or removed until the transaction ends. Several may hold it.
///
/// # Errors
/// When the database fails.
pub async fn instance_hold_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<ServiceInstanceRow>> {
    sqlx::query_as!(
        ServiceInstanceRow,
        "select guid, space_guid, name, type as kind, credentials, tags, syslog_drain_url, route_service_url,
                last_operation, labels, annotations, created_at, updated_at
         from service_instance where guid = $1 for share",
        guid
    )
    .fetch_optional(tx)
    .await
}

/// The instance with this name that a space sees: its own, or one shared with it.
///
/// # Errors
/// When the database fails.
pub async fn instance_named_tx(
    tx: &mut PgConnection,
    space: Uuid,
    name: &str,
) -> sqlx::Result<Option<ServiceInstanceRow>> {
    sqlx::query_as!(
        ServiceInstanceRow,
        "select guid, space_guid, name, type as kind, credentials, tags, syslog_drain_url, route_service_url,
                last_operation, labels, annotations, created_at, updated_at
         from service_instance i
         where name = $2 and (space_guid = $1
               or exists (select 1 from service_instance_share h
                          where h.service_instance_guid = i.guid and h.space_guid = $1))
         order by space_guid = $1 desc limit 1",
        space,
        name
    )
    .fetch_optional(tx)
    .await
}

/// Writes everything that may change.
///
/// # Errors
/// When the name is taken in the space (`service_instance_name_key`), or the database fails.
pub async fn instance_update_tx(tx: &mut PgConnection, row: &ServiceInstanceRow) -> sqlx::Result<ServiceInstanceRow> {
    sqlx::query_as!(
        ServiceInstanceRow,
        "update service_instance
         set name = $2, credentials = $3, tags = $4, syslog_drain_url = $5, route_service_url = $6,
             last_operation = $7, labels = jsonb_strip_nulls($8), annotations = jsonb_strip_nulls($9),
             updated_at = now()
         where guid = $1
         returning guid, space_guid, name, type as kind, credentials, tags, syslog_drain_url, route_service_url,
                   last_operation, labels, annotations, created_at, updated_at",
        row.guid,
        row.name,
        row.credentials,
        &row.tags,
        row.syslog_drain_url,
        row.route_service_url,
        row.last_operation,
        row.labels,
        row.annotations
    )
    .fetch_one(tx)
    .await
}

/// Removes an instance that has no bindings any more; shares go with it.
///
/// # Errors
/// When the database fails.
pub async fn instance_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from service_instance where guid = $1", guid).execute(tx).await?;
    Ok(())
}

impl Store {
    /// One service instance.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_instance_get(&self, guid: Uuid) -> sqlx::Result<Option<ServiceInstanceRow>> {
        sqlx::query_as!(
            ServiceInstanceRow,
            "select guid, space_guid, name, type as kind, credentials, tags, syslog_drain_url, route_service_url,
                    last_operation, labels, annotations, created_at, updated_at
             from service_instance where guid = $1",
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// These service instances.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_instances_by_guid(&self, guids: &[Uuid]) -> sqlx::Result<Vec<ServiceInstanceRow>> {
        sqlx::query_as!(
            ServiceInstanceRow,
            "select guid, space_guid, name, type as kind, credentials, tags, syslog_drain_url, route_service_url,
                    last_operation, labels, annotations, created_at, updated_at
             from service_instance where guid = any($1) order by created_at, guid",
            guids
        )
        .fetch_all(self.pool())
        .await
    }

    /// A page of the service instances in these spaces, or shared with them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_instance_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
    ) -> sqlx::Result<(Vec<ServiceInstanceRow>, u64)> {
        let mut listing = Listing::new("service_instance i join space s on s.guid = i.space_guid", "i", options);
        if let Visible::Only(guids) = spaces {
            in_or_shared_with(&mut listing, guids.clone());
        }
        if let Some(values) = options.filter("space_guids") {
            in_or_shared_with(&mut listing, values.iter().filter_map(|value| value.parse().ok()).collect());
        }
        if let Some(values) = options.filter("organization_guids") {
            let guids: Vec<Uuid> = values.iter().filter_map(|value| value.parse().ok()).collect();
            listing
                .sql("(s.org_guid = any(")
                .bind_uuids(guids.clone())
                .sql(
                    ") or i.guid = any(array(select h.service_instance_guid from service_instance_share h
                      join space x on x.guid = h.space_guid where x.org_guid = any(",
                )
                .bind_uuids(guids)
                .sql("))))")
                .done();
        }
        listing.guids("guids", "i.guid").texts("names", "i.name").texts("type", "i.type");
        for filter in ["service_plan_guids", "service_plan_names"] {
            if options.filter(filter).is_some() {
                // Only instances of brokers have plans, and there are none.
                listing.sql("false").done();
            }
        }
        listing.ordered_by("name", "lower(i.name)");
        listing.fetch(self.pool(), "i.*").await
    }
}

/// The shared ones as an array that is made once: a condition on each instance would have all instances read.
fn in_or_shared_with(listing: &mut Listing<'_>, spaces: Vec<Uuid>) {
    listing
        .sql("(i.space_guid = any(")
        .bind_uuids(spaces.clone())
        .sql(
            ") or i.guid = any(array(select h.service_instance_guid from service_instance_share h
              where h.space_guid = any(",
        )
        .bind_uuids(spaces)
        .sql("))))")
        .done();
}
