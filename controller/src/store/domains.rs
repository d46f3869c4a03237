//! Domains: shared ones, and private ones of an organization.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;
use crate::values::metadata::MetadataChange;

/// A domain as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct DomainRow {
    pub guid: Uuid,
    pub name: String,
    pub internal: bool,
    /// Null = shared with everybody.
    pub org_guid: Option<Uuid>,
    pub is_default: bool,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Whether a domain may be used in an organization: shared, its own, or shared with it.
///
/// # Errors
/// When the database fails.
pub async fn domain_usable_in_tx(tx: &mut PgConnection, domain: Uuid, org: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from domain d where d.guid = $1 and (d.org_guid is null or d.org_guid = $2 or exists
               (select 1 from domain_shared_organization s where s.domain_guid = d.guid and s.org_guid = $2)))
           as "usable!""#,
        domain,
        org
    )
    .fetch_one(tx)
    .await
}

/// The domain, locked against removal while a route is added.
///
/// # Errors
/// When the database fails.
pub async fn domain_get_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<DomainRow>> {
    sqlx::query_as!(DomainRow, "select * from domain where guid = $1 for key share", guid).fetch_optional(tx).await
}

/// An organization's default domain: the platform's default, else the oldest shared one, else its oldest own.
///
/// # Errors
/// When the database fails.
pub async fn domain_default_tx(tx: &mut PgConnection, org: Uuid) -> sqlx::Result<Option<DomainRow>> {
    sqlx::query_as!(
        DomainRow,
        "select * from domain where not internal and (org_guid is null or org_guid = $1)
         order by is_default desc, org_guid is not null, created_at, guid limit 1",
        org
    )
    .fetch_optional(tx)
    .await
}

/// Makes a domain.
///
/// # Errors
/// When the database fails; a taken name violates `domain_name_key`.
pub async fn domain_insert_tx(
    tx: &mut PgConnection,
    name: &str,
    internal: bool,
    org: Option<Uuid>,
    change: &MetadataChange,
) -> sqlx::Result<DomainRow> {
    sqlx::query_as!(
        DomainRow,
        "insert into domain (guid, name, internal, org_guid, labels, annotations)
         values ($1, $2, $3, $4, jsonb_strip_nulls($5), jsonb_strip_nulls($6)) returning *",
        Uuid::new_v4(),
        name,
        internal,
        org,
        change.labels,
        change.annotations
    )
    .fetch_one(tx)
    .await
}

/// A domain in whose way a new one would be: a private one of another organization above it, or, when the new one is
/// private itself, any below it that is not of the same organization.
///
/// # Errors
/// When the database fails.
pub async fn domain_conflicting_tx(
    tx: &mut PgConnection,
    name: &str,
    org: Option<Uuid>,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "select name from domain
         where lower(name) <> lower($1) and org_guid is distinct from $2
           and (org_guid is not null and right(lower($1), length(name) + 1) = '.' || lower(name)
                or $2::uuid is not null and right(lower(name), length($1) + 1) = '.' || lower($1))
         limit 1",
        name,
        org
    )
    .fetch_optional(tx)
    .await
}

/// Domains that an organization may use for routes that routers serve.
///
/// # Errors
/// When the database fails.
pub async fn domains_usable_tx(tx: &mut PgConnection, org: Uuid) -> sqlx::Result<Vec<DomainRow>> {
    sqlx::query_as!(
        DomainRow,
        "select * from domain d where not internal and (org_guid is null or org_guid = $1
             or exists (select 1 from domain_shared_organization x where x.domain_guid = d.guid and x.org_guid = $1))",
        org
    )
    .fetch_all(tx)
    .await
}

/// Locks a domain: until the transaction ends, nobody makes a route on it or shares it. False when there is none.
///
/// # Errors
/// When the database fails.
pub async fn domain_lock_tx(tx: &mut PgConnection, domain: Uuid) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!("select guid from domain where guid = $1 for update", domain);
    Ok(found.fetch_optional(tx).await?.is_some())
}

/// Whether a domain is shared with any organization.
///
/// # Errors
/// When the database fails.
pub async fn domain_is_shared_tx(tx: &mut PgConnection, domain: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from domain_shared_organization where domain_guid = $1) as "shared!""#,
        domain
    )
    .fetch_one(tx)
    .await
}

/// Whether an organization's spaces have routes on a domain.
///
/// # Errors
/// When the database fails.
pub async fn domain_has_routes_in_tx(tx: &mut PgConnection, domain: Uuid, org: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from route r join space s on s.guid = r.space_guid
                          where r.domain_guid = $1 and s.org_guid = $2) as "has!""#,
        domain,
        org
    )
    .fetch_one(tx)
    .await
}

/// Names of an organization's own domains that are shared with others; its domains are locked as by
/// [`domain_lock_tx`].
///
/// # Errors
/// When the database fails.
pub async fn domains_shared_by_tx(tx: &mut PgConnection, org: Uuid) -> sqlx::Result<Vec<String>> {
    let own = sqlx::query_scalar!("select guid from domain where org_guid = $1 order by guid for update", org)
        .fetch_all(&mut *tx)
        .await?;
    sqlx::query_scalar!(
        "select name from domain where guid = any($1)
           and exists (select 1 from domain_shared_organization s where s.domain_guid = guid) order by name",
        &own
    )
    .fetch_all(tx)
    .await
}

/// Removes the routes on all of an organization's own domains, whoever's they are; their guids.
///
/// # Errors
/// When the database fails.
pub async fn routes_of_own_domains_delete_tx(tx: &mut PgConnection, org: Uuid) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "delete from route where domain_guid in (select guid from domain where org_guid = $1) returning guid",
        org
    )
    .fetch_all(tx)
    .await
}

/// Removes a domain, locked before, and its routes; the routes' guids.
///
/// # Errors
/// When the database fails.
pub async fn domain_delete_tx(tx: &mut PgConnection, domain: Uuid) -> sqlx::Result<Vec<Uuid>> {
    let routes = sqlx::query_scalar!("delete from route where domain_guid = $1 returning guid", domain)
        .fetch_all(&mut *tx)
        .await?;
    sqlx::query!("delete from domain where guid = $1", domain).execute(tx).await?;
    Ok(routes)
}

/// Ends the sharing of a domain with an organization. False when it was not shared.
///
/// # Errors
/// When the database fails.
pub async fn domain_unshare_tx(tx: &mut PgConnection, domain: Uuid, org: Uuid) -> sqlx::Result<bool> {
    let done =
        sqlx::query!("delete from domain_shared_organization where domain_guid = $1 and org_guid = $2", domain, org)
            .execute(tx)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Shares a private domain with organizations.
///
/// # Errors
/// When the database fails.
pub async fn domain_share_tx(tx: &mut PgConnection, domain: Uuid, orgs: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into domain_shared_organization (domain_guid, org_guid) select $1, unnest($2::uuid[])
         on conflict do nothing",
        domain,
        orgs
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// One domain.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn domain_get(&self, guid: Uuid) -> sqlx::Result<Option<DomainRow>> {
        sqlx::query_as!(DomainRow, "select * from domain where guid = $1", guid).fetch_optional(self.pool()).await
    }

    /// Some domains.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn domains_by_guid(&self, guids: &[Uuid]) -> sqlx::Result<Vec<DomainRow>> {
        sqlx::query_as!(DomainRow, "select * from domain where guid = any($1) order by created_at, guid", guids)
            .fetch_all(self.pool())
            .await
    }

    /// Organizations with which these private domains are shared, as pairs of domain and organization.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn domain_shares(&self, domains: &[Uuid]) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
        let rows = sqlx::query!(
            "select domain_guid, org_guid from domain_shared_organization where domain_guid = any($1) order by org_guid",
            domains
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(|row| (row.domain_guid, row.org_guid)).collect())
    }

    /// A page of the domains that members of these organizations may use.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn domain_list(&self, options: &ListOptions, orgs: &Visible) -> sqlx::Result<(Vec<DomainRow>, u64)> {
        let mut listing = Listing::new("domain d", "d", options);
        if let Visible::Only(orgs) = orgs {
            listing
                .sql("(d.org_guid is null or d.org_guid = any(")
                .bind_uuids(orgs.clone())
                .sql(
                    ") or exists (select 1 from domain_shared_organization s
                      where s.domain_guid = d.guid and s.org_guid = any(",
                )
                .bind_uuids(orgs.clone())
                .sql(")))")
                .done();
        }
        listing.guids("guids", "d.guid").texts_any_case("names", "d.name");
        listing.guids("organization_guids", "d.org_guid");
        listing.ordered_by("name", "lower(d.name)");
        listing.fetch(self.pool(), "d.*").await
    }

    /// Changes labels and annotations; the domain.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn domain_patch(&self, guid: Uuid, change: &MetadataChange) -> sqlx::Result<Option<DomainRow>> {
        sqlx::query_as!(
            DomainRow,
            "update domain set labels = jsonb_strip_nulls(labels || $2),
                    annotations = jsonb_strip_nulls(annotations || $3), updated_at = now()
             where guid = $1 returning *",
            guid,
            change.labels,
            change.annotations
        )
        .fetch_optional(self.pool())
        .await
    }
}
